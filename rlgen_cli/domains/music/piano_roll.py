"""Piano rolls: pieces as pictures, time to the right, pitch upwards."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

Colour = tuple[int, int, int]
PAPER, BLACK_KEYS = (252, 251, 248), (242, 242, 241)
BAR, BEAT, OCTAVE, GAP = (176, 178, 182), (226, 227, 228), (214, 216, 219), (204, 206, 211)
VOICES: tuple[Colour, ...] = (
    (38, 104, 184),  # blue
    (214, 92, 52),  # vermilion
    (44, 140, 96),  # green
    (132, 78, 166),  # purple
    (198, 146, 26),  # ochre
    (84, 92, 108),  # slate
)
SHARPS = {1, 3, 6, 8, 10}
MARGIN, LEAST = 2, 12  # semitones: around the outer notes of a sheet, and between its lowest and highest row
SHAPE = 1.6  # a sheet of several rolls is about so much wider than high


def roll(piece: Piece, steps: int, low: int, high: int, scale: int = 4) -> Tensor:
    """Uint8 [3, H, W]: grid steps 0 to `steps`, `scale` pixels wide, and pitches `low` to `high`, half as high again.

    Each voice has its colour, stronger with velocity; each note is darker where it starts. Where voices meet, the
    upper voice covers the lower. What lies outside is left out.
    """
    picture = _paper(steps, low, high, scale, piece.bar)
    for note in sorted(piece.notes, key=lambda n: (-n.voice, n.start)):
        if low <= note.pitch <= high:
            _draw(picture, note, high, scale)
    return picture


def row_height(scale: int) -> int:
    """Pixels of one pitch, where a grid step has `scale`: notes look thin in square cells."""
    return scale + scale // 2


def roll_grid(pieces: Sequence[Piece], columns: int | None = None, scale: int = 4, gap: int = 6) -> Tensor:
    """One or more rolls side by side on one range of pitches and one length, uint8 [3, H, W]."""
    low, high = _range(pieces)
    steps = max(-(-max(piece.steps, 1) // piece.bar) * piece.bar for piece in pieces)
    columns = columns or _columns(len(pieces), (high - low + 1) * row_height(scale) + gap, steps * scale + gap)
    tiles = [_framed(roll(piece, steps, low, high, scale), gap) for piece in pieces]
    blank = _colour(GAP)[:, None, None].expand_as(tiles[0])
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    sheet = torch.cat([torch.cat(row + [blank] * (columns - len(row)), 2) for row in rows], 1)
    return _framed(sheet, gap, before=True)


def _range(pieces: Sequence[Piece]) -> tuple[int, int]:
    """Lowest and highest row: all notes and a margin, at least an octave."""
    pitches = [note.pitch for piece in pieces for note in piece.notes] or [66]
    low, high = min(pitches) - MARGIN, max(pitches) + MARGIN
    missing = max(0, LEAST - (high - low))
    return low - missing // 2, high + (missing + 1) // 2


def _columns(n: int, high: int, wide: int) -> int:
    return min(n, max(1, round(math.sqrt(n * SHAPE * high / wide))))


def _framed(sheet: Tensor, gap: int, before: bool = False) -> Tensor:
    """A strip of `gap` pixels right and below, or left and above."""
    sides = [gap, 0, gap, 0] if before else [0, gap, 0, gap]
    return torch.stack([pad(sheet[i], sides, value=GAP[i]) for i in range(3)])


def _colour(colour: Colour) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8)


def _paper(steps: int, low: int, high: int, scale: int, bar: int) -> Tensor:
    """The empty roll: shaded rows for the black keys, lines at octaves, beats and bars."""
    keys = torch.stack([_colour(BLACK_KEYS if p % 12 in SHARPS else PAPER) for p in range(high, low - 1, -1)], 1)
    height = row_height(scale)
    paper = keys.repeat_interleave(height, 1)[:, :, None].repeat(1, 1, steps * scale)
    for pitch in range(low + 1, high + 1):
        if pitch % 12 == 0 and height > 1:  # a line must leave something of its row
            paper[:, (high - pitch + 1) * height - 1] = _colour(OCTAVE)[:, None]
    for step in range(steps):
        since = step % bar
        if since % STEPS_PER_BEAT == 0:
            paper[:, :, step * scale] = _colour(BEAT if since else BAR)[:, None]
    return paper


def _draw(picture: Tensor, note: Note, high: int, scale: int) -> None:
    """A rectangle that leaves the last pixel of its row and of its time free, so that neighbours stay apart."""
    gap = 1 if scale >= 3 else 0
    left, right = note.start * scale, (note.start + note.duration) * scale - gap
    height = row_height(scale)
    top = (high - note.pitch) * height
    colour = torch.tensor(VOICES[note.voice % len(VOICES)], dtype=torch.float32)
    strength = 0.3 + 0.7 * note.velocity / 127
    body = torch.lerp(torch.tensor(PAPER, dtype=torch.float32), colour, strength)
    edge = max(1, scale // 3)
    area = picture[:, top : top + height - gap]
    area[:, :, left:right] = body.round().to(torch.uint8)[:, None, None]
    area[:, :, left : min(left + edge, right)] = (colour * 0.5).round().to(torch.uint8)[:, None, None]
