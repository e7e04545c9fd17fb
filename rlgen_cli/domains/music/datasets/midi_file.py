"""MIDI files as pieces on the grid of sixteenths."""

import io
import re
from collections import defaultdict, deque
from itertools import pairwise
from pathlib import Path

import mido

from rlgen_cli.core.errors import reason_of, require
from rlgen_cli.core.files import MIB, content_of, files_below
from rlgen_cli.domains.music.notes import STEPS_PER_BEAT, Note, Piece

SUFFIXES = {".mid", ".midi"}
DRUMS = 9  # channel 10, counted from 0: its numbers name drums, not pitches
DEFAULT_TEMPO = 120.0  # what the standard assumes where a file is silent
WHOLE = 4 * STEPS_PER_BEAT  # also the default bar, 4/4
LONGEST = 1 << 16  # grid steps, more than two hours at 120 beats a minute: past it a time stamp is broken
LARGEST_FILE = MIB
MOST_MESSAGES = 200_000
ENDLESS = re.compile(rb"[\x80-\xff]{4096}")  # a number goes on while bytes are above 127; valid ones have at most four


class Rejected(Exception):
    """Why a file cannot be read as a piece."""


def read_folder(folder: Path) -> tuple[list[Piece], dict[str, str]]:
    """Every MIDI file below `folder` in the order of paths, and those rejected: relative path to reason."""
    require(folder.is_dir(), f"data.path: there is no folder {folder}.")
    pieces, rejected = [], {}
    for file in files_below(folder, SUFFIXES):
        try:
            pieces.append(read_midi(file))
        except Rejected as reason:
            rejected[file.relative_to(folder).as_posix()] = str(reason)
    first = next((f"first reason: {name} {reason}" for name, reason in rejected.items()), "no *.mid or *.midi below")
    require(bool(pieces), f"data.path: {folder} holds no MIDI file that can be read ({first}).")
    return pieces, rejected


def read_midi(path: Path) -> Piece:
    """The notes of one file, named after it; `Rejected` says why there are none, or that there are more than
    LARGEST_FILE, MOST_MESSAGES or LONGEST allow.

    A voice is one channel of one track; voice 0 is the highest on average. Drums are left out. The grid counts beats,
    so tempo changes do not move notes; the first tempo and the first time signature speak for the whole piece.
    """
    file = _parsed(path)
    channels = [notes for track in file.tracks for notes in _channels(track, file.ticks_per_beat)]
    channels.sort(key=lambda notes: -sum(note.pitch for note in notes) / len(notes))
    notes = [note._replace(voice=voice) for voice, channel in enumerate(channels) for note in _untangled(channel)]
    notes.sort(key=lambda note: (note.start, note.voice, -note.pitch))
    piece = Piece(tuple(notes), _bar(file), _tempo(file), path.stem)
    if not notes:
        raise Rejected("holds no notes")
    if piece.steps > LONGEST:
        raise Rejected(f"lasts too many sixteenths, more than {LONGEST}")
    return piece


def melody(piece: Piece) -> Piece:
    """The top line: at every onset the highest note that starts there, cut where the next begins. All in voice 0."""
    top: dict[int, Note] = {}
    for note in piece.notes:
        held = top.get(note.start, note)
        top[note.start] = max(held, note, key=lambda n: (n.pitch, n.duration))
    line = [
        top[start]._replace(duration=min(top[start].duration, following - start), voice=0)
        for start, following in pairwise([*sorted(top), piece.steps])
    ]
    return piece._replace(notes=tuple(line))


def _parsed(path: Path) -> mido.MidiFile:
    try:
        content = content_of(path, LARGEST_FILE)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror})") from None
    if ENDLESS.search(content):
        raise Rejected("is no MIDI file (a number does not end)")
    try:
        file = mido.MidiFile(file=io.BytesIO(content))
    except EOFError:
        raise Rejected("is cut short" if content else "is empty") from None
    except Exception as error:  # mido checks little: broken bytes raise whatever the parser stumbles over
        raise Rejected(f"is no MIDI file ({reason_of(error)})") from None
    if file.type not in (0, 1):
        raise Rejected(f"is of type {file.type}: its tracks do not sound together")
    if file.ticks_per_beat <= 0:
        raise Rejected("counts time in film frames, not in beats")
    messages = sum(len(track) for track in file.tracks)
    if messages > MOST_MESSAGES:
        raise Rejected(f"has {messages} messages, more than {MOST_MESSAGES}")
    return file


def _channels(track: mido.MidiTrack, ticks: int) -> list[list[Note]]:
    """One track's notes by channel; a beat has `ticks` ticks. Of equal pitches the first to start ends first."""
    notes: dict[int, list[Note]] = defaultdict(list)
    sounding: dict[tuple[int, int], deque[tuple[int, int]]] = defaultdict(deque)

    def close(channel: int, pitch: int, end: int) -> None:
        begin, velocity = sounding[channel, pitch].popleft()
        start = _step(begin, ticks)
        notes[channel].append(Note(start, max(1, _step(end, ticks) - start), pitch, velocity))

    now = 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
            continue
        if message.type == "note_on" and message.velocity > 0:
            sounding[message.channel, message.note].append((now, message.velocity))
        elif sounding[message.channel, message.note]:
            close(message.channel, message.note, now)
    for (channel, pitch), held in sounding.items():
        for _ in range(len(held)):
            close(channel, pitch, now)
    return [notes[channel] for channel in sorted(notes)]


def _step(tick: int, ticks: int) -> int:
    """The nearest grid step, halves upwards."""
    return (2 * tick * STEPS_PER_BEAT + ticks) // (2 * ticks)


def _untangled(notes: list[Note]) -> list[Note]:
    """No pitch twice at a time: the earlier note is cut; of two that start together the longer stays."""
    kept: list[Note] = []
    for note in sorted(notes, key=lambda n: (n.pitch, n.start, -n.duration)):
        last = kept[-1] if kept else None
        if last and last.pitch == note.pitch:
            if last.start == note.start:
                continue
            kept[-1] = last._replace(duration=min(last.duration, note.start - last.start))
        kept.append(note)
    return kept


def _first(file: mido.MidiFile, kind: str) -> mido.MetaMessage | None:
    """The earliest message of its kind in all tracks."""
    found = []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == kind:
                found.append((now, message))
                break
    return min(found, key=lambda pair: pair[0], default=(0, None))[1]


def _bar(file: mido.MidiFile) -> int:
    """Grid steps; a signature that makes no sense (0/4, or a bar below a sixteenth) counts as 4/4."""
    signature = _first(file, "time_signature")
    return (signature and WHOLE * signature.numerator // signature.denominator) or WHOLE


def _tempo(file: mido.MidiFile) -> float:
    """Beats a minute. Files hold whole microseconds a beat, so the last digits are noise."""
    message = _first(file, "set_tempo")
    return round(60e6 / message.tempo, 3) if message and message.tempo else DEFAULT_TEMPO
