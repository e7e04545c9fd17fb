"""data=text with one file: the first byte says whether by character or by word."""

import tempfile
from pathlib import Path

from rlgen_cli.domains.music.datasets.text import Text
from rlgen_cli.domains.music.encodings import Tokens

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_text_")


def target(data: bytes) -> None:
    path = Path(PLACE.name) / "x.txt"
    path.write_bytes(data[1:])
    Text(str(path), "word" if data[:1] == b"w" else "character", 20).load(
        Tokens(low=48, high=72, names=None, separator=" "), 4, 16
    )


def seeds() -> list[bytes]:
    words = "C4 D4 größer als zwölf 一 二 G9 C4 the end of it, " * 3
    return [unit + words.encode(kind) for unit in (b"w", b"c") for kind in ("utf-8", "utf-8-sig", "utf-16", "utf-32")]
