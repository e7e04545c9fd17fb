"""The newest steps of all environments, for agents that learn from what they just did and then forget it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Carry, State, Transition
from rlgen_cli.core.tree import map_tensors, plain, typed


class Segment(NamedTuple):
    """T successive steps of N environments; the fields of trees are [T, N, …]."""

    state: State
    action: Tensor
    reward: Tensor  # [T, N]
    terminated: Tensor  # bool [T, N]
    carry: Carry
    policy_output: Any
    last: State  # [N, …], where the last step led to
    last_carry: Carry

    def starts(self) -> Tensor:
        """Bool [T, N]: the step begins an episode. The first row is false: its carry has been reset already."""
        return torch.cat([torch.zeros_like(self.terminated[:1]), self.terminated[:-1]])

    def following(self) -> tuple[State, Carry]:
        """States and memories after each step, [T, N, …]; where an episode ended, those of the next one's start."""
        return _shifted(self.state, self.last), _shifted(self.carry, self.last_carry)


class RolloutBuffer:
    """Takes in `length` new steps and gives them as one segment.

    Args:
        length: new steps of a segment.
        overlap: steps of the segment before that the next one begins with, so that episodes that a segment's end cut
            off are seen whole.
    """

    def __init__(self, length: int, overlap: int = 0) -> None:
        self.length, self.overlap = length, overlap
        self.steps: list[Transition] = []
        self.old = 0  # steps that an earlier segment held

    def add(self, transition: Transition) -> None:
        self.steps.append(transition._replace(next_view=None))  # what rewards saw is of no use any more

    @property
    def full(self) -> bool:
        return len(self.steps) - self.old >= self.length

    def take(self) -> Segment:
        """The segment; the buffer then holds the overlap alone."""
        kept = {name: _stack([getattr(step, name) for step in self.steps]) for name in Segment._fields[:6]}
        newest = self.steps[-1]
        self.steps = self.steps[len(self.steps) - self.overlap :]
        self.old = len(self.steps)
        return Segment(**kept, last=newest.next_state, last_carry=newest.next_carry)

    def state_dict(self) -> dict[str, Any]:
        """Each kept step, its trees as they are."""
        return {"steps": [plain(step) for step in self.steps], "old": self.old}

    def load_state_dict(self, fields: dict[str, Any], like: Transition) -> None:
        """`like` is any transition of the same environment and agent: it gives the trees' types."""
        self.steps, self.old = [typed(step, like) for step in fields["steps"]], fields["old"]


def _stack(trees: list[Any]) -> Any:
    """Trees of [N, …] to one of [T, N, …]."""
    return map_tensors(lambda *fields: torch.stack(fields), *trees)


def _shifted(tree: Any, last: Any) -> Any:
    """Rows 1 to T of a tree of [T, N, …], `last` [N, …] being the row after the end."""
    return map_tensors(lambda field, end: torch.cat([field[1:], end.unsqueeze(0)]), tree, last)


def flat(tree: Any) -> Any:
    """A tree of [T, N, …] to one of [T · N, …]."""
    return map_tensors(lambda field: field.flatten(0, 1), tree)
