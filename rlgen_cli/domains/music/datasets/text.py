"""Any text file as token sequences, by character or by word."""

import codecs
from collections import Counter
from pathlib import Path
from typing import Literal

import torch

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import MIB, read_bytes
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.datasets.windows import TEST, VALID
from rlgen_cli.domains.music.encodings import MusicEncoding, Tokens

UNKNOWN = "?"
LARGEST_FILE = 32 * MIB
MOST_TOKENS = 1 << 28  # in all sequences together, which overlap: 2 GiB
MARKS = (  # those of UTF-32 first, since the shorter ones begin like them
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Text:
    """A text file, cut into windows that begin where words do: UTF-8, or UTF-16 and UTF-32 that begin with their mark.

    The vocabulary is the commonest `vocabulary` characters or words; others become «?». The first 80 % of the windows
    train, the next 10 % validate, the last 10 % test.
    """

    def __init__(self, path: str, unit: Literal["character", "word"], vocabulary: int) -> None:
        require(vocabulary >= 2, f"vocabulary: must be at least 2, got {vocabulary}.")
        self.path, self.unit, self.limit = path, unit, vocabulary

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        if not isinstance(encoding, Tokens):
            raise UserError("data=text: holds no notes; use encoding=tokens.")
        words = decoded(Path(self.path)).split()
        units = words if self.unit == "word" else list(" ".join(words))
        common = [name for name, _ in Counter(units).most_common(self.limit)]
        if len(set(units)) > len(common):
            common = [*common[:-1], UNKNOWN] if UNKNOWN not in common else common
        code = {name: i for i, name in enumerate(common)}
        tokens = torch.tensor([code.get(unit, code.get(UNKNOWN, 0)) for unit in units])
        starts = [i for i in range(len(units) - length + 1) if self.unit == "word" or i == 0 or units[i - 1] == " "]
        require(
            len(starts) >= 10,
            f"data.path: {self.path} is too short for 10 sequences of env.length = {length} tokens.",
        )
        require(
            len(starts) * length <= MOST_TOKENS,
            f"data.path: {self.path} makes {len(starts)} sequences of env.length = {length} tokens, more than "
            f"{MOST_TOKENS} tokens in all; take a part of it.",
        )
        windows = tokens.unfold(0, length, 1)[starts].unsqueeze(2)
        fitted = encoding.with_vocabulary(common, "" if self.unit == "character" else " ")
        first, last = round(len(starts) * (1 - VALID - TEST)), round(len(starts) * (1 - TEST))
        return Splits(*(Sequences(part, fitted) for part in (windows[:first], windows[first:last], windows[last:])))


def decoded(path: Path) -> str:
    """The text in a file.

    Raises:
        UserError: where it is no text in an encoding that can be told for sure.
    """
    content = read_bytes(path, LARGEST_FILE, "data.path")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"data.path: {path} cannot be read (it is no UTF-8 text); save it as UTF-8.") from None
    require("\0" not in text, f"data.path: {path} cannot be read (it holds zero bytes, as no text does).")
    return text
