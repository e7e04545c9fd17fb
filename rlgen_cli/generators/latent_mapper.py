"""A network that moves latents before the generator, so that a reward without a gradient can be followed."""

import math

import torch
from torch import Tensor, nn

HIDDEN = 64


class LatentMapper(nn.Module):
    """z ↦ z + f(z), with f = 0 at first and at most 1 in each coordinate, so that latents stay where the generator is
    trained. It learns by the score function: normal noise is added to its output, so that the randomness lies in z,
    where it moves the whole picture, and not in pixels."""

    def __init__(self, latent: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Linear(latent + classes, HIDDEN)
        self.last = nn.Linear(HIDDEN, latent)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """[N, latent]."""
        inputs = z
        if self.classes:
            assert label is not None
            inputs = torch.cat([z, nn.functional.one_hot(label, self.classes).to(z)], 1)
        return z + self.last(self.first(inputs).relu()).tanh()

    def sample(self, z: Tensor, label: Tensor | None, noise_std: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents drawn around the mapped ones, [N, latent], and their log density, [N], whose gradient is that of the
        mean alone."""
        mean = self(z, label)
        drawn = mean + noise_std * torch.randn(z.shape, generator=rng, device=z.device)
        distance = ((drawn.detach() - mean) / noise_std).square().sum(1)
        return drawn, -0.5 * distance - z.shape[1] * (math.log(noise_std) + 0.5 * math.log(2 * math.pi))
