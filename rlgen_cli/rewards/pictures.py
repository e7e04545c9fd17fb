"""What can be said of a picture without a model: its colours, edges, symmetry, and how small a file it makes."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rlgen_cli.data.images import pil_to_tensor, resize
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.types import EnvSpec, View

SMALLEST = 16  # pixels a side from which a JPEG's size says something of the picture


def picture_shape(spec: EnvSpec) -> tuple[int, int, int]:
    """C, H, W of the environment's pictures."""
    assert isinstance(spec.sample, tuple)
    return spec.sample


def load_reference(path: str, shape: tuple[int, int, int]) -> Tensor:
    """The picture at `path` as float [1, C, H, W] in [0, 1], as large as the environment's."""
    planes, high, _ = shape
    try:
        with Image.open(Path(path)) as image:
            pixels = pil_to_tensor(image.convert("L" if planes == 1 else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"reference: {path} is no picture that can be read ({error}).") from None
    return resize(pixels.unsqueeze(0), high).float() / 255


class Colourfulness:
    """Hasler and Süsstrunk 2003, on the scale where pictures are in [0, 1]: about .4 for very colourful ones."""

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec) -> None:
        require(picture_shape(spec)[0] == 3, "_target_: colourfulness needs colours; use env.channels=3.")

    def __call__(self, view: View) -> Tensor:
        red, green, blue = view.sample.flatten(2).unbind(1)  # [N, H · W] each
        red_green, yellow_blue = red - green, (red + green) / 2 - blue
        spread = red_green.var(1) + yellow_blue.var(1)
        mean = red_green.mean(1).square() + yellow_blue.mean(1).square()
        return (spread + 1e-8).sqrt() + 0.3 * (mean + 1e-8).sqrt()


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
        self.side = 3 if mirror == "left_right" else 2

    def __call__(self, view: View) -> Tensor:
        x = view.sample - view.sample.mean((1, 2, 3), keepdim=True)
        return (x * x.flip(self.side)).mean((1, 2, 3)) / (x.square().mean((1, 2, 3)) + 1e-6)


class JpegSize:
    """Kilobytes of the picture as a JPEG beyond those of a blank one, negative for `aim: small`.

    Args:
        quality: JPEG's, 1 to 95.

    Raises:
        UserError: for pictures below 16 × 16, whose JPEG is nearly all header.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec, aim: Literal["small", "large"], quality: int) -> None:
        planes, high, wide = picture_shape(spec)
        require(
            min(high, wide) >= SMALLEST,
            f"_target_: a JPEG of {high} × {wide} pixels is nearly all header and says nothing of the picture; "
            f"use env.size={SMALLEST} or more.",
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
        shape = picture_shape(spec)
        rng = torch.Generator().manual_seed(0)
        along = torch.eye(1) if shape[0] == 1 else torch.randn(16, 3, generator=rng)
        self.along = (along / along.norm(dim=1, keepdim=True)).to(device)
        self.wanted = self._sorted(load_reference(reference, shape).to(device))

    def __call__(self, view: View) -> Tensor:
        return -((self._sorted(view.sample) - self.wanted).square().mean((1, 2)) + 1e-12).sqrt()

    def _sorted(self, x: Tensor) -> Tensor:
        """[N, directions, H · W]."""
        return (self.along @ x.flatten(2)).sort(2).values
