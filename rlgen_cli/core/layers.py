"""Layers that policies, rewards and generators share."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require


class ConvNet(nn.Module):
    """Two strided convolutions and a hidden layer: features [N, width] of pictures [N, C, H, W]."""

    def __init__(self, sample: tuple[int, int, int], channels: int, width: int, slope: float) -> None:
        super().__init__()
        require(channels >= 1, f"channels: must be at least 1, got {channels}.")
        require(width >= 1, f"width: must be at least 1, got {width}.")
        planes, high, wide = sample
        high, wide = (high // 2) // 2, (wide // 2) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(planes, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(slope),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(slope),
            nn.Flatten(),
            nn.Linear(2 * channels * high * wide, width),
            nn.LeakyReLU(slope),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the moments of the samples of all ranks, which torch's own has for GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] as x."""
        if not self.training or ranks.count() == 1:
            return super().forward(x)
        moments = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])  # [2, C], in one message
        mean, square = ranks.MeanOfRanks.apply(moments).unbind()
        variance = (square - mean.square()).clamp(min=0)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert not self.affine
        with torch.no_grad():
            count = x.numel() // x.shape[1] * ranks.count()
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)
        return (x - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]


class Blur(nn.Module):
    """A 3 × 3 binomial blur: what is left is shape, not the texture of edges."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (line.view(-1, 1) * line).expand(channels, 1, 3, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.kernel, padding=1, groups=x.shape[1])


class TokenEmbedding(nn.Module):
    """Tokens [N, K, F] as learned vectors [N, K, F · width]; a part that is −1 (nothing there) has one of its own."""

    first: Tensor  # [F], where each part's vectors begin

    def __init__(self, vocabulary: tuple[int, ...], width: int) -> None:
        super().__init__()
        require(width >= 1, f"embed: must be at least 1, got {width}.")
        self.features = len(vocabulary) * width
        starts = [1 + sum(size + 1 for size in vocabulary[:i]) for i in range(len(vocabulary))]
        self.register_buffer("first", torch.tensor(starts), persistent=False)
        self.table = nn.Embedding(sum(size + 1 for size in vocabulary), width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens + self.first).flatten(2)


class FiLMLayers(nn.Module):
    """Linear layers with layer norm, scaled and shifted by the observation's vector (FiLM, Perez et al. 2018).

    Time left, label and noise act on every layer, so that one network can behave as differently as ten labels ask for.
    """

    def __init__(self, inputs: int, vector: int, width: int, layers: int) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        require(1 <= layers <= 100, f"layers: must be from 1 to 100, got {layers}.")
        self.features = width
        sizes = [inputs] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.film = nn.Linear(vector, 2 * width * layers) if vector else None

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Features [N, width] of x [N, inputs] and the observation's vector [N, D]."""
        film = None if self.film is None else self.film(vector).chunk(2 * len(self.hidden), 1)
        for i, (linear, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            x = norm(linear(x))
            x = torch.relu(x if film is None else x * (1 + film[2 * i]) + film[2 * i + 1])
        return x
