"""Any folder of images: nested, palette, RGBA over a background colour, grey or colour, any size."""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.files import MIB, content_of, files_below
from rlgen_cli.data.images import Images, Splits, pil_to_tensor, split_by_content
from rlgen_cli.data.palette import grey_palette, image_palette, quantise

# What Pillow decodes itself, into as much memory as the header says. Of its other formats some start a program (EPS),
# some unpack without a bound (FITS), some are decoded pixel by pixel in Python (QOI, DDS), and most are rare.
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO"}
FORMATS |= {"PCX", "PNG", "PPM", "PSD", "SGI", "TGA", "TIFF", "WEBP", "XBM"}
SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
MEGAPIXELS = 64  # of an image, at most
LONGEST_SIDE = 65_535  # pixels
LARGEST_FILE = 256 * MIB
SCANS = 100  # of a progressive JPEG, at most: each goes over all pixels again, and needs few bytes
log = logging.getLogger(__name__)


class Folder:
    """Every readable image below `path`, in the order of names; the parent folder's name is the label where images
    lie in two or more folders.

    Transparent pixels show `background` (a colour name or #rrggbb; auto: black). Images are turned as their EXIF data
    says, made square by padding with the background (auto: the colour of their own borders), and resized; of an
    animation the first picture is taken. `colours` > 0 quantises all images to one palette. Files that look like images
    and cannot be read (or are larger than MEGAPIXELS, LONGEST_SIDE or LARGEST_FILE) are named in a warning and counted;
    when none can be read, that is an error.
    """

    def __init__(self, path: str, background: str, colours: int) -> None:
        self.path = Path(path)
        require(self.path.is_dir(), f"path: there is no folder {self.path}; name a folder of images.")
        require(colours == 0 or 2 <= colours <= 256, f"colours: must be 0 (keep all) or 2 to 256, got {colours}.")
        self.background = None
        if background != "auto":
            self.background = colour_of("background", background, "a name, #rrggbb or auto")
        self.colours = colours

    def load(self, size: int, channels: int) -> Splits:
        files = files_below(self.path, SUFFIXES)
        require(bool(files), f"data.path: {self.path} holds no image file.")
        images, folders, broken = [], [], []
        for file in files:
            try:
                images.append(square_picture(file, size, channels, self.background))
                folders.append(file.parent.relative_to(self.path).as_posix())
            except Exception as error:  # Pillow's decoders raise whatever they stumble over: there is no complete list
                broken.append(f"{file} ({reason_unread(error)})")
        if broken:
            log.warning("data: %d of %d images cannot be read: %s", len(broken), len(files), "; ".join(broken))
        require(bool(images), f"data.path: none of the {len(files)} images in {self.path} can be read: {broken[:1]}.")
        stack = torch.stack(images)
        if self.colours:
            exact = image_palette(stack, self.colours) if channels == 3 else grey_palette(self.colours)
            stack = quantise(stack, exact)
        classes = tuple(sorted(set(folders)))
        labels = torch.tensor([classes.index(name) for name in folders])
        return split_by_content(Images(stack, labels, classes if len(classes) > 1 else ()))


def read_picture(file: Path, shape: tuple[int, int, int], key: str) -> Tensor:
    """A picture of one's own as uint8 [1, C, H, W], square, in the middle of the colour of its borders.

    Args:
        shape: of the picture that is wanted, [C, H, W]. key: begins the error.

    Raises:
        UserError: for a file that is none.
    """
    try:
        return square_picture(file, shape[1], shape[0], None).unsqueeze(0)
    except Exception as error:
        raise UserError(f"{key}: {file} is no picture that can be read ({reason_unread(error)}).") from None


