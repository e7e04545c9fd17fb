"""Replay of compact states: each frame stored once, the next state found by its index, no host sync.

Every environment writes its own ring of frames. A step writes the frame it acted in and, one slot ahead, the frame it
led to; the next step overwrites that one with the same frame, unless the episode ended: then it stays, marked final
(no action was taken in it), and the next episode begins behind it. So frame t + 1 is always what the action in frame
t led to.
"""

import zlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rlgen_cli.core.capacity import bytes_of
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, PacksStates
from rlgen_cli.core.specs import State, Transition
from rlgen_cli.core.tree import map_tensors


class Kept(NamedTuple):
    """What is stored of a transition, a row a frame; the next state is the next frame."""

    state: State
    action: Tensor
    static_reward: Tensor
    terminated: Tensor


class Window(NamedTuple):
    """B stretches of L + 1 successive frames; `states` holds them in the order of time, [(L + 1) · B, …]."""

    states: State
    action: Tensor  # [L, B, …]
    static_reward: Tensor  # [L, B], the part of the reward that never goes stale
    terminated: Tensor  # bool [L, B]
    valid: Tensor  # bool [L, B]; false where the frame is final, so nothing was done in it
    start: Tensor  # [B], rows in the memory, for priorities
    weight: Tensor  # [B], importance weights


