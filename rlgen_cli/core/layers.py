"""Small convolutional networks for judging pictures."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Two strided convolutions and a hidden layer: features [N, width] of pictures [N, C, H, W]."""

    def __init__(self, sample: tuple[int, int, int], channels: int, width: int, slope: float) -> None:
        super().__init__()
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


class Blur(nn.Module):
    """A 3 × 3 binomial blur: what is left is shape, not the texture of edges."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", (line.view(-1, 1) * line).expand(channels, 1, 3, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.kernel, padding=1, groups=x.shape[1])
