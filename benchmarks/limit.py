"""The limit of a training's loop: its own network passes and optimizer steps, on tensors that are there already.

A stretch of the loop is recorded, from one update of the agent to the next: every call of a network that is not within
another's, with what it was given, and every step of an optimizer. Going through the record again does that and nothing
else: the outputs of the calls since the last step are averaged into a loss, so that gradients flow as they did.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from rlgen_cli.core.optimizer import Adam


class Call(NamedTuple):
    """A network's pass."""

    network: nn.Module
    given: tuple[Any, ...]
    follows_gradients: bool


class Step(NamedTuple):
    """An optimizer's."""

    optimizer: Adam
    progress: float


class Record:
    """Takes down calls and steps while it is entered; `again` repeats them."""

    def __init__(self) -> None:
        self.events: list[Call | Step] = []
        self.depth = 0  # of calls within calls

    def __enter__(self) -> "Record":
        self.hooks = [
            register_module_forward_pre_hook(self._begins),
            register_module_forward_hook(self._ends, always_call=True),
        ]
        self.step = Adam.step
        Adam.step = self._stepped(self.step)  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()
        Adam.step = self.step  # type: ignore[method-assign]

    def _begins(self, network: nn.Module, given: tuple[Any, ...]) -> None:
        if self.depth == 0:
            self.events.append(Call(network, copied(given), torch.is_grad_enabled()))
        self.depth += 1

    def _ends(self, network: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        self.depth -= 1

    def _stepped(self, step: Callable[..., None]) -> Callable[..., None]:
        def stepped(optimizer: Adam, loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
            self.events.append(Step(optimizer, progress))
            step(optimizer, loss, progress, keep)

        return stepped

    @property
    def calls(self) -> int:
        """Passes in the record."""
        return sum(isinstance(event, Call) for event in self.events)

    def again(self) -> None:
        """The same passes and steps."""
        outputs: list[Tensor] = []
        for event in self.events:
            if isinstance(event, Call):
                with torch.set_grad_enabled(event.follows_gradients):
                    outputs += followed(event.network(*event.given))
            elif outputs:
                event.optimizer.step(torch.stack([output.mean() for output in outputs]).sum(), event.progress)
                outputs = []


def copied(tree: Any) -> Any:
    """What a network is given, with tensors of its own."""
    if isinstance(tree, Tensor):
        return tree.detach().clone().requires_grad_(tree.requires_grad)
    if isinstance(tree, dict):
        return {name: copied(part) for name, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(copied, tree))
    return type(tree)(map(copied, tree)) if isinstance(tree, list | tuple) else tree


def followed(result: Any) -> list[Tensor]:
    """What gradients can start from, in a network's output."""
    if isinstance(result, Tensor):
        return [result] if result.requires_grad else []
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in followed(part)]
    parts = vars(result).values() if hasattr(result, "__dict__") else ()  # a distribution
    return [part for part in parts if isinstance(part, Tensor) and part.requires_grad]
