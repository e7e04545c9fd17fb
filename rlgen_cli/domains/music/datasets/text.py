"""Any text file as token sequences, by character or by word."""

from collections import Counter
from pathlib import Path
from typing import Literal

import torch

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.datasets.windows import TEST, VALID
from rlgen_cli.domains.music.encodings import MusicEncoding, Tokens

UNKNOWN = "?"


class Text:
    """A UTF-8 file, cut into windows that begin where words do.

    The vocabulary is the commonest `vocabulary` characters or words; others become «?». The first 80 % of the windows
    train, the next 10 % validate, the last 10 % test.
    """

    def __init__(self, path: str, unit: Literal["character", "word"], vocabulary: int) -> None:
        require(vocabulary >= 2, f"vocabulary: must be at least 2, got {vocabulary}.")
        self.path, self.unit, self.limit = path, unit, vocabulary

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        if not isinstance(encoding, Tokens):
            raise UserError("data=text: holds no notes; use encoding=tokens.")
        try:
            content = Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise UserError(f"data.path: {self.path} cannot be read ({reason}).") from None
        words = content.split()
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
        windows = torch.stack([tokens[start : start + length] for start in starts]).unsqueeze(2)
        fitted = encoding.with_vocabulary(common, "" if self.unit == "character" else " ")
        first, last = round(len(starts) * (1 - VALID - TEST)), round(len(starts) * (1 - TEST))
        return Splits(*(Sequences(part, fitted) for part in (windows[:first], windows[first:last], windows[last:])))
