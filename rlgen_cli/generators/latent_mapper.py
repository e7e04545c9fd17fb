"""What moves latents before the generator, so that a reward without gradient can be followed."""

import math

import torch
from torch import Tensor, nn


class Shaper(nn.Module):
    """z ↦ z + f(z), nothing at first, and by at most 1 in each coordinate, so that latents stay where the generator is
    trained. While a reward is fused in, noise of deviation `spread` is added and f learns by the score function: the
    randomness lies in z, where it moves the whole picture, not in pixels."""

    def __init__(self, latent: int, classes: int, spread: float) -> None:
        super().__init__()
        self.classes, self.spread = classes, spread
        self.first = nn.Linear(latent + classes, 64)
        self.last = nn.Linear(64, latent)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """[N, latent]."""
        seen = z
        if self.classes:
            assert label is not None
            seen = torch.cat([z, nn.functional.one_hot(label, self.classes).to(z)], 1)
        return z + self.last(self.first(seen).relu()).tanh()

    def draw(self, z: Tensor, label: Tensor | None, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A latent around where z is moved to, and its log density, [N]."""
        mean = self(z, label)
        drawn = mean + self.spread * torch.randn(z.shape, generator=rng, device=z.device)
        distance = ((drawn.detach() - mean) / self.spread).square().sum(1)
        return drawn, -0.5 * distance - z.shape[1] * (math.log(self.spread) + 0.5 * math.log(2 * math.pi))
