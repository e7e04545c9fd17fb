"""Generator and discriminator networks of token sequences: convolutions along the time, one token at each step.

A sequence is a picture of one plane, [N, 1, V, T], in which each column has a one where its token is. The generator's
choice of a token is hard, and its gradient that of the softmax (straight-through, Bengio et al. 2013).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.generators.networks import ConditionalBatchNorm, add_spectral_norm, init_weights, run_layers

KERNEL = 5  # steps in time that a convolution sees


def as_pictures(sequences: Sequences) -> Images:
    """Tokens as columns with a one: uint8 [M, 1, V, T], 255 for one.

    Raises:
        UserError: for tokens of several parts.
    """
    sizes = sequences.encoding.vocabulary
    require(len(sizes) == 1, "_target_: makes tokens of one part; use encoding=melody, chorale or tokens.")
    columns = one_hot(sequences.tokens[:, :, 0], sizes[0]).transpose(1, 2).unsqueeze(1)
    labels = torch.zeros(len(columns), dtype=torch.long, device=columns.device)
    return Images((255 * columns).to(torch.uint8), labels)


def pixel_shuffle_1d(x: Tensor) -> Tensor:
    """Half of the channels as time steps between the others, [N, 2 C, 1, T] to [N, C, 1, 2 T]."""
    return x.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).flatten(3)


class SequenceGeneratorNetwork(nn.Module):
    """Latents to sequences.

    Args:
        sample: 1, V, T.
        latent: numbers in z.
        classes: labels that it is conditioned on; 0 for none.
        width: channels on the coarse grid, halved once.
    """

    makes = "sequences"

    def __init__(self, *, sample: tuple[int, int, int], latent: int, classes: int, width: int) -> None:
        super().__init__()
        require(latent >= 1, f"latent: must be at least 1, got {latent}.")
        require(width >= 4, f"width: must be at least 4, got {width}.")
        _, vocabulary, length = sample
        self.grid, doublings = length, 0
        while self.grid > 4 and self.grid % 2 == 0:
            self.grid, doublings = self.grid // 2, doublings + 1
        self.latent, self.classes, self.width, half = latent, classes, width, width // 2
        self.first = nn.Linear(latent, width * self.grid, bias=False)
        self.doubles = [True] * doublings
        self.layers = nn.ModuleList(
            nn.Conv2d(half if i else width, 2 * half, (1, KERNEL), padding=(0, KERNEL // 2), bias=False)
            for i in range(doublings)
        )
        widths = [width] + [half] * doublings
        self.norms = nn.ModuleList(ConditionalBatchNorm(channels, classes) for channels in widths)
        self.sizes = [2 * channels for channels in widths]
        self.last = nn.Conv2d(widths[-1], vocabulary, (1, KERNEL), padding=(0, KERNEL // 2))
        self.coordinates = sum(self.sizes)
        init_weights(self)

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """[N, 1, V, T]; arguments as those of networks.GeneratorNetwork."""
        label = torch.zeros(len(z), dtype=torch.long, device=z.device) if label is None or not self.classes else label
        x = self.first(z).view(len(z), -1, 1, self.grid)
        x = run_layers(x, label, shift, list(self.layers), list(self.norms), self.sizes, self.doubles, pixel_shuffle_1d)
        soft = self.last(x).softmax(1)  # [N, V, 1, T]
        hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
        return (hard + soft - soft.detach()).transpose(1, 2)

    @staticmethod
    def finished(raw: Tensor) -> Tensor:
        """What rewards see of it: tokens, int64 [N, T, 1]."""
        return raw.argmax(2).transpose(1, 2)


class SequenceDiscriminatorNetwork(nn.Module):
    """Sequences, as the generator makes them or as tokens int64 [N, T, 1], to logits [N]. It knows no labels.

    Args:
        sample: 1, V, T.
        classes: must be 0.
        width: channels of the first layer, doubled by the second.
        hidden: width of the layer before the logit.
        spectral_norm: spectral normalisation of each layer.
    """

    def __init__(
        self, *, sample: tuple[int, int, int], classes: int, width: int, hidden: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        require(hidden >= 1, f"hidden: must be at least 1, got {hidden}.")
        require(classes == 0, "conditional: sequences have no labels; use false.")
        _, self.vocabulary, length = sample
        widths = (self.vocabulary, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (1, KERNEL), stride=(1, 2 if i else 1), padding=(0, KERNEL // 2))
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.hidden = nn.Linear(2 * width * (-(-length // 4)), hidden)
        self.out = nn.Linear(hidden, 1)
        init_weights(self)
        if spectral_norm:
            add_spectral_norm([*self.layers, self.hidden, self.out])

    def features(self, x: Tensor) -> Tensor:
        """What the logit is made of, [N, hidden]."""
        if not x.is_floating_point():  # nothing stands where a token is −1, as before the first step
            x = (one_hot(x.clamp(min=0), self.vocabulary) * (x >= 0).unsqueeze(3)).float().permute(0, 2, 3, 1)
        x = x.transpose(1, 2)  # [N, V, 1, T]
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        return leaky_relu(self.hidden(x.flatten(1)), 0.2)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits [N]."""
        return self.out(self.features(x)).squeeze(1)
