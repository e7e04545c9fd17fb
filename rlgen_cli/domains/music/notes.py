"""Notes on a grid of sixteenths: what datasets give, encodings read, and exports write."""

from typing import NamedTuple

STEPS_PER_BEAT = 4  # the grid's step is a sixteenth
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAJOR = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic


class Note(NamedTuple):
    """One note; times are in grid steps."""

    start: int
    duration: int  # at least 1
    pitch: int  # MIDI number, 60 is middle C
    velocity: int = 80  # 1 to 127
    voice: int = 0  # 0 is the highest


class Piece(NamedTuple):
    """Notes in the order of their starts (then of their voices)."""

    notes: tuple[Note, ...]
    bar: int = 16  # grid steps
    tempo: float = 100.0  # beats a minute
    name: str = ""

    @property
    def steps(self) -> int:
        """Where the last note ends."""
        return max((note.start + note.duration for note in self.notes), default=0)


def voice_names(voices: int) -> tuple[str, ...]:
    """Of so many voices that sound together, the highest first; of one, none."""
    if voices == 4:
        return ("Soprano", "Alto", "Tenor", "Bass")
    return tuple(f"Voice {number}" for number in range(1, voices + 1)) if voices > 1 else ()
