"""Piano rolls: pieces as pictures, time to the right with the bars' numbers, pitch upwards with names."""

import math
from collections.abc import Iterator, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from rlgen_cli.data.images import pil_to_tensor, tensor_to_pil
from rlgen_cli.domains.music.encodings import pitch_name
from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

Colour = tuple[int, int, int]
PAPER, BLACK_KEYS = (252, 251, 248), (242, 242, 241)
BAR, BEAT, OCTAVE, GAP = (176, 178, 182), (226, 227, 228), (214, 216, 219), (204, 206, 211)
CURSOR = (200, 30, 40)
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
WIDTH, SCALES = 1100, (4, 16)  # pixels that a sheet is to have, and that a grid step then has, from and to
AXIS, NUMBERS = 34, 18  # pixels left of a roll, for pitch names, and above it, for the bars' numbers
LETTERS, APART, LEGEND = 12, 14, 24  # pixels: height of letters, least distance of lines, height of the legend
INK = (70, 72, 78)
NATURAL, CHORD, OCTAVES = frozenset({0, 2, 4, 5, 7, 9, 11}), frozenset({0, 4, 7}), frozenset({0})


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


def roll_grid(
    pieces: Sequence[Piece], columns: int | None = None, scale: int | None = None, gap: int = 6,
    voices: Sequence[str] = (),
) -> Tensor:  # fmt: skip
    """One or more rolls side by side on one range of pitches and one length, uint8 [3, H, W].

    Args:
        scale: pixels of a grid step; None: as large as a sheet of about `WIDTH` pixels allows.
        voices: names beside their colours above the rolls, the highest voice's first.
    """
    low, high = _range(pieces)
    steps = _steps(pieces)
    columns = columns or _columns(len(pieces), (high - low + 1) * row_height(SCALES[0]), steps * SCALES[0])
    scale = scale or _scale(steps, columns)
    tiles = [_framed(_with_axes(roll(piece, steps, low, high, scale), piece, high, scale), gap) for piece in pieces]
    blank = _colour(GAP)[:, None, None].expand_as(tiles[0])
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    sheet = torch.cat([torch.cat(row + [blank] * (columns - len(row)), 2) for row in rows], 1)
    sheet = _framed(sheet, gap, before=True)
    return torch.cat([_legend(voices, sheet.shape[2]), sheet], 1) if voices else sheet


def roll_film(piece: Piece, fps: int, seconds: float, voices: Sequence[str] = ()) -> Iterator[Tensor]:
    """Frames of a piece's roll with a line where it sounds, uint8 [3, H, W] each, for so many seconds."""
    sheet, gap, top = roll_grid([piece], gap=6, voices=voices), 6, LEGEND if voices else 0
    scale = _scale(_steps([piece]), 1)
    a_second = piece.tempo / 60 * STEPS_PER_BEAT * scale  # pixels
    for i in range(max(1, round(seconds * fps))):
        x = gap + AXIS + min(round(i / fps * a_second), _steps([piece]) * scale - 1)
        frame = sheet.clone()
        frame[:, top:, x - 1 : x + 1] = _colour(CURSOR)[:, None, None]
        yield frame


def _steps(pieces: Sequence[Piece]) -> int:
    """Of the longest, in whole bars."""
    return max(-(-max(piece.steps, 1) // piece.bar) * piece.bar for piece in pieces)


def _scale(steps: int, columns: int) -> int:
    least, most = SCALES
    return min(max(WIDTH // (columns * steps), least), most)


def _with_axes(picture: Tensor, piece: Piece, high: int, scale: int) -> Tensor:
    """A roll whose highest row is `high`, with pitch names at its left and the numbers of bars above."""
    _, tall, wide = picture.shape
    sheet = Image.new("RGB", (AXIS + wide, NUMBERS + tall), PAPER)
    draw, font, height = ImageDraw.Draw(sheet), ImageFont.load_default(size=LETTERS), row_height(scale)
    # As many names as have room: all white keys, or a chord's, or one an octave; between two of them lie at least
    # one semitone, three or twelve.
    named = NATURAL if height >= APART else CHORD if 3 * height >= APART else OCTAVES
    for row in range(tall // height):
        if (high - row) % 12 in named:
            draw.text((AXIS - 4, NUMBERS + (row + 0.5) * height), pitch_name(high - row), INK, font, anchor="rm")
    width, every = piece.bar * scale, 1
    while every * width < 2 * APART:
        every *= 2
    for bar in range(0, wide // width, every):
        draw.text((AXIS + bar * width + 2, NUMBERS / 2), str(bar + 1), INK, font, anchor="lm")
    sheet.paste(tensor_to_pil(picture), (AXIS, NUMBERS))
    if not piece.notes:
        draw.text((AXIS + wide / 2, NUMBERS + tall / 2), "no notes", INK, font, anchor="mm")
    found = pil_to_tensor(sheet)
    return found


def _legend(voices: Sequence[str], wide: int) -> Tensor:
    """The voices' names beside their colours, uint8 [3, H, W]; what is wider is cut off."""
    strip = Image.new("RGB", (wide, LEGEND), PAPER)
    draw, font, x = ImageDraw.Draw(strip), ImageFont.load_default(size=LETTERS), LETTERS
    for number, name in enumerate(voices):
        draw.rectangle([x, LETTERS // 2, x + LETTERS, LETTERS * 3 // 2], fill=VOICES[number % len(VOICES)])
        draw.text((x + LETTERS + 5, LETTERS), name, INK, font, anchor="lm")
        x += 3 * LETTERS + round(font.getlength(name))
    return pil_to_tensor(strip)


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
