"""The music theory rules of RL Tuner (Jaques et al. 2017, section 4.3), each a score of its own.

A rule gives a number for each step of a melody, from the step's code and the ones before; the score is their sum.
Values are those of the published implementation (magenta, rl_tuner.py), in C major or in any other major key. Codes
are Melody's: 0 rest, 1 hold, then notes from the lowest on.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.host import longest
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.domains.music.encodings import HOLD, REST, Melody
from rlgen_cli.domains.music.notes import MAJOR
from rlgen_cli.domains.music.scores import is_among

SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH, OCTAVE = 2, 4, 5, 7, 9, 11, 12
BAR = 8  # steps in which a motif must stand
BEFORE_LEAP_BACK = 6  # steps after which a leap back resolves a leap
# What an interval of so many semitones is worth, before the factor 5.
INTERVALS = {SEVENTH: -0.3, THIRD: 0.09, SECOND: 0.08, FOURTH: 0.07, SIXTH: 0.05, FIFTH: 0.02}


class Moment(NamedTuple):
    """One step of N melodies."""

    codes: Tensor  # int64 [N, T], finished or not
    step: Tensor  # int64 [N], which step is judged
    code: Tensor  # int64 [N], its code
    past: Tensor  # bool [N, T], the steps before
    length: int  # T
    low: int  # MIDI number of code 2
    tonic: int  # MIDI number

    def degree(self, code: Tensor) -> Tensor:
        """Semitones above the nearest tonic below, 0 to 11, of codes that are notes."""
        return (code - 2 + self.low - self.tonic) % 12

    def newest_note(self) -> Tensor:
        """The last note's code before the step, [N]; 0 where there was none."""
        at = torch.where(self.past & (self.codes > HOLD), self.positions(), -1).amax(1)
        return torch.where(at >= 0, self.codes.gather(1, at.clamp(min=0).unsqueeze(1)).squeeze(1), REST)

    def positions(self) -> Tensor:
        return torch.arange(self.length, device=self.codes.device)


class MusicTheory:
    """The sum of one rule's values over a melody's steps.

    Args:
        rule: which (the functions below). tonic: MIDI number of the key's first note.
    """

    judges, needs = "melody", frozenset(["num_tokens"])

    def __init__(
        self,
        *,
        spec: EnvSpec,
        rule: Literal[
            "key", "tonic", "repetition", "autocorrelation", "motif", "repeated_motif", "interval", "leap_resolved",
            "leap_doubled", "unique_highest", "unique_lowest",
        ],
        tonic: int,
    ) -> None:  # fmt: skip
        encoding = spec.sequence().encoding
        assert isinstance(encoding, Melody)
        self.low: int = encoding.low
        self.tonic: int = tonic
        self.rule: Callable[[Moment], Tensor] = RULES[rule]

    def __call__(self, view: View) -> Tensor:
        return self.steps(view).sum(1)

    def steps(self, view: View) -> Tensor:
        """The rule's value at each step, float [N, T]; 0 where no token stands yet."""
        every = torch.arange(view.sample.shape[1], device=view.sample.device)
        values = torch.stack([self._at(view, step.expand(len(view.sample))) for step in every], 1)
        return torch.where(every < view.info["num_tokens"].unsqueeze(1), values, 0.0)

    def gain(self, after: View) -> Tensor:
        return self._at(after, after.info["num_tokens"] - 1)

    def _at(self, view: View, step: Tensor) -> Tensor:
        codes = view.sample.squeeze(2)
        past = torch.arange(codes.shape[1], device=codes.device) < step.unsqueeze(1)
        code = codes.gather(1, step.unsqueeze(1)).squeeze(1)
        return self.rule(Moment(codes, step, code, past, codes.shape[1], self.low, self.tonic))


def key(now: Moment) -> Tensor:
    """−1 for a note outside the key."""
    return -((now.code > HOLD) & ~is_among(now.degree(now.code), MAJOR)).float()


