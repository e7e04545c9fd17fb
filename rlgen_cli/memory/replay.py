"""Replay of compact states: each frame stored once, the next state found by its index, no host sync.

Every environment writes its own ring of frames. A step writes the frame it acted in and, one slot ahead, the frame it
led to; the next step overwrites that one with the same frame, unless the episode ended: then it stays, marked final
(no action was taken in it), and the next episode begins behind it. So frame t + 1 is always what the action in frame
t led to.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.core.types import State, Transition


class Kept(NamedTuple):
    """What is stored of a transition, a row a frame; the next state is the next frame."""

    state: State
    action: Tensor
    settled: Tensor
    terminated: Tensor


class Window(NamedTuple):
    """B stretches of L + 1 successive frames; `states` holds their rows flat, [B · (L + 1), …], stretch by stretch."""

    states: State
    action: Tensor  # [B, L, …]
    settled: Tensor  # [B, L], the part of the reward that never goes stale
    terminated: Tensor  # bool [B, L]
    valid: Tensor  # bool [B, L]; false where the frame is final, so nothing was done in it
    start: Tensor  # [B], rows in the memory, for priorities
    weight: Tensor  # [B], importance weights


class Replay:
    """`capacity` frames of `num_envs` environments; allocated at the first `add`.

    `priority` is the exponent α of prioritised replay (Schaul et al. 2016), 0 for uniform; `correction` is β. With
    `whole`, windows begin where episodes do, for networks that remember.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        device: torch.device,
        priority: float,
        correction: float,
        whole: bool,
    ) -> None:
        require(
            capacity >= 4 * num_envs,
            f"capacity: must be at least 4 × num_envs = {4 * num_envs}, got {capacity}.",
        )
        require(priority >= 0, f"priority: must be at least 0, got {priority}.")
        require(0 <= correction <= 1, f"correction: must be in [0, 1], got {correction}.")
        self.frames, self.num_envs, self.device = capacity // num_envs, num_envs, device
        self.priority, self.correction, self.whole = float(priority), float(correction), whole
        self.calls = 0
        self.env = torch.arange(num_envs, device=device)
        self.slot = torch.zeros(num_envs, dtype=torch.long, device=device)  # where the next frame goes
        self.written = torch.zeros_like(self.slot)  # frames before `slot`
        self.store: Kept | None = None
        self.final = torch.ones(self.frames * num_envs, dtype=torch.bool, device=device)
        self.urgency = torch.ones(self.frames * num_envs, device=device) if priority else None
        self.first = torch.zeros_like(self.final)  # the frame begins an episode
        self.begins = torch.ones(num_envs, dtype=torch.bool, device=device)  # the next frame does

    def add(self, transition: Transition) -> None:
        """Take in one step of every environment."""
        if self.store is None:
            self.store = self._allocate(_kept(transition))
        row = self.slot * self.num_envs + self.env
        ahead = (self.slot + 1) % self.frames * self.num_envs + self.env

        def write(store: Tensor, value: Tensor) -> Tensor:
            store[row] = value
            return store

        def write_ahead(store: Tensor, value: Tensor) -> Tensor:
            store[ahead] = value
            return store

        map_tensors(write, self.store, _kept(transition))
        map_tensors(write_ahead, self.store.state, transition.next_state)
        self.final[row] = False
        self.final[ahead] = True
        self.first[row], self.begins = self.begins, transition.terminated
        if self.urgency is not None:
            self.urgency[row] = self.urgency.max()
        advance = 1 + transition.terminated.long()
        self.slot = (self.slot + advance) % self.frames
        self.written = (self.written + advance).clamp(max=self.frames - 1)
        self.calls += 1

    def sample(self, batch: int, length: int, rng: torch.Generator) -> Window:
        """`batch` windows of `length` + 1 frames; needs more than `length` steps taken in."""
        assert self.store is not None
        start, weight = self._starts(batch, length, rng)
        slot, env = start // self.num_envs, start % self.num_envs
        offset = torch.arange(length + 1, device=self.device)
        rows = (slot.unsqueeze(1) + offset) % self.frames * self.num_envs + env.unsqueeze(1)  # [B, L + 1]
        acted = rows[:, :length]
        return Window(
            states=map_tensors(lambda field: field[rows.flatten()], self.store.state),
            action=self.store.action[acted],
            settled=self.store.settled[acted],
            terminated=self.store.terminated[acted],
            valid=~self.final[acted],
            start=start,
            weight=weight,
        )

    def set_urgency(self, start: Tensor, error: Tensor) -> None:
        """New priorities, |TD error| [B], of the windows that began at `start`; nothing to do when uniform."""
        if self.urgency is not None:
            self.urgency[start] = error.abs() + 1e-3

    def _starts(self, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows where windows may begin, and importance weights, [B] each."""
        if self.urgency is None and not self.whole:
            env = torch.randint(self.num_envs, (batch,), generator=rng, device=self.device)
            choices = self.written[env] + 1 - length  # `written` frames and the one ahead
            age = (torch.rand(batch, generator=rng, device=self.device) * choices).long().clamp(min=0) + length
            slot = (self.slot[env] - age) % self.frames
            return slot * self.num_envs + env, torch.ones(batch, device=self.device)
        row = torch.arange(self.frames * self.num_envs, device=self.device)
        env = row % self.num_envs
        age = (self.slot[env] - row // self.num_envs) % self.frames
        allowed = (age >= length) & (age <= self.written[env]) & ~self.final
        if self.whole:
            allowed = allowed & self.first
        urgency = torch.ones_like(allowed, dtype=torch.float32) if self.urgency is None else self.urgency
        mass = torch.where(allowed, urgency**self.priority, 0.0)
        cumulative = mass.cumsum(0)
        draw = torch.rand(batch, generator=rng, device=self.device) * cumulative[-1]
        start = torch.searchsorted(cumulative, draw).clamp(max=len(row) - 1)
        share = mass[start] / cumulative[-1] * allowed.sum()
        weight = share.clamp(min=1e-8) ** -self.correction
        return start, weight / weight.max()

    def _allocate(self, like: Kept) -> Kept:
        """Zeros for every field."""

        def room(field: Tensor) -> Tensor:
            return torch.zeros(self.frames * self.num_envs, *field.shape[1:], dtype=field.dtype, device=self.device)

        return map_tensors(room, like)

    def state_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "calls": self.calls,
            "slot": self.slot,
            "written": self.written,
            "final": self.final,
            "first": self.first,
            "begins": self.begins,
        }
        if self.urgency is not None:
            fields["urgency"] = self.urgency
        if self.store is not None:
            fields |= {
                "action": self.store.action,
                "settled": self.store.settled,
                "ended": self.store.terminated,
            }
            fields["state"] = self.store.state._asdict()
        return fields

    def load_state_dict(self, fields: dict[str, Any], state_type: type) -> None:
        """`state_type` is the NamedTuple class of the environment's states."""
        self.calls, self.slot, self.written = fields["calls"], fields["slot"], fields["written"]
        self.final, self.urgency = fields["final"], fields.get("urgency")
        self.first, self.begins = fields["first"], fields["begins"]
        if "state" in fields:
            state = state_type(**fields["state"])
            self.store = Kept(state, fields["action"], fields["settled"], fields["ended"])


def _kept(transition: Transition) -> Kept:
    return Kept(transition.state, transition.action, transition.settled, transition.terminated)
