"""The contracts between components.

An environment holds a batch of unfinished samples as tensors and applies actions to them. A reward scores what an
action did. A policy chooses actions from observations; a planner may use the environment. A learner is whatever
improves from what happens: an agent, a discriminator, a KL price, a generator. What only some components can do is a
protocol of its own, which others ask for by `isinstance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from rlgen_cli.core.specs import (
        Carry,
        Decision,
        EnvSpec,
        Metrics,
        Observation,
        OnTheWay,
        Scored,
        State,
        Stroke,
        Tip,
        Transition,
        View,
    )  # fmt: skip


class Encoding(Protocol):
    """What a sequence's tokens mean, as far as everything outside its domain needs to know."""

    vocabulary: tuple[int, ...]
    kinds: frozenset[str]
    voices: int  # tokens that one step in time takes


class Env(Protocol):
    """Pure functions over a state; nothing that an episode depends on lives outside it."""

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
        """What policies see, as `spec.observation` says."""
        ...

    def view(self, state: State) -> View:
        """What rewards see."""
        ...

    def action_mask(self, state: State) -> Tensor | None:
        """bool [N, A] of allowed actions, or None when all are."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """An environment on whose states gradients can flow (`spec.differentiable` says whether actions have any)."""

    def differentiable_state(self, state: State) -> State:
        """The same states in floats, on which `step` gives the same numbers and lets gradients through."""
        ...


@runtime_checkable
class ChoosesData(Env, Protocol):
    """An environment of pictures whose episodes can begin with given pictures of its data."""

    labels: Tensor  # int64 [M], of the data's pictures

    def start_from(self, index: Tensor, rng: torch.Generator) -> State:
        """Fresh episodes whose data pictures are `index` [N]."""
        ...

    def with_picture(self, picture: Tensor) -> Self:
        """The same environment whose data are these pictures, uint8 [M, C, H, W]."""
        ...


@runtime_checkable
class DrawsStrokes(Protocol):
    """An environment whose marks can be written as vectors."""

    size: int  # of the square canvas, pixels
    background: Tensor  # float [C] in [0, 1]
    tip: Tip  # what its strokes look like

    def strokes(self, state: State, action: Tensor) -> list[Stroke]:
        """`action` as vectors, in the order in which they are drawn; nothing is where the episode is over."""
        ...


@runtime_checkable
class HasExpert(Protocol):
    """An environment that knows where a scripted baseline should go when no action gains at once."""

    def expert_action(self, state: State) -> Tensor | None:
        """Actions [N], or None where this configuration has no expert."""
        ...


@runtime_checkable
class TeachesSequences(Protocol):
    """An environment of sequences, whose steps can be replayed for training by maximum likelihood."""

    def primes(self, n: int, rng: torch.Generator) -> Tensor:
        """What N sequences are heard to follow, int16 [N, F]."""
        ...

    def teacher_states(self, tokens: Tensor, prime: Tensor) -> State:
        """The states in which each token of finished sequences [N, T, F], after `prime` [N, F], was set: [T · N]."""
        ...


@runtime_checkable
class KnowsWays(Protocol):
    """An environment with normal actions that knows which of them lead from one state to another, and to an end."""

    def action_between(self, state: State, following: State) -> Tensor:
        """The actions [N, D] that a step takes from `state` to `following`."""
        ...

    def on_the_way(self, final: State, rng: torch.Generator) -> OnTheWay:
        """For each of N finished states one before it, of any step, and what leads from there to it."""
        ...

    def action_towards(self, state: State, finals: State) -> Tensor:
        """The mean actions [N, D] that lead from each of N states to any of M finished ones, by how likely the state is
        on the way to each."""
        ...


@runtime_checkable
class PacksStates(Protocol):
    """An environment whose states have a smaller exact form for a replay memory."""

    def pack(self, state: State) -> State:
        """The states in their small form, a NamedTuple of tensors [N, …]."""
        ...

    def unpack(self, packed: State) -> State:
        """The inverse of `pack`, to the bit."""
        ...


class Policy(Protocol):
    """Acts on observations alone."""

    def initial_carry(self, n: int) -> Carry:
        """The memory at the start of N episodes; None for a policy that has none."""
        ...

    def act(
        self, observation: Observation, mask: Tensor | None, carry: Carry, *, explore: bool, rng: torch.Generator
    ) -> Decision:
        """What to do in N states; `mask` bool [N, A] of allowed actions, or None."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that acting needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class ReadsStates(Protocol):
    """A policy that can say what its network reads of states, in one go."""

    def observe(self, env: Env, state: State) -> Observation:
        """What `env.observe` says, or what `act` would make of it first."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Acts by trying things out in the environment; it learns nothing and keeps nothing."""

    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        """Actions in N states."""
        ...


class Trainable(Protocol):
    """Something that improves by updates of its own."""

    def update(self, progress: float) -> Metrics:
        """Learn; {} when it is not time to. `progress` in [0, 1] is the share of the training that is over."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class PartlyByRank(Protocol):
    """A trainable that says which keys of its `state_dict` hold what a rank's own environments gave; the others are the
    same on all ranks (core/ranks.py). Of one that does not say it, all is taken for a rank's own."""

    by_rank: frozenset[str]