def tonic(now: Moment) -> Tensor:
    """3 for the tonic at the first step and at the fourth from the end, for a hold after that one, and for holds or
    rests in the last two."""
    home, left = now.code == now.tonic - now.low + 2, now.length - 1 - now.step
    hit = home & ((now.step == 0) | (left == 3))
    hit = hit | ((now.code == HOLD) & (left == 2)) | ((now.code <= HOLD) & (left < 2))
    return 3.0 * hit


def repetition(now: Moment) -> Tensor:
    """−100 for a code that stood too often since the last other note: a rest more than once, a code more than 4 times,
    or more than 6 where holds or rests lie between."""
    same = now.past & (now.codes == now.code.unsqueeze(1))
    other = now.past & ~same & (now.codes > HOLD)
    since = torch.where(other, now.positions(), -1).amax(1, keepdim=True)
    run = now.past & (now.positions() > since)
    times, between = (same & run).sum(1), (run & ~same).any(1)
    most = torch.where(between, 6, 4)
    return -100.0 * (torch.where(now.code == REST, times > 1, False) | (times > most))


def autocorrelation(now: Moment) -> Tensor:
    """−3 |ρ| for each lag of 1, 2 and 3 at which the codes so far correlate by more than 0.15."""
    rho = correlations(now.codes, now.step + 1).abs()
    return -3.0 * torch.where(rho > 0.15, rho, 0.0).sum(1)


def correlations(codes: Tensor, length: Tensor) -> Tensor:
    """ρ of the first `length` codes with themselves 1, 2 and 3 steps later, [N, 3]; 0 where all codes are equal."""
    inside = torch.arange(codes.shape[1], device=codes.device) < length.unsqueeze(1)
    n = length.unsqueeze(1).float()
    x = torch.where(inside, codes, 0).float()
    x = torch.where(inside, x - x.sum(1, keepdim=True) / n, 0.0)
    variance = x.square().sum(1)
    shifted = torch.stack([(x[:, lag:] * x[:, :-lag]).sum(1) for lag in (1, 2, 3)], 1)
    return torch.where(variance > 0, shifted.T / variance.clamp(min=1e-12), 0.0).T


def motif(now: Moment) -> Tensor:
    """3 where the last 8 steps hold three different notes, and 0.3 more for each further one."""
    notes = _different(now)
    return torch.where(notes >= 3, 3 + 0.3 * (notes - 3), 0.0)


def repeated_motif(now: Moment) -> Tensor:
    """4 for a motif that stood somewhere in all but the last 7 steps before, and 1 more for each note beyond three."""
    if now.length < 2 * BAR:
        return torch.zeros_like(now.step, dtype=torch.float32)
    # Each stretch of 8 codes as one number, so that stretches compare at once.
    base, count = 130, now.length - BAR + 1  # there are at most 130 codes
    stretch = now.codes[:, :count]
    for i in range(1, BAR):
        stretch = stretch * base + now.codes[:, i : i + count]
    begins = torch.arange(count, device=stretch.device)
    last = stretch.gather(1, (now.step - BAR + 1).clamp(min=0).unsqueeze(1))
    known = (stretch == last) & (begins <= now.step.unsqueeze(1) - 2 * BAR + 1)
    notes = _different(now)
    return torch.where(known.any(1) & (notes >= 3), 4.0 + (notes - 3), 0.0)


def interval(now: Moment) -> Tensor:
    """Five times what the interval from the last note is worth; rests and holds after tonic or fifth are worth more."""
    before = now.newest_note()
    size, degree = (now.code - before).abs(), now.degree(before)
    worth = torch.zeros(2 * OCTAVE + 14, device=now.code.device)
    worth[OCTAVE + 1 :] = -1.0
    for semitones, points in INTERVALS.items():
        worth[semitones] = points
    value = worth[size.clamp(max=len(worth) - 1)]
    value = torch.where((size == FIFTH) & ((degree == 0) | (degree == 7)), 0.1, value)
    value = torch.where((size == THIRD) & ((degree == 0) | (degree == 4)), 0.15, value)
    stable = (degree == 0) | (degree == 7)
    value = torch.where(now.code == REST, torch.where(stable, 0.15, 0.05), value)
    value = torch.where(now.code == HOLD, torch.where(stable, 0.3, 0.075), value)
    return 5 * torch.where(before > HOLD, value, 0.0)


