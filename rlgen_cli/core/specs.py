"""What environments, policies and rewards exchange: named tensors and their specs, and the action spaces.

A spec describes one episode; tensors have a leading batch dimension N beyond it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Encoding

Metrics: TypeAlias = dict[str, Tensor]  # scalars that stay on the device until a log interval
State: TypeAlias = Any  # a NamedTuple of tensors with leading dimension N; each environment has its own
Carry: TypeAlias = Any  # a policy's memory: a NamedTuple of tensors with leading dimension N; None without one
Observation: TypeAlias = dict[str, Tensor]  # what a policy sees of N states, described by an ObservationSpec
Context: TypeAlias = dict[str, Tensor]  # what is fixed for an episode and rewards may look at

INFINITY = float("inf")


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor, without the batch dimension.

    `kind` says how an encoder may read it:

    - `image`: planes [P, H, W], float from 0 to 1 or uint8 from 0 to 255; all images of an observation have the same
      H and W;
    - `patch`: such planes [P, k, k], a close view of another size;
    - `vector`: float numbers [D];
    - `action_gain`: float [A], what each action would gain at once, which is added to logits or Q-values;
    - `tokens`: int64 [K, F], newest last, −1 where nothing stands; `vocabulary` has the F sizes;
    - `label`: int64 [], below `high`;
    - `mask`: bool.
    """

    kind: Literal["image", "patch", "vector", "action_gain", "tokens", "label", "mask"]
    shape: tuple[int, ...]
    low: float = -INFINITY
    high: float = INFINITY
    vocabulary: tuple[int, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor that this describes."""
        return {"tokens": torch.int64, "label": torch.int64, "mask": torch.bool}.get(self.kind, torch.float32)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(torch.Size(self.shape).numel())


def image(planes: int, high: int, wide: int) -> TensorSpec:
    """Planes of numbers from 0 to 1 on the picture's grid."""
    return TensorSpec("image", (planes, high, wide), 0.0, 1.0)


def vector(size: int, low: float = -INFINITY, high: float = INFINITY) -> TensorSpec:
    """`size` numbers."""
    return TensorSpec("vector", (size,), low, high)


ObservationSpec: TypeAlias = Mapping[str, TensorSpec]


def of_kind(spec: ObservationSpec, *kinds: str) -> dict[str, TensorSpec]:
    """The named tensors of some kinds, in the spec's order."""
    return {name: part for name, part in spec.items() if part.kind in kinds}


class View(NamedTuple):
    """What rewards see of N states."""

    sample: Tensor  # float [N, C, H, W] in [0, 1], or tokens, int64 [N, T, F], −1 where nothing stands (yet)
    context: Context  # fixed for the episode: target, label, prime …
    info: dict[str, Tensor]  # what else there is to know of the state: num_marks, num_tokens, latent …


class Decision(NamedTuple):
    """What a policy or planner does in N states."""

    action: Tensor  # [N] int64, [N, F] int64, or float with a continuous part
    carry: Carry = None  # the policy's memory afterwards
    policy_output: Any = None  # what its learner wants kept of the decision: a NamedTuple of tensors [N, …], or None
    observation: Observation | None = None  # what it was made from, as the policy's network reads it, if that is kept


class Transition(NamedTuple):
    """One step of N environments. `reward` [N] is complete as of now; `static_reward` [N] is the part that never goes
    stale (terms without learned parts), so that an off-policy agent recomputes the rest only."""

    state: State
    action: Tensor
    reward: Tensor
    static_reward: Tensor
    next_state: State
    terminated: Tensor  # bool [N]: the sample is finished, nothing to bootstrap from
    carry: Carry = None  # the policy's memory in `state`
    next_carry: Carry = None
    policy_output: Any = None  # as the decision gave it
    observation: Observation | None = None  # as the decision gave it
    next_view: View | None = None  # what rewards saw of `next_state`


class OnTheWay(NamedTuple):
    """States of episodes with given ends, and what leads there from them."""

    state: State  # N of them
    action: Tensor  # float [N, D], the mean of the actions that lead there
    weight: Tensor  # float [N], of a squared error of that, so that no step counts far more than another


class Scored(NamedTuple):
    """A reward and what it is made of."""

    total: Tensor  # [N]
    static: Tensor  # [N]: the weighted sum of the terms without learned parts
    terms: dict[str, Tensor]  # each term unweighted, [N]
    scores: dict[str, Tensor]  # of the samples after the step, [N], but of terms whose rewards sum to the score


@dataclass(frozen=True)
class Discrete:
    """`n` actions; the first planes × rows × columns of them lie on a `grid` (plane-major), if there is one."""

    n: int
    grid: tuple[int, int, int] | None = None

    def sample(self, count: int, rng: torch.Generator, device: torch.device | None = None) -> Tensor:
        """Uniform actions, int64 [count]."""
        return torch.randint(self.n, (count,), generator=rng, device=device or rng.device)

    def __str__(self) -> str:
        return f"{self.n} discrete actions"


@dataclass(frozen=True)
class Continuous:
    """Vectors of `dim` numbers in [0, 1]; `cells` equal parts of them belong to the cells of a grid, row by row."""

    dim: int
    cells: int = 1

    def sample(self, count: int, rng: torch.Generator, device: torch.device | None = None) -> Tensor:
        """Uniform actions, float [count, dim]."""
        return torch.rand(count, self.dim, generator=rng, device=device or rng.device)

    def __str__(self) -> str:
        return f"a continuous action of {self.dim} numbers"


@dataclass(frozen=True)
class Factored:
    """Several decisions at once: vectors of whole numbers, the i-th below sizes[i]."""

    sizes: tuple[int, ...]

    def sample(self, count: int, rng: torch.Generator, device: torch.device | None = None) -> Tensor:
        """Uniform actions, int64 [count, F]."""
        place = device or rng.device
        return torch.stack([torch.randint(n, (count,), generator=rng, device=place) for n in self.sizes], 1)

    def __str__(self) -> str:
        return f"{len(self.sizes)} decisions a step ({' × '.join(map(str, self.sizes))})"


@dataclass(frozen=True)
class Mixed:
    """Whole numbers first, then numbers in [0, 1]; an action is float [N, F + dim]."""

    discrete: Factored
    continuous: Continuous

    def sample(self, count: int, rng: torch.Generator, device: torch.device | None = None) -> Tensor:
        """Uniform actions, float [count, F + dim]."""
        parts = (self.discrete.sample(count, rng, device).float(), self.continuous.sample(count, rng, device))
        return torch.cat(parts, 1)

    def __str__(self) -> str:
        return f"{self.discrete} and {self.continuous.dim} continuous numbers"


@dataclass(frozen=True)
class Normal:
    """Real numbers on planes C, H, W, given as vectors; standard normal ones leave the environment as it would be
    without an agent."""

    shape: tuple[int, int, int]

    @property
    def dim(self) -> int:
        """Numbers in an action."""
        return math.prod(self.shape)

    def sample(self, count: int, rng: torch.Generator, device: torch.device | None = None) -> Tensor:
        """Standard normal actions, float [count, dim]."""
        return torch.randn(count, self.dim, generator=rng, device=device or rng.device)

    def __str__(self) -> str:
        return f"an action of {self.dim} standard normal numbers"


ActionSpec: TypeAlias = Discrete | Continuous | Factored | Mixed | Normal


@dataclass(frozen=True)
class PictureSpec:
    """A sample that is a picture, float [C, H, W] in [0, 1]."""

    channels: int
    high: int
    wide: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.high, self.wide


@dataclass(frozen=True)
class SequenceSpec:
    """A sample of `length` tokens, each of as many parts as `vocabulary` has sizes."""

    length: int
    vocabulary: tuple[int, ...]
    encoding: Encoding  # what tokens mean
    bar: int  # grid steps


@dataclass(frozen=True)
class EnvSpec:
    """Observation, action and sample spaces of one episode, and what rewards may look at."""

    observation: ObservationSpec
    action: ActionSpec
    sample: PictureSpec | SequenceSpec
    max_steps: int
    context: Mapping[str, TensorSpec] = field(default_factory=dict)
    info: Mapping[str, TensorSpec] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()  # of the labels; none without labels
    fixed_length: bool = True  # every episode takes `max_steps`
    differentiable: bool = False  # gradients flow from the sample back to the action (protocols.Differentiable)
    kinds: frozenset[str] = frozenset(["picture"])  # what the sample is: picture, sequence, music, melody, chorale

    @property
    def classes(self) -> int:
        """Number of labels; 0 without labels."""
        return len(self.class_names)

    @property
    def steps_between_ends(self) -> int:
        """After how many steps episodes that began together may end next: those of one length all end then."""
        return self.max_steps if self.fixed_length else 1

    @property
    def readable(self) -> frozenset[str]:
        """The names that a reward term may need."""
        return frozenset([*self.context, *self.info])

    def picture(self) -> PictureSpec:
        """The sample's spec, known to be a picture."""
        assert isinstance(self.sample, PictureSpec)
        return self.sample

    def sequence(self) -> SequenceSpec:
        """The sample's spec, known to be a sequence."""
        assert isinstance(self.sample, SequenceSpec)
        return self.sample


TipKind: TypeAlias = Literal["curve", "line", "ellipse", "triangle"]


class Tip(NamedTuple):
    """What the three points and the width of strokes stand for.

    Attributes:
        kind: curve, the quadratic Bézier with round ends; line, one whose control point is in its middle; ellipse,
            filled, as long and as wide as that line; triangle, filled, its base at the start and its tip where that
            line's round end ends; pixel, the whole pixel where it starts.
        taper: share of its width that a curve or a line loses on the way.
    """

    kind: TipKind | Literal["pixel"] = "curve"
    taper: float = 0.0


class Stroke(NamedTuple):
    """Marks as vectors, for SVG, in pixel coordinates, N rows; `drawn` false is a pen move. What they look like is a
    matter of the `Tip`."""

    points: Tensor  # float [N, 3, 2], x and y of start, control, end
    width: Tensor  # float [N], pixels
    colour: Tensor  # float [N, C]
    opacity: Tensor  # float [N]
    drawn: Tensor  # bool [N]
