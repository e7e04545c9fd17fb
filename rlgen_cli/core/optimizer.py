"""Adam with a learning rate that follows the training's progress, and clipped gradients."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.schedules import Linear


def adam_state(adam: torch.optim.Adam) -> dict[str, Any]:
    """Adam's state dict with its counts of steps as plain numbers: where they are kept (on the host, unless it is
    capturable) is for the optimizer to say that loads them, whatever device its weights are on."""
    saved = adam.state_dict()
    state = {
        i: {name: float(value) if name == "step" else value for name, value in entry.items()}
        for i, entry in saved["state"].items()
    }
    return saved | {"state": state}


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
        on_cuda = self.parameters[0].device.type == "cuda"
        self.adam = torch.optim.Adam(
            self.parameters, lr=learning_rate(0.0), eps=eps, weight_decay=weight_decay, foreach=True,
            capturable=on_cuda,  # the step count stays on the device
        )  # fmt: skip

    def step(self, loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
        """One step down the gradient of `loss`. Where `keep`, a bool scalar on the device, is false, weights and Adam's
        own state stay as they were, without the host's having to look."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward(inputs=self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if self.skip_nonfinite:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad = torch.where(norm.isfinite(), parameter.grad, 0.0)
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate(progress)
        before = {} if keep is None else {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        self.adam.step()
        if keep is not None:
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    if tensor.device == keep.device:
                        # Adam begins with zeros when it first sees a parameter.
                        tensor.copy_(torch.where(keep, tensor, before.get(name, torch.zeros_like(tensor))))

    def _tensors(self) -> dict[tuple[int, str], Tensor]:
        """All that a step changes: weights, moments and step counts."""
        found: dict[tuple[int, str], Tensor] = {(i, "weight"): weight for i, weight in enumerate(self.parameters)}
        for i, weight in enumerate(self.parameters):
            found |= {(i, name): tensor for name, tensor in self.adam.state.get(weight, {}).items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        return adam_state(self.adam)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also of an optimizer on another device: where the step count is kept stays as it is here."""
        here = [{"capturable": group["capturable"]} for group in self.adam.param_groups]
        groups = [saved | own for saved, own in zip(state["param_groups"], here, strict=True)]
        self.adam.load_state_dict(state | {"param_groups": groups})
