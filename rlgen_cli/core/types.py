"""The words of the house: specs, states, views, transitions, and the protocols that components keep.

An environment holds a batch of unfinished samples as tensors and applies actions to them; a reward scores what an
action did to a sample; an agent learns which actions make finished samples score high.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

Metrics: TypeAlias = dict[str, Tensor]  # scalars that stay on the device until a log interval
State: TypeAlias = Any  # a NamedTuple of tensors with leading dimension N; each environment has its own
Carry: TypeAlias = Any  # a policy's memory: a NamedTuple of tensors with leading dimension N; None without one
Extras: TypeAlias = Any  # what an agent wants to have kept of a choice: a NamedTuple of tensors [N, …], or None


class Observation(NamedTuple):
    """What networks see of N states."""

    image: Tensor  # float [N, P, H, W], planes in [0, 1]
    patch: Tensor  # float [N, P', k, k], a close view around the pen; k may be 0
    vector: Tensor  # float [N, D]: time left, pen position, noise, label
    preview: Tensor  # float [N, A], what each action would gain at once, or [N, 0] when the environment cannot say
    tokens: Tensor | None = None  # int64 [N, K, F], the newest K of a sequence, newest last; −1 before its beginning


class Context(NamedTuple):
    """What is fixed for an episode and what rewards may look at; a field that an environment lacks is None."""

    target: Tensor | None = None  # float [N, C, H, W] in [0, 1]
    label: Tensor | None = None  # int64 [N]
    prime: Tensor | None = None  # int64 [N, F], the token that a sequence is heard to follow; −1 for none
    given: Tensor | None = None  # float [N, C, H, W] in [0, 1], the damaged picture that is to be repaired
    known: Tensor | None = None  # bool [N, 1, H, W], where `given` is as the truth is
    origin: Tensor | None = None  # float [N, D], a generator's input as the episode began


class View(NamedTuple):
    """What rewards see of N states."""

    sample: Tensor  # float [N, C, H, W] in [0, 1], or tokens, int64 [N, T, F], −1 where nothing stands (yet)
    context: Context
    effort: Tensor  # int64 [N]: marks made, or tokens set, so far
    latent: Tensor | None = None  # float [N, D], a generator's input


class Roll(NamedTuple):
    """What N pieces of music sound like: S grid steps (sixteenths) of V voices, the highest first."""

    pitch: Tensor  # int64 [N, S, V], the MIDI number that sounds; −1 in silence and where nothing stands yet
    onset: Tensor  # bool [N, S, V], a note begins
    velocity: Tensor  # int64 [N, S, V], of the sounding note, 1 to 127


class Choice(NamedTuple):
    """What an agent does in N states."""

    action: Tensor  # [N] int64, [N, F] int64, or float with a continuous part
    carry: Carry = None  # the policy's memory afterwards
    extras: Extras = None


class Transition(NamedTuple):
    """One step of N environments. `reward` [N] is complete as of now; `settled` [N] is the part that never goes
    stale (terms without trained parts), so that a replay agent has to recompute the rest only."""

    state: State
    action: Tensor
    reward: Tensor
    settled: Tensor
    next_state: State
    terminated: Tensor  # bool [N]: the piece is finished, nothing to bootstrap from
    carry: Carry = None  # the policy's memory in `state`
    next_carry: Carry = None
    extras: Extras = None  # as the choice gave them


@dataclass(frozen=True)
class Discrete:
    """`n` actions; the first planes × rows × columns of them lie on a `grid` (plane-major), if there is one."""

    n: int
    grid: tuple[int, int, int] | None = None

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Uniform actions, int64 [count]."""
        return torch.randint(self.n, (count,), generator=rng, device=rng.device)

    def __str__(self) -> str:
        return f"{self.n} discrete actions"


@dataclass(frozen=True)
class Continuous:
    """Vectors of `dim` numbers in [0, 1]."""

    dim: int

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Uniform actions, float [count, dim]."""
        return torch.rand(count, self.dim, generator=rng, device=rng.device)

    def __str__(self) -> str:
        return f"a continuous action of {self.dim} numbers"


@dataclass(frozen=True)
class Factored:
    """Several decisions at once: vectors of whole numbers, the i-th below sizes[i]."""

    sizes: tuple[int, ...]

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Uniform actions, int64 [count, F]."""
        draws = [torch.randint(n, (count,), generator=rng, device=rng.device) for n in self.sizes]
        return torch.stack(draws, 1)

    def __str__(self) -> str:
        return f"{len(self.sizes)} decisions a step ({' × '.join(map(str, self.sizes))})"


