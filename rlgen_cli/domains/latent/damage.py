"""What is wrong with a picture that is to be repaired.

A damage takes pictures, uint8 [N, C, H, W], and gives them damaged, with `known`, bool [N, 1, H, W], true where they
are as they were.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

from rlgen_cli.core.errors import require


class Damage(Protocol):
    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]: ...


class Hole:
    """Pixels rubbed out: a square in the centre or anywhere, or random strokes.

    Args:
        side: the square's, or the strokes' reach, as a share of the picture's. strokes: how many.
        width: of strokes, pixels.
    """

    def __init__(self, *, form: Literal["centre", "box", "strokes"], side: float, strokes: int, width: float) -> None:
        require(0.0 < side <= 1.0, f"side: must be above 0 and at most 1, got {side}.")
        require(strokes >= 1, f"strokes: must be at least 1, got {strokes}.")
        require(width > 0, f"width: must be above 0, got {width}.")
        self.form, self.side, self.strokes, self.width = form, float(side), strokes, float(width)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n, _, size, _ = images.shape
        hole = self._strokes(n, size, rng) if self.form == "strokes" else self._square(n, size, rng)
        return torch.where(hole.unsqueeze(1), 0, images).to(torch.uint8), ~hole.unsqueeze(1)

    def _square(self, n: int, size: int, rng: torch.Generator) -> Tensor:
        """Bool [N, H, W]."""
        side = max(1, round(self.side * size))
        corner = torch.randint(size - side + 1, (n, 2, 1), generator=rng, device=rng.device)
        if self.form == "centre":
            corner = torch.full_like(corner, (size - side) // 2)
        axis = torch.arange(size, device=rng.device)
        inside = (axis >= corner) & (axis < corner + side)  # [N, 2, size]
        return inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1)

    def _strokes(self, n: int, size: int, rng: torch.Generator) -> Tensor:
        """Bool [N, H, W]: pixels within half a width of a straight stroke."""
        ends = torch.rand(n, self.strokes, 2, 2, generator=rng, device=rng.device) * (size - 1)
        start = ends[:, :, 0]
        along = (ends[:, :, 1] - start) * self.side  # [N, S, 2]
        axis = torch.arange(size, device=rng.device).float()
        place = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # [H, W, 2], x and y
        offset = place - start[:, :, None, None]  # [N, S, H, W, 2]
        along = along[:, :, None, None]
        share = ((offset * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)
        distance = (offset - share.unsqueeze(-1) * along).norm(dim=-1)
        return (distance <= self.width / 2).any(1)


class Noise:
    """Normal noise of deviation `std` (1 is from black to white); nothing is known for certain."""

    def __init__(self, *, std: float) -> None:
        require(std > 0, f"std: must be above 0, got {std}.")
        self.std = float(std)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = 255 * self.std * torch.randn(images.shape, generator=rng, device=images.device)
        given = (images.float() + noise).round().clamp(0, 255).to(torch.uint8)
        return given, torch.zeros_like(images[:, :1], dtype=torch.bool)


class Watermark:
    """Slanted bars laid over the picture, half transparent, at a random place.

    Args:
        opacity: of the bars, which are mid-grey. period, width: of the bars, pixels.
    """

    def __init__(self, *, opacity: float, period: int, width: int) -> None:
        require(0.0 < opacity <= 1.0, f"opacity: must be above 0 and at most 1, got {opacity}.")
        require(1 <= width < period, f"width: must be from 1 to period - 1 = {period - 1}, got {width}.")
        self.opacity, self.period, self.width = float(opacity), period, width

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n, _, size, _ = images.shape
        axis = torch.arange(size, device=images.device)
        shift = torch.randint(self.period, (n, 1, 1), generator=rng, device=rng.device)
        mark = ((axis.view(-1, 1) + axis + shift) % self.period < self.width).unsqueeze(1)  # [N, 1, H, W]
        over = images.float() + self.opacity * (128 - images.float())
        return torch.where(mark, over.round().to(torch.uint8), images), ~mark
