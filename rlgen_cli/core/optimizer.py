"""Adam with a learning rate that follows the training's progress, and clipped gradients, averaged over all ranks."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.errors import require
from rlgen_cli.core.host import readable
from rlgen_cli.core.schedules import Linear


def require_rate(learning_rate: Linear) -> None:
    """Refuse a learning rate that Adam cannot have."""
    start, end = learning_rate.start, learning_rate.end
    least = f"learning_rate: must be at least 0 from start to end, got {start} to {end}."
    require(learning_rate.lowest >= 0, least)


class Adam:
    """Adam (Kingma and Ba 2015) on some parameters.

    Args:
        parameters: those that are not frozen are trained.
        learning_rate: a schedule over the training. max_grad_norm: gradients are scaled down to this length at most.
        eps: Adam's ε. weight_decay: L2 penalty, half the price of each weight's square.
        nonfinite: skip makes a gradient that is nan or infinite count as 0; stop lets it through, for the training to
            find in the weights.
    """

    def __init__(
        self,
        *,
        parameters: Iterable[nn.Parameter],
        learning_rate: Linear,
        max_grad_norm: float,
        eps: float,
        weight_decay: float,
        nonfinite: Literal["stop", "skip"],
    ) -> None:
        require_rate(learning_rate)
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        require(eps > 0, f"eps: must be above 0, got {eps}.")
        require(weight_decay >= 0, f"weight_decay: must be at least 0, got {weight_decay}.")
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.learning_rate, self.max_grad_norm = learning_rate, float(max_grad_norm)
        self.skip_nonfinite = nonfinite == "skip"
        self.adam = PlainAdam(self.parameters, learning_rate(0.0), eps=eps, weight_decay=weight_decay)

    def step(self, loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
        """One step down the gradient of `loss`. Where `keep`, a bool scalar on the device, is false, weights and Adam's
        own state stay as they were, without the host's having to look where it would have to wait."""
        if keep is not None and readable(keep):
            if not bool(keep):
                return
            keep = None
        self.adam.zero_grad()
        loss.backward(inputs=self.parameters)
        ranks.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if self.skip_nonfinite:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad = torch.where(norm.isfinite(), parameter.grad, 0.0)
        self.adam.learning_rate = self.learning_rate(progress)
        before = [] if keep is None else [tensor.detach().clone() for tensor in self.adam.tensors()]
        self.adam.step()
        if keep is not None:
            with torch.no_grad():
                for tensor, old in zip(self.adam.tensors(), before, strict=True):
                    if tensor.device == keep.device:
                        tensor.copy_(torch.where(keep, tensor, old))

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)
