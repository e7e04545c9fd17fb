"""What is said of a set of pieces, beside what a reward scores: RL Tuner's table, and the features by which Yang and
Lerch compare a set with a corpus."""

import torch
from torch import Tensor

from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.domains.music.encodings import Roll
from rlgen_cli.domains.music.scores import (
    OCTAVE,
    Groove,
    PitchEntropy,
    ScaleConsistency,
    music_encoding,
    note_before,
    pitch_classes,
)
from rlgen_cli.domains.music.theory import RULES, MusicTheory, correlations

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)  # sixteenths: from a sixteenth to a whole note, dotted ones included
PITCHES = 128


def piece_statistics(view: View, spec: EnvSpec) -> dict[str, float]:
    """Mean over the pieces of the entropy of the pitch classes (bits), of how alike neighbouring bars' rhythms are, and
    of the share of notes in the scale that fits best: the same numbers as the terms of these names give."""
    scores: dict[str, PitchEntropy | Groove | ScaleConsistency] = {
        "pitch_entropy": PitchEntropy(spec=spec),
        "groove": Groove(spec=spec),
        "scale_consistency": ScaleConsistency(spec=spec),
    }
    return {name: float(score(view).mean()) for name, score in scores.items()}


def rl_tuner_statistics(view: View, spec: EnvSpec, tonic: int) -> dict[str, float]:
    """The rows of RL Tuner's tables (Jaques et al. 2017, tables 1 and 2), of whole melodies: shares from 0 to 1, mean
    autocorrelations, and the mean reward of music theory a step.

    Args:
        view: melodies, with `num_tokens`. tonic: MIDI number of the key's first note.
    """
    steps = {name: MusicTheory(spec=spec, rule=name, tonic=tonic).steps(view) for name in RULES}  # type: ignore[arg-type]
    codes = view.sample.squeeze(2)
    varied = (codes != codes[:, :1]).any(1)  # the published mean leaves constant melodies out
    rho = correlations(codes, view.info["num_tokens"])[varied].sum(0) / varied.sum().clamp(min=1)
    resolved, doubled = (steps["leap_resolved"] > 0).sum(), (steps["leap_doubled"] < 0).sum()
    return {
        "repeated_too_often": _share(steps["repetition"] < 0),
        **{f"autocorrelation_{lag}": float(rho[lag - 1]) for lag in (1, 2, 3)},
        "not_in_key": _share(steps["key"] < 0),
        "starts_with_tonic": _share(steps["tonic"][:, 0] > 0),
        "leaps_resolved": float(resolved / (resolved + doubled).clamp(min=1)),
        "unique_highest": _share(steps["unique_highest"][:, -1] > 0),
        "unique_lowest": _share(steps["unique_lowest"][:, -1] > 0),
        "in_motif": _share(steps["motif"] > 0),
        "in_repeated_motif": _share(steps["repeated_motif"] > 0),
        "theory_a_step": float(torch.stack(list(steps.values())).sum(0).mean()),
    }


def _share(hit: Tensor) -> float:
    """How often it is true."""
    return float(hit.float().mean())


def features(sample: Tensor, spec: EnvSpec) -> dict[str, Tensor]:
    """The features of Yang and Lerch (2020, section 3.2) of each piece of tokens [N, T, F], float [N, D] each; absolute
    times are in sixteenths, and lengths are told apart as LENGTHS, since a grid has no triplets. Histograms and
    transitions sum to 1, or are 0 where a piece has none."""
    roll = music_encoding(spec).roll(sample)
    pitch, onset = roll.pitch, roll.onset  # [N, S, V]
    struck = torch.zeros(len(pitch), PITCHES, device=pitch.device)
    struck.scatter_add_(1, pitch.clamp(min=0).flatten(1), onset.flatten(1).float())
    before, pairs = note_before(roll)
    size = (pitch - pitch.gather(1, before)).abs()
    kind = _length_kind(lengths(roll))  # [N, S, V]
    classes = pitch.clamp(min=0) % OCTAVE
    return {
        "pitch_count": (struck > 0).sum(1, keepdim=True).float(),
        "pitch_classes": _normalised(pitch_classes(roll)),
        "pitch_range": _range(struck),
        "pitch_interval": _mean(size, pairs),
        "note_count": onset.flatten(1).sum(1, keepdim=True).float(),
        "inter_onset": _inter_onset(onset.any(2)),
        "note_lengths": _counts(kind, onset, len(LENGTHS)),
        "pitch_transitions": _counts(classes.gather(1, before) * OCTAVE + classes, pairs, OCTAVE**2),
        "length_transitions": _counts(kind.gather(1, before) * len(LENGTHS) + kind, pairs, len(LENGTHS) ** 2),
    }


def lengths(roll: Roll) -> Tensor:
    """How many steps the sound at each step still goes on, at least 1, int64 [N, S, V]: where a note begins, its
    length."""
    steps = roll.pitch.shape[1]
    changes = roll.onset.clone()
    changes[:, 1:] |= roll.pitch[:, 1:] != roll.pitch[:, :-1]
    at = torch.arange(steps, device=roll.pitch.device).view(1, -1, 1)
    begins = torch.where(changes, at, steps).flip(1).cummin(1).values.flip(1)  # the next change at or after each step
    following = torch.cat([begins[:, 1:], torch.full_like(begins[:, :1], steps)], 1)
    return following - at


def _length_kind(length: Tensor) -> Tensor:
    """Index of the LENGTHS that is nearest in ratio, int64 of the same shape."""
    known = torch.tensor(LENGTHS, device=length.device).log2()
    middles = (known[1:] + known[:-1]) / 2
    return torch.bucketize(length.float().log2(), middles)


def _normalised(counts: Tensor) -> Tensor:
    """Rows [N, D] that sum to 1, or are 0 as they were."""
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def _counts(index: Tensor, there: Tensor, size: int) -> Tensor:
    """Share of each index below `size` among the places [N, …] that are `there`, float [N, size]."""
    counts = torch.zeros(len(index), size, device=index.device)
    return _normalised(counts.scatter_add_(1, index.flatten(1), there.flatten(1).float()))


def _range(struck: Tensor) -> Tensor:
    """Semitones from the lowest to the highest of the pitches [N, 128] that are struck, float [N, 1]."""
    pitch = torch.arange(PITCHES, device=struck.device)
    highest = torch.where(struck > 0, pitch, -1).amax(1)
    lowest = torch.where(struck > 0, pitch, PITCHES).amin(1)
    return (highest - lowest).clamp(min=0).unsqueeze(1).float()


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean of [N, …] over the places that are `there`, float [N, 1]; 0 where none is."""
    total = torch.where(there, values, 0).flatten(1).sum(1, keepdim=True)
    return total / there.flatten(1).sum(1, keepdim=True).clamp(min=1)


def _inter_onset(onset: Tensor) -> Tensor:
    """Mean distance between the steps [N, S] in which a note begins, float [N, 1]; 0 of fewer than two."""
    at = torch.arange(onset.shape[1], device=onset.device)
    first = torch.where(onset, at, onset.shape[1]).amin(1)
    last = torch.where(onset, at, -1).amax(1)
    return ((last - first).clamp(min=0) / (onset.sum(1) - 1).clamp(min=1)).unsqueeze(1)
