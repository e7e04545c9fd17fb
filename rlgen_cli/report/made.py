"""What a run made, as a page can show it: pictures as data, strokes and notes as numbers."""

import base64
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rlgen_cli.core.files import MIB, content_of, read_bytes
from rlgen_cli.domains.music.datasets.midi_file import Rejected, read_midi
from rlgen_cli.domains.music.notes import STEPS_PER_BEAT
from rlgen_cli.report.curves import evenly

SHEETS, DRAWINGS, MELODIES, TEXTS = 40, 12, 8, 12  # of a run, at most
LARGEST = 4 * MIB  # of a file
SVG = "{http://www.w3.org/2000/svg}"
COLOUR = re.compile("#[0-9a-f]{6}")
CURVE = re.compile(r"M[-\d. ]+Q[-\d. ]+")


def made_by(folder: Path) -> dict[str, Any]:
    """The samples in a run's folder: grids over the training, and the last ones one by one."""
    last, grids = folder / "samples" / "final", sheets(folder)
    shown = [grids[i] for i in evenly(len(grids), SHEETS)]
    return {
        "sheets": [{"step": step_of(path), "src": picture(path)} for path in shown],
        "final": picture(last / "grid.png"),
        "strip": picture(last / "strip.png"),
        "drawings": [found for path in numbered(last, "svg", DRAWINGS) if (found := drawing(path))],
        "melodies": [found for path in numbered(last, "mid", MELODIES) if (found := melody(path))],
        "texts": [text(path) for path in numbered(last, "txt", TEXTS)],
    }


def sheets(folder: Path) -> list[Path]:
    """The grids that were written while the run trained."""
    return sorted(path for path in (folder / "samples").glob("step_*.png") if path.stem[5:].isdecimal())


def step_of(sheet: Path) -> int:
    """When a grid was made."""
    return int(sheet.stem[5:])


def numbered(folder: Path, suffix: str, limit: int) -> list[Path]:
    """The first files that hold one sample each."""
    return sorted(path for path in folder.glob(f"*.{suffix}") if path.stem.isdecimal())[:limit]


def picture(path: Path) -> str | None:
    """A PNG as a data URL; None where there is none that can be read."""
    try:
        content = content_of(path, LARGEST)
    except OSError:
        return None
    return data_url(content) if content.startswith(b"\x89PNG") else None


def data_url(png: bytes) -> str:
    """A PNG as part of a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def text(path: Path) -> str:
    """A text, from its beginning."""
    return read_bytes(path, LARGEST, "run").decode("utf-8", "replace")[:2000]


def drawing(path: Path) -> dict[str, Any] | None:
    """The strokes of an SVG that `rlgen sample` wrote, in their order; None of any other."""
    try:
        root = ElementTree.fromstring(content_of(path, LARGEST))
        sheet = root.find(f"{SVG}svg")
        paper = None if sheet is None else sheet.find(f"{SVG}rect")
        marks = None if sheet is None else sheet.find(f"{SVG}g")
        if sheet is None or paper is None or marks is None:
            return None
        return {
            "name": path.stem,
            "size": float(sheet.attrib["width"]),
            "paper": matching(COLOUR, paper.attrib["fill"]),
            "marks": [mark(element) for element in marks],
        }
    except (OSError, ElementTree.ParseError, KeyError, ValueError):
        return None


def mark(element: ElementTree.Element) -> dict[str, Any]:
    """A stroke, or a pixel, as attributes of an SVG element.

    Raises:
        KeyError, ValueError: for what `rlgen sample` never writes.
    """
    given = element.attrib
    if element.tag == f"{SVG}rect":
        return {"x": float(given["x"]), "y": float(given["y"]), "fill": matching(COLOUR, given["fill"])}
    return {
        "d": matching(CURVE, given["d"]),
        "stroke": matching(COLOUR, given["stroke"]),
        "width": float(given["stroke-width"]),
        "opacity": float(given.get("stroke-opacity", 1)),
    }


def matching(pattern: re.Pattern[str], value: str) -> str:
    """The value, if it is as the pattern says.

    Raises:
        ValueError: if it is not.
    """
    if pattern.fullmatch(value) is None:
        raise ValueError(value)
    return value


def melody(path: Path) -> dict[str, Any] | None:
    """The notes of a MIDI file: start and duration in seconds, pitch, velocity, voice; None of one that is damaged."""
    try:
        piece = read_midi(path)
    except Rejected:
        return None
    step = 60 / piece.tempo / STEPS_PER_BEAT
    notes = [[n.start * step, n.duration * step, n.pitch, n.velocity, n.voice] for n in piece.notes]
    return {"name": path.stem, "bar": piece.bar * step, "notes": notes}
