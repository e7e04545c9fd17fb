"""How an agent moves a point: in a generator's latent space, or in the space of its channels' gains and biases."""

from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Generator
from rlgen_cli.core.specs import ActionSpec, Continuous, Discrete

EDGE = 1e-4  # SetLatent keeps this far from 0 and 1, where the normal quantile is infinite
Basis: TypeAlias = Literal["auto", "axes", "random", "principal", "learned"]


class Space(Protocol):
    """Where points [N, dim] lie, and what the generator makes of them; z [N, latent] is where the episode began."""

    name: str  # of the point in the observation
    dim: int

    def start(self, z: Tensor) -> Tensor:
        """The points of fresh episodes, [N, dim]."""
        ...

    def latent(self, z: Tensor, point: Tensor) -> Tensor:
        """The generator's input, [N, latent]."""
        ...

    def make(self, z: Tensor, point: Tensor, label: Tensor | None) -> Tensor:
        """Raw samples [N, …]."""
        ...


class LatentSpace:
    """Points are the generator's latents."""

    name = "latent"

    def __init__(self, generator: Generator) -> None:
        self.generator, self.dim = generator, generator.latent

    def start(self, z: Tensor) -> Tensor:
        return z

    def latent(self, z: Tensor, point: Tensor) -> Tensor:
        return point

    def make(self, z: Tensor, point: Tensor, label: Tensor | None) -> Tensor:
        return self.generator(point, label, None)


class ParameterSpace:
    """Points are what is added to the gains and biases of the generator's channels: a generator of its own for each
    sample, all in one pass. z stays where it began."""

    name = "parameters"

    def __init__(self, generator: Generator) -> None:
        require(generator.coordinates > 0, "space: the parameters of this generator are not known; use latent.")
        self.generator, self.dim = generator, generator.coordinates

    def start(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), self.dim)

    def latent(self, z: Tensor, point: Tensor) -> Tensor:
        return z

    def make(self, z: Tensor, point: Tensor, label: Tensor | None) -> Tensor:
        return self.generator(z, label, point)


def space_of(name: Literal["latent", "parameters"], generator: Generator) -> Space:
    """The space that a config names."""
    return LatentSpace(generator) if name == "latent" else ParameterSpace(generator)


class Directions:
    """Orthonormal directions in a space.

    Args:
        basis: axes; random; principal (what changes the generator's first layer most) or learned (what its
            discriminator sees most) for latents of a generator that knows them; auto: learned for these, else random.
        count: how many of them, or None for all.
        space: where they lie.
        generator: whose latents these are, perhaps.
        device: where they are needed.
    """

    def __init__(
        self, basis: Basis, count: int | None, space: Space, generator: Generator, device: torch.device
    ) -> None:
        known = generator.direction_names if isinstance(space, LatentSpace) else ()
        names = ["axes", "random", *known]
        if basis == "auto":
            basis = "learned" if "learned" in known else "random"
        require(basis in names, f"basis: {basis} directions are not known here; use auto or {' or '.join(names)}.")
        self.count = space.dim if count is None else count
        within = 1 <= self.count <= space.dim
        require(within, f"directions: must be from 1 to {space.dim}, or null for all, got {count}.")
        self.name, self.generator = basis, generator
        rng = torch.Generator().manual_seed(0)
        random = torch.linalg.qr(torch.randn(space.dim, space.dim, generator=rng)).Q
        self.fixed = {"axes": torch.eye(space.dim).to(device), "random": random.to(device)}

    @property
    def matrix(self) -> Tensor:
        """[K, D], a direction in each row; those of a generator are known once it is trained."""
        rows = self.fixed[self.name] if self.name in self.fixed else self.generator.directions(self.name)
        return rows[: self.count]


class Steering(Protocol):
    """What an action does to points; a YAML below configs/steering builds one."""

    space: Space
    action: ActionSpec
    limit: float  # no coordinate leaves [−limit, limit]

    def move(self, point: Tensor, action: Tensor, step: Tensor) -> Tensor:
        """Where the actions [N, …] lead from the points [N, D], after `step` [N] earlier ones."""
        ...


