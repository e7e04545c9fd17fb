"""Pieces as sound: an additive synthesiser of its own, or any soundfont."""

import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.domains.music.instruments import FAMILY, INSTRUMENTS
from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

RATE, SOUNDFONT_RATE = 22050, 44100
PEAK = 0.8  # the loudest sample of any piece
RELEASE = 0.09  # seconds
TAIL = 1.0  # seconds that a soundfont's last notes may ring


class Timbre(NamedTuple):
    """How a tone sounds.

    Attributes:
        amplitudes: of the harmonics. decay: a second, of the fundamental. decay_step: how much faster each further
            harmonic fades. attack: seconds until a tone has its strength.
    """

    amplitudes: tuple[float, ...]
    decay: float
    decay_step: float
    attack: float


PIANO = Timbre((1.0, 0.42, 0.26, 0.14, 0.08, 0.05), 1.6, 1.1, 0.008)
PLUCKED = Timbre((1.0, 0.5, 0.33, 0.25, 0.2, 0.17), 2.2, 1.6, 0.004)
BELL = Timbre((1.0, 0.0, 0.4, 0.0, 0.0, 0.25), 2.4, 1.0, 0.003)
ORGAN = Timbre((1.0, 0.7, 0.3, 0.4, 0.0, 0.15), 0.0, 0.0, 0.02)
BOWED = Timbre((1.0, 0.5, 0.35, 0.25, 0.2, 0.15), 0.1, 0.05, 0.07)
BRASS = Timbre((0.8, 1.0, 0.8, 0.5, 0.3, 0.2), 0.3, 0.2, 0.04)
REED = Timbre((1.0, 0.1, 0.7, 0.1, 0.4, 0.1), 0.1, 0.05, 0.03)  # odd harmonics, as a closed pipe has
FLUTE = Timbre((1.0, 0.2, 0.06), 0.1, 0.1, 0.05)
# Of General MIDI's sixteen families, in their order: a likeness, where a soundfont has the sound.
FAMILIES = (
    PIANO, BELL, ORGAN, PLUCKED, PLUCKED, BOWED, BOWED, BRASS, REED, FLUTE, ORGAN, BOWED, BOWED, PLUCKED, BELL, BELL,
)  # fmt: skip


def sounding(piece: Piece, soundfont: Path | None = None, program: int = 0) -> tuple[np.ndarray, int]:
    """Mono float32 in [−1, 1] and its rate: our own synthesis, or a `soundfont` (SF2, SF3).

    Args:
        program: of General MIDI, from 0, that all voices have.

    Raises:
        UserError: for a soundfont that cannot be read or lacks the instrument.
    """
    if soundfont is None:
        return synthesise(piece, RATE, program), RATE
    return _sampled(piece, soundfont, program), SOUNDFONT_RATE


def synthesise(piece: Piece, rate: int = RATE, program: int = 0) -> np.ndarray:
    """Mono float32 in [-1, 1], peak `PEAK`; one bar of silence for a piece without notes."""
    timbre = FAMILIES[program // FAMILY]
    samples = _samples_per_step(piece, rate)
    sound = np.zeros(round((piece.steps or piece.bar) * samples) + round(RELEASE * rate) + 1)
    for note in piece.notes:
        tone = _tone(note.pitch, round(note.duration * samples), rate, timbre)
        start = round(note.start * samples)
        sound[start : start + len(tone)] += _loudness(note) * tone
    return _normalised(sound)


def write_wav(path: Path, piece: Piece, soundfont: Path | None = None, program: int = 0) -> None:
    """16 bit mono, as `sounding`."""
    write_wave(path, *sounding(piece, soundfont, program))


def _samples_per_step(piece: Piece, rate: int) -> float:
    return 60 / piece.tempo / STEPS_PER_BEAT * rate


def _loudness(note: Note) -> float:
    return (note.velocity / 127) ** 1.5


def _tone(pitch: int, samples: int, rate: int, timbre: Timbre) -> np.ndarray:
    """One note held for `samples`, then released; harmonics that the rate cannot carry are left out."""
    length = samples + round(RELEASE * rate)
    seconds = np.arange(length) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    sound = np.zeros(length)
    for i, amplitude in enumerate(timbre.amplitudes):
        if (i + 1) * frequency < rate / 2:
            fading = amplitude * np.exp(-(timbre.decay + i * timbre.decay_step) * seconds)
            sound += fading * np.sin(2 * np.pi * (i + 1) * frequency * seconds)
    rise = np.clip(seconds / timbre.attack, 0, 1)
    fall = np.clip((length - 1 - np.arange(length)) / max(length - samples, 1), 0, 1)
    return sound * _smooth(rise) * _smooth(fall)


def _smooth(ramp: np.ndarray) -> np.ndarray:
    """A straight ramp over [0, 1] with round corners, so that nothing clicks."""
    return 0.5 - 0.5 * np.cos(np.pi * ramp)


def _normalised(sound: np.ndarray) -> np.ndarray:
    peak = np.abs(sound).max(initial=0.0)
    return (sound * (PEAK / peak if peak > 0 else 0.0)).astype(np.float32)


def _sampled(piece: Piece, soundfont: Path, program: int) -> np.ndarray:
    """The piece played with a program of bank 0, every voice on a channel of its own."""
    require(soundfont.is_file(), f"soundfont: there is no file {soundfont}.")
    try:
        import tinysoundfont
    except ImportError:
        raise UserError("soundfont: needs tinysoundfont: pip install 'rlgen[soundfont]'.") from None
    synth = tinysoundfont.Synth(gain=-18.0, samplerate=SOUNDFONT_RATE)  # quiet: the mix is normalised as floats
    try:
        font = synth.sfload(soundfont.read_bytes())
    except RuntimeError:
        raise UserError(f"soundfont: {soundfont} cannot be read as SF2 or SF3.") from None
    try:
        for channel in range(16):
            synth.program_select(channel, font, 0, program)
    except RuntimeError:
        raise UserError(f"soundfont: {soundfont} has no instrument {program + 1}, {INSTRUMENTS[program]}.") from None
    samples = _samples_per_step(piece, SOUNDFONT_RATE)
    end = round((piece.steps or piece.bar) * samples) + round(TAIL * SOUNDFONT_RATE)
    chunks, now = [], 0
    for at, starts, channel, pitch, velocity in [*_events(piece, samples), (end, 0, 0, 0, 0)]:
        if at > now:
            chunks.append(np.frombuffer(synth.generate_simple(at - now), np.float32).reshape(-1, 2).mean(1))
            now = at
        if starts:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    sound = np.concatenate(chunks).astype(np.float64)
    fade = round(RELEASE * SOUNDFONT_RATE)
    sound[-fade:] *= _smooth(np.linspace(1, 0, fade))
    return _normalised(sound)


def _events(piece: Piece, samples: float) -> list[tuple[int, int, int, int, int]]:
    """(sample, starts, channel, pitch, velocity) in order, ends before starts."""
    on = [(round(n.start * samples), 1, n.voice % 16, n.pitch, n.velocity) for n in piece.notes]
    off = [(round((n.start + n.duration) * samples), 0, n.voice % 16, n.pitch, 0) for n in piece.notes]
    return sorted(on + off)


def write_wave(path: Path, sound: np.ndarray, rate: int) -> None:
    """A mono WAV file of a wave [S] in [−1, 1], 16 bits a sample."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
