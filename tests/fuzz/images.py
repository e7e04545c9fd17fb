"""data=folder with one image of any format."""

import io
import tempfile
from pathlib import Path

from PIL import Image

from rlgen_cli.data.folder import Folder

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_images_")


def target(data: bytes) -> None:
    (Path(PLACE.name) / "x.png").write_bytes(data)
    Folder(PLACE.name, "auto", 0).load(8, 3)


def seeds() -> list[bytes]:
    found = []
    for kind in ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"):
        for mode in ("RGB", "P", "L", "RGBA", "I;16", "CMYK", "1"):
            stream, exif = io.BytesIO(), Image.Exif()
            exif[0x0112] = 6
            try:
                Image.new(mode, (9, 6), 1).save(stream, kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
            except (OSError, ValueError, KeyError):  # a format that does not have this mode
                continue
            found.append(stream.getvalue())
    still = Image.new("RGB", (9, 6), "red")
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        stream = io.BytesIO()
        still.save(stream, kind, save_all=True, append_images=[Image.new("RGB", (9, 6), "blue")])
        found.append(stream.getvalue())
    return found