@runtime_checkable
class Learner(Trainable, Protocol):
    """Something that learns from episodes."""

    def observe(self, step: Transition) -> None:
        """Take in one batched step."""
        ...


class Agent(Trainable, Protocol):
    """A trainable (mostly a learner) with a policy. Its own `state_dict` is what training needs beyond the policy's."""

    policy: Policy


@runtime_checkable
class SelectsEnvs(Protocol):
    """An agent or planner that cannot act in every environment; its class is asked before one is built."""

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """It can act where observations and actions are like this."""
        ...


@runtime_checkable
class StartsGroups(Protocol):
    """An agent that compares episodes which begin in the same state and end together."""

    group_size: int


class Score(Protocol):
    """A number per sample, higher is better. `judges` says of what (EnvSpec.kinds, or any); `needs` names what it reads
    of a view's context and info. A class that is better with some context, though it can do without, names it in
    `prefers`."""

    judges: str
    needs: frozenset[str]

    def __call__(self, view: View) -> Tensor:
        """[N]."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A score that is a sum over steps, so that what the newest step added is cheaper to find than two scores."""

    def gain(self, after: View) -> Tensor:
        """Score after − score before the newest step, [N]."""
        ...


@runtime_checkable
class LearnedScore(Protocol):
    """A score that changes as training goes on, and so is recomputed when a replay batch is drawn."""

    learned: bool


class Reward(Protocol):
    """The weighted sum of named terms."""

    @property
    def has_learned_terms(self) -> bool:
        """Some of it goes stale in a replay memory."""
        ...

    def __call__(
        self, before: View, after: View, done: Tensor, *, known: Mapping[str, Tensor] | None = None, ending: bool = True
    ) -> Scored:
        """The reward of one step of N samples, which finished those that are `done`, bool [N].

        Args:
            known: scores of `before` that the step before gave (`Scored.scores`). ending: some of `done` may be true.
        """
        ...

    def learned_reward(self, frames: View, done: Tensor) -> Tensor:
        """The part of the reward that learned terms give now for L successive steps of N samples, [L · N]: `frames` are
        what was seen before the first and after each, L + 1 times N rows; `done` bool [L · N]."""
        ...


class Generator(Protocol):
    """Makes samples of latents: what the latent environments steer."""

    latent: int  # numbers in z
    classes: int  # labels that it takes; 0 for none
    coordinates: int  # of the space of its channels' gains and biases; 0 where they are not known
    shape: tuple[int, ...]  # of a raw sample
    differentiable: bool

    def __call__(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Raw samples [N, *shape] of z [N, latent]; `shift` [N, coordinates] is added to gains and biases."""
        ...

    def finished(self, raw: Tensor) -> Tensor:
        """What rewards see of raw samples: pictures in [0, 1], or tokens."""
        ...

    def directions(self, name: str) -> Tensor:
        """Directions in the latent space, [K, latent], from the one that matters most; see `direction_names`."""
        ...

    @property
    def direction_names(self) -> tuple[str, ...]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NoisePath(Protocol):
    """A way from samples to noise: x_t = α(t) x_0 + σ(t) ε for times t from 0 (the sample) to 1 (noise), and what a
    network predicts along it."""

    def alpha(self, t: Tensor) -> Tensor:
        """The sample's share, in the shape of t."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """The noise's share, in the shape of t."""
        ...

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What is to be predicted, [N, C, H, W]; t [N, 1, 1, 1]."""
        ...

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The sample x_0 that a prediction at x_t means, [N, C, H, W]; t [N, 1, 1, 1]."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """A generator that makes samples by taking noise away, step by step. Its network is no attribute here, since
    `isinstance` finds no part of a module from Python 3.12 on."""

    path: NoisePath
    shape: tuple[int, int, int]  # C, H, W
    labels: int  # that the network has a place for
    classes: int  # that the model was trained with; 0 for none
    hints: int  # planes that the network sees beside a noisy sample, such as a damaged picture's; 0 for none

    def denoising_network(self) -> Any:
        """A module: (x [N, C + hints, H, W], t [N], label [N, labels] or None) to a prediction and features."""
        ...

    def estimate(self, x: Tensor, t: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        """The samples [N, C, H, W] in [−1, 1], but for errors, that noisy ones x at times t [N] come from; `label`
        float [N, labels], a one among zeros, or None; `hint` [N, hints, H, W], or None where there are none."""
        ...

    def solve(self, x: Tensor, times: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        """What noisy samples x at the first of the times [K + 1] become by the last without further noise."""
        ...


@runtime_checkable
class HasCritic(Protocol):
    """A generator that comes with a discriminator of its own."""

    def realism(self, sample: Tensor, label: Tensor | None) -> Tensor:
        """How real samples look, logits [N]."""
        ...
