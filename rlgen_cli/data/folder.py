"""Any folder of images: nested, palette, RGBA over a background colour, grey or colour, any size."""

import logging
import warnings
from pathlib import Path

import torch
from PIL import Image, ImageColor, UnidentifiedImageError
from torch import Tensor

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.data.images import Images, Splits, pil_to_tensor, split_by_content
from rlgen_cli.data.palette import border_colour, grey_palette, image_palette, quantise

SUFFIXES = frozenset(Image.registered_extensions())
log = logging.getLogger(__name__)


class Folder:
    """Every readable image below `path`, in the order of names; the parent folder's name is the label where images
    lie in two or more folders.

    Transparent pixels show `background` (a colour name or #rrggbb; auto: black). Images are made square by padding with
    the background (auto: the colour of their own borders), then resized. `colours` > 0 quantises all images to one
    palette. Files that look like images and cannot be read are named in a warning and counted; when none can be read,
    that is an error.
    """

    def __init__(self, path: str, background: str, colours: int) -> None:
        self.path = Path(path)
        require(self.path.is_dir(), f"path: there is no folder {self.path}; name a folder of images.")
        require(colours == 0 or 2 <= colours <= 256, f"colours: must be 0 (keep all) or 2 to 256, got {colours}.")
        try:
            self.background = None if background == "auto" else ImageColor.getrgb(background)[:3]
        except ValueError:
            raise UserError(f"background: {background!r} is no colour; give a name, #rrggbb or auto.") from None
        self.colours = colours

    def load(self, size: int, channels: int) -> Splits:
        files = sorted(p for p in self.path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        require(bool(files), f"path: {self.path} holds no image file.")
        images, folders, broken = [], [], []
        for file in files:
            try:
                images.append(self._read(file, size, channels))
                folders.append(file.parent.relative_to(self.path).as_posix())
            except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
                broken.append(f"{file} ({error})")
        if broken:
            log.warning("data: %d of %d images cannot be read: %s", len(broken), len(files), "; ".join(broken))
        require(bool(images), f"path: none of the {len(files)} images in {self.path} can be read: {broken[:1]}.")
        stack = torch.stack(images)
        if self.colours:
            exact = image_palette(stack, self.colours) if channels == 3 else grey_palette(self.colours)
            stack = quantise(stack, exact)
        classes = tuple(sorted(set(folders)))
        labels = torch.tensor([classes.index(name) for name in folders])
        return split_by_content(Images(stack, labels, classes if len(classes) > 1 else ()))

    def _read(self, file: Path, size: int, channels: int) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                rgba = image.convert("RGBA")
        side = max(rgba.size)
        square = Image.new("RGBA", (side, side), (*(self.background or border(rgba)), 255))
        square.alpha_composite(rgba, ((side - rgba.width) // 2, (side - rgba.height) // 2))
        flat = square.convert("RGB" if channels == 3 else "L")
        return pil_to_tensor(
            flat.resize((size, size), Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC)
        )


def border(image: Image.Image) -> tuple[int, ...]:
    """The median colour of an RGBA image's outermost pixels; black where it is transparent anywhere."""
    pixels = pil_to_tensor(image)  # uint8 [4, H, W]
    if int(pixels[3].min()) < 255:
        return (0, 0, 0)
    return tuple(int(value) for value in border_colour(pixels[:3].unsqueeze(0)))
