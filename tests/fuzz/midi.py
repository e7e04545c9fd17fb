"""data=midi with one file."""

import random
import tempfile
from pathlib import Path

from rlgen_cli.domains.music.datasets.midi_file import Rejected, melody, read_midi
from rlgen_cli.domains.music.datasets.tunes import TUNES, tonal_melody
from rlgen_cli.domains.music.datasets.windows import encode_splits
from rlgen_cli.domains.music.encodings import Melody
from rlgen_cli.domains.music.midi import write_midi

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_midi_")
ENCODING = Melody(low=48, high=83, grid=1)


def target(data: bytes) -> None:
    path = Path(PLACE.name) / "x.mid"
    path.write_bytes(data)
    try:
        piece = melody(read_midi(path))
    except Rejected:
        return
    encode_splits(([piece], [], []), ENCODING, 4, piece.bar, 0, [0, 1])


def seeds() -> list[bytes]:
    found, path = [], Path(PLACE.name) / "seed.mid"
    for piece in (*TUNES[:4], tonal_melody(random.Random(0), 8)):
        write_midi(path, piece)
        found.append(path.read_bytes())
    found.append(b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\x11\0\xf0\2\1\xf7\0\xff\1\1x\0\x90\x3c\x50\x60\x3c\0")
    return found
