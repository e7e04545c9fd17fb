"""How likely a sequence is to a model that was trained before."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.host import longest
from rlgen_cli.core.protocols import Env, TeachesSequences
from rlgen_cli.core.specs import View
from rlgen_cli.policies.actor import teacher_forced


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

    def __call__(self, view: View) -> Tensor:
        return self.log_probs(view).sum(1)

    def gain(self, after: View) -> Tensor:
        """The newest token's log-probability, [N]."""
        length = after.info["num_tokens"]
        steps = longest(length, after.sample.shape[1])
        return self.log_probs(after, steps).gather(1, length.unsqueeze(1) - 1).squeeze(1)

    @torch.no_grad()
    def log_probs(self, view: View, steps: int | None = None) -> Tensor:
        """Log-probability of each token, [N, T], or of the first `steps`; 0 where none stands yet."""
        tokens, prime = view.sample, view.context["prime"]  # [N, T, F], [N, F]
        distribution, action = teacher_forced(self.env, self.net, tokens.clamp(min=0), prime, steps)
        log_prob = distribution.evaluate_actions(action)[0].view(-1, len(tokens)).T  # from T · N rows
        return torch.where(tokens[:, :steps, 0] >= 0, log_prob, 0.0)
