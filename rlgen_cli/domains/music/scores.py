"""Scores of how a piece sounds, for any encoding of music: shares in [0, 1] unless said otherwise."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.encodings import MusicEncoding, Roll
from rlgen_cli.domains.music.notes import MAJOR

FIFTH, STEP, OCTAVE = 7, 1, 12
CONSONANT = (0, 3, 4, 5, 7, 8, 9)  # intervals, without octaves, that sound at rest


def music_encoding(spec: EnvSpec) -> MusicEncoding:
    """The encoding of an environment's samples, known to be of music."""
    encoding = spec.sequence().encoding
    assert isinstance(encoding, MusicEncoding)
    return encoding


def note_before(roll: Roll) -> tuple[Tensor, Tensor]:
    """In which step the note before each step began in its voice, int64 [N, S, V] (0 where there was none), and where a
    note begins that has one before it, bool."""
    steps = torch.arange(roll.onset.shape[1], device=roll.onset.device).view(1, -1, 1)
    newest = torch.where(roll.onset, steps, -1).cummax(1).values  # the newest note at or before each step
    before = torch.cat([torch.full_like(newest[:, :1], -1), newest[:, :-1]], 1)
    return before.clamp(min=0), roll.onset & (before >= 0)


def intervals(roll: Roll) -> tuple[Tensor, Tensor]:
    """Semitones from each note to the one before in its voice, int64 [N, S, V], and where there is such a pair."""
    before, pairs = note_before(roll)
    return roll.pitch - roll.pitch.gather(1, before), pairs


def fraction(hit: Tensor, of: Tensor) -> Tensor:
    """How many of the places [N, …] that are true in `of` are true in `hit`, [N]; 0 where `of` has none."""
    return (hit & of).flatten(1).sum(1) / of.flatten(1).sum(1).clamp(min=1)


class Tonality:
    """Share of successive notes a perfect fifth apart, up or down (ORGAN, Guimaraes et al. 2017): the frequency ratio
    is then from 1.45 to 1.55."""

    judges, needs = "music", frozenset[str]()

    def __init__(self, *, spec: EnvSpec) -> None:
        self.encoding = music_encoding(spec)

    def __call__(self, view: View) -> Tensor:
        size, pairs = intervals(self.encoding.roll(view.sample))
        return fraction(size.abs() == FIFTH, pairs)


class RatioOfSteps:
    """Share of successive notes one semitone apart (ORGAN)."""

    judges, needs = "music", frozenset[str]()

    def __init__(self, *, spec: EnvSpec) -> None:
        self.encoding = music_encoding(spec)

    def __call__(self, view: View) -> Tensor:
        size, pairs = intervals(self.encoding.roll(view.sample))
        return fraction(size.abs() == STEP, pairs)


class ScaleConsistency:
    """The largest share of notes that lie in one major (or natural minor) scale (Mogren 2016; MusPy's
    scale_consistency, Dong et al. 2020)."""

    judges, needs = "music", frozenset[str]()

    def __init__(self, *, spec: EnvSpec) -> None:
        self.encoding = music_encoding(spec)

    def __call__(self, view: View) -> Tensor:
        counts = pitch_classes(self.encoding.roll(view.sample))
        pitch_class = torch.arange(OCTAVE, device=counts.device)
        degree = (pitch_class.unsqueeze(1) - pitch_class) % OCTAVE  # of each pitch class (row) in each key (column)
        scales = is_among(degree, MAJOR).float()  # a minor scale is another's major
        return (counts @ scales).amax(1) / counts.sum(1).clamp(min=1)


class PitchEntropy:
    """Entropy of the pitch classes that are struck, in bits, at most log₂ 12 = 3.58 (Wu and Yang 2020; MusPy's
    pitch_class_entropy)."""

    judges, needs = "music", frozenset[str]()

    def __init__(self, *, spec: EnvSpec) -> None:
        self.encoding = music_encoding(spec)

    def __call__(self, view: View) -> Tensor:
        counts = pitch_classes(self.encoding.roll(view.sample))
        p = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return -(p * p.clamp(min=1e-9).log2()).sum(1)