class Sampling(Protocol):
    """Where windows begin."""

    def draw(self, replay: "Replay", batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows [B] where windows of `length` steps begin, and importance weights [B]."""
        ...


@runtime_checkable
class RanksWindows(Protocol):
    """A sampling that prefers some windows, by their TD errors."""

    def written(self, rows: Tensor) -> None:
        """New frames stand in these rows."""
        ...

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        """|TD error| [B] of the windows that began at `start`."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Replay:
    """`buffer_size` frames of `num_envs` environments; allocated at the first `add`.

    Args:
        env: whose states are kept, in their small form where it has one (`PacksStates`).
        sampling: builds what chooses windows, from the number of rows and the device.
        whole_episodes: windows begin where episodes do, for networks that remember.
    """

    def __init__(
        self, *, env: Env, num_envs: int, device: torch.device, buffer_size: int, sampling: Any, whole_episodes: bool
    ) -> None:
        least = 4 * num_envs
        require(buffer_size >= least, f"buffer_size: must be at least 4 × num_envs = {least}, got {buffer_size}.")
        self.packing = env if isinstance(env, PacksStates) else None
        self.frames, self.num_envs, self.device = buffer_size // num_envs, num_envs, device
        self.whole_episodes = whole_episodes
        rows = self.frames * num_envs
        self.sampling: Sampling = sampling(rows=rows, device=device)
        self.calls = 0
        self.env_index = torch.arange(num_envs, device=device)
        self.slot = torch.zeros(num_envs, dtype=torch.long, device=device)  # where the next frame goes
        self.written = torch.zeros_like(self.slot)  # frames before `slot`
        self.store: Kept | None = None
        self.final = torch.ones(rows, dtype=torch.bool, device=device)
        self.first = torch.zeros_like(self.final)  # the frame begins an episode
        self.begins = torch.ones(num_envs, dtype=torch.bool, device=device)  # the next frame does

    def add(self, transition: Transition) -> None:
        """Take in one step of every environment."""
        kept, ahead_state = self._kept(transition), self._packed(transition.next_state)
        if self.store is None:
            self.store = self._allocate(kept)
        row = self.slot * self.num_envs + self.env_index
        ahead = (self.slot + 1) % self.frames * self.num_envs + self.env_index

        def write(rows: Tensor, store: Any, values: Any) -> None:
            def put(field: Tensor, value: Tensor) -> Tensor:
                field[rows] = value
                return field

            map_tensors(put, store, values)

        write(row, self.store, kept)
        write(ahead, self.store.state, ahead_state)
        self.final[row] = False
        self.final[ahead] = True
        self.first[row], self.begins = self.begins, transition.terminated
        if isinstance(self.sampling, RanksWindows):
            self.sampling.written(row)
        advance = 1 + transition.terminated.long()
        self.slot = (self.slot + advance) % self.frames
        self.written = (self.written + advance).clamp(max=self.frames - 1)
        self.calls += 1

    def sample(self, batch: int, length: int, rng: torch.Generator) -> Window:
        """`batch` windows of `length` + 1 frames; needs more than `length` steps taken in."""
        assert self.store is not None
        start, weight = self.sampling.draw(self, batch, length, rng)
        slot, env = start // self.num_envs, start % self.num_envs
        offset = torch.arange(length + 1, device=self.device)
        rows = (slot + offset.unsqueeze(1)) % self.frames * self.num_envs + env  # [L + 1, B]
        acted = rows[:length]
        states = map_tensors(lambda field: field[rows.flatten()], self.store.state)
        return Window(
            states=states if self.packing is None else self.packing.unpack(states),
            action=self.store.action[acted],
            static_reward=self.store.static_reward[acted],
            terminated=self.store.terminated[acted],
            valid=~self.final[acted],
            start=start,
            weight=weight,
        )

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        """|TD error| [B] of the windows that began at `start`, for a sampling that ranks them."""
        if isinstance(self.sampling, RanksWindows):
            self.sampling.set_priority(start, td_error)

    def allowed(self, length: int) -> Tensor:
        """Bool [rows]: a window of `length` steps may begin there."""
        row = torch.arange(self.frames * self.num_envs, device=self.device)
        env = row % self.num_envs
        age = (self.slot[env] - row // self.num_envs) % self.frames
        allowed = (age >= length) & (age <= self.written[env]) & ~self.final
        return allowed & self.first if self.whole_episodes else allowed

    def _kept(self, transition: Transition) -> Kept:
        state = self._packed(transition.state)
        return Kept(state, transition.action, transition.static_reward, transition.terminated)

    def bytes_with(self, state: State) -> int:
        """Bytes of all frames when they are full, of states such as this one, [1, …]."""
        return self.frames * self.num_envs * bytes_of(self._packed(state))

    def _packed(self, state: State) -> State:
        return state if self.packing is None else self.packing.pack(state)

    def _allocate(self, like: Kept) -> Kept:
        """Zeros for every field."""
        rows = self.frames * self.num_envs

        def room(field: Tensor) -> Tensor:
            return torch.zeros(rows, *field.shape[1:], dtype=field.dtype, device=self.device)

        return map_tensors(room, like)

    def state_dict(self) -> dict[str, Any]:
        """The stored frames are compressed: an episode's frames differ in little from one to the next."""
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in ("calls", "slot", "written", "final", "first", "begins")
        }
        if isinstance(self.sampling, RanksWindows):
            fields["sampling"] = self.sampling.state_dict()
        if self.store is not None:
            kept = self.store._asdict() | {"state": self.store.state._asdict()}
            fields["store"] = {
                name: {key: compress(field, self.frames) for key, field in tree.items()}
                if isinstance(tree, dict)
                else compress(tree, self.frames)
                for name, tree in kept.items()
            }
        return fields

    def load_state_dict(self, fields: dict[str, Any], like: Transition) -> None:
        """`like` is any transition of the same environment: it gives the types."""
        for name in ("calls", "slot", "written", "final", "first", "begins"):
            setattr(self, name, fields[name])
        if isinstance(self.sampling, RanksWindows):
            self.sampling.load_state_dict(fields["sampling"])
        if "store" in fields:
            example = self._kept(like)
            store, rows = fields["store"], self.frames * self.num_envs

            def expand(packed: bytes, field: Tensor) -> Tensor:
                return decompress(packed, field, rows, self.frames).to(self.device)

            state = {name: expand(store["state"][name], field) for name, field in example.state._asdict().items()}
            rest = {name: expand(store[name], getattr(example, name)) for name in Kept._fields[1:]}
            self.store = Kept(type(example.state)(**state), **rest)


class Uniform:
    """Every window is as likely as another."""

    def __init__(self, *, rows: int, device: torch.device) -> None:
        self.rows, self.device = rows, device

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        one = torch.ones(batch, device=self.device)
        if replay.whole_episodes:
            return by_mass(replay.allowed(length).float(), batch, rng)[0], one
        env = torch.randint(replay.num_envs, (batch,), generator=rng, device=self.device)
        choices = replay.written[env] + 1 - length  # `written` frames and the one ahead
        age = (torch.rand(batch, generator=rng, device=self.device) * choices).long().clamp(min=0) + length
        slot = (replay.slot[env] - age) % replay.frames
        return slot * replay.num_envs + env, one


class Prioritized:
    """Windows by their TD error (Schaul et al. 2016).

    Args:
        priority_exponent: α, above 0. importance_exponent: β of the importance weights, in [0, 1].
    """

    def __init__(
        self, *, rows: int, device: torch.device, priority_exponent: float, importance_exponent: float
    ) -> None:
        require(priority_exponent > 0, f"priority_exponent: must be above 0, got {priority_exponent}.")
        require(0 <= importance_exponent <= 1, f"importance_exponent: must be in [0, 1], got {importance_exponent}.")
        self.priority_exponent, self.importance_exponent = float(priority_exponent), float(importance_exponent)
        self.priority = torch.ones(rows, device=device)

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        allowed = replay.allowed(length)
        start, share = by_mass(torch.where(allowed, self.priority**self.priority_exponent, 0.0), batch, rng)
        weight = (share * allowed.sum()).clamp(min=1e-8) ** -self.importance_exponent
        return start, weight / weight.max()

    def written(self, rows: Tensor) -> None:
        self.priority[rows] = self.priority.max()

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        self.priority[start] = td_error.abs() + 1e-3

    def state_dict(self) -> dict[str, Any]:
        return {"priority": self.priority}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.priority = state["priority"]


def by_mass(mass: Tensor, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices [B] drawn in proportion to `mass`, and their shares of it."""
    cumulative = mass.cumsum(0)
    uniform = 1 - torch.rand(batch, generator=rng, device=mass.device)  # in (0, 1], so that nothing of mass 0 is found
    draw = uniform * cumulative[-1]
    start = torch.searchsorted(cumulative, draw).clamp(max=len(mass) - 1)
    return start, mass[start] / cumulative[-1]


def compress(field: Tensor, frames: int) -> bytes:
    """Rows [frames · N, …] as bytes: environment by environment, each frame as its difference (XOR) from the one
    before, which is mostly zeros, then deflated."""
    rows = _as_bytes(field).reshape(frames, len(field) // frames, -1).swapaxes(0, 1)  # [N, frames, bytes]
    delta = rows.copy()
    delta[:, 1:] ^= rows[:, :-1]
    return zlib.compress(delta.tobytes(), 1)


def decompress(packed: bytes, like: Tensor, rows: int, frames: int) -> Tensor:
    """The inverse of `compress`, on the CPU; `like` [·, …] has the type and shape of a row."""
    delta = np.frombuffer(zlib.decompress(packed), np.uint8)
    delta = delta.reshape(rows // frames, frames, -1)
    plain = np.bitwise_xor.accumulate(delta, axis=1).swapaxes(0, 1)  # [frames, N, bytes]
    flat = torch.from_numpy(np.ascontiguousarray(plain)).reshape(rows, -1)
    if flat.shape[1] == 0:
        return torch.zeros(rows, *like.shape[1:], dtype=like.dtype)
    whole = flat.reshape(-1).view(torch.bool if like.dtype == torch.bool else like.dtype)
    return whole.reshape(rows, *like.shape[1:])


def _as_bytes(field: Tensor) -> np.ndarray:
    """The bytes of each row, uint8 [rows, bytes]."""
    flat = field.detach().cpu().contiguous().reshape(len(field), -1)
    return flat.view(torch.uint8).numpy() if flat.shape[1] else np.zeros((len(field), 0), np.uint8)
