"""How samples are written: what a picture, an animation, a plotter's page and a sound are to be like."""

from pathlib import Path
from typing import NamedTuple

from rlgen_cli.domains.canvas.plotter import Page


class Look(NamedTuple):
    """How single pictures are written.

    Attributes:
        scale: side of a pixel: drawings are rasterised from their strokes, other pictures enlarged. smooth: between
            pixels, where these are enlarged. transparent: the background of a canvas is left out. columns: of the grid.
    """

    scale: int = 1
    smooth: bool = False
    transparent: bool = False
    columns: int | None = None


class Film(NamedTuple):
    """How a sample comes about before the eyes.

    Attributes:
        seconds: from nothing to the finished picture. loop: an animated SVG begins again after a rest.
        fps: frames a second of mp4 and webm.
    """

    seconds: float = 6.0
    loop: bool = True
    fps: int = 25


class Sound(NamedTuple):
    """How music sounds.

    Attributes:
        soundfont: a file (SF2, SF3) that plays wav and films. tempo: beats a minute; None: the environment's.
        program: of General MIDI, from 0; None: MIDI files say none, and the rest is played by the first, a piano.
    """

    soundfont: Path | None = None
    tempo: float | None = None
    program: int | None = None


class Style(NamedTuple):
    """How samples are written, of whatever kind they are."""

    look: Look = Look()
    film: Film = Film()
    page: Page = Page()
    sound: Sound = Sound()