class DiscreteStep:
    """A step by ±`stride` along one of the directions, or none: 2 K + 1 actions.

    Args:
        generator: what is steered. device: where its latents lie.
        space: latent, or parameters.
        basis, directions: see Directions.
        stride: length of a step.
        limit: no coordinate leaves [−limit, limit].

    Raises:
        UserError: for a value out of range, or directions that the generator does not know.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        device: torch.device,
        space: Literal["latent", "parameters"],
        basis: Basis,
        directions: int | None,
        stride: float,
        limit: float,
    ) -> None:
        _check_range(stride=stride, limit=limit)
        self.space, self.stride, self.limit = space_of(space, generator), float(stride), float(limit)
        self.directions = Directions(basis, directions, self.space, generator, device)
        self.action = Discrete(2 * self.directions.count + 1)

    def move(self, point: Tensor, action: Tensor, step: Tensor) -> Tensor:
        basis = self.directions.matrix
        way = torch.cat([basis, -basis, torch.zeros_like(basis[:1])])[action]  # [N, D]
        return (point + self.stride * way).clamp(-self.limit, self.limit)


class ContinuousStep:
    """A step by up to ±`stride` along each of the directions at once.

    Args:
        generator: what is steered. device: where its latents lie.
        space: latent, or parameters.
        basis, directions: see Directions.
        stride: the longest step along one direction.
        limit: no coordinate leaves [−limit, limit].

    Raises:
        UserError: for a value out of range, or directions that the generator does not know.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        device: torch.device,
        space: Literal["latent", "parameters"],
        basis: Basis,
        directions: int | None,
        stride: float,
        limit: float,
    ) -> None:
        _check_range(stride=stride, limit=limit)
        self.space, self.stride, self.limit = space_of(space, generator), float(stride), float(limit)
        self.directions = Directions(basis, directions, self.space, generator, device)
        self.action = Continuous(self.directions.count)

    def move(self, point: Tensor, action: Tensor, step: Tensor) -> Tensor:
        way = (2 * action - 1) @ self.directions.matrix  # [N, D]
        return (point + self.stride * way).clamp(-self.limit, self.limit)


class SetCoordinate:
    """One coordinate a step, along one direction after the other: step t sets it along direction t mod K to one of
    `levels` values, the normal quantiles of equal shares, so that uniform actions make about the latent prior.

    Args:
        generator: what is steered. device: where its latents lie.
        space: latent, or parameters.
        basis, directions: see Directions.
        levels: values to choose from.
        limit: no coordinate leaves [−limit, limit].

    Raises:
        UserError: for a value out of range, or directions that the generator does not know.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        device: torch.device,
        space: Literal["latent", "parameters"],
        basis: Basis,
        directions: int | None,
        levels: int,
        limit: float,
    ) -> None:
        _check_range(limit=limit)
        require(2 <= levels <= 1000, f"levels: must be from 2 to 1000, got {levels}.")
        self.space, self.limit = space_of(space, generator), float(limit)
        self.directions = Directions(basis, directions, self.space, generator, device)
        self.values = torch.special.ndtri((torch.arange(levels, device=device) + 0.5) / levels)  # [levels]
        self.action = Discrete(levels)

    def move(self, point: Tensor, action: Tensor, step: Tensor) -> Tensor:
        direction = self.directions.matrix[step.long() % self.directions.count]  # [N, D]
        change = self.values[action] - (point * direction).sum(1)  # [N]
        return (point + change.unsqueeze(1) * direction).clamp(-self.limit, self.limit)


class SetLatent:
    """Sets z at once: z is the normal quantile of the action, so that a uniform policy is the latent prior, and the
    policy's entropy is minus its KL divergence from that.

    Args:
        generator: what is steered.
        limit: no coordinate leaves [−limit, limit].

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, *, generator: Generator, limit: float) -> None:
        _check_range(limit=limit)
        self.space, self.limit = LatentSpace(generator), float(limit)
        self.action = Continuous(generator.latent)

    def move(self, point: Tensor, action: Tensor, step: Tensor) -> Tensor:
        return torch.special.ndtri(action.clamp(EDGE, 1 - EDGE)).clamp(-self.limit, self.limit)


def start_latents(
    n: int,
    latent: int,
    start: Literal["prior", "mean"],
    limit: float,
    rng: torch.Generator,
    device: torch.device,
) -> Tensor:
    """z [n, latent] where episodes begin: drawn from the prior within ±limit, or its mean 0. Either takes the same
    numbers from `rng`."""
    z = torch.randn(n, latent, generator=rng, device=device).clamp(-limit, limit)
    return z if start == "prior" else torch.zeros_like(z)


def _check_range(**values: float) -> None:
    for key, value in values.items():
        require(value > 0, f"{key}: must be above 0, got {value}.")
