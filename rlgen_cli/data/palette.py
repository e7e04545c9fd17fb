"""Palettes: few colours that stand for many."""

from typing import Literal

import torch
from torch import Tensor


def grey_palette(colours: int) -> Tensor:
    """Evenly spaced greys from black to white, uint8 [colours, 1]."""
    return torch.linspace(0, 255, colours).round().to(torch.uint8).unsqueeze(1)


def canvas_palette(images: Tensor, colours: int, background: Literal["auto", "black", "white"]) -> Tensor:
    """The colours of a canvas for copies of uint8 images [M, C, H, W], its background first: uint8 [colours, C]. Grey
    images have evenly spaced greys, from black to white or from white to black; others their own colours, after the
    background that is asked for."""
    if images.shape[1] == 1:
        greys = grey_palette(colours)
        paper = border_colour(images).mean() > 127.5 if background == "auto" else background == "white"
        return greys.flip(0) if paper else greys
    palette = image_palette(images, colours)
    if background != "auto":
        palette[0] = 255 if background == "white" else 0
    return palette


def border_colour(images: Tensor) -> Tensor:
    """The median colour of the outermost pixels of uint8 images [M, C, H, W], float [C]."""
    edges = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return torch.cat([edge.transpose(0, 1).flatten(1) for edge in edges], 1).float().median(1).values


def line_width(images: Tensor, background: Tensor, few: int = 1000) -> float:
    """How wide the lines of drawings are, pixels, to a quarter: uint8 images [M, C, H, W] on `background`, uint8 [C].

    A line of width w and length l has ink of area w·l and an outline that pixels' differences measure as 8/π·l, on
    average over directions; so w is 8/π times area over outline. Filled shapes come out as broad lines, of at most a
    quarter of the picture.
    """
    images = images[:few].float()
    distance = (images - background.view(1, -1, 1, 1).float()).abs().mean(1)  # [M, H, W]
    ink = distance / distance.amax((1, 2), keepdim=True).clamp(min=1.0)
    outline = ink.diff(dim=1).abs().sum() + ink.diff(dim=2).abs().sum()
    width = float(8 / torch.pi * ink.sum() / outline.clamp(min=1.0))
    return max(min(round(4 * width) / 4, images.shape[-1] / 4), 1.0)


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
