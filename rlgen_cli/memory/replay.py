"""Replay of compact states: each frame stored once, the next state found by its index, no host sync.

Every environment writes its own ring of frames. A step writes the frame it acted in and, one slot ahead, the frame it
led to; the next step overwrites that one with the same frame, unless the episode ended: then it stays (no action was
taken in it), and the next episode begins behind it. So frame t + 1 is always what the action in frame t led to.

A frame is a record of bytes (records.py), and a batch of windows one selection of records. Where windows do not all
begin with the same probability, a tree of sums (sum_tree.py) knows where they may; a step changes few of its rows.
"""

import zlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, PacksStates
from rlgen_cli.core.specs import ActionSpec, Discrete, Factored, State, Transition
from rlgen_cli.memory.records import Records
from rlgen_cli.memory.sum_tree import SumTree


class Frame(NamedTuple):
    """What is stored, a row a frame; the next state is the next frame."""

    state: State
    action: Tensor  # of the smallest type that holds every action
    static_reward: Tensor
    terminated: Tensor
    acted: Tensor  # bool; false in an episode's last frame (whose action, reward and end mean nothing), and at first
    first: Tensor  # bool; the frame begins an episode


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

    nbytes: int  # of what it keeps

    def draw(self, replay: "Replay", batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows [B] where windows of `length` steps begin, and importance weights [B]."""
        ...

    def written(self, replay: "Replay", rows: Tensor) -> None:
        """A step was taken in: actions in the frames of these rows [N]."""
        ...


@runtime_checkable
class RanksWindows(Protocol):
    """A sampling that prefers some windows, by their TD errors."""

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        """|TD error| [B] of the windows that began at `start`."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Replay:
    """`buffer_size` frames of all ranks' environments, of which this one holds those of its own `num_envs`; allocated
    at the first `add`.

    Args:
        env: whose states are kept, in their small form where it has one (`PacksStates`).
        sampling: builds what chooses windows, from the number of rows, the device and `whole_episodes`.
        whole_episodes: windows begin where episodes do, for networks that remember.
    """

    def __init__(
        self, *, env: Env, num_envs: int, device: torch.device, buffer_size: int, sampling: Any, whole_episodes: bool
    ) -> None:
        of_all = num_envs * ranks.count()
        least = 4 * of_all
        require(buffer_size >= least, f"buffer_size: must be at least 4 × num_envs = {least}, got {buffer_size}.")
        self.packing = env if isinstance(env, PacksStates) else None
        self.action_type = smallest_type(env.spec.action)
        self.frames, self.num_envs, self.device = buffer_size // of_all, num_envs, device
        self.whole_episodes = whole_episodes
        self.rows = self.frames * num_envs
        self.sampling: Sampling = sampling(rows=self.rows, device=device, whole_episodes=whole_episodes)
        self.calls = 0
        self.env_index = torch.arange(num_envs, device=device)
        self.slot = torch.zeros(num_envs, dtype=torch.long, device=device)  # where the next frame goes
        self.written = torch.zeros_like(self.slot)  # frames before `slot`
        self.begins = torch.ones(num_envs, dtype=torch.bool, device=device)  # the next frame begins an episode
        self.now_and_ahead = -torch.arange(2, device=device)  # ages of the two frames that a step writes
        self.always, self.never = torch.ones_like(self.begins), torch.zeros_like(self.begins)
        self.store: Records | None = None  # of frames; row = slot · num_envs + environment

    def add(self, transition: Transition) -> None:
        """Take in one step of every environment."""
        now = self._frame(transition, transition.state, self.always, self.begins)
        ahead = self._frame(transition, transition.next_state, self.never, self.never)
        if self.store is None:
            self.store = Records(now, self.rows)
        rows = self.rows_of_age(self.now_and_ahead)
        self.store.write(rows, now, ahead)
        self.begins.copy_(transition.terminated)
        advance = 1 + transition.terminated.long()
        self.slot.add_(advance).remainder_(self.frames)
        self.written.add_(advance).clamp_(max=self.frames - 1)
        self.calls += 1
        self.sampling.written(self, rows[: self.num_envs])

    def sample(self, batch: int, length: int, rng: torch.Generator) -> Window:
        """`batch` windows of `length` + 1 frames; needs more than `length` steps taken in. Its tensors may be views of
        common memory, which are not contiguous."""
        assert self.store is not None
        start, weight = self.sampling.draw(self, batch, length, rng)
        slot, env = start // self.num_envs, start % self.num_envs
        offset = torch.arange(length + 1, device=self.device)
        rows = (slot + offset.unsqueeze(1)) % self.frames * self.num_envs + env  # [L + 1, B]
        frames: Frame = self.store.read(rows.flatten())

        def steps(field: Tensor) -> Tensor:
            """Of all frames of a window but the last, [L, B, …]."""
            return field.view(length + 1, batch, *field.shape[1:])[:length]

        return Window(
            states=frames.state if self.packing is None else self.packing.unpack(frames.state),
            action=steps(self._widened(frames.action)),
            static_reward=steps(frames.static_reward),
            terminated=steps(frames.terminated),
            valid=steps(frames.acted),
            start=start,
            weight=weight,
        )

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        """|TD error| [B] of the windows that began at `start`, for a sampling that ranks them."""
        if isinstance(self.sampling, RanksWindows):
            self.sampling.set_priority(start, td_error)

    def rows_of_age(self, age: Tensor) -> Tensor:
        """The rows of every environment's frames that stand `age` [K] slots before its next one, [K · num_envs]."""
        return ((self.slot - age.unsqueeze(1)) % self.frames * self.num_envs + self.env_index).flatten()

    def allowed(self, rows: Tensor, length: int) -> Tensor:
        """Bool [K]: a window of `length` steps may begin in these rows [K]."""
        assert self.store is not None
        slot, env = rows // self.num_envs, rows % self.num_envs
        age = (self.slot[env] - slot) % self.frames
        acted, first = self.store.bools(rows)[:, -2:].unbind(1)  # the last two of `Frame`
        allowed = (age >= length) & (age <= self.written[env]) & acted
        return allowed & first if self.whole_episodes else allowed

    def bytes_with(self, state: State) -> int:
        """Bytes of all frames when they are full, of states such as this one, [1, …]."""
        return self.rows * Records(self._packed(state), rows=0).width + self.sampling.nbytes

    def _frame(self, step: Transition, state: State, acted: Tensor, first: Tensor) -> Frame:
        action = self._narrowed(step.action)
        return Frame(self._packed(state), action, step.static_reward, step.terminated, acted, first)

    def _packed(self, state: State) -> State:
        return state if self.packing is None else self.packing.pack(state)

    def _narrowed(self, action: Tensor) -> Tensor:
        return action if self.action_type is None else action.to(self.action_type)

    def _widened(self, action: Tensor) -> Tensor:
        return action if self.action_type is None else action.long()

    def state_dict(self) -> dict[str, Any]:
        """The stored frames are compressed: an episode's frames differ in little from one to the next."""
        fields: dict[str, Any] = {name: getattr(self, name).clone() for name in RINGS} | {"calls": self.calls}
        if isinstance(self.sampling, RanksWindows):
            fields["sampling"] = self.sampling.state_dict()
        if self.store is not None:
            frames: Frame = self.store.read_all()
            fields["final"], fields["first"] = ~frames.acted, frames.first.contiguous()
            state = {name: compress(field, self.frames) for name, field in frames.state._asdict().items()}
            fields["store"] = {
                "state": state,
                "action": compress(self._widened(frames.action), self.frames),
                "static_reward": compress(frames.static_reward, self.frames),
                "terminated": compress(frames.terminated, self.frames),
            }
        return fields

    def load_state_dict(self, fields: dict[str, Any], like: Transition) -> None:
        """`like` is any transition of the same environment: it gives the types."""
        self.calls = fields["calls"]
        for name in RINGS:
            getattr(self, name).copy_(fields[name])
        if isinstance(self.sampling, RanksWindows):
            self.sampling.load_state_dict(fields["sampling"])
        if "store" in fields:
            store = fields["store"]

            def expand(packed: bytes, field: Tensor) -> Tensor:
                return decompress(packed, field, self.rows, self.frames).to(self.device)

            example = self._packed(like.state)
            state = {name: expand(store["state"][name], field) for name, field in example._asdict().items()}
            frames = Frame(
                state=type(example)(**state),
                action=self._narrowed(expand(store["action"], like.action)),
                static_reward=expand(store["static_reward"], like.static_reward),
                terminated=expand(store["terminated"], like.terminated),
                acted=~fields["final"],
                first=fields["first"],
            )
            self.store = Records(frames, self.rows)
            self.store.write_all(frames)


RINGS = ("slot", "written", "begins")  # where each environment's ring stands


def smallest_type(action: ActionSpec) -> torch.dtype | None:
    """The smallest type of whole numbers that holds every action; None where actions are no whole numbers."""
    if not isinstance(action, Discrete | Factored):
        return None
    largest = max([action.n] if isinstance(action, Discrete) else action.sizes) - 1
    types = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return next(kind for kind in types if largest <= torch.iinfo(kind).max)


class WindowTree:
    """The rows where windows of one length may begin, drawn by their mass.

    A row stands in the tree with its mass where a window may begin, and with minus its mass where none may: in final
    frames, in the newest, which too few have followed, and in what was overwritten or never written.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self.tree = rows, SumTree(rows, device)
        self.tree.mass[:rows] = -1
        self.length = 0  # steps of the windows; 0 until the first are drawn
        self.ages = torch.zeros(0, dtype=torch.long, device=device)  # of frames for which a step may change the answer

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> Tensor:
        """Rows [B] where windows of `length` steps begin; a length other than the last one needs a look at all rows."""
        if length != self.length:
            self.length = length
            # A step adds one frame or two to an environment's: the newest, which may stand where an old one stood, and
            # those that have just become old enough.
            ages = sorted({age % replay.frames for age in (0, 1, length, length + 1)})
            self.ages = torch.tensor(ages, device=replay.device)
            self._judge(replay, torch.arange(replay.rows, device=replay.device))
            self.tree.rebuild()
        return self.tree.draw(batch, rng)

    def written(self, replay: Replay, rows: Tensor, mass: Tensor | float) -> None:
        """A step was taken in: windows that will begin in these rows [N] have this mass."""
        self.tree.mass[rows] = -mass
        if self.length:
            changed = replay.rows_of_age(self.ages)
            self._judge(replay, changed)
            self.tree.refresh(changed)

    @property
    def total(self) -> Tensor:
        """The mass of all windows that may begin, a float32 scalar."""
        return self.tree.top.sum().float()

    def mass(self, rows: Tensor) -> Tensor:
        """Of windows that begin in these rows, whether they may or not, [K]."""
        return self.tree.mass[rows].abs()

    def set_mass(self, rows: Tensor, mass: Tensor) -> None:
        """Of windows that begin in these rows [K]; of several values for one row it is the same that counts, whatever
        their order."""
        signed = torch.where(self.tree.mass[rows] > 0, mass, -mass)
        self.tree.mass.scatter_reduce_(0, rows, signed, "amax", include_self=False)
        self.tree.refresh(rows)

    def all_masses(self) -> Tensor:
        """Of every row, whether a window may begin there or not."""
        return self.tree.mass[: self.rows].abs()

    def set_all_masses(self, mass: Tensor) -> None:
        """The inverse; a look at all rows follows when windows are drawn."""
        self.tree.mass[: self.rows] = -mass
        self.length = 0

    def _judge(self, replay: Replay, rows: Tensor) -> None:
        """See whether windows may begin in these rows."""
        mass = self.mass(rows)
        self.tree.mass[rows] = torch.where(replay.allowed(rows, self.length), mass, -mass)


class Uniform:
    """Every window is as likely as another."""

    def __init__(self, *, rows: int, device: torch.device, whole_episodes: bool) -> None:
        self.device = device
        self.windows = WindowTree(rows, device) if whole_episodes else None
        self.nbytes = self.windows.tree.nbytes if self.windows else 0

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        one = torch.ones(batch, device=self.device)
        if self.windows is not None:
            return self.windows.draw(replay, batch, length, rng), one
        env = torch.randint(replay.num_envs, (batch,), generator=rng, device=self.device)
        choices = replay.written[env] + 1 - length  # `written` frames and the one ahead
        age = (torch.rand(batch, generator=rng, device=self.device) * choices).long().clamp(min=0) + length
        slot = (replay.slot[env] - age) % replay.frames
        return slot * replay.num_envs + env, one

    def written(self, replay: Replay, rows: Tensor) -> None:
        if self.windows is not None:
            self.windows.written(replay, rows, 1.0)


class Prioritized:
    """Windows by their TD error (Schaul et al. 2016); a new one has the largest mass so far, so that it is seen soon.

    Args:
        priority_exponent: α, above 0. importance_exponent: β of the importance weights, in [0, 1].
    """

    def __init__(
        self,
        *,
        rows: int,
        device: torch.device,
        whole_episodes: bool,
        priority_exponent: float,
        importance_exponent: float,
    ) -> None:
        require(priority_exponent > 0, f"priority_exponent: must be above 0, got {priority_exponent}.")
        require(0 <= importance_exponent <= 1, f"importance_exponent: must be in [0, 1], got {importance_exponent}.")
        self.priority_exponent, self.importance_exponent = float(priority_exponent), float(importance_exponent)
        self.windows = WindowTree(rows, device)
        self.largest = torch.ones((), device=device)
        self.nbytes = self.windows.tree.nbytes

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        start = self.windows.draw(replay, batch, length, rng)
        share = self.windows.mass(start) / self.windows.total  # each rank draws as many
        return start, (ranks.least(share.min()) / share) ** self.importance_exponent

    def written(self, replay: Replay, rows: Tensor) -> None:
        self.windows.written(replay, rows, self.largest)

    def set_priority(self, start: Tensor, td_error: Tensor) -> None:
        error = torch.where(td_error.isfinite(), td_error.abs(), 0.0)  # what is no number would spoil every sum
        mass = (error + 1e-3) ** self.priority_exponent
        self.largest.copy_(torch.maximum(self.largest, mass.max()))
        self.windows.set_mass(start, mass)

    def state_dict(self) -> dict[str, Any]:
        return {"mass": self.windows.all_masses(), "largest": self.largest.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # rlgen 0.1.0 kept priorities, whose power is the mass.
        mass = state["mass"] if "mass" in state else state["priority"] ** self.priority_exponent
        self.largest.copy_(state["largest"] if "largest" in state else mass.max())
        self.windows.set_all_masses(mass)


def compress(field: Tensor, frames: int) -> bytes:
    """Rows [frames · N, …] as bytes: environment by environment, each frame as its difference (XOR) from the one
    before, which is mostly zeros, then deflated; looking for nothing but runs of the same byte finds more of them."""
    rows = _as_bytes(field).reshape(frames, len(field) // frames, -1).swapaxes(0, 1)  # [N, frames, bytes]
    delta = rows.copy()
    delta[:, 1:] ^= rows[:, :-1]
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(delta.data) + deflate.flush()


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
    flat = field.detach().cpu()
    flat = flat.unsqueeze(1) if flat.dim() == 1 else flat.flatten(1)
    return flat.view(torch.uint8).numpy() if flat.shape[1] else np.zeros((len(field), 0), np.uint8)
