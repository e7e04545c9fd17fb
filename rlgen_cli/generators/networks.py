"""Generator and discriminator networks of small pictures.

Both work on a coarse grid: the picture is folded into patches of `fold(size)` pixels a side, whose pixels are channels.
On a CPU this makes an update twice as fast as strided convolutions at full size, and better in the same time.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pixel_shuffle, pixel_unshuffle

from rlgen_cli.core.errors import require
from rlgen_cli.core.layers import BatchNorm2d


def fold(size: int) -> tuple[int, int, int]:
    """Patch side, coarse grid side, and how often the grid is doubled between: size = patch · grid · 2 ** doublings."""
    patch = 4 if size % 4 == 0 and size >= 16 else 2
    require(size % patch == 0, f"size: must be even for a GAN, got {size}.")
    grid, doublings = size // patch, 0
    while grid > 8 and grid % 2 == 0:
        grid, doublings = grid // 2, doublings + 1
    return patch, grid, doublings


def init_weights(net: nn.Module) -> None:
    """Normal first weights of standard deviation 0.02 (Radford et al. 2016)."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.02)


def add_spectral_norm(layers: Iterable[nn.Module]) -> None:
    """Spectral normalisation of each layer (Miyato et al. 2018)."""
    for layer in layers:
        nn.utils.parametrizations.spectral_norm(layer)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain and bias are learned, per class where there are classes, and can be shifted for
    each sample."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.normal = BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding.from_pretrained(torch.ones(max(classes, 1), channels), freeze=False)
        self.bias = nn.Embedding.from_pretrained(torch.zeros(max(classes, 1), channels), freeze=False)

    def forward(self, x: Tensor, label: Tensor, shift: Tensor | None) -> Tensor:
        """x [N, C, H, W]; label int64 [N]; shift [N, 2 C], what is added to gain and bias."""
        gain, bias = self.gain(label), self.bias(label)
        if shift is not None:
            gain_shift, bias_shift = shift.chunk(2, 1)
            gain, bias = gain + gain_shift, bias + bias_shift
        return torch.addcmul(bias[..., None, None], self.normal(x), gain[..., None, None])


def run_layers(
    x: Tensor,
    label: Tensor,
    shift: Tensor | None,
    layers: Sequence[nn.Module],
    norms: Sequence[nn.Module],
    sizes: Sequence[int],
    doubles: Sequence[bool],
    upsample: Callable[[Tensor], Tensor],
) -> Tensor:
    """x through the layers of a generator, each with its normalisation.

    Args:
        x: features [N, C, h, w] on the coarse grid.
        label: int64 [N].
        shift: [N, sum of sizes], what is added to gains and biases.
        layers: the convolutions.
        norms: one for x itself and one after each layer.
        sizes: numbers of the shift that each normalisation takes.
        doubles: which layers are followed by `upsample`, which turns channels into resolution.
    """
    shifts = [None] * len(norms) if shift is None else shift.split(list(sizes), 1)
    x = norms[0](x, label, shifts[0]).relu()
    for layer, norm, double, part in zip(layers, norms[1:], doubles, shifts[1:], strict=True):
        x = layer(x)
        x = norm(upsample(x) if double else x, label, part).relu()
    return x


class GeneratorNetwork(nn.Module):
    """Latents to pictures, through convolutions with normalisation.

    Args:
        sample: C, H, W of a picture.
        latent: numbers in z.
        classes: labels that it is conditioned on; 0 for none.
        width: channels on the coarse grid, halved by each later layer.
    """

    makes = "pictures"

    def __init__(self, *, sample: tuple[int, int, int], latent: int, classes: int, width: int) -> None:
        super().__init__()
        require(latent >= 1, f"latent: must be at least 1, got {latent}.")
        require(width >= 4, f"width: must be at least 4, got {width}.")
        channels, size, _ = sample
        self.patch, self.grid, doublings = fold(size)
        self.latent, self.classes, self.width = latent, classes, width
        self.first = nn.Linear(latent, width * self.grid**2, bias=False)
        widths = [max(width >> i, 4) for i in range(doublings + 2)]
        self.norms = nn.ModuleList(ConditionalBatchNorm(size, classes) for size in widths)
        self.sizes = [2 * size for size in widths]
        # Each layer but the first doubles the grid, where the picture is large enough to ask for it.
        self.doubles = [False] + [True] * doublings
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b * (4 if double else 1), 3, padding=1, bias=False)
            for (a, b), double in zip(pairwise(widths), self.doubles, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], channels * self.patch**2, 3, padding=1)
        self.coordinates = sum(self.sizes)
        init_weights(self)

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Pictures [N, C, H, W] in [0, 1] of z [N, latent].

        Args:
            z: latents [N, latent].
            label: int64 [N], where it is conditioned.
            shift: what is added to the gains and biases of the layers' channels, [N, coordinates]: a generator of its
                own for each sample.
        """
        label = torch.zeros(len(z), dtype=torch.long, device=z.device) if label is None or not self.classes else label
        x = self.first(z).view(len(z), -1, self.grid, self.grid)
        layers, norms = list(self.layers), list(self.norms)
        x = run_layers(x, label, shift, layers, norms, self.sizes, self.doubles, lambda x: pixel_shuffle(x, 2))
        return pixel_shuffle(self.last(x), self.patch).sigmoid()

    @staticmethod
    def finished(raw: Tensor) -> Tensor:
        """What rewards see of it: the pictures themselves."""
        return raw


class DiscriminatorNetwork(nn.Module):
    """Pictures [N, C, H, W] in [0, 1] to logits [N]; with classes, a projection on the label (Miyato and Koyama 2018).

    Args:
        sample: C, H, W of a picture.
        classes: labels that it knows; 0 for none.
        width: channels of the first layer, doubled by the second.
        hidden: width of the layer before the logit; 0 for none.
        spectral_norm: spectral normalisation of each layer.
    """

    def __init__(
        self, *, sample: tuple[int, int, int], classes: int, width: int, hidden: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        require(hidden >= 0, f"hidden: must be at least 1, or 0 for none, got {hidden}.")
        channels, size, _ = sample
        self.patch, grid, doublings = fold(size)
        widths = [channels * self.patch**2, *(width << i for i in range(doublings + 2))]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) if i < 2 else nn.Conv2d(a, b, 4, stride=2, padding=1)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        features = widths[-1] * grid**2
        self.hidden = nn.Linear(features, hidden) if hidden else None
        features = hidden or features
        self.out = nn.Linear(features, 1)
        self.classes = nn.Embedding(classes, features) if classes else None
        init_weights(self)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=features**-0.5)
        if spectral_norm:
            add_spectral_norm([*self.layers, *([self.hidden] if self.hidden is not None else []), self.out])

    def features(self, x: Tensor) -> Tensor:
        """What the logit is made of, [N, features]."""
        x = pixel_unshuffle(2 * x - 1, self.patch)
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        x = x.flatten(1)
        return x if self.hidden is None else leaky_relu(self.hidden(x), 0.2)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits [N]."""
        features = self.features(x)
        logit = self.out(features).squeeze(1)
        if self.classes is None or label is None:
            return logit
        return logit + (features * self.classes(label)).sum(1)
