"""Adam without `torch.optim.Optimizer`, which loads torch's compiler when it is made: a second of each start, also of a
command that only makes samples."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam


class PlainAdam:
    """Adam (Kingma and Ba 2015) on some tensors: what `torch.optim.Adam` computes, by the function that it calls.

    All state is there from the start, so that it keeps its addresses; a tensor without a gradient is left as it is.

    Args:
        parameters: the tensors, leaves that require a gradient.
        learning_rate: of the next step; an attribute, which whoever follows a schedule sets before each step.
        betas: decay rates of the moving averages of the gradient and of its square.
        eps: Adam's ε. weight_decay: L2 penalty, half the price of each weight's square.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.betas, self.eps, self.weight_decay = learning_rate, betas, eps, weight_decay
        # A GPU counts its own steps, so that it need not wait for the host; elsewhere the host looks at the count.
        self.capturable = self.parameters[0].device.type == "cuda"
        counter = self.parameters[0].device if self.capturable else torch.device("cpu")
        self.state = [
            {
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "step": torch.zeros((), device=counter),
            }
            for parameter in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step down the gradients that there are."""
        used = [
            (parameter, parameter.grad, state)
            for parameter, state in zip(self.parameters, self.state, strict=True)
            if parameter.grad is not None
        ]
        adam(
            [parameter for parameter, _, _ in used], [grad for _, grad, _ in used],
            [state["exp_avg"] for _, _, state in used], [state["exp_avg_sq"] for _, _, state in used], [],
            [state["step"] for _, _, state in used], foreach=True, capturable=self.capturable, amsgrad=False,
            beta1=self.betas[0], beta2=self.betas[1], lr=self.learning_rate, weight_decay=self.weight_decay,
            eps=self.eps, maximize=False,
        )  # fmt: skip

    def tensors(self) -> list[Tensor]:
        """All that a step changes: weights, moments and step counts."""
        return [*self.parameters, *(tensor for state in self.state for tensor in state.values())]

    def state_dict(self) -> dict[str, Any]:
        """The counts of steps as plain numbers: where they are kept is for the optimizer to say that loads them,
        whatever device its weights are on."""
        state = {
            i: {name: float(tensor) if name == "step" else tensor for name, tensor in entry.items()}
            for i, entry in enumerate(self.state)
        }
        return {"state": state}

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Also of an optimizer on another device. A tensor that is not in it had no gradient yet.

        Raises:
            ValueError: for the state of other tensors.
        """
        entries = saved["state"]
        if not entries.keys() <= set(range(len(self.state))):
            raise ValueError(f"an optimizer of {len(entries)} tensors does not fit one of {len(self.state)}")
        for i, state in enumerate(self.state):
            for name, tensor in state.items():
                value = torch.as_tensor(entries[i][name] if i in entries else 0.0)
                if i in entries and value.shape != tensor.shape:
                    raise ValueError(f"{name} {i} of an optimizer is {[*value.shape]}, and must be {[*tensor.shape]}")
                tensor.copy_(value)
