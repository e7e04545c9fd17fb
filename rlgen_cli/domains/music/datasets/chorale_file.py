"""Four-part chorales in the JSON of the JSB dataset: {"train": [[[soprano, alto, tenor, bass], …], …], …}."""

import json
from itertools import groupby
from pathlib import Path

from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.files import MIB, read_bytes
from rlgen_cli.domains.music.notes import Note, Piece

SPLITS = ("train", "valid", "test")
VOICES = 4
REST = -1
LARGEST_FILE = 16 * MIB


def read_chorales(path: Path) -> dict[str, list[Piece]]:
    """The chorales of each split, voices 0 (soprano) to 3 (bass), named by split and place.

    The file holds a pitch for every sixteenth and does not tell a held note from a repeated one, so equal pitches in a
    row are one note.
    """
    try:
        content = json.loads(read_bytes(path, LARGEST_FILE, "data.path"))
    except (ValueError, RecursionError) as error:  # not JSON, or no text at all, or lists in lists without an end
        raise UserError(f"data.path: {path} is no JSON ({reason_of(error)}).") from None
    complete = isinstance(content, dict) and all(isinstance(content.get(split), list) for split in SPLITS)
    require(complete, f"data.path: {path} must hold an object with the lists {', '.join(SPLITS)}.")
    return {split: [_piece(rows, f"{split} {i}", path) for i, rows in enumerate(content[split])] for split in SPLITS}


def _piece(rows: object, name: str, path: Path) -> Piece:
    if not (isinstance(rows, list) and rows and all(_is_row(row) for row in rows)):
        raise UserError(f"data.path: {path}: {name} must hold [s, a, t, b] rows, each 0 to 127 or {REST} (rest).")
    notes = [note for voice in range(VOICES) for note in _line([row[voice] for row in rows], voice)]
    return Piece(tuple(sorted(notes, key=lambda note: (note.start, note.voice))), name=name)


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == VOICES and all(type(p) is int and REST <= p <= 127 for p in row)


def _line(pitches: list[int], voice: int) -> list[Note]:
    """Runs of equal pitches as notes."""
    notes, start = [], 0
    for pitch, run in groupby(pitches):
        duration = len(list(run))
        if pitch != REST:
            notes.append(Note(start, duration, pitch, voice=voice))
        start += duration
    return notes
