"""The classes that a generator's `config.json` may name, each from z [N, latent] to pictures [N, C, H, W] in [0, 1]."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.generators.networks import Generator
from rlgen_cli.generators.latent_mapper import Shaper


class Shaped(nn.Module):
    """What `rlgen pretrain env=latent_gan` leaves: its generator, after what moves latents for a fused reward."""

    def __init__(self, *, sample: list[int], latent: int, classes: int, width: int, spread: float) -> None:
        super().__init__()
        planes, high, wide = sample
        self.generator = Generator(sample=(planes, high, wide), latent=latent, classes=classes, width=width)
        self.shaper = Shaper(latent, classes, spread)
        self.latent, self.classes, self.coordinates = latent, classes, self.generator.coordinates

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.generator(self.shaper(z, label), label, shift)


class DCGAN(nn.Module):
    """Transposed convolutions from 1 × 1, each but the first doubling the size (Radford et al. 2016); the layers lie in
    `main`, in the order that the PyTorch example made common, so that such weights load as they are.

    Args:
        size: of the square picture, a power of 2 from 8. planes: channels of the picture. width: channels before the
            last layer, doubled by each earlier one.
    """

    classes, coordinates = 0, 0

    def __init__(self, *, size: int, planes: int, latent: int, width: int) -> None:
        super().__init__()
        require(size >= 8 and size & (size - 1) == 0, f"size: must be a power of 2 from 8, got {size}.")
        self.latent = latent
        doublings = size.bit_length() - 3  # from 4 × 4
        widths = [width << i for i in reversed(range(doublings))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for a, b in pairwise([*widths, planes]):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return (self.main(z[:, :, None, None]) + 1) / 2


class Perceptron(nn.Module):
    """Linear layers with leaky ReLUs of slope 0.2 between them and a tanh at the end, in `layers`.

    Args:
        sample: C, H, W. latent: numbers in z. widths: of the layers between.
    """

    classes, coordinates = 0, 0

    def __init__(self, *, sample: list[int], latent: int, widths: list[int]) -> None:
        super().__init__()
        self.latent, self.sample = latent, sample
        layers: list[nn.Module] = []
        for a, b in pairwise([latent, *widths, int(torch.tensor(sample).prod())]):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1], nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return (self.layers(z).view(-1, *self.sample) + 1) / 2


ALLOWED: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (Shaped, DCGAN, Perceptron)}
