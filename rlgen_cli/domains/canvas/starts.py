"""What canvases hold before the first action."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from rlgen_cli.core.errors import require


class Start(Protocol):
    """Makes the canvases that episodes begin with."""

    exact_palette: bool  # every pixel has a palette colour

    def __call__(self, images: Tensor, palette: Tensor, rng: torch.Generator) -> Tensor:
        """First canvases, uint8 [N, C, H, W].

        Args:
            images: the episodes' data images, uint8 [N, C, H, W].
            palette: uint8 [colours, C]; colour 0 is the background.
            rng: for all randomness.
        """
        ...


class BlankStart:
    """The background everywhere."""

    exact_palette = True

    def __call__(self, images: Tensor, palette: Tensor, rng: torch.Generator) -> Tensor:
        return palette[0].view(1, -1, 1, 1).repeat(len(images), 1, *images.shape[2:])


class RandomStart:
    """Every pixel in any colour of the palette."""

    exact_palette = True

    def __call__(self, images: Tensor, palette: Tensor, rng: torch.Generator) -> Tensor:
        n, _, high, wide = images.shape
        colour = torch.randint(len(palette), (n, high, wide), generator=rng, device=images.device)
        return palette[colour].permute(0, 3, 1, 2).contiguous()


class ImageStart:
    """The data image, with a square of the background somewhere in it.

    Args:
        erase: the square's side, as a fraction of the image's.

    Raises:
        UserError: unless it is in [0, 1].
    """

    exact_palette = False

    def __init__(self, *, erase: float) -> None:
        require(0.0 <= erase <= 1.0, f"erase: must be in [0, 1], got {erase}.")
        self.erase = float(erase)

    def __call__(self, images: Tensor, palette: Tensor, rng: torch.Generator) -> Tensor:
        n, size, device = len(images), images.shape[-1], images.device
        side = round(self.erase * size)
        axis = torch.arange(size, device=device)
        corner = torch.randint(size - side + 1, (n, 2, 1), generator=rng, device=device)
        inside = (axis >= corner) & (axis < corner + side)  # [N, 2, size]
        hole = (inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1)).unsqueeze(1)  # [N, 1, H, W]
        return torch.where(hole, palette[0].view(1, -1, 1, 1), images)


class BlurredStart:
    """The data image reduced to a few pixels a side, and enlarged again.

    Args:
        sides: of what it is reduced to, of which each canvas gets one; 1 is the mean colour.

    Raises:
        UserError: unless they are at least 1.
    """

    exact_palette = False

    def __init__(self, *, sides: list[int]) -> None:
        require(len(sides) > 0 and min(sides) >= 1, f"sides: must be numbers of at least 1, got {list(sides)}.")
        self.sides = list(sides)

    def __call__(self, images: Tensor, palette: Tensor, rng: torch.Generator) -> Tensor:
        whole, size = images.float(), list(images.shape[2:])
        chosen = torch.randint(len(self.sides), (len(images), 1, 1, 1), generator=rng, device=images.device)
        canvas = torch.zeros_like(whole)
        for i, side in enumerate(self.sides):
            blurred = interpolate(adaptive_avg_pool2d(whole, side), size, mode="bilinear")
            canvas = torch.where(chosen == i, blurred, canvas)
        return canvas.round().to(torch.uint8)