class Groove:
    """How alike the rhythms of neighbouring bars are: 1 − the share of steps in which only one of them strikes a note
    (Wu and Yang 2020; between neighbours, as MusPy's groove_consistency); 0 for a piece of less than two bars."""

    judges, needs = "music", frozenset[str]()

    def __init__(self, *, spec: EnvSpec) -> None:
        self.encoding, self.bar = music_encoding(spec), spec.sequence().bar

    def __call__(self, view: View) -> Tensor:
        onset, bar = self.encoding.roll(view.sample).onset.any(2), self.bar
        bars = onset[:, : onset.shape[1] // bar * bar].unflatten(1, (-1, bar))
        if bars.shape[1] < 2:
            return torch.zeros(len(onset), device=onset.device)
        return 1 - (bars[:, 1:] ^ bars[:, :-1]).float().mean((1, 2))


class Harmony:
    """How well several voices go together: the share of pairs of voices that sound and are consonant (a silent voice is
    in no harmony), less `parallels` for each share of steps with parallel fifths or octaves and `crossings` for each
    share with a voice above a higher one."""

    judges, needs = "chorale", frozenset[str]()

    def __init__(self, *, spec: EnvSpec, parallels: float, crossings: float) -> None:
        self.encoding = music_encoding(spec)
        self.parallels, self.crossings = float(parallels), float(crossings)

    def __call__(self, view: View) -> Tensor:
        pitch = self.encoding.roll(view.sample).pitch  # [N, S, V]
        one, two = torch.triu_indices(pitch.shape[2], pitch.shape[2], 1, device=pitch.device)
        upper, lower = pitch[:, :, one], pitch[:, :, two]
        sound = (upper >= 0) & (lower >= 0)
        gap = upper - lower
        # Parallel: both voices move the same way from one fifth (or octave) to another.
        both = sound[:, 1:] & sound[:, :-1]
        moved = (upper[:, 1:] != upper[:, :-1]) & (lower[:, 1:] != lower[:, :-1])
        perfect = (gap % OCTAVE == FIFTH) | (gap % OCTAVE == 0)
        parallel = moved & perfect[:, 1:] & (gap[:, 1:] % OCTAVE == gap[:, :-1] % OCTAVE)
        faults = self.parallels * fraction(parallel, both & moved) + self.crossings * fraction(gap < 0, sound)
        return fraction(is_among(gap % OCTAVE, CONSONANT) & sound, self._complete(view)[:, :, one]) - faults

    def _complete(self, view: View) -> Tensor:
        """Where all voices have their tokens, bool [N, S, V]; pieces that are being made end before."""
        voices, grid = self.encoding.voices, self.encoding.grid
        there = (view.sample[:, :, 0] >= 0).unflatten(1, (-1, voices))
        return there.all(2, keepdim=True).expand(-1, -1, voices).repeat_interleave(grid, 1)


class SequenceNovelty:
    """How far a sequence is from the nearest training sequence: the share of its tokens that differ, at the same
    places; of at most `limit` training sequences."""

    judges, needs = "sequence", frozenset[str]()

    def __init__(self, *, real: Sequences, limit: int) -> None:
        require(limit >= 1, f"limit: must be at least 1, got {limit}.")
        self.real = real.tokens[:limit]

    def __call__(self, view: View) -> Tensor:
        return self.nearest(view.sample)[0]

    def nearest(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """The share for sequences [N, T, F], float [N], and which training sequence is the nearest, int64 [N]."""
        there = (sample >= 0).any(2)  # [N, T]
        differing = []
        for real in self.real.split(256):
            differs = (sample.unsqueeze(1) != real).any(3) & there.unsqueeze(1)
            differing.append(differs.sum(2).float())
        least, index = torch.cat(differing, 1).min(1)
        return least / there.sum(1).clamp(min=1), index


def pitch_classes(roll: Roll) -> Tensor:
    """How often each pitch class is struck, float [N, 12]."""
    counts = torch.zeros(len(roll.pitch), OCTAVE, device=roll.pitch.device)
    return counts.scatter_add_(1, (roll.pitch % OCTAVE).flatten(1), roll.onset.flatten(1).float())


def is_among(values: Tensor, members: tuple[int, ...]) -> Tensor:
    """Whether numbers from 0 to 62 are among `members`, bool of the same shape; no table has to go to the device."""
    mask = sum(1 << member for member in members)
    return (torch.bitwise_right_shift(mask, values) & 1).bool()
