"""From pieces to token sequences: splits fixed by content, transposition, and windows of equal length."""

import functools
import hashlib
import logging
from collections import Counter

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.encodings import MusicEncoding, NotEncodable
from rlgen_cli.domains.music.notes import Piece

log = logging.getLogger(__name__)
VALID, TEST = 0.1, 0.1  # fractions of the pieces
# How well each pitch class fits a key, from the tonic on (Krumhansl and Kessler 1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def split_pieces(pieces: list[Piece]) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Train, validation and test pieces by a hash of their notes: no order, no seed, no leak of duplicates."""
    parts: tuple[list[Piece], list[Piece], list[Piece]] = ([], [], [])
    for piece in pieces:
        digest = hashlib.blake2b(repr(sorted(piece.notes)).encode(), digest_size=4).digest()
        place = int.from_bytes(digest, "little") / 2**32
        parts[1 if place < VALID else 2 if place < VALID + TEST else 0].append(piece)
    return parts


def encode_splits(
    splits: tuple[list[Piece], list[Piece], list[Piece]],
    encoding: MusicEncoding,
    length: int,
    bar: int,
    tonic: int | None,
    transpose: list[int],
) -> Splits:
    """Pieces as windows of `length` tokens.

    Args:
        bar: sixteenths; pieces with other bars are left out.
        tonic: pitch class that major pieces are transposed to (minor ones to their parallel, three below), or null.
        transpose: semitones; each training piece is taken once for each.

    Raises:
        UserError: when no training piece fits, with the commonest reason.
    """
    reasons: Counter[str] = Counter()

    def windows(pieces: list[Piece], shifts: list[int]) -> list[Tensor]:
        found = []
        for piece in pieces:
            if piece.bar != bar:
                reasons[f"has bars of {piece.bar} sixteenths, not env.bar={bar}"] += 1
                continue
            home = 0 if tonic is None else semitones_to_tonic(piece, tonic)
            for shift in shifts:
                try:
                    found += encoding.windows(transposed(piece, home + shift), length)
                except NotEncodable as reason:
                    reasons[str(reason)] += 1
        return found

    train, valid, test = (windows(pieces, transpose if i == 0 else [0]) for i, pieces in enumerate(splits))
    for reason, count in reasons.most_common():
        log.info("data: %d pieces are left out: each %s", count, reason)
    total = sum(len(pieces) for pieces in splits)
    commonest = reasons.most_common(1)[0][0] if reasons else "no piece"
    require(bool(train), f"data: none of {total} pieces fits; the commonest reason: {commonest}.")
    # A split that the hash leaves empty (a handful of pieces) borrows the training sequences.
    return Splits(*(Sequences(torch.stack(part or train), encoding) for part in (train, valid, test)))


def transposed(piece: Piece, semitones: int) -> Piece:
    """The piece higher by some semitones."""
    return piece._replace(notes=tuple(note._replace(pitch=note.pitch + semitones) for note in piece.notes))


def semitones_to_tonic(piece: Piece, tonic: int) -> int:
    """Semitones, from −6 to 5, that bring the piece's key (Krumhansl's best fit) to a major one on pitch class `tonic`
    or a minor one three semitones below."""
    durations = [0.0] * 12
    for note in piece.notes:
        durations[note.pitch % 12] += note.duration
    weight = torch.tensor(durations)
    weight = weight - weight.mean()
    fits = []
    for shapes, home in zip(_key_profiles(), (tonic, tonic - 3), strict=True):
        fits += [(float(weight @ shape), (home - key + 6) % 12 - 6) for key, shape in enumerate(shapes)]
    return max(fits)[1]


@functools.cache
def _key_profiles() -> list[list[Tensor]]:
    """Krumhansl's profiles of the twelve major and of the twelve minor keys, standardised, each [12]."""
    profiles = [torch.tensor(profile, device="cpu") for profile in (MAJOR, MINOR)]
    shapes = [(profile - profile.mean()) / profile.std() for profile in profiles]
    return [[shape.roll(key) for key in range(12)] for shape in shapes]
