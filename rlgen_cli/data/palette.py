"""Palettes: few colours that stand for many."""

import torch
from torch import Tensor


def grey_palette(colours: int) -> Tensor:
    """Evenly spaced greys from black to white, uint8 [colours, 1]."""
    return torch.linspace(0, 255, colours).round().to(torch.uint8).unsqueeze(1)


def image_palette(images: Tensor, colours: int, rounds: int = 20, pixels: int = 20_000) -> Tensor:
    """Uint8 [colours, C]: k-means over a fixed sample of the pixels of uint8 images [M, C, H, W].

    The first centre is the commonest colour (the background stays exact); the others start far apart
    (farthest point), so the result depends on the images alone and on no seed.
    """
    rng = torch.Generator().manual_seed(0)
    flat = images.permute(0, 2, 3, 1).reshape(-1, images.shape[1]).cpu()  # [P, C]
    flat = flat[torch.randint(flat.shape[0], (pixels,), generator=rng)]
    unique, counts = flat.unique(dim=0, return_counts=True)
    points = flat.float()
    centres = unique[counts.argmax()].float().unsqueeze(0)
    for _ in range(colours - 1):
        distance = torch.cdist(points, centres).amin(1)
        centres = torch.cat([centres, points[distance.argmax()].unsqueeze(0)])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=colours).unsqueeze(1)
        moved = torch.where(count > 0, total / count.clamp(min=1), centres)
        centres = torch.cat([centres[:1], moved[1:]])
    return centres.round().to(torch.uint8)


def quantise(images: Tensor, palette: Tensor) -> Tensor:
    """Each pixel of uint8 images [M, C, H, W] replaced by its nearest palette colour."""
    parts = []
    for chunk in images.split(256):
        pixels = chunk.permute(0, 2, 3, 1).float()  # [m, H, W, C]
        nearest = torch.cdist(pixels.flatten(0, 2), palette.to(pixels)).argmin(1)
        parts.append(palette.to(chunk.device)[nearest].view(pixels.shape).permute(0, 3, 1, 2))
    return torch.cat(parts).contiguous()
