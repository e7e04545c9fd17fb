"""How like two pictures are, pixel by pixel."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

WINDOW, SPREAD = 11, 1.5  # side and deviation of the window of structural similarity, pixels
STEADY = (0.01**2, 0.03**2)  # C₁ and C₂ for pictures in [0, 1]


def mse(made: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of pictures [N, C, H, W], [N]."""
    return (made - target).square().mean((1, 2, 3))


def psnr(made: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures [N, C, H, W] in [0, 1], dB, [N]; 100 at most."""
    return -10 * mse(made, target).clamp(min=1e-10).log10()


def ssim(made: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of pictures [N, C, H, W] in [0, 1], the mean over pixels and channels,
    [N]. Beyond the border lies what is next to it."""
    axis = torch.arange(WINDOW, dtype=made.dtype, device=made.device) - WINDOW // 2
    line = (-axis.square() / (2 * SPREAD**2)).exp()
    line = line / line.sum()

    def blurred(picture: Tensor) -> Tensor:
        whole = pad(picture, [WINDOW // 2] * 4, mode="replicate").flatten(0, 1).unsqueeze(1)
        made = conv2d(conv2d(whole, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
        return made.view_as(picture)

    one, two = blurred(made), blurred(target)
    variance = blurred(made.square()) - one.square() + blurred(target.square()) - two.square()
    covariance = blurred(made * target) - one * two
    bright = (2 * one * two + STEADY[0]) / (one.square() + two.square() + STEADY[0])
    return (bright * (2 * covariance + STEADY[1]) / (variance + STEADY[1])).mean((1, 2, 3))
