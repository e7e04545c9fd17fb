"""How tokens stand for music (or for text): what an environment's actions mean.

An encoding says how many values each part of a token has (`vocabulary`), what such sequences are (`kinds`, which
rewards ask for), how many tokens one grid step takes (`voices`), turns pieces into training sequences (`windows`), and
sequences into notes that sound (`roll`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.domains.music.notes import NAMES, STEPS_PER_BEAT, Note, Piece

REST, HOLD = 0, 1  # the tokens of a grid step in which nothing sounds, or nothing new begins
VELOCITY = 80  # of encodings without dynamics


class NotEncodable(Exception):
    """A piece that an encoding cannot express; the text says why."""


class Roll(NamedTuple):
    """What N pieces of music sound like: S grid steps (sixteenths) of V voices, the highest first."""

    pitch: Tensor  # int64 [N, S, V], the MIDI number that sounds; −1 in silence and where nothing stands yet
    onset: Tensor  # bool [N, S, V], a note begins
    velocity: Tensor  # int64 [N, S, V], of the sounding note, 1 to 127


@runtime_checkable
class MusicEncoding(Protocol):
    """What the module says, for any vocabulary; a `core.protocols.Encoding` that knows notes."""

    vocabulary: tuple[int, ...]
    kinds: frozenset[str]
    voices: int  # tokens that one step in time takes, one a voice
    grid: int  # sixteenths between steps in time; 0 where tokens have durations of their own

    def windows(self, piece: Piece, length: int) -> list[Tensor]:
        """Training sequences of at most `length` tokens, int64 [T, F], that begin at bars; raises NotEncodable."""
        ...

    def roll(self, tokens: Tensor) -> Roll:
        """What tokens [N, T, F] sound like; −1 is silence."""
        ...

    def allowed(self, scale: frozenset[int]) -> Tensor:
        """Bool [voices, A] of the tokens that a voice may have within pitch classes `scale`."""
        ...

    def onset(self, tokens: Tensor, step: Tensor) -> Tensor:
        """Sixteenths from the beginning to where token `step` [N] begins, int64 [N]; reads earlier tokens only."""
        ...


class Melody:
    """One voice on a grid of sixteenths (RL Tuner, Jaques et al. 2017): rest, hold, or a note from `low` to `high`."""

    kinds, voices = frozenset(["sequence", "music", "melody"]), 1

    def __init__(self, *, low: int, high: int, grid: int) -> None:
        _check_range(low, high)
        require(grid >= 1, f"grid: must be at least 1 sixteenth, got {grid}.")
        self.low, self.high, self.grid = low, high, grid
        self.vocabulary: tuple[int, ...] = (high - low + 3,)

    def windows(self, piece: Piece, length: int) -> list[Tensor]:
        line = _events(_top(piece), piece.steps, self.grid, self.low, self.high)
        return _cut(line.unsqueeze(1), length, max(piece.bar // self.grid, 1))

    def roll(self, tokens: Tensor) -> Roll:
        return _sounding(tokens, self.low, self.grid)

    def allowed(self, scale: frozenset[int]) -> Tensor:
        return _in_scale(self.low, self.high, scale).unsqueeze(0)

    def onset(self, tokens: Tensor, step: Tensor) -> Tensor:
        return step.long() * self.grid


class Chorale:
    """Four voices on one grid, token by token from the highest voice to the lowest, as Melody's; `ranges` are MIDI
    numbers from and to for each voice."""

    kinds = frozenset(["sequence", "music", "chorale"])

    def __init__(self, *, ranges: list[list[int]], grid: int) -> None:
        require(grid >= 1, f"grid: must be at least 1 sixteenth, got {grid}.")
        require(len(ranges) >= 2, f"ranges: must name at least two voices, got {len(ranges)}.")
        for pair in ranges:
            require(len(pair) == 2, f"ranges: must be a pair for each voice, from and to, got {pair}.")
            _check_range(*pair)
        self.ranges, self.grid, self.voices = [(low, high) for low, high in ranges], grid, len(ranges)
        self.low, self.high = min(low for low, _ in self.ranges), max(high for _, high in self.ranges)
        self.vocabulary: tuple[int, ...] = (self.high - self.low + 3,)

    def windows(self, piece: Piece, length: int) -> list[Tensor]:
        parts = [[note for note in piece.notes if note.voice == voice] for voice in range(self.voices)]
        if not all(parts) or any(note.voice >= self.voices for note in piece.notes):
            raise NotEncodable(f"has not {self.voices} voices")
        lines = [
            _events(part, piece.steps, self.grid, *span, fold=False)
            for part, span in zip(parts, self.ranges, strict=True)
        ]
        # Codes count from each voice's own lowest note; here they count from the lowest of all.
        lines = [
            torch.where(line > HOLD, line + low - self.low, line)
            for line, (low, _) in zip(lines, self.ranges, strict=True)
        ]
        tokens = torch.stack(lines, 1)  # [S, V]
        return [window.view(-1, 1) for window in _cut(tokens, length // self.voices, max(piece.bar // self.grid, 1))]

    def roll(self, tokens: Tensor) -> Roll:
        steps = tokens.shape[1] // self.voices
        return _sounding(tokens[:, : steps * self.voices].reshape(len(tokens), steps, self.voices), self.low, self.grid)

    def allowed(self, scale: frozenset[int]) -> Tensor:
        every = _in_scale(self.low, self.high, scale)
        pitch = torch.arange(len(every)) - 2 + self.low
        rows = [every & ((pitch < self.low) | ((pitch >= low) & (pitch <= high))) for low, high in self.ranges]
        return torch.stack(rows)

    def onset(self, tokens: Tensor, step: Tensor) -> Tensor:
        return step.long() // self.voices * self.grid


class Notes:
    """Notes one after the other, each of three decisions: pitch (0 a rest, then from `low` to `high`), duration (from
    a sixteenth to `longest`) and velocity (`dynamics` levels)."""

    kinds, voices, grid = frozenset(["sequence", "music"]), 1, 0

    def __init__(self, *, low: int, high: int, longest: int, dynamics: int) -> None:
        _check_range(low, high)
        require(1 <= longest <= 1024, f"longest: must be from 1 to 1024 sixteenths, got {longest}.")
        require(1 <= dynamics <= 127, f"dynamics: must be from 1 to 127 levels, got {dynamics}.")
        self.low, self.high, self.longest, self.dynamics = low, high, longest, dynamics
        self.vocabulary: tuple[int, ...] = (high - low + 2, longest, dynamics)

    def windows(self, piece: Piece, length: int) -> list[Tensor]:
        notes = _fold(_top(piece), self.low, self.high)
        rows, starts, at = [], [], 0
        for note in notes:
            for gap in self._parts(note.start - at):
                rows.append([0, gap - 1, 0])
                starts.append(-1)
            level = (note.velocity - 1) * self.dynamics // 127
            duration = min(note.duration, self.longest)
            rows.append([note.pitch - self.low + 1, duration - 1, level])
            starts.append(note.start)
            at = note.start + duration
        tokens = torch.tensor(rows)
        first = [i for i, start in enumerate(starts) if start >= 0 and start % piece.bar == 0]
        found = [tokens[i : i + length] for i in first if i + length <= len(tokens)]
        if not found:
            raise NotEncodable(f"has fewer than {length} notes")
        return found

    def _parts(self, gap: int) -> list[int]:
        """A silence as rests that are not too long."""
        whole, rest = divmod(max(gap, 0), self.longest)
        return [self.longest] * whole + [rest] * (rest > 0)

    def roll(self, tokens: Tensor) -> Roll:
        """At most 4 · T sixteenths: a beat for each note on average; what lies beyond is cut."""
        pitch, duration, level = tokens.unbind(2)  # [N, T]
        lasts = torch.where(duration >= 0, duration + 1, 0)
        end = lasts.cumsum(1)
        at = torch.arange(STEPS_PER_BEAT * tokens.shape[1], device=tokens.device).expand(len(tokens), -1).contiguous()
        index = torch.searchsorted(end, at, right=True)  # [N, S], the note that a step belongs to
        inside = index < tokens.shape[1]
        index = index.clamp(max=tokens.shape[1] - 1)
        code = torch.where(inside, pitch.gather(1, index), 0)
        sounds = code > 0
        velocity = (level.gather(1, index).clamp(min=0) * 2 + 1) * 127 // (2 * self.dynamics)
        return Roll(
            torch.where(sounds, code + self.low - 1, -1).unsqueeze(2),
            (sounds & ((end - lasts).gather(1, index) == at)).unsqueeze(2),
            velocity.clamp(1, 127).unsqueeze(2),
        )

    def allowed(self, scale: frozenset[int]) -> Tensor:
        require(len(scale) == 12, "scale: must be chromatic with encoding=notes, whose decisions cannot be masked.")
        return torch.ones(1, sum(self.vocabulary), dtype=torch.bool)

    def onset(self, tokens: Tensor, step: Tensor) -> Tensor:
        earlier = torch.arange(tokens.shape[1], device=tokens.device) < step.unsqueeze(1)
        return torch.where(earlier, tokens[:, :, 1].long() + 1, 0).sum(1)


class Tokens:
    """Any vocabulary: text, or (from music) notes of one length by their names, each an eighth.

    `names` are the vocabulary; null takes it from the data. Tokens are joined by `separator` to be read.
    """

    voices, grid = 1, 2

    def __init__(self, *, low: int, high: int, names: list[str] | None, separator: str) -> None:
        _check_range(low, high)
        self.low, self.high, self.separator = low, high, separator
        self.names = tuple(names) if names is not None else tuple(pitch_name(p) for p in range(low, high + 1))
        require(len(self.names) > 1, "names: must hold at least two tokens.")
        require(len(set(self.names)) == len(self.names), "names: must differ from each other.")
        self.vocabulary: tuple[int, ...] = (len(self.names),)
        pitches = [pitch_number(name) for name in self.names]
        self.pitches = torch.tensor([*(-1 if pitch is None else pitch for pitch in pitches), -1])  # and of no token
        self.pitches_on: dict[torch.device, Tensor] = {}  # copied once to each device
        musical = all(pitch is not None for pitch in pitches)
        self.kinds = frozenset(["sequence", "music", "notes"] if musical else ["sequence", "text"])

    def with_vocabulary(self, names: Sequence[str], separator: str) -> "Tokens":
        """The same for a vocabulary that the data brought."""
        return Tokens(low=self.low, high=self.high, names=list(names), separator=separator)

    def windows(self, piece: Piece, length: int) -> list[Tensor]:
        notes = _fold(_top(piece), self.low, self.high)
        codes = torch.tensor([self.names.index(pitch_name(note.pitch)) for note in notes])
        return _windows(codes.unsqueeze(1), length, max(length // 4, 1))

    def roll(self, tokens: Tensor) -> Roll:
        if tokens.device not in self.pitches_on:
            self.pitches_on[tokens.device] = self.pitches.to(tokens.device)
        known = (tokens >= 0) & (tokens < len(self.names))
        pitch = self.pitches_on[tokens.device][torch.where(known, tokens, len(self.names))]  # [N, T, 1]
        onset = pitch >= 0
        silent = torch.zeros_like(onset)
        pitch, onset = pitch.repeat_interleave(self.grid, 1), torch.stack([onset, silent], 2).flatten(1, 2)
        return Roll(pitch, onset, torch.full_like(pitch, VELOCITY))

    def text(self, tokens: Tensor) -> list[str]:
        """Tokens [N, T, 1] as they are read; what lies beyond the vocabulary (an end) is left out."""
        rows = tokens.squeeze(2).tolist()
        return [self.separator.join(self.names[token] for token in row if 0 <= token < len(self.names)) for row in rows]

    def allowed(self, scale: frozenset[int]) -> Tensor:
        mask = [pitch < 0 or pitch % 12 in scale for pitch in self.pitches[:-1].tolist()]
        return torch.tensor([mask])

    def onset(self, tokens: Tensor, step: Tensor) -> Tensor:
        return step.long() * self.grid


def pieces(roll: Roll, bar: int, tempo: float) -> list[Piece]:
    """A roll as lists of notes."""
    every = zip(roll.pitch.tolist(), roll.onset.tolist(), roll.velocity.tolist(), strict=True)
    return [_piece(pitch, onset, velocity, bar, tempo) for pitch, onset, velocity in every]


def _piece(pitch: list[list[int]], onset: list[list[bool]], velocity: list[list[int]], bar: int, tempo: float) -> Piece:
    notes = []
    for voice in range(len(pitch[0])):
        for step in range(len(pitch)):
            if not onset[step][voice]:
                continue
            end = step + 1
            while end < len(pitch) and pitch[end][voice] == pitch[step][voice] and not onset[end][voice]:
                end += 1
            notes.append(Note(step, end - step, pitch[step][voice], velocity[step][voice], voice))
    return Piece(tuple(sorted(notes, key=lambda note: (note.start, note.voice))), bar, tempo)


def pitch_name(pitch: int) -> str:
    """C4 for 60."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def pitch_number(name: str) -> int | None:
    """60 for C4; None for what is no pitch."""
    letters, octave = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    if letters not in NAMES or len(octave) != 1:
        return None
    pitch = NAMES.index(letters) + 12 * (int(octave) + 1)
    return pitch if pitch <= 127 else None


