"""Networks that see a noisy picture and its time, and say what is noise in it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, silu

from rlgen_cli.core.errors import require

FREQUENCIES = 16  # of the time's sines and cosines
FASTEST = 100.0  # radians in a unit of time
GROUPS = 8  # of channels that are normalised together, where there are so many


class Words(nn.Module):
    """Labels as vectors [N, width] of the words of their names, each at its place, so that a name that no picture of
    the training has still means something; 0 at first, and for no label.

    Args:
        words: the words of each class at each place, a one among zeros, float [classes, inputs]. width: of the vectors.
    """

    words: Tensor

    def __init__(self, words: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("words", words, persistent=False)
        # Without biases, so that no words give no vector.
        self.hidden = nn.Linear(words.shape[1], width, bias=False)
        words_of_a_name = float(words.sum(1).mean().clamp(min=1))
        nn.init.normal_(self.hidden.weight, std=words_of_a_name**-0.5)  # so that their sum has a deviation of 1
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, label: Tensor) -> Tensor:
        """Of labels as a one among zeros [N, classes]; a row of zeros is no label."""
        return self.out(silu(self.hidden(label @ self.words)))


def words_of(names: Sequence[str]) -> Tensor:
    """The words of names at their places, float [names, places · words]; a place that a name does not reach is 0."""
    split = [name.split() for name in names]
    known = sorted({word for words in split for word in words})
    found = torch.zeros(len(names), max(map(len, split), default=0), len(known))
    for row, words in zip(found, split, strict=True):
        for place, word in enumerate(words):
            row[place, known.index(word)] = 1
    return found.flatten(1)


class Embedding(nn.Module):
    """Time, and label where one is known, as one vector [N, width]; a label counts nothing at first.

    Args:
        classes: labels that there are, 0 for none. words: what they are known by (see Words), or None for a place of
            each one's own. width: of the vector.
    """

    frequencies: Tensor

    def __init__(self, classes: int, words: Tensor | None, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, math.log10(FASTEST), FREQUENCIES), persistent=False)
        self.hidden = nn.Linear(2 * FREQUENCIES, width)
        self.out = nn.Linear(width, width)
        self.label: nn.Module | None = None
        if words is not None:
            self.label = Words(words, width)
        elif classes:
            self.label = nn.Linear(classes, width, bias=False)
            nn.init.zeros_(self.label.weight)

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        """Of times [N] and labels as a one among zeros [N, classes]; a row of zeros is no label."""
        angle = t.unsqueeze(1) * self.frequencies
        x = silu(self.hidden(torch.cat([angle.sin(), angle.cos()], 1)))
        if self.label is not None and label is not None:
            x = x + self.label(label)
        return silu(self.out(x))


class Block(nn.Module):
    """Two convolutions beside a shortcut, scaled and shifted by the embedding between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(math.gcd(GROUPS, inputs), inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * outputs)
        self.norm_out = nn.GroupNorm(math.gcd(GROUPS, outputs), outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        zero(self.conv_out)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.film(embedded)[:, :, None, None].chunk(2, 1)
        h = self.conv_in(silu(self.norm_in(x)))
        h = self.conv_out(silu(self.norm_out(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class DenoisingUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) of two levels, on the picture's 2 × 2 blocks as channels.

    Args:
        sample: C, H, W of the pictures; H and W are multiples of 4. hints: planes that it sees beside them.
        classes: labels that there are, 0 for none. words: of their names (see Words), or None.
        width: channels at the upper level, twice as many at the lower.

    Attributes:
        features: numbers that the middle has for each picture (`forward`).
    """

    kind = "convolutions"

    def __init__(
        self, *, sample: tuple[int, int, int], hints: int, classes: int, words: Tensor | None, width: int
    ) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        planes, high, wide = sample
        require(high % 4 == 0 and wide % 4 == 0, f"size: must be a multiple of 4 for a U-Net, got {high} × {wide}.")
        embedding, lower = 4 * width, 2 * width
        self.features = lower
        self.embedding = Embedding(classes, words, embedding)
        self.first = nn.Conv2d(4 * (planes + hints), width, 3, padding=1)
        self.down = Block(width, width, embedding)
        self.reduce = nn.Conv2d(width, lower, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(Block(lower, lower, embedding) for _ in range(3))
        self.enlarge = nn.Conv2d(lower, width, 3, padding=1)
        self.up = Block(lower, width, embedding)
        self.norm = nn.GroupNorm(math.gcd(GROUPS, width), width)
        self.last = nn.Conv2d(width, 4 * planes, 3, padding=1)
        zero(self.last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the network predicts [N, C, H, W] of noisy pictures x [N, C + hints, H, W], the hints last, at times
        t [N], label [N, classes] or None, and the middle's features [N, features]."""
        embedded = self.embedding(t, label)
        upper = self.down(self.first(pixel_unshuffle(x, 2)), embedded)
        h = self.reduce(upper)
        for block in self.middle:
            h = block(h, embedded)
        features = h.mean((2, 3))
        h = torch.cat([interpolate(self.enlarge(h), scale_factor=2.0), upper], 1)
        h = self.last(silu(self.norm(self.up(h, embedded))))
        return pixel_shuffle(h, 2), features


class DenoisingMLP(nn.Module):
    """Dense layers on sines and cosines of each number, for samples of a few numbers.

    Args:
        sample: C, H, W. hints: planes that it sees beside them. classes: labels that there are, 0 for none.
        words: of their names (see Words), or None. width: of each of the three layers.
    """

    kind = "mlp"
    octaves: Tensor

    def __init__(
        self, *, sample: tuple[int, int, int], hints: int, classes: int, words: Tensor | None, width: int
    ) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        self.sample, size = sample, math.prod(sample)
        inputs = size + hints * math.prod(sample[1:])
        self.features = width
        self.register_buffer("octaves", math.pi * torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0]), persistent=False)
        self.embedding = Embedding(classes, words, width)
        self.hidden = nn.ModuleList(nn.Linear(n, width) for n in (inputs * 11 + width, width, width))
        self.last = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """As DenoisingUNet's."""
        angle = x.flatten(1).unsqueeze(2) * self.octaves  # [N, D, 5]
        h = torch.cat([x.flatten(1), angle.sin().flatten(1), angle.cos().flatten(1), self.embedding(t, label)], 1)
        for layer in self.hidden:
            h = silu(layer(h))
        return self.last(h).unflatten(1, self.sample), h


def zero(layer: nn.Conv2d) -> None:
    """Let the layer give nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