def square_picture(file: Path, size: int, channels: int, background: tuple[int, ...] | None) -> Tensor:
    """The picture in a file, square, uint8 [C, size, size], beside `background` (None: the colour of its borders);
    raises whatever `decoded` raises."""
    rgba = decoded(content_of(file, LARGEST_FILE))
    mode = "RGB" if channels == 3 else "L"
    background = background or border(rgba)
    beside = Image.new("RGBA", (1, 1), (*background, 255)).convert(mode).getpixel((0, 0))
    return pil_to_tensor(squared(flat(rgba, background).convert(mode), size, beside))


def read_whole(file: Path, background: tuple[int, ...], key: str) -> Image.Image:
    """A picture of one's own as it is, RGB, upright, over a background where it is transparent.

    Raises:
        UserError: for a file that is none; `key` begins the error.
    """
    try:
        rgba = decoded(content_of(file, LARGEST_FILE))
    except Exception as error:
        raise UserError(f"{key}: {file} is no picture that can be read ({reason_unread(error)}).") from None
    return flat(rgba, background).convert("RGB")


def flat(rgba: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """A picture over a background, which shows where it is transparent."""
    below = Image.new("RGBA", rgba.size, (*background, 255))
    below.alpha_composite(rgba)
    return below


def colour_of(key: str, name: str, allowed: str = "a name or #rrggbb") -> tuple[int, ...]:
    """Red, green and blue of a colour.

    Raises:
        UserError: for what is none; `key` begins the error, and `allowed` says what would be right.
    """
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise UserError(f"{key}: {name!r} is no colour; give {allowed}.") from None


def reason_unread(error: Exception) -> str:
    """Why a picture cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"it has more than {MEGAPIXELS} megapixels"
    return reason_of(error)


def decoded(content: bytes) -> Image.Image:
    """The image in a file's bytes as RGBA, upright; raises whatever Pillow raises, and ValueError for one that is too
    large, whose pixels are not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # of an image within another, as in an icon
        with Image.open(io.BytesIO(content), formats=sorted(FORMATS & set(Image.OPEN))) as image:
            wide, high = image.size
            if wide * high > MEGAPIXELS * 1_000_000 or max(wide, high) > LONGEST_SIDE:
                raise ValueError(f"it has more than {MEGAPIXELS} megapixels or {LONGEST_SIDE} pixels a side")
            if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > SCANS:
                raise ValueError(f"it has more than {SCANS} scans")
            ImageOps.exif_transpose(image, in_place=True)
            return eight_bits(image).convert("RGBA")


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits brought to 8, since converting would cut off what is above 255; others as they are."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its greys need more than 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def squared(image: Image.Image, size: int, beside: object) -> Image.Image:
    """The image at `size` × `size`, in the middle of a square of the colour `beside`. It is shrunk one side after the
    other, so that a strip of 50 000 × 10 pixels never becomes a square of 50 000 × 50 000."""
    wide, high = image.size
    side = max(wide, high)
    if side <= size:
        return padded(image, (side, side), beside).resize((size, size), Image.Resampling.BICUBIC)
    lies = wide >= high
    image = image.resize((size, high) if lies else (wide, size), Image.Resampling.BOX)
    image = padded(image, (size, side) if lies else (side, size), beside)
    return image.resize((size, size), Image.Resampling.BOX)


def padded(image: Image.Image, size: tuple[int, int], beside: object) -> Image.Image:
    """The image in the middle of a larger one."""
    canvas = Image.new(image.mode, size, beside)  # type: ignore[arg-type]  # a pixel, as getpixel gives it
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def border(image: Image.Image) -> tuple[int, ...]:
    """The median colour of an RGBA image's outermost pixels; black where it is transparent anywhere."""
    if image.getchannel("A").getextrema()[0] != 255:
        return (0, 0, 0)
    wide, high = image.size
    boxes = ((0, 0, wide, 1), (0, high - 1, wide, high), (0, 0, 1, high), (wide - 1, 0, wide, high))
    edges = torch.cat([pil_to_tensor(image.crop(box))[:3].flatten(1) for box in boxes], 1)  # uint8 [3, P]
    return tuple(int(value) for value in edges.median(1).values)