def _check_range(low: int, high: int) -> None:
    require(0 <= low < high <= 127, f"low: must be below high, both MIDI numbers from 0 to 127, got {low} and {high}.")


def _top(piece: Piece) -> list[Note]:
    """The highest voice's notes."""
    return [note for note in piece.notes if note.voice == 0]


def _fold(notes: list[Note], low: int, high: int) -> list[Note]:
    """The notes moved by whole octaves into the range, all alike."""
    if not notes:
        raise NotEncodable("holds no notes")
    lowest, highest = min(note.pitch for note in notes), max(note.pitch for note in notes)
    shifts = [12 * k for k in range(-8, 9) if low <= lowest + 12 * k and highest + 12 * k <= high]
    if not shifts:
        raise NotEncodable(f"spans {highest - lowest} semitones, too many for the range")
    middle = (low + high - lowest - highest) / 2
    shift = min(shifts, key=lambda by: (abs(by), abs(by - middle)))
    return [note._replace(pitch=note.pitch + shift) for note in notes]


def _events(notes: list[Note], steps: int, grid: int, low: int, high: int, fold: bool = True) -> Tensor:
    """A voice as rest, hold and note-on codes, int64 [S], one for each `grid` sixteenths."""
    if fold:
        notes = _fold(notes, low, high)
    elif any(not low <= note.pitch <= high for note in notes):
        raise NotEncodable("leaves a voice's range")
    if any(note.start % grid for note in notes):
        raise NotEncodable(f"has notes off the grid of {grid} sixteenths")
    line = [HOLD] * -(-steps // grid)
    for note in notes:
        end = -(-(note.start + note.duration) // grid)
        if end < len(line) and line[end] == HOLD:
            line[end] = REST
        line[note.start // grid] = note.pitch - low + 2
    return torch.tensor(line, dtype=torch.int64)


def _windows(tokens: Tensor, length: int, stride: int) -> list[Tensor]:
    """Copies [length, V] of a sequence [S, V], one from each stride on."""
    if len(tokens) < length:
        raise NotEncodable(f"is too short ({len(tokens)} of {length} steps)")
    return [tokens[start : start + length].clone() for start in range(0, len(tokens) - length + 1, stride)]


def _cut(events: Tensor, length: int, stride: int) -> list[Tensor]:
    """Windows of an event sequence in which a note that goes on from before starts anew, without silent ones."""
    found = torch.stack(_windows(events, length, stride))  # [W, length, V]
    found[:, 0] = _newest(events.unsqueeze(0))[0, ::stride][: len(found)]
    return list(found[(found > HOLD).flatten(1).any(1)])


def _newest(codes: Tensor) -> Tensor:
    """Of codes [N, S, V], the newest at each step that is no hold; rest before the first."""
    steps = torch.arange(codes.shape[1], device=codes.device).view(1, -1, 1)
    event = torch.where(codes == HOLD, -1, steps).cummax(1).values  # [N, S, V], the step whose code still holds
    return torch.where(event >= 0, codes.gather(1, event.clamp(min=0)), REST)


def _sounding(codes: Tensor, low: int, grid: int) -> Roll:
    """Codes [N, S, V] of rest, hold and notes from `low` on, as they sound in sixteenths."""
    code = _newest(codes)
    sounds, starts = (codes >= 0) & (code > HOLD), codes > HOLD
    pitch = torch.where(sounds, code + low - 2, -1).repeat_interleave(grid, 1)
    onset = torch.zeros_like(pitch, dtype=torch.bool)
    onset[:, ::grid] = starts
    return Roll(pitch, onset, torch.full_like(pitch, VELOCITY))


def _in_scale(low: int, high: int, scale: frozenset[int]) -> Tensor:
    """Bool [A] over rest, hold and the notes of the range."""
    return torch.tensor([True, True, *(pitch % 12 in scale for pitch in range(low, high + 1))])
