"""The newest steps of all environments, for agents that learn from what they just did and then forget it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.tree import map_tensors, plain, typed
from rlgen_cli.core.types import Carry, Extras, State, Transition


class Segment(NamedTuple):
    """T successive steps of N environments; the fields of trees are [T, N, …]."""

    state: State
    action: Tensor
    reward: Tensor  # [T, N]
    terminated: Tensor  # bool [T, N]
    carry: Carry
    extras: Extras
    last: State  # [N, …], where the last step led to
    last_carry: Carry

    def starts(self) -> Tensor:
        """Bool [T, N]: the step begins an episode. The first row is false: its carry has been reset already."""
        return torch.cat([torch.zeros_like(self.terminated[:1]), self.terminated[:-1]])

    def following(self) -> tuple[State, Carry]:
        """States and memories after each step, [T, N, …]; where an episode ended, those of the next one's start."""
        return _shifted(self.state, self.last), _shifted(self.carry, self.last_carry)


class SegmentMemory:
    """Takes in `length` steps, gives them as one segment, and begins anew."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.steps: list[Transition] = []

    def add(self, transition: Transition) -> None:
        self.steps.append(transition)

    @property
    def full(self) -> bool:
        return len(self.steps) >= self.length

    def take(self) -> Segment:
        """The segment; the memory is empty afterwards."""
        kept = {name: _stack([getattr(step, name) for step in self.steps]) for name in Segment._fields[:6]}
        newest, self.steps = self.steps[-1], []
        return Segment(**kept, last=newest.next_state, last_carry=newest.next_carry)

    def state_dict(self) -> dict[str, Any]:
        """Each kept step, its trees as they are."""
        return {"steps": [plain(step) for step in self.steps]}

    def load_state_dict(self, fields: dict[str, Any], like: Transition) -> None:
        """`like` is any transition of the same environment and agent: it gives the trees' types."""
        self.steps = [typed(step, like) for step in fields["steps"]]


def _stack(trees: list[Any]) -> Any:
    """Trees of [N, …] to one of [T, N, …]."""
    return map_tensors(lambda *fields: torch.stack(fields), *trees)


def _shifted(tree: Any, last: Any) -> Any:
    """Rows 1 to T of a tree of [T, N, …], `last` [N, …] being the row after the end."""
    return map_tensors(lambda field, end: torch.cat([field[1:], end.unsqueeze(0)]), tree, last)


def flat(tree: Any) -> Any:
    """A tree of [T, N, …] to one of [T · N, …]."""
    return map_tensors(lambda field: field.flatten(0, 1), tree)
