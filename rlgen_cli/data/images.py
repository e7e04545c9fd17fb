"""What every image dataset comes to: uint8 images, labels, and splits fixed by content."""

import hashlib
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

RESIZED = 1 << 24  # numbers that are resized at a time, which bounds the memory for them as floats


class Images(NamedTuple):
    """One split. Images uint8 [M, C, H, W]; labels int64 [M], all zero where `classes` is empty."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.images.to(device), self.labels.to(device), self.classes)

    def __len__(self) -> int:
        raise TypeError("use images.shape[0]: a NamedTuple's length counts its fields")


class Splits(NamedTuple):
    """Train, validation and test data, Images or Sequences; nothing stands in two of them."""

    train: Any
    valid: Any
    test: Any

    def to(self, device: torch.device | str) -> "Splits":
        return Splits(*(split.to(device) for split in self))


class Dataset(Protocol):
    """A YAML of the data group binds to one of these."""

    def load(self, size: int, channels: int) -> Splits:
        """All images at `size` × `size` with `channels` 1 or 3."""
        ...


def digest(images: Tensor) -> str:
    """SHA-256 over the pixels, in order: names a cache for what was computed from them. The meta device has none."""
    if images.device.type == "meta":
        return f"meta {tuple(images.shape)}"
    return hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()


def content_share(rows: Tensor) -> np.ndarray:
    """A number in [0, 1) per image that depends on its pixels only: equal images land in the same split."""
    flat = rows.cpu().numpy().reshape(rows.shape[0], -1)
    hashes = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in flat]
    return np.frombuffer(b"".join(hashes), dtype="<u4") / 2**32


def split_by_content(data: Images, valid: float = 0.05, test: float = 0.1) -> Splits:
    """Train, validation and test by a hash of each image's pixels: no order, no seed, no leak of duplicates.

    A split that the hash leaves empty (a handful of images) borrows the training images, so that every split
    can be drawn from.
    """
    share = torch.from_numpy(content_share(data.images))
    parts = (share >= valid + test, share < valid, (share >= valid) & (share < valid + test))
    if not bool(parts[0].any()):
        parts = (torch.ones_like(parts[0]), parts[1], parts[2])

    def part(mask: Tensor) -> Images:
        mask = mask if bool(mask.any()) else parts[0]
        return Images(data.images[mask], data.labels[mask], data.classes)

    return Splits(*(part(mask) for mask in parts))


def resize(images: Tensor, size: int) -> Tensor:
    """Uint8 [M, C, H, W] to `size` × `size`, bilinear with anti-aliasing; unchanged when it fits already."""
    if images.shape[-2:] == (size, size):
        return images
    few = max(1, RESIZED // max(images[0].numel(), images.shape[1] * size**2)) if len(images) else 1
    chunks = []
    for chunk in images.split(few):
        resized = F.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
        chunks.append(resized.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(chunks)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Uint8 [M, 1 or 3, H, W] to `channels`: luma of Rec. 601 for grey, three equal planes for RGB."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images.float() * luma).sum(1, keepdim=True).round().to(torch.uint8)


def pil_to_tensor(image: Image.Image) -> Tensor:
    """An L or RGB image as uint8 [C, H, W]."""
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1).contiguous()


def tensor_to_pil(picture: Tensor) -> Image.Image:
    """A uint8 picture [3, H, W], or [4, H, W] with a transparent part, as an image."""
    return Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy()))
