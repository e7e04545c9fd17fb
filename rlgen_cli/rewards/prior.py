"""How likely a sequence is to a model that was trained before."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.host import longest, readable
from rlgen_cli.core.protocols import Env, TeachesSequences
from rlgen_cli.core.specs import Carry, View
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.policies.actor import no_start, teacher_forced


class Read(NamedTuple):
    """What a network has read of N sequences, and remembers."""

    prime: Tensor  # [N, F]
    tokens: Tensor  # [N, S, F]; the memory holds what was seen before each
    carry: Carry

    def is_of(self, tokens: Tensor, prime: Tensor) -> bool:
        """Whether just these tokens, [N, S, F], were read."""
        return torch.equal(self.tokens, tokens) and torch.equal(self.prime, prime)


class PriorLikelihood:
    """The sum over steps of log p(token | the ones before), in nats, at most 0.

    Args:
        env: says what the model saw before each token.
        saved_network: opens a trained policy network, frozen. source: which, a run's folder or a Note RNN's `.npz`.

    Raises:
        UserError: for an environment whose samples are not written token by token.
    """

    judges, needs = "sequence", frozenset(["prime", "num_tokens"])

    def __init__(self, *, env: Env, saved_network: Callable[[str], nn.Module], source: str) -> None:
        if not isinstance(env, TeachesSequences):
            raise UserError("_target_: needs sequences that are written token by token; use env=music.")
        self.env, self.net = env, saved_network(source)
        self.read: Read | None = None  # at the newest call of `gain`

    def __call__(self, view: View) -> Tensor:
        return self.log_probs(view).sum(1)

    def gain(self, after: View) -> Tensor:
        """The newest token's log-probability, [N]."""
        length = after.info["num_tokens"]
        if readable(length) and bool((length == length[0]).all()):
            return self._newest(after, int(length[0]))
        steps = longest(length, after.sample.shape[1])
        return self.log_probs(after, steps).gather(1, length.unsqueeze(1) - 1).squeeze(1)

    @torch.no_grad()
    def _newest(self, view: View, length: int) -> Tensor:
        """The last token's log-probability, [N], of sequences that all have `length` tokens.

        What the network remembers is kept for the next call, which as a rule asks for the token after this one: then
        one step is left to do. Whatever was asked before, the same steps are done on the same numbers, so that the
        result depends on `view` alone, to the bit.
        """
        tokens, prime = view.sample, view.context["prime"]  # [N, T, F], [N, F]
        assert isinstance(self.env, TeachesSequences)
        n, states = len(tokens), self.env.teacher_states(tokens.clamp(min=0), prime)
        follows = self.read is not None and self.read.is_of(tokens[:, : length - 1], prime)
        carry = self.read.carry if self.read is not None and follows else self.net.initial_carry(n)  # type: ignore[operator]
        for t in range(length - 1 if follows else 0, length):
            state = map_tensors(lambda field, t=t: field[t * n : (t + 1) * n], states)
            observation = self.env.observe(state)
            out = self.net(observation, self.env.action_mask(state), carry, no_start(observation))
            carry = out.carry
        self.read = Read(prime, tokens[:, :length].clone(), carry)
        newest = tokens[:, length - 1]
        return out.policy.evaluate_actions(newest.squeeze(1) if newest.shape[1] == 1 else newest)[0]

    @torch.no_grad()
    def log_probs(self, view: View, steps: int | None = None) -> Tensor:
        """Log-probability of each token, [N, T], or of the first `steps`; 0 where none stands yet."""
        tokens, prime = view.sample, view.context["prime"]  # [N, T, F], [N, F]
        distribution, action = teacher_forced(self.env, self.net, tokens.clamp(min=0), prime, steps)
        log_prob = distribution.evaluate_actions(action)[0].view(-1, len(tokens)).T  # from T · N rows
        return torch.where(tokens[:, :steps, 0] >= 0, log_prob, 0.0)
