"""Pieces as MIDI files, for any sequencer or notation program."""

from collections.abc import Sequence
from pathlib import Path

import mido

from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

TICKS = 480  # a beat
STEP = TICKS // STEPS_PER_BEAT
CHANNELS = [channel for channel in range(16) if channel != 9]  # channel 10 would sound as drums
SLOWEST = (1 << 24) - 1  # microseconds a beat that three bytes hold


def write_midi(path: Path, piece: Piece, program: int | None = None, voices: Sequence[str] = ()) -> None:
    """Type 1: a track for each voice that has notes, tempo and time signature at the head of the first.

    Args:
        program: of General MIDI, from 0, that all voices have; None: the file says none.
        voices: names of the tracks, the highest voice's first.
    """
    found = sorted({note.voice for note in piece.notes})
    tracks = [
        mido.MidiTrack([*_said(voice, program, voices), *_track([n for n in piece.notes if n.voice == voice], voice)])
        for voice in found
    ]
    head, *rest = tracks or [mido.MidiTrack()]
    mido.MidiFile(type=1, ticks_per_beat=TICKS, tracks=[mido.MidiTrack([*_meta(piece), *head]), *rest]).save(path)


def _said(voice: int, program: int | None, names: Sequence[str]) -> list[mido.Message | mido.MetaMessage]:
    """A voice's name and instrument, where there are any."""
    named = [mido.MetaMessage("track_name", name=names[voice])] if voice < len(names) else []
    if program is None:
        return named
    return [*named, mido.Message("program_change", channel=CHANNELS[voice % len(CHANNELS)], program=program)]


def _meta(piece: Piece) -> list[mido.MetaMessage]:
    beat = min(max(round(60e6 / piece.tempo), 1), SLOWEST)
    numerator, denominator = _signature(piece.bar)
    return [
        mido.MetaMessage("set_tempo", tempo=beat),
        mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator),
    ]


def _signature(bar: int) -> tuple[int, int]:
    """In quarters where they fill the bar, else in eighths or sixteenths: the grid does not know 3/4 from 6/8.

    Whole and half notes serve bars whose quarters no byte can count.
    """
    whole = 4 * STEPS_PER_BEAT
    fits = (d for d in (4, 8, 16, 2, 1) if bar * d % whole == 0 and 0 < bar * d // whole < 256)
    denominator = next(fits, 4)
    return min(max(bar * denominator // whole, 1), 255), denominator


def _track(notes: list[Note], voice: int) -> mido.MidiTrack:
    channel = CHANNELS[voice % len(CHANNELS)]
    on = [(note.start * STEP, 1, note.pitch, note.velocity) for note in notes]
    off = [((note.start + note.duration) * STEP, 0, note.pitch, 0) for note in notes]
    track, now = mido.MidiTrack(), 0
    for tick, starts, pitch, velocity in sorted(on + off):  # ends first, so that a repeated note is not swallowed
        kind = "note_on" if starts else "note_off"
        track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now))
        now = tick
    return track
