"""The newest steps of all environments, for agents that learn from what they just did and then forget it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from rlgen_cli.core.specs import Carry, Observation, State, Transition
from rlgen_cli.core.tree import map_tensors, plain, typed

T = TypeVar("T")


class Segment(NamedTuple):
    """T successive steps of N environments; the fields of trees are [T, N, …]. It is read before the next step is taken
    in, which is written where the segment stood."""

    state: State
    action: Tensor
    reward: Tensor  # [T, N]
    terminated: Tensor  # bool [T, N]
    carry: Carry
    policy_output: Any
    observation: Observation | None  # what the decisions were made from, if that was kept
    last: State  # [N, …], where the last step led to
    last_carry: Carry

    def starts(self) -> Tensor:
        """Bool [T, N]: the step begins an episode. The first row is false: its carry has been reset already."""
        return torch.cat([torch.zeros_like(self.terminated[:1]), self.terminated[:-1]])

    def following(self) -> tuple[State, Carry]:
        """States and memories after each step, [T, N, …]; where an episode ended, those of the next one's start."""
        return _shifted(self.state, self.last), _shifted(self.carry, self.last_carry)


KEPT = Segment._fields[:7]  # of every step
FOLLOWING = ("next_state", "next_carry")  # kept of the newest


class RolloutBuffer:
    """Takes in `length` new steps and gives them as one segment.

    Args:
        length: new steps of a segment.
        overlap: steps of the segment before that the next one begins with, so that episodes that a segment's end cut
            off are seen whole.
    """

    def __init__(self, length: int, overlap: int = 0) -> None:
        self.length, self.overlap = length, overlap
        self.store: dict[str, Any] = {}  # trees of [length + overlap, N, …]
        self.held, self.old = 0, 0  # steps in the store, and those among them that an earlier segment held
        self.taken = False  # the newest segment was given, and only its overlap is still wanted
        self.newest: Transition | None = None

    def add(self, transition: Transition) -> None:
        """Take in one step."""
        kept = {name: getattr(transition, name) for name in KEPT}
        if not self.store:
            self.store = {name: map_tensors(self._room, tree) for name, tree in kept.items()}
        if self.taken:
            self._forget()
        for name, tree in kept.items():
            map_tensors(lambda field, value: field[self.held].copy_(value), self.store[name], tree)
        self.held += 1
        self.newest = transition._replace(next_view=None)  # what rewards saw is of no use any more

    def _room(self, field: Tensor) -> Tensor:
        return field.new_empty(self.length + self.overlap, *field.shape)

    def _forget(self) -> None:
        """Let the store begin with the newest segment's overlap."""
        first = max(self.held - self.overlap, 0)
        if first and self.overlap:

            def move(field: Tensor) -> Tensor:
                return field[: self.held - first].copy_(field[first : self.held].clone())

            map_tensors(move, self.store)
        self.held -= first
        self.taken = False

    @property
    def full(self) -> bool:
        return not self.taken and self.held - self.old >= self.length

    def take(self) -> Segment:
        """The segment; the buffer then holds the overlap alone."""
        assert self.newest is not None
        kept = map_tensors(lambda field: field[: self.held], self.store)
        self.taken, self.old = True, min(self.held, self.overlap)
        return Segment(**kept, last=self.newest.next_state, last_carry=self.newest.next_carry)

    def state_dict(self) -> dict[str, Any]:
        """Each step that is still wanted; observations are left out, since states tell them."""
        if self.taken:
            self._forget()
        steps = []
        for t in range(self.held):
            kept = map_tensors(lambda field, t=t: field[t], self.store) | {"observation": None}
            steps.append({name: plain(tree) for name, tree in kept.items()})
        if steps and self.newest is not None:
            steps[-1] |= {name: plain(getattr(self.newest, name)) for name in FOLLOWING}
        return {"steps": steps, "old": self.old}

    def load_state_dict(
        self, fields: dict[str, Any], like: Transition, observed: Callable[[State], Observation] | None = None
    ) -> None:
        """Take the saved steps in.

        Args:
            like: any transition of the same environment and agent: it gives the trees' types.
            observed: what was seen of states, for those who keep observations.
        """
        self.store, self.held, self.taken, self.newest = {}, 0, False, None
        for saved in fields["steps"]:
            following = {name: typed(saved[name], getattr(like, name)) for name in FOLLOWING if name in saved}
            kept = {name: typed(saved.get(name), getattr(like, name)) for name in KEPT}
            step = like._replace(**kept, **following)
            self.add(step if observed is None else step._replace(observation=observed(step.state)))
        self.old = fields["old"]


def _shifted(tree: Any, last: Any) -> Any:
    """Rows 1 to T of a tree of [T, N, …], `last` [N, …] being the row after the end."""
    return map_tensors(lambda field, end: torch.cat([field[1:], end.unsqueeze(0)]), tree, last)


def flat(tree: Any) -> Any:
    """A tree of [T, N, …] to one of [T · N, …]."""
    return map_tensors(lambda field: field.flatten(0, 1), tree)


def minibatches(batch: T, count: int, start: Tensor, rng: torch.Generator) -> list[T]:
    """A tree of [R, C, …], as `start` is, divided along C into so many parts at random; one part is the whole."""
    if count == 1:
        return [batch]
    order = torch.randperm(start.shape[1], generator=rng, device=start.device)
    return [
        map_tensors(lambda field, chosen=chosen: field.index_select(1, chosen), batch) for chosen in order.chunk(count)
    ]
