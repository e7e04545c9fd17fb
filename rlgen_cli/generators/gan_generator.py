"""What a GAN makes samples with, and judges them with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlgen_cli.generators.directions import draw_latents, most_visible, require_finite
from rlgen_cli.generators.latent_mapper import LatentMapper

PROBES = 128  # latents around which directions are looked for


class GANGenerator(nn.Module):
    """A `core.protocols.Generator` with a discriminator of its own; all of it is part of its state.

    Two bases of the latent space, [latent, latent] with a direction in each row, are found once it is trained:

    - principal: what changes the first layer most, its right singular vectors (Shen and Zhou 2021);
    - learned: what changes most what the discriminator sees (directions.py).

    Args:
        network: the exponential moving average of the generator's weights.
        mapper: moves latents for a reward that is fused in.
        discriminator: the GAN's.
        shape: C, H, W of a raw sample.
    """

    differentiable = True
    direction_names = ("principal", "learned")
    principal: Tensor
    learned: Tensor

    def __init__(
        self, *, network: nn.Module, mapper: LatentMapper, discriminator: nn.Module, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        net: Any = network.requires_grad_(False).eval()
        self.network: Any = net
        self.mapper = mapper
        self.discriminator: Any = discriminator.eval()
        self.latent: int = net.latent
        self.classes: int = net.classes
        self.coordinates: int = net.coordinates
        self.finished: Callable[[Tensor], Tensor] = net.finished
        self.shape: tuple[int, ...] = shape
        for name in self.direction_names:
            self.register_buffer(name, torch.eye(self.latent))
        self.directions_found = False

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Raw samples [N, C, H, W] in [0, 1]; arguments as those of networks.GeneratorNetwork."""
        return self.network(self.mapper(z, label), label, shift)

    def realism(self, sample: Tensor, label: Tensor | None) -> Tensor:
        """How real samples look, the discriminator's logits [N]."""
        return self.discriminator(sample, label if self.classes else None)

    def directions(self, name: str) -> Tensor:
        """[latent, latent], a direction in each row, from the one that changes most."""
        return {"principal": self.principal, "learned": self.learned}[name]

    @torch.no_grad()
    def find_directions(self) -> None:
        """Fill in the bases; those that a saved state brought stay, since an agent may have been trained with them."""
        if self.directions_found:
            return
        require_finite(self.network.first.weight)
        self.principal.copy_(torch.linalg.svd(self.network.first.weight, full_matrices=True).Vh)
        z = draw_latents(PROBES, self.latent, self.principal.device)
        label = torch.arange(PROBES, device=z.device) % max(self.classes, 1)
        self.learned.copy_(most_visible(lambda z: self.discriminator.features(self(z, label)), z))
        self.directions_found = True

    def get_extra_state(self) -> dict[str, bool]:
        """What is no tensor of the state."""
        return {"directions_found": self.directions_found}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.directions_found = state["directions_found"]
