"""The classes that a generator's `config.json` may name, each from z [N, latent] to pictures [N, C, H, W] in [0, 1].

`MLPGenerator` may also be named `Perceptron`, as in earlier versions; and `Shaped`, which these wrote into
`<run>/generator`, is read as a `MappedGenerator`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.generators.latent_mapper import LatentMapper
from rlgen_cli.generators.networks import GeneratorNetwork


class MappedGenerator(nn.Module):
    """What `rlgen pretrain env=latent_gan` leaves: its generator, after what maps latents for a fused reward.

    Args:
        sample: C, H, W.
        latent: numbers in z.
        classes: labels that it is conditioned on; 0 for none.
        width: of the generator's network.
    """

    def __init__(self, *, sample: list[int], latent: int, classes: int, width: int) -> None:
        super().__init__()
        channels, high, wide = sample
        self.generator = GeneratorNetwork(sample=(channels, high, wide), latent=latent, classes=classes, width=width)
        self.mapper = LatentMapper(latent, classes)
        self.latent, self.classes, self.coordinates = latent, classes, self.generator.coordinates

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.generator(self.mapper(z, label), label, shift)


class DCGAN(nn.Module):
    """Transposed convolutions from 1 × 1, each but the first doubling the size (Radford et al. 2016); the layers lie in
    `main`, in the order that the PyTorch example made common, so that such weights load as they are.

    Args:
        size: of the square picture, a power of 2 from 8.
        planes: channels of the picture.
        latent: numbers in z.
        width: channels before the last layer, doubled by each earlier one.
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


class MLPGenerator(nn.Module):
    """Linear layers with leaky ReLUs of slope 0.2 between them and a tanh at the end, in `layers`.

    Args:
        sample: C, H, W.
        latent: numbers in z.
        widths: of the layers between.
    """

    classes, coordinates = 0, 0

    def __init__(self, *, sample: list[int], latent: int, widths: list[int]) -> None:
        super().__init__()
        self.latent, self.sample = latent, sample
        layers: list[nn.Module] = []
        for a, b in pairwise([latent, *widths, math.prod(sample)]):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1], nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return (self.layers(z).view(-1, *self.sample) + 1) / 2


ALLOWED: dict[str, Callable[..., nn.Module]] = {kind.__name__: kind for kind in (MappedGenerator, DCGAN, MLPGenerator)}


def renamed(name: str, arguments: dict, weights: dict[str, Tensor]) -> tuple[str, dict, dict[str, Tensor]]:
    """A file's class, arguments and weights under today's names, where an earlier version wrote them."""
    if name == "Perceptron":
        return "MLPGenerator", arguments, weights
    if name == "Shaped":
        arguments = {key: value for key, value in arguments.items() if key != "spread"}
        weights = {key.replace("shaper.", "mapper.", 1): value for key, value in weights.items()}
        return "MappedGenerator", arguments, weights
    return name, arguments, weights
