"""The limit of a training's loop: its own network passes and optimizer steps, on tensors that are there already.

A stretch of the loop is recorded: every call of a network that is not within another's, every gradient that was taken
of its output on its input (a discriminator's penalty), and every step of an optimizer, the agent's and the rewards'.
Going through the record again does that and nothing else: before a step, what its networks gave since its last one is
averaged into a loss, so that gradients flow as they did. What is compiled calls no network that could be seen, so that
the loop to record is one that is not.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.tree import leaves


class Call(NamedTuple):
    """A network's pass."""

    network: nn.Module
    given: tuple[Any, ...]
    follows_gradients: bool


class Gradient(NamedTuple):
    """Of the sum of a call's output on one of the tensors that it was given, to be followed itself."""

    call: int  # the event
    leaf: int  # among the tensors given


class Step(NamedTuple):
    """An optimizer's, down the gradient of what its networks gave."""

    optimizer: Adam | PlainAdam
    progress: float


class Record:
    """Takes down what happens while it is entered; `again` repeats it."""

    def __init__(self) -> None:
        self.events: list[Call | Gradient | Step] = []
        self.depth = 0  # of calls within calls
        self.stepping = False  # within the step of an optimizer that has another
        self.calls_given: list[tuple[int, list[Tensor]]] = []  # each call's event, and the very tensors it was given
        self.copies: dict[Any, tuple[Any, ...]] = {}  # of what was given, one for all calls of a kind
        self.optimizers: dict[int, Adam | PlainAdam] = {}  # by the network that they train

    def __enter__(self) -> "Record":
        self.hooks = [
            register_module_forward_pre_hook(self._begins),
            register_module_forward_hook(self._ends, always_call=True),
        ]
        self.originals = Adam.step, PlainAdam.step, torch.autograd.grad
        Adam.step = self._stepped(Adam.step)  # type: ignore[method-assign]
        PlainAdam.step = self._stepped(PlainAdam.step)  # type: ignore[method-assign]
        torch.autograd.grad = self._graded(torch.autograd.grad)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()
        Adam.step, PlainAdam.step, torch.autograd.grad = self.originals  # type: ignore[method-assign]
        self.calls_given.clear()
        steps = {id(event.optimizer): event.optimizer for event in self.events if isinstance(event, Step)}
        for event in self.events:
            if isinstance(event, Call):
                weights = {id(weight) for weight in event.network.parameters()}
                for optimizer in steps.values():
                    if weights & {id(weight) for weight in optimizer.parameters}:
                        self.optimizers[id(event.network)] = optimizer

    def _begins(self, network: nn.Module, given: tuple[Any, ...]) -> None:
        if self.depth == 0:
            self.calls_given.append((len(self.events), list(leaves(given))))
            kind = (id(network), torch.is_grad_enabled(), *((x.shape, x.requires_grad) for x in leaves(given)))
            self.events.append(Call(network, self.copies.setdefault(kind, copied(given)), torch.is_grad_enabled()))
        self.depth += 1

    def _ends(self, network: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        self.depth -= 1

    def _stepped(self, step: Callable[..., None]) -> Callable[..., None]:
        def stepped(optimizer: Adam | PlainAdam, *args: Any, **keywords: Any) -> None:
            outermost = not self.stepping
            if outermost:
                self.events.append(Step(optimizer, args[1] if isinstance(optimizer, Adam) else 0.0))
            self.stepping = True
            step(optimizer, *args, **keywords)
            self.stepping = not outermost

        return stepped

    def _graded(self, grad: Callable[..., Any]) -> Callable[..., Any]:
        def graded(outputs: Any, inputs: Any, *args: Any, **keywords: Any) -> Any:
            for event, given in self.calls_given:
                self.events += [Gradient(event, i) for i, tensor in enumerate(given) if tensor is inputs]
            return grad(outputs, inputs, *args, **keywords)

        return graded

    @property
    def calls(self) -> int:
        """Passes in the record."""
        return sum(isinstance(event, Call) for event in self.events)

    def again(self) -> None:
        """The same passes, gradients and steps."""
        results: dict[int, list[Tensor]] = {}  # each call's, and the gradients taken of it
        for i, event in enumerate(self.events):
            if isinstance(event, Call):
                with torch.set_grad_enabled(event.follows_gradients):
                    results[i] = followed(event.network(*event.given))
            elif isinstance(event, Gradient):
                call = self.events[event.call]
                assert isinstance(call, Call)
                leaf = list(leaves(call.given))[event.leaf]
                output = total(results[event.call])
                results[event.call] += torch.autograd.grad(output, leaf, create_graph=True)
            else:
                own = [at for at in results if self._trains(event.optimizer, at)]
                outputs = [output for at in own for output in results.pop(at)]
                if outputs:
                    descend(event, total(outputs))

    def _trains(self, optimizer: Adam | PlainAdam, call: int) -> bool:
        event = self.events[call]
        assert isinstance(event, Call)
        return self.optimizers.get(id(event.network)) is optimizer


def descend(step: Step, loss: Tensor) -> None:
    """The optimizer's step, as its learner takes it."""
    optimizer = step.optimizer
    if isinstance(optimizer, Adam):
        optimizer.step(loss, step.progress)
    else:
        optimizer.zero_grad()
        loss.backward(inputs=optimizer.parameters)
        optimizer.step()


def total(outputs: list[Tensor]) -> Tensor:
    """One number that depends on all of them."""
    return torch.stack([output.mean() for output in outputs]).sum()


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
