"""A folder of MIDI files as token sequences."""

import logging
from pathlib import Path
from typing import Literal

from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music.datasets.midi_file import melody, read_folder
from rlgen_cli.domains.music.datasets.windows import encode_splits, split_pieces
from rlgen_cli.domains.music.encodings import MusicEncoding

log = logging.getLogger(__name__)


class MidiFolder:
    """All MIDI files below `path`.

    Args:
        take: top (the highest note at each onset, one voice) or voices (as the file has them).
        tonic, transpose: see windows.encode_splits.
    """

    def __init__(self, path: str, take: Literal["top", "voices"], tonic: int | None, transpose: list[int]) -> None:
        self.path, self.take, self.tonic, self.transpose = Path(path), take, tonic, transpose

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        pieces, rejected = read_folder(self.path)
        log.info("data: read %d MIDI files, rejected %d", len(pieces), len(rejected))
        for name, reason in rejected.items():
            log.warning("data: %s %s", name, reason)
        if self.take == "top":
            pieces = [melody(piece) for piece in pieces]
        return encode_splits(split_pieces(pieces), encoding, length, bar, self.tonic, self.transpose)
