"""Pictures of overlapping shapes of all sizes ("dead leaves", Matheron 1968), with shades and textures, drawn here:
they have what photographs have in common (Lee, Mumford and Huang 2001). Baradad et al. (2021) learned from such."""

import functools
import math

import torch
from torch import Tensor

from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Images, Splits, split_by_content, to_channels

SMALLEST, LARGEST = 0.04, 0.6  # radii of shapes, as shares of a whole scene's side
BEYOND = 0.1  # how far outside the scene their middles may lie
NEAREST = 4.0  # a picture shows a part of its scene, which is up to this factor smaller
ELLIPSES = 0.6  # share of shapes that are none but rectangles
CHUNK = 512  # pictures that are drawn at a time


class Leaves:
    """`count` pictures, each of `shapes` ellipses and rectangles, the last on top. They depend on these alone."""

    licence = "drawn by rlgen, free for any use"

    def __init__(self, count: int, shapes: int) -> None:
        require(count >= 1, f"count: must be at least 1, got {count}.")
        require(1 <= shapes <= 1000, f"shapes: must be from 1 to 1000, got {shapes}.")
        self.count, self.shapes = count, shapes

    def load(self, size: int, channels: int) -> Splits:
        require_memory(self.count * channels * size**2, f"count: {self.count} pictures")
        images = to_channels(_drawn(self.count, self.shapes, size), channels)
        return split_by_content(Images(images, torch.zeros(self.count, dtype=torch.long)))


@functools.lru_cache(maxsize=2)  # the jobs of a sweep have the same
def _drawn(count: int, shapes: int, size: int) -> Tensor:
    """All pictures, uint8 [count, 3, size, size]."""
    rng = torch.Generator().manual_seed(0)
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    return torch.cat([(scene(n, shapes, size, rng) * 255).round().to(torch.uint8) for n in sizes])


def scene(n: int, shapes: int, size: int, rng: torch.Generator) -> Tensor:
    """Pictures, float [n, 3, size, size] in [0, 1]."""
    near = NEAREST ** _uniform(n, rng)  # how much larger than the picture the scene is
    corner = (near - 1) * _uniform(n, rng), (near - 1) * _uniform(n, rng)
    axis = (torch.arange(size) + 0.5) / size
    x, y = (axis + corner[0]) / near, (axis.view(-1, 1) + corner[1]) / near  # of pixels, within the scene
    picture = _colour(n, rng) + 0.15 * _uniform(n, rng) * _texture(n, size, rng)
    for _ in range(shapes):
        cover, across = _shape(x, y, near * size, rng)
        shade = 0.25 * torch.randn(n, 1, 1, 1, generator=rng) * across.clamp(-1, 1)
        picture = picture + cover * (_colour(n, rng) + shade - picture)
    return (picture + 0.12 * _uniform(n, rng).square() * _texture(n, size, rng)).clamp(0, 1)


def _shape(x: Tensor, y: Tensor, pixels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a shape covers, and where a pixel lies along it, from −1 to 1; [n, 1, H, W] each.

    Args:
        x, y: of pixels, in sides of the scene. pixels: in such a side, [n, 1, 1, 1].
    """
    n = len(pixels)
    share = _uniform(n, rng)  # the density of radii falls with their third power, so that all scales look alike
    radius = ((1 - share) / SMALLEST**2 + share / LARGEST**2).rsqrt()
    dx, dy = (part - ((1 + 2 * BEYOND) * _uniform(n, rng) - BEYOND) for part in (x, y))
    turn, flat = math.pi * _uniform(n, rng), 0.25 + 0.75 * _uniform(n, rng)
    along = (dx * turn.cos() + dy * turn.sin()) / radius
    beside = (dy * turn.cos() - dx * turn.sin()) / (radius * flat)
    round_, angular = (along.square() + beside.square()).sqrt(), torch.maximum(along.abs(), beside.abs())
    distance = torch.where(_uniform(n, rng) < ELLIPSES, round_, angular)
    out_of_focus = (_uniform(n, rng) < 0.25) * 0.08 * _uniform(n, rng) * pixels
    rim = (0.7 + out_of_focus) / (radius * pixels)  # in radii
    return ((1 - distance) / rim + 0.5).clamp(0, 1), along


def _uniform(n: int, rng: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=rng)


def _colour(n: int, rng: torch.Generator) -> Tensor:
    """More grey than uniform colours are, [n, 3, 1, 1]."""
    return 0.45 * torch.rand(n, 3, 1, 1, generator=rng) + 0.55 * _uniform(n, rng)


def _texture(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Noise whose amplitude falls with a power of the frequency, mean 0 and deviation 1, [n, 1, size, size]."""
    down, across = torch.fft.fftfreq(size).view(-1, 1), torch.fft.rfftfreq(size)
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / size)
    noise = torch.complex(*torch.randn(2, n, 1, *frequency.shape, generator=rng).unbind(0))
    made = torch.fft.irfft2(noise * frequency ** -(1 + _uniform(n, rng)), s=(size, size))
    made = made - made.mean((2, 3), keepdim=True)
    return made / made.std((2, 3), keepdim=True).clamp(min=1e-6)
