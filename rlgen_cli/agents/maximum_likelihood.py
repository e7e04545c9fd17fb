"""Maximum likelihood: a policy that imitates the data's sequences and looks at no reward. `rlgen pretrain` trains it to
its best held-out likelihood; other agents then begin with it and are kept near it (policies/anchor.py).

When to use it: before reinforcement learning on sequences, or instead of it where data says all that is wanted.

What to expect: on SeqGAN's oracle, well regularised and sampled at a low temperature, its sequences are likelier than
those of a policy gradient with a discriminator, and as different (docs/results/seqgan.md).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, TeachesSequences
from rlgen_cli.core.specs import Carry, Decision, Discrete, EnvSpec, Metrics, Observation, SequenceSpec
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.policies.actor import NetworkPolicy, build_network, no_start, teacher_forced
from rlgen_cli.policies.distributions import Categorical, Distribution


class TemperedPolicy:
    """A network policy at a temperature: below 1 it makes likelier sequences, fewer of them."""

    def __init__(self, *, plain: NetworkPolicy, temperature: float) -> None:
        self.plain, self.temperature = plain, temperature

    def initial_carry(self, n: int) -> Carry:
        return self.plain.initial_carry(n)

    @torch.no_grad()
    def act(
        self, observation: Observation, mask: Tensor | None, carry: Carry, *, explore: bool, rng: torch.Generator
    ) -> Decision:
        out = self.plain.forward(observation, mask, carry, no_start(observation))
        policy = tempered(out.policy, self.temperature)
        return Decision(policy.draw(rng)[0] if self.plain.evaluate == "sample" else policy.mode(), out.carry)

    def state_dict(self) -> dict[str, Any]:
        return self.plain.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.plain.load_state_dict(state)


def tempered(policy: Distribution, temperature: float) -> Distribution:
    """The policy with its logits divided by the temperature."""
    if temperature == 1:
        return policy
    assert isinstance(policy, Categorical)
    return Categorical(policy.log_p / temperature)


class MaximumLikelihood:
    """A sequence model by teacher forcing. It learns from the data alone, so that it observes no episodes.

    Args:
        network: builds a policy network from observation and action specs.
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        batch_size: sequences per update. gradient_steps: updates per batched environment step, in `rlgen train`.
        temperature: divides the logits wherever it acts and is judged.
        evaluate: sample or mode.

    Raises:
        UserError: for a value out of range.
    """

    by_rank: frozenset[str] = frozenset()

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Only sequences come as demonstrations."""
        return isinstance(spec.sample, SequenceSpec) and "prime" in spec.context and "latent" not in spec.info

    def __init__(
        self,
        *,
        env: Env,
        real: Sequences,
        rng: torch.Generator,
        device: torch.device,
        network: Callable[..., nn.Module],
        optimizer: Callable[..., Adam],
        batch_size: int,
        gradient_steps: int,
        temperature: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        within = 1 <= gradient_steps <= 10_000
        require(within, f"gradient_steps: must be from 1 to 10000, got {gradient_steps}.")
        require(temperature > 0, f"temperature: must be above 0, got {temperature}.")
        single = isinstance(env.spec.action, Discrete)
        require(
            temperature == 1 or single,
            "temperature: other than 1 needs tokens of one part; use encoding=melody, chorale or tokens.",
        )
        self.env, self.tokens, self.rng, self.temperature = env, real.tokens, rng, float(temperature)
        self.batch_size, self.gradient_steps = min(batch_size, len(real.tokens)), gradient_steps
        ranks.share(self.batch_size, "batch_size")
        self.net = build_network(network, env.spec, device)
        self.policy = TemperedPolicy(plain=NetworkPolicy(net=self.net, evaluate=evaluate), temperature=temperature)
        self.order = torch.empty(0, dtype=torch.long, device=device)  # what of this pass over the data is to come
        self.optimizer = optimizer(parameters=self.net.parameters())

    @property
    def batches(self) -> int:
        """Updates in a pass over the data."""
        return len(self.tokens) // self.batch_size

    def update(self, progress: float) -> Metrics:
        nll = torch.zeros(())
        for _ in range(self.gradient_steps):
            self.net.train()
            nll = self.nll(self.tokens[self._draw()], self.rng).mean()
            self.optimizer.step(nll, progress)
            self.net.eval()
        return {"nll": nll.detach()}

    def _draw(self) -> Tensor:
        """Indices of this rank's part of a batch: passes over all sequences, each in an order of its own, less what
        fills no batch."""
        if len(self.order) < self.batch_size:
            self.order = torch.randperm(len(self.tokens), generator=self.rng, device=self.tokens.device)
            if ranks.count() > 1:  # all take their parts of the same order
                self.order = ranks.from_first(self.order.cpu).to(self.order.device)
        index, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return index[ranks.rank() :: ranks.count()]

    def nll(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """−log p of each token of sequences [N, T, F] after primes as the environment has them, in nats, [T, N]."""
        assert isinstance(self.env, TeachesSequences)
        policy, action = teacher_forced(self.env, self.net, tokens, self.env.primes(len(tokens), rng))
        return -tempered(policy, self.temperature).evaluate_actions(action)[0].view(-1, len(tokens))

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {"optimizer": self.optimizer.state_dict(), "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.order = state["order"]