@dataclass(frozen=True)
class Mixed:
    """Whole numbers first, then numbers in [0, 1]; an action is float [N, F + dim]."""

    discrete: Factored
    continuous: Continuous

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Uniform actions, float [count, F + dim]."""
        return torch.cat([self.discrete.sample(count, rng).float(), self.continuous.sample(count, rng)], 1)

    def __str__(self) -> str:
        return f"{self.discrete} and {self.continuous.dim} continuous numbers"


ActionSpec: TypeAlias = Discrete | Continuous | Factored | Mixed


@dataclass(frozen=True)
class ObservationSpec:
    """Shapes of one episode's observation."""

    image: tuple[int, int, int]
    patch: tuple[int, int, int]
    vector: int
    preview: int = 0
    pictures: int = 1  # the image's first planes are this many whole samples: the canvas, then the target
    history: int = 0  # tokens that are seen of a sequence
    vocabulary: tuple[int, ...] = ()  # how many values each of a token's F parts has


@dataclass(frozen=True)
class Sequence:
    """A sample of `length` tokens, each of as many parts as `vocabulary` has sizes."""

    length: int
    vocabulary: tuple[int, ...]
    encoding: Any  # what tokens mean (encodings.py)
    bar: int  # grid steps


@dataclass(frozen=True)
class EnvSpec:
    """Observation, action and sample spaces of one episode, and what its context holds."""

    observation: ObservationSpec
    action: ActionSpec
    sample: tuple[int, int, int] | Sequence  # C, H, W of a picture
    max_steps: int
    context: frozenset[str]
    classes: int  # number of labels; 0 without labels
    fixed_length: bool = True  # every episode takes `max_steps`
    differentiable: bool = False  # `soften` and `step` let gradients flow from the sample back to the action
    kinds: frozenset[str] = frozenset(["picture"])  # what the sample is: picture, sequence, music, melody, chorale


class Stroke(NamedTuple):
    """Marks as vectors, for SVG: a quadratic Bézier in pixel coordinates, N rows; `drawn` false is a pen move."""

    points: Tensor  # float [N, 3, 2], x and y of start, control, end
    width: Tensor  # float [N], pixels
    colour: Tensor  # float [N, C]
    opacity: Tensor  # float [N]
    drawn: Tensor  # bool [N]


class Env(Protocol):
    """Pure functions over a state; nothing an episode depends on lives outside it."""

    spec: EnvSpec

    def reset(self, n: int, rng: torch.Generator) -> State:
        """N fresh episodes, all randomness taken from `rng`."""
        ...

    def step(self, state: State, action: Tensor) -> State:
        """The states after `action`; no auto-reset, no host sync; a finished state stays as it is."""
        ...

    def done(self, state: State) -> Tensor:
        """bool [N]: the sample is finished."""
        ...

    def observe(self, state: State) -> Observation:
        """What networks see."""
        ...

    def view(self, state: State) -> View:
        """What rewards see."""
        ...

    def action_mask(self, state: State) -> Tensor | None:
        """bool [N, A] of allowed actions, or None when all are."""
        ...


class Reward(Protocol):
    """The weighted sum of named terms (rewards/reward.py)."""

    def __call__(self, before: View, after: View, done: Tensor) -> "Scored": ...

    def fresh(self, before: View, after: View, done: Tensor) -> Tensor | None:
        """The part of the reward that trained terms give now, [N]; None when no term is trained."""
        ...


class Scored(NamedTuple):
    """A reward and what it is made of."""

    total: Tensor  # [N]
    settled: Tensor  # [N]: the weighted sum of the terms without trained parts
    terms: dict[str, Tensor]  # each term unweighted, [N]


class Agent(Protocol):
    """Owns its memory, networks and optimizers."""

    group: int  # episodes that begin in the same state and end together, for comparison; 1 for none

    def carry(self, n: int) -> Carry:
        """The policy's memory at the start of N episodes; None for a policy that has none."""
        ...

    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        """What to do in N states of `env` (on training or held-out data)."""
        ...

    def observe(self, transition: Transition) -> None:
        """Take in one batched step."""
        ...

    def update(self, progress: float) -> Metrics:
        """Learn; {} until ready. `progress` in [0, 1] is the share of the training that is over."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
