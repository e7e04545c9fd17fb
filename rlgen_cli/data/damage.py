"""What is wrong with a picture that is to be reconstructed."""

from typing import Protocol

import torch
from torch import Tensor

from rlgen_cli.core.errors import require


class Damage(Protocol):
    """Damages pictures; a YAML below configs/damage builds one."""

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures uint8 [N, C, H, W] to damaged ones of the same shape, and `known_mask`, bool [N, 1, H, W], true
        where they are as they were."""
        ...


def hint_of(damaged: Tensor, known_mask: Tensor) -> Tensor:
    """What a model sees of damaged pictures [N, C, H, W] and their masks: float [N, C + 1, H, W] in [−1, 1]."""
    return torch.cat([damaged.float() / 127.5 - 1, known_mask.float()], 1)


class CentreHole:
    """A square in the centre erased.

    Args:
        side: of the square, as a fraction of the picture's.
    """

    def __init__(self, *, side: float) -> None:
        self.side = _checked_side(side)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        size = images.shape[2]
        side = _pixels(self.side, size)
        corner = torch.full((len(images), 2, 1), (size - side) // 2, device=images.device)
        return _erase(images, _square(corner, side, size))


class RandomHole:
    """A square anywhere erased.

    Args:
        side: of the square, as a fraction of the picture's.
    """

    def __init__(self, *, side: float) -> None:
        self.side = _checked_side(side)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        size = images.shape[2]
        side = _pixels(self.side, size)
        corner = torch.randint(size - side + 1, (len(images), 2, 1), generator=rng, device=images.device)
        return _erase(images, _square(corner, side, size))


class Scratches:
    """Straight random strokes erased.

    Args:
        count: of strokes.
        reach: how far towards a second random point a stroke goes, from 0 to 1.
        width: of a stroke, pixels.
    """

    def __init__(self, *, count: int, reach: float, width: float) -> None:
        require(1 <= count <= 1000, f"count: must be from 1 to 1000, got {count}.")
        require(0.0 < reach <= 1.0, f"reach: must be above 0 and at most 1, got {reach}.")
        require(width > 0, f"width: must be above 0, got {width}.")
        self.count, self.reach, self.width = count, float(reach), float(width)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        (n, _, size, _), device = images.shape, images.device
        ends = torch.rand(n, self.count, 2, 2, generator=rng, device=device) * (size - 1)
        start = ends[:, :, 0]
        along = (ends[:, :, 1] - start) * self.reach  # [N, S, 2]
        axis = torch.arange(size, device=device).float()
        pixel = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # [H, W, 2], x and y
        offset = pixel - start[:, :, None, None]  # [N, S, H, W, 2]
        along = along[:, :, None, None]
        # The nearest point of the stroke lies this fraction along it.
        fraction = ((offset * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)
        distance = (offset - fraction.unsqueeze(-1) * along).norm(dim=-1)  # [N, S, H, W]
        return _erase(images, (distance <= self.width / 2).any(1))


class GaussianNoise:
    """Normal noise; nothing is known for certain.

    Args:
        std: its standard deviation, 1 being from black to white.
    """

    def __init__(self, *, std: float) -> None:
        require(std > 0, f"std: must be above 0, got {std}.")
        self.std = float(std)

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = 255 * self.std * torch.randn(images.shape, generator=rng, device=images.device)
        damaged = (images.float() + noise).round().clamp(0, 255).to(torch.uint8)
        return damaged, torch.zeros_like(images[:, :1], dtype=torch.bool)


class Watermark:
    """Slanted mid-grey bars laid over the picture, at a random place.

    Args:
        opacity: of the bars, above 0 and at most 1.
        period: from one bar to the next, pixels.
        width: of a bar, pixels.
    """

    def __init__(self, *, opacity: float, period: int, width: int) -> None:
        require(0.0 < opacity <= 1.0, f"opacity: must be above 0 and at most 1, got {opacity}.")
        require(1 <= width < period, f"width: must be from 1 to period - 1 = {period - 1}, got {width}.")
        self.opacity, self.period, self.width = float(opacity), period, width

    def __call__(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        (n, _, size, _), device = images.shape, images.device
        axis = torch.arange(size, device=device)
        shift = torch.randint(self.period, (n, 1, 1), generator=rng, device=device)
        bar = ((axis.view(-1, 1) + axis + shift) % self.period < self.width).unsqueeze(1)  # [N, 1, H, W]
        covered = images.float() + self.opacity * (128 - images.float())
        return torch.where(bar, covered.round().to(torch.uint8), images), ~bar


def _checked_side(side: float) -> float:
    """A side as a fraction of the picture's."""
    require(0.0 < side <= 1.0, f"side: must be above 0 and at most 1, got {side}.")
    return float(side)


def _pixels(side: float, size: int) -> int:
    """The same in pixels, at least one."""
    return max(1, round(side * size))


def _square(corner: Tensor, side: int, size: int) -> Tensor:
    """Bool [N, H, W], true in a square with its corner [N, 2, 1] (row and column) there."""
    axis = torch.arange(size, device=corner.device)
    inside = (axis >= corner) & (axis < corner + side)  # [N, 2, size]
    return inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1)


def _erase(images: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures black in the hole, bool [N, H, W], and what is known of them."""
    return torch.where(hole.unsqueeze(1), 0, images).to(torch.uint8), ~hole.unsqueeze(1)
