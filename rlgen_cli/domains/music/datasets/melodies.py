"""The embedded default: tonal melodies from a generator, and a few traditional tunes. No file, no download."""

import functools
import random

from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music.datasets.harmonise import harmonised
from rlgen_cli.domains.music.datasets.tunes import TUNES, tonal_melody
from rlgen_cli.domains.music.datasets.windows import encode_splits, split_pieces
from rlgen_cli.domains.music.encodings import MusicEncoding
from rlgen_cli.domains.music.notes import Piece


class Melodies:
    """`count` melodies of `bars` bars in 4/4, and the tunes (tunes.py) that have the asked bar; with voices below them
    where the encoding has several."""

    licence = "composed by rlgen, with traditional tunes that are in the public domain, free for any use"

    def __init__(self, count: int, bars: int, tonic: int | None, transpose: list[int]) -> None:
        require(1 <= count <= 1_000_000, f"count: must be from 1 to 1000000, got {count}.")
        require(4 <= bars <= 4096, f"bars: must be from 4 to 4096, got {bars}.")
        require(len(transpose) > 0, "transpose: must hold at least one number; [0] leaves pieces as they are.")
        self.count, self.bars, self.tonic, self.transpose = count, bars, tonic, transpose

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        pieces = [*_melodies(self.count, self.bars), *TUNES]
        # The generator's bars are 16 sixteenths; with another env.bar a piece is cut into those.
        pieces = [piece._replace(bar=bar) if piece.bar % bar == 0 else piece for piece in pieces]
        if encoding.voices > 1:
            pieces = [voiced for piece in pieces if (voiced := harmonised(piece)) is not None]
        return encode_splits(split_pieces(pieces), encoding, length, bar, self.tonic, self.transpose)


@functools.lru_cache(maxsize=2)  # the jobs of a sweep have the same
def _melodies(count: int, bars: int) -> tuple[Piece, ...]:
    rng = random.Random(0)
    return tuple(tonal_melody(rng, bars) for _ in range(count))
