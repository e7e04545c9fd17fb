"""How an agent moves a point: in a generator's latent space, or in that of its channels' gains and biases."""

from typing import Any, Literal

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.types import ActionSpec, Continuous, Discrete

EDGE = 1e-4  # `place` keeps this far from 0 and 1, where the normal quantile is infinite


class Steering:
    """Actions on points float [N, D] of a space of the generator `gan`.

    Args:
        space: latent, or parameters.
        action: step (by ±`stride` along one of the directions, or rest: discrete), move (by up to `stride` along each
            of them: continuous) or place (anywhere at once: z is the normal quantile of the action, so that a uniform
            policy is the latent prior, and the policy's entropy is minus its KL divergence from that).
        basis: axes, random (orthonormal), or what changes most the generator's first layer (principal) or what its
            discriminator sees (learned); `directions` of them, 0 for all.
        limit: no coordinate leaves [−limit, limit].
        start: prior (z from the normal distribution) or mean (z = 0).

    Raises:
        UserError: for a value out of range, or a combination that the generator rules out.
    """

    def __init__(
        self,
        *,
        gan: Any,
        space: Literal["latent", "parameters"],
        action: Literal["step", "move", "place"],
        basis: Literal["axes", "random", "principal", "learned"],
        directions: int,
        stride: float,
        limit: float,
        start: Literal["prior", "mean"],
        device: torch.device,
    ) -> None:
        require(stride > 0, f"stride: must be above 0, got {stride}.")
        require(limit > 0, f"limit: must be above 0, got {limit}.")
        require(
            space == "latent" or gan.coordinates > 0,
            "space: the parameters of this generator are not known; use latent.",
        )
        require(space == "latent" or action != "place", "action: place sets latents; use step or move for parameters.")
        known = ["axes", "random", *(gan.directions if space == "latent" else [])]
        require(basis in known, f"basis: {basis} directions are not known here; use {' or '.join(known)}.")
        self.gan, self.moves_z, self.action, self.device = gan, space == "latent", action, device
        self.stride, self.limit, self.start, self.name = float(stride), float(limit), start, basis
        self.dim = gan.latent if space == "latent" else gan.coordinates
        self.count = directions or self.dim
        within = 1 <= self.count <= self.dim
        require(within, f"directions: must be from 1 to {self.dim}, or 0 for all, got {directions}.")
        rng = torch.Generator().manual_seed(0)
        random = torch.linalg.qr(torch.randn(self.dim, self.dim, generator=rng)).Q
        self.known = {"axes": torch.eye(self.dim, device=device), "random": random.to(device)}
        kinds: dict[str, ActionSpec] = {
            "step": Discrete(2 * self.count + 1), "move": Continuous(self.count), "place": Continuous(self.dim),
        }  # fmt: skip
        self.spec = kinds[action]

    @property
    def basis(self) -> Tensor:
        """Directions, [K, D]; those of a generator are known once it is trained."""
        found = self.known if self.name in self.known else self.gan.directions
        return found[self.name][: self.count]

    def begin(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Fresh latents z [n, latent], and the points to be moved [n, D]: these, or 0 where parameters are."""
        z = torch.randn(n, self.gan.latent, generator=rng, device=self.device).clamp(-self.limit, self.limit)
        z = z if self.start == "prior" else torch.zeros_like(z)
        return z, z if self.moves_z else torch.zeros(n, self.dim, device=self.device)

    def move(self, point: Tensor, action: Tensor) -> Tensor:
        """Where the action leads."""
        if self.action == "place":
            return torch.special.ndtri(action.clamp(EDGE, 1 - EDGE)).clamp(-self.limit, self.limit)
        if self.action == "move":
            return (point + self.stride * (2 * action - 1) @ self.basis).clamp(-self.limit, self.limit)
        basis = self.basis
        way = torch.cat([basis, -basis, torch.zeros_like(basis[:1])])[action]
        return (point + self.stride * way).clamp(-self.limit, self.limit)

    def latent(self, z: Tensor, point: Tensor) -> Tensor:
        """The generator's input: the points, or z where parameters are moved."""
        return point if self.moves_z else z

    def make(self, z: Tensor, point: Tensor, label: Tensor | None) -> Tensor:
        """What the generator makes where the points are; z [N, latent] counts where parameters are moved."""
        return self.gan(point, label, None) if self.moves_z else self.gan(z, label, point)