def leap_resolved(now: Moment) -> Tensor:
    """5 where a leap (a fifth or more) is resolved: by a leap back after more than 6 steps, or by returning to where
    it began."""
    return 5.0 * leaps(now)[0]


def leap_doubled(now: Moment) -> Tensor:
    """−5 for a second leap in the direction of one that is not resolved."""
    return -5.0 * leaps(now)[1]


def leaps(now: Moment) -> tuple[Tensor, Tensor]:
    """Whether the step resolves a leap, and whether it doubles one, float [N] each."""
    codes = now.codes[:, : longest(now.step + 1, now.length)].to(torch.int16).T.contiguous()  # [S, N]
    sounds, steps = codes > HOLD, torch.arange(len(codes), device=codes.device).unsqueeze(1)
    at = _newest_before(torch.where(sounds, steps, -1))
    note = torch.where(at >= 0, codes.gather(0, at.clamp(min=0)), REST)
    move = (codes - note) * (sounds & (note > HOLD))
    far = move.abs() >= FIFTH
    leap, near = move.sign() * far, sounds & ~far  # the direction of a leap, or 0; a smaller interval
    since = steps - 1 - _newest_before(torch.where(far, steps, -1)).clamp(min=0)  # the last leap, or the first step
    direction = home = torch.zeros_like(codes[0])  # of the leap that is open; where it began, times its direction
    before, returns = [], []
    # What a step does depends on which leap is open then: this is left to a loop, of as few operations as can be.
    for leap_, near_, code, begins in zip(leap, near, codes, leap * note, strict=True):
        home = torch.where(direction == 0, begins, home)
        back = (direction * code <= home) & near_  # where it began, or beyond
        before.append(direction)
        returns.append(back)
        direction = (direction + leap_).clamp(-1, 1).masked_fill(back, 0)
    was_open = torch.stack(before)
    against = leap * was_open
    resolved = (torch.stack(returns) & (was_open != 0)) | ((against < 0) & (since > BEFORE_LEAP_BACK))
    doubled = against > 0
    newest = now.step.unsqueeze(0)
    return resolved.gather(0, newest)[0].float(), doubled.gather(0, newest)[0].float()


def _newest_before(at: Tensor) -> Tensor:
    """The largest of the steps `at`, [S, N], that stand before each one; −1 before the first."""
    return torch.cat([torch.full_like(at[:1], -1), at[:-1].cummax(0).values])


def unique_highest(now: Moment) -> Tensor:
    """3 at the last step if the highest code stands once."""
    top = now.codes.amax(1, keepdim=True)
    return 3.0 * ((now.step == now.length - 1) & ((now.codes == top).sum(1) == 1))


def unique_lowest(now: Moment) -> Tensor:
    """3 at the last step if the lowest note stands once."""
    bottom = torch.where(now.codes > HOLD, now.codes, torch.iinfo(torch.long).max).amin(1, keepdim=True)
    return 3.0 * ((now.step == now.length - 1) & ((now.codes == bottom).sum(1) == 1))


def _last_bar(now: Moment) -> Tensor:
    """The last 8 steps, the newest included, [N, 8]; negative before the beginning."""
    return now.step.unsqueeze(1) + torch.arange(1 - BAR, 1, device=now.step.device)


def _different(now: Moment) -> Tensor:
    """How many different notes the last 8 steps hold, [N]; 0 where there were fewer steps."""
    last = now.codes.gather(1, _last_bar(now).clamp(min=0)).sort(1).values
    changed = torch.cat([torch.ones_like(last[:, :1], dtype=torch.bool), last[:, 1:] != last[:, :-1]], 1)
    return ((last > HOLD) & changed).sum(1) * (now.step >= BAR - 1)


RULES: dict[str, Callable[[Moment], Tensor]] = {
    "key": key, "tonic": tonic, "repetition": repetition, "autocorrelation": autocorrelation, "motif": motif,
    "repeated_motif": repeated_motif, "interval": interval, "leap_resolved": leap_resolved,
    "leap_doubled": leap_doubled, "unique_highest": unique_highest, "unique_lowest": unique_lowest,
}  # fmt: skip
