"""The embedded music: tunes that belong to everyone, and a composer of new ones like them. No file, no download."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.domains.music.notes import Note, Piece

WHITE = (0, 2, 4, 5, 7, 9, 11)  # semitones of C D E F G A B
NOTE = re.compile(r"(?:([A-G])([#b]?)(-?\d)|R):([1-9]\d*)")


def tune(text: str, bar: int, tempo: float, name: str) -> Piece:
    """`C4:4 F#5:2 Bb3:8 R:4`: pitch (C4 is 60, R a rest), colon, sixteenths. Bar lines | are for the reader."""
    notes, start = [], 0
    for word in text.replace("|", " ").split():
        match = NOTE.fullmatch(word)
        if match is None:
            raise UserError(f"tune: {word!r} is no note; write C4:4, F#5:2, Bb3:8 or R:4.")
        letter, sign, octave, duration = match.groups()
        if letter:
            pitch = 12 * (int(octave) + 1) + WHITE["CDEFGAB".index(letter)] + {"": 0, "#": 1, "b": -1}[sign]
            notes.append(Note(start, int(duration), pitch))
        start += int(duration)
    return Piece(tuple(notes), bar, tempo, name)


# Traditional, or by authors dead for more than a century; all in C major.
TUNES = (
    tune(
        """C4:4 C4:4 G4:4 G4:4 | A4:4 A4:4 G4:8 | F4:4 F4:4 E4:4 E4:4 | D4:4 D4:4 C4:8 |
        G4:4 G4:4 F4:4 F4:4 | E4:4 E4:4 D4:8 | G4:4 G4:4 F4:4 F4:4 | E4:4 E4:4 D4:8 |
        C4:4 C4:4 G4:4 G4:4 | A4:4 A4:4 G4:8 | F4:4 F4:4 E4:4 E4:4 | D4:4 D4:4 C4:8""",
        16,
        100,
        "Ah! vous dirai-je, maman",
    ),
    tune(
        """C4:4 D4:4 E4:4 C4:4 | C4:4 D4:4 E4:4 C4:4 | E4:4 F4:4 G4:8 | E4:4 F4:4 G4:8 |
        G4:2 A4:2 G4:2 F4:2 E4:4 C4:4 | G4:2 A4:2 G4:2 F4:2 E4:4 C4:4 | C4:4 G3:4 C4:8 | C4:4 G3:4 C4:8""",
        16,
        112,
        "Frère Jacques",
    ),
    tune(
        """E4:4 E4:4 F4:4 G4:4 | G4:4 F4:4 E4:4 D4:4 | C4:4 C4:4 D4:4 E4:4 | E4:6 D4:2 D4:8 |
        E4:4 E4:4 F4:4 G4:4 | G4:4 F4:4 E4:4 D4:4 | C4:4 C4:4 D4:4 E4:4 | D4:6 C4:2 C4:8 |
        D4:4 D4:4 E4:4 C4:4 | D4:4 E4:2 F4:2 E4:4 C4:4 | D4:4 E4:2 F4:2 E4:4 D4:4 | C4:4 D4:4 G3:8 |
        E4:4 E4:4 F4:4 G4:4 | G4:4 F4:4 E4:4 D4:4 | C4:4 C4:4 D4:4 E4:4 | D4:6 C4:2 C4:8""",
        16,
        112,
        "Ode to Joy",
    ),
    tune(
        """C4:4 C4:4 C4:4 D4:4 | E4:8 D4:8 | C4:4 E4:4 D4:4 D4:4 | C4:16 |
        C4:4 C4:4 C4:4 D4:4 | E4:8 D4:8 | C4:4 E4:4 D4:4 D4:4 | C4:16 |
        D4:4 D4:4 D4:4 D4:4 | A3:8 A3:8 | D4:4 C4:4 B3:4 A3:4 | G3:16 |
        C4:4 C4:4 C4:4 D4:4 | E4:8 D4:8 | C4:4 E4:4 D4:4 D4:4 | C4:16""",
        16,
        112,
        "Au clair de la lune",
    ),
    tune(
        """E4:4 D4:4 C4:4 D4:4 | E4:4 E4:4 E4:8 | D4:4 D4:4 D4:8 | E4:4 G4:4 G4:8 |
        E4:4 D4:4 C4:4 D4:4 | E4:4 E4:4 E4:4 E4:4 | D4:4 D4:4 E4:4 D4:4 | C4:16""",
        16,
        112,
        "Mary had a little lamb",
    ),
    tune(
        """G4:6 A4:2 G4:4 F4:4 | E4:4 F4:4 G4:8 | D4:4 E4:4 F4:8 | E4:4 F4:4 G4:8 |
        G4:6 A4:2 G4:4 F4:4 | E4:4 F4:4 G4:8 | D4:8 G4:8 | E4:4 C4:12""",
        16,
        112,
        "London Bridge",
    ),
    tune(
        """C4:6 C4:6 | C4:4 D4:2 E4:6 | E4:4 D4:2 E4:4 F4:2 | G4:12 |
        C5:2 C5:2 C5:2 G4:2 G4:2 G4:2 | E4:2 E4:2 E4:2 C4:2 C4:2 C4:2 | G4:4 F4:2 E4:4 D4:2 | C4:12""",
        12,
        120,
        "Row, row, row your boat",
    ),
    tune(
        """G4:4 E4:4 E4:8 | F4:4 D4:4 D4:8 | C4:4 D4:4 E4:4 F4:4 | G4:4 G4:4 G4:8 |
        G4:4 E4:4 E4:8 | F4:4 D4:4 D4:8 | C4:4 E4:4 G4:4 G4:4 | C4:16 |
        D4:4 D4:4 D4:4 D4:4 | D4:4 E4:4 F4:8 | E4:4 E4:4 E4:4 E4:4 | E4:4 F4:4 G4:8 |
        G4:4 E4:4 E4:8 | F4:4 D4:4 D4:8 | C4:4 E4:4 G4:4 G4:4 | C4:16""",
        16,
        112,
        "Hänschen klein",
    ),
    tune(
        """C4:4 D4:4 E4:4 F4:4 | G4:8 G4:8 | A4:4 A4:4 A4:4 A4:4 | G4:16 | A4:4 A4:4 A4:4 A4:4 | G4:16 |
        F4:4 F4:4 F4:4 F4:4 | E4:8 E4:8 | D4:4 D4:4 D4:4 D4:4 | C4:16""",
        16,
        120,
        "Alle meine Entchen",
    ),
    tune(
        """E4:4 E4:4 E4:8 | E4:4 E4:4 E4:8 | E4:4 G4:4 C4:6 D4:2 | E4:16 |
        F4:4 F4:4 F4:6 F4:2 | F4:4 E4:4 E4:4 E4:2 E4:2 | E4:4 D4:4 D4:4 E4:4 | D4:8 G4:8 |
        E4:4 E4:4 E4:8 | E4:4 E4:4 E4:8 | E4:4 G4:4 C4:6 D4:2 | E4:16 |
        F4:4 F4:4 F4:6 F4:2 | F4:4 E4:4 E4:4 E4:2 E4:2 | G4:4 G4:4 F4:4 D4:4 | C4:16""",
        16,
        120,
        "Jingle bells",
    ),
    tune(
        """E4:4 D4:4 C4:8 | E4:4 D4:4 C4:8 | C4:2 C4:2 C4:2 C4:2 D4:2 D4:2 D4:2 D4:2 | E4:4 D4:4 C4:8""",
        16,
        100,
        "Hot cross buns",
    ),
    tune(
        """C4:2 D4:2 | E4:4 G4:4 G4:6 A4:2 | G4:4 E4:4 C4:6 D4:2 | E4:4 E4:4 D4:4 C4:4 | D4:12 C4:2 D4:2 |
        E4:4 G4:4 G4:6 A4:2 | G4:4 E4:4 C4:6 D4:2 | E4:4 E4:4 D4:4 D4:4 | C4:16 |
        F4:8 F4:8 | A4:4 A4:8 A4:4 | G4:4 G4:4 E4:4 C4:4 | D4:12 C4:2 D4:2 |
        E4:4 G4:4 G4:6 A4:2 | G4:4 E4:4 C4:6 D4:2 | E4:4 E4:4 D4:4 D4:4 | C4:12""",
        16,
        120,
        "Oh! Susanna",
    ),
    tune(
        """G4:4 F4:4 E4:8 | D4:2 E4:2 F4:2 D4:2 C4:8 |
        E4:2 F4:2 G4:2 E4:2 D4:2 E4:2 F4:2 D4:2 | E4:2 F4:2 G4:2 E4:2 D4:2 E4:2 F4:2 D4:2 |
        G4:4 F4:4 E4:8 | D4:2 E4:2 F4:2 D4:2 C4:8""",
        16,
        92,
        "Summ, summ, summ",
    ),
    tune(
        """C4:4 C4:4 C4:4 D4:4 | C4:4 C4:4 G3:8 | A3:4 G3:4 A3:4 B3:4 | C4:8 C4:8 |
        C4:4 C4:4 C4:4 D4:4 | C4:4 C4:4 G3:8 | A3:4 G3:4 A3:4 B3:4 | C4:8 C4:8 |
        G4:4 F4:4 E4:4 D4:4 | E4:4 D4:4 C4:8 | A3:4 G3:4 A3:4 B3:4 | C4:8 C4:8 |
        G3:4 G3:4 A3:4 B3:4 | C4:4 C4:4 D4:8 | G4:4 F4:4 E4:4 D4:4 | C4:8 F4:8 | C4:16""",
        16,
        120,
        "Tempus adest floridum",
    ),
)

# The composer. Degrees count white keys from C4 (0), so that C major and A minor share one ladder.
RHYTHMS = (
    (4, 4, 4, 4),
    (4, 4, 8),
    (6, 2, 4, 4),
    (4, 4, 6, 2),
    (6, 2, 6, 2),
    (2, 2, 4, 4, 4),
    (4, 2, 2, 4, 4),
    (4, 4, 2, 2, 4),
    (4, 2, 2, 8),
    (2, 2, 2, 2, 4, 4),
    (4, 4, 4, 2, 2),
    (8, 4, 4),
)
RESTING = ((4, 4, 8), (4, 12), (2, 2, 4, 8), (8, 8), (16,))  # a phrase's last bar ends on a half note or more
I, IV, V, VI = 0, 3, 4, 5  # noqa: E741  # roots of chords, in degrees above the tonic
OPENINGS = ((I, I), (I, IV), (I, V), (I, VI))  # of bars 1 and 2
CONTRASTS = ((IV, I), (VI, IV), (V, I), (VI, V))
REGISTERS = ((-3, 8), (1, 12))  # G3 to D5, D4 to A5
SPAN = 5  # degrees that a motif may cover: with a register's 12 degrees it fits on every root
STEP_WEIGHTS = (0.6, 5.0, 0.9, 0.3, 0.2)  # by distance in degrees


class Motif(NamedTuple):
    """One bar, relative to a chord's root: moved to another root its chord notes stay chord notes."""

    rhythm: tuple[int, ...]
    degrees: list[int]


