"""What can be said of a picture without a model: its colours, edges, symmetry, and how small a file it makes."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.data.folder import read_picture

MIN_JPEG_SIZE = 16  # pixels a side from which a JPEG's size says something of the picture


def load_reference(path: str, shape: tuple[int, int, int]) -> Tensor:
    """The picture at `path` as float [1, C, H, W] in [0, 1], as large as the environment's."""
    return read_picture(Path(path), shape, "reference").float() / 255


class Colourfulness:
    """Hasler and Süsstrunk 2003, on the scale where pictures are in [0, 1]: about .4 for very colourful ones."""

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec) -> None:
        require(spec.picture().channels == 3, "_target_: colourfulness needs colours; use env.channels=3.")

    def __call__(self, view: View) -> Tensor:
        red, green, blue = view.sample.flatten(2).unbind(1)  # [N, H · W] each
        red_green, yellow_blue = red - green, (red + green) / 2 - blue
        variance = red_green.var(1) + yellow_blue.var(1)
        mean = red_green.mean(1).square() + yellow_blue.mean(1).square()
        return (variance + 1e-8).sqrt() + 0.3 * (mean + 1e-8).sqrt()


class Sharpness:
    """Root mean squared Laplacian: 0 for a flat picture."""

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __call__(self, view: View) -> Tensor:
        x = view.sample
        inner = x[:, :, 1:-1, 1:-1]
        around = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
        return ((4 * inner - around).square().mean((1, 2, 3)) + 1e-8).sqrt()


class Symmetry:
    """Correlation of the picture with its mirror image, in [−1, 1]; 0 for a flat picture.

    Args:
        mirror: left_right or up_down.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, mirror: Literal["left_right", "up_down"]) -> None:
        self.axis = 3 if mirror == "left_right" else 2

    def __call__(self, view: View) -> Tensor:
        x = view.sample - view.sample.mean((1, 2, 3), keepdim=True)
        return (x * x.flip(self.axis)).mean((1, 2, 3)) / (x.square().mean((1, 2, 3)) + 1e-6)


class JpegSize:
    """Kilobytes of the picture as a JPEG beyond those of a blank one, negative for `aim: small`.

    Pillow encodes on the CPU, so this score waits for the device, and cannot be had on the meta device.

    Args:
        aim: small or large. quality: JPEG's, 1 to 95.

    Raises:
        UserError: for pictures below 16 × 16, whose JPEG is nearly all header.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec, aim: Literal["small", "large"], quality: int) -> None:
        planes, high, wide = spec.picture().shape
        require(
            min(high, wide) >= MIN_JPEG_SIZE,
            f"_target_: a JPEG of {high} × {wide} pixels is nearly all header and says nothing of the picture; "
            f"use env.size={MIN_JPEG_SIZE} or more.",
        )
        require(1 <= quality <= 95, f"quality: must be from 1 to 95, got {quality}.")
        self.sign, self.quality = -1.0 if aim == "small" else 1.0, quality
        self.blank = self._bytes(np.zeros((high, wide, planes), dtype=np.uint8))

    def __call__(self, view: View) -> Tensor:
        pixels = (view.sample.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        sizes = torch.tensor([self._bytes(image) - self.blank for image in pixels], dtype=torch.float32)
        return self.sign * sizes.to(view.sample.device) / 1000

    def _bytes(self, pixels: np.ndarray) -> int:
        out = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(out, "JPEG", quality=self.quality)
        return out.tell()


class Palette:
    """Minus the distance between the picture's colours and a reference's, wherever they stand: the root mean squared
    difference of sorted values along fixed directions of colour space (sliced Wasserstein distance).

    Args:
        reference: a picture file.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec, device: torch.device, reference: str) -> None:
        shape = spec.picture().shape
        rng = torch.Generator().manual_seed(0)
        directions = torch.eye(1) if shape[0] == 1 else torch.randn(16, 3, generator=rng)
        self.directions = (directions / directions.norm(dim=1, keepdim=True)).to(device)  # [K, C]
        self.target = self._sorted(load_reference(reference, shape).to(device))

    def __call__(self, view: View) -> Tensor:
        return -((self._sorted(view.sample) - self.target).square().mean((1, 2)) + 1e-12).sqrt()

    def _sorted(self, x: Tensor) -> Tensor:
        """Each direction's values in order, [N, K, H · W]."""
        return (self.directions @ x.flatten(2)).sort(2).values