class Opening(NamedTuple):
    """The first two bars of a phrase."""

    motif: Motif
    roots: tuple[int, int]
    degrees: list[int]
    rhythm: tuple[int, ...]


def tonal_melody(rng: random.Random, bars: int) -> Piece:
    """A melody like a folk tune, in C major or A minor, 4/4, from `rng` alone; the piece's name tells the key.

    Phrases of four bars, a a' b a': a motif of one or two bars that repeats and moves in sequence over I, IV, V and VI.
    a and b stop on the dominant; a' begins as a did and closes on the tonic. In minor cadences the leading note is
    raised, save beside an F. All pitches lie from G3 (55) to A5 (81).
    """
    require(bars >= 4 and bars % 4 == 0, f"bars: must be a multiple of 4 and at least 4, got {bars}.")
    form = _form(bars // 4)
    tonic = 5 if rng.random() < 0.4 else 0
    register = rng.choice(REGISTERS)
    alone = len(form) == 1  # then the half cadence is in bar 2, and the motif must repeat within the phrase
    first = _opening(rng, tonic, register, ((I, V),) if alone else OPENINGS, not alone and rng.random() < 0.5)
    second = _opening(rng, tonic, register, CONTRASTS, rng.random() < 0.5)
    notes: list[Note] = []
    for phrase, letter in enumerate(form):
        end = I if letter == "a'" else V
        notes += _phrase(rng, second if letter == "b" else first, end, tonic, register, 64 * phrase)
    return Piece(tuple(notes), 16, rng.choice((92.0, 100.0, 108.0, 116.0)), "A minor" if tonic else "C major")


def _form(phrases: int) -> list[str]:
    """a a' b a' again and again; the last is a', and what comes before a third, seventh, … and last phrase is b."""
    form = [("a", "a'", "b", "a'")[i % 4] for i in range(phrases)]
    form[-1] = "a'"
    if phrases % 4 == 3:
        form[-2] = "b"
    return form


def _opening(
    rng: random.Random, tonic: int, register: tuple[int, int], chords: Sequence[tuple[int, int]], long: bool
) -> Opening:
    """One motif on two roots, or (`long`) two bars that belong together."""
    motif, roots = _motif(rng), rng.choice(chords)
    one = _placed(motif, tonic + roots[0], register, sum(register) // 2)
    answers = [_motif(rng) for _ in range(4)] if long else [motif]
    bars = [(_placed(answer, tonic + roots[1], register, one[-1]), answer.rhythm) for answer in answers]
    two, rhythm = min(bars, key=lambda bar: abs(bar[0][0] - one[-1]))
    return Opening(motif, roots, one + two, motif.rhythm + rhythm)


def _motif(rng: random.Random) -> Motif:
    rhythm, low = rng.choice(RHYTHMS), rng.choice((-1, 0))
    return Motif(rhythm, _walk(rng, _slots(rhythm, 0), (low, low + SPAN), rng.choice((0, 2, 4))))


def _placed(motif: Motif, root: int, register: tuple[int, int], before: int) -> list[int]:
    """The motif on `root`, in the octave that joins best to the note before and stays near the register's middle."""
    low, high = register
    shifts = [
        shift
        for shift in range(low - 12, high + 12)
        if (shift - root) % 7 == 0 and low <= shift + min(motif.degrees) and shift + max(motif.degrees) <= high
    ]
    middle = sum(motif.degrees) / len(motif.degrees) - (low + high) / 2
    shift = min(shifts, key=lambda s: abs(s + motif.degrees[0] - before) + 0.3 * abs(s + middle))
    return [shift + degree for degree in motif.degrees]


def _phrase(
    rng: random.Random, opening: Opening, end: int, tonic: int, register: tuple[int, int], start: int
) -> list[Note]:
    """Four bars: the opening, then the motif once more and a half cadence (`end` V), or a run home (`end` I)."""
    third, resting = rng.choice((IV, V, V)), rng.choice(RESTING)
    before, rhythm = opening.degrees[-1], opening.motif.rhythm
    last = _slots(resting, tonic + end)
    last[-1] = (True, tonic + end)
    if end == V:
        sequence = {root: _placed(opening.motif, tonic + root, register, before) for root in (I, IV, VI)}
        third = min(sequence, key=lambda root: abs(sequence[root][0] - before))
        closing = sequence[third] + _walk(rng, last, register, sequence[third][-1])
    else:
        homes = [degree for degree in range(register[0], register[1] + 1) if (degree - tonic) % 7 == 0]
        home = min(homes, key=lambda degree: abs(degree - before))
        closing = _walk(rng, _slots(rhythm, tonic + third) + last, register, before, home)
    durations = [*opening.rhythm, *rhythm, *resting]
    degrees = opening.degrees + closing
    pitches = _pitches(degrees, durations, [*opening.roots, third, end], tonic)
    if end == V and rng.random() < 0.3:
        durations[-1] -= 4  # a breath
    starts = [start + sum(durations[:i]) for i in range(len(durations))]
    return [Note(*note) for note in zip(starts, durations, pitches, strict=True)]


def _slots(rhythm: Sequence[int], root: int) -> list[tuple[bool, int]]:
    """For each note of a bar, whether it falls on a strong beat (1 or 3), and the chord's root."""
    return [(sum(rhythm[:i]) % 8 == 0, root) for i in range(len(rhythm))]


def _walk(
    rng: random.Random,
    slots: Sequence[tuple[bool, int]],
    register: tuple[int, int],
    before: int,
    target: int | None = None,
) -> list[int]:
    """Degrees that go mostly by step: chord notes on strong beats and after leaps. The last is `target` if given."""
    degrees, last, leap = [], before, 0
    for left, (strong, root) in zip(reversed(range(len(slots))), slots, strict=True):
        options = range(max(register[0], last - 4), min(register[1], last + 4) + 1)
        weights = [_weight(degree - last, leap, strong, (degree - root) % 7 in (0, 2, 4)) for degree in options]
        if target is not None:  # whatever is too far to reach the target by steps grows unlikely
            weights = [w * 0.2 ** max(0, abs(d - target) - left) for d, w in zip(options, weights, strict=True)]
        degree = target if target is not None and left == 0 else rng.choices(options, weights)[0]
        leap = degree - last if abs(degree - last) > 1 else 0
        last = degree
        degrees.append(degree)
    return degrees


def _weight(interval: int, leap: int, strong: bool, consonant: bool) -> float:
    if not consonant and (strong or abs(interval) > 1):
        return 0.0
    onward = leap * interval > 0  # after a leap a melody turns back
    return STEP_WEIGHTS[abs(interval)] * (0.2 if onward else 1.0)


def _pitches(degrees: list[int], durations: list[int], roots: list[int], tonic: int) -> list[int]:
    """MIDI numbers; in A minor's cadences (bars 3 and 4) the dominant has G sharp, unless an F stands beside it."""
    pitches = []
    for i, degree in enumerate(degrees):
        pitch = 60 + 12 * (degree // 7) + WHITE[degree % 7]
        bar = sum(durations[:i]) // 16
        cadence = tonic == 5 and bar >= 2 and roots[bar] == V
        beside = {neighbour % 7 for neighbour in degrees[max(i - 1, 0) : i + 2]}
        pitches.append(pitch + (cadence and degree % 7 == 4 and 3 not in beside))
    return pitches
