"""Strokes for a pen plotter: HPGL and G-code, in the order in which they were drawn.

A plotter's pen draws every line as wide as it is itself, and nothing takes ink off the paper. Strokes that hardly
differ from the background are therefore left out, and widths and opacities are lost; of filled shapes the rim is drawn.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import Tensor

from rlgen_cli.core.specs import Stroke, Tip
from rlgen_cli.domains.canvas.outlines import is_filled, outlines
from rlgen_cli.domains.canvas.svg import Drawing, colour_name

Point: TypeAlias = tuple[float, float]  # mm from the page's lower left corner, x to the right, y upwards

UNITS = 40  # of HPGL, a millimetre
FAINT = 1 / 16  # a stroke that changes the paper by less than this part of black to white is left out
NEAR = 0.01  # mm: points that are nearer than this are one


class Page(NamedTuple):
    """What the plotter draws on, and how.

    Attributes:
        width, height: of the paper, mm. margin: that stays free, mm; the drawing is as large as fits, in the middle.
        tolerance: mm that a line may lie beside its curve. pens: at most so many colours; others take the nearest.
        feed, travel: mm a minute, with the pen down and up (G-code; HPGL has the feed alone).
        pen_up, pen_down: what lifts and lowers the pen, in G-code.
    """

    width: float = 210.0
    height: float = 297.0
    margin: float = 20.0
    tolerance: float = 0.05
    pens: int = 8
    feed: float = 1500.0
    travel: float = 6000.0
    pen_up: str = "G0 Z5"
    pen_down: str = "G1 Z0 F600"

    def placed(self, wide: int, high: int) -> tuple[float, Point]:
        """Millimetres of a pixel of a drawing of this size, and where its lower left corner lies."""
        scale = min((self.width - 2 * self.margin) / wide, (self.height - 2 * self.margin) / high)
        return scale, ((self.width - scale * wide) / 2, (self.height - scale * high) / 2)


class Line(NamedTuple):
    """What is drawn without lifting the pen, at least two points (the same ones for a dot)."""

    pen: int  # from 1
    points: list[Point]


class Plot(NamedTuple):
    """A drawing as a plotter draws it."""

    lines: list[Line]
    left_out: int  # strokes that hardly show


def pens_of(drawing: Drawing, most: int) -> list[str]:
    """The colours (#rrggbb) of all samples' strokes in the order of their first use; of more than `most`, the ones that
    are used most."""
    colours = Counter(
        colour_name(stroke.colour[sample])
        for stroke in drawing.strokes
        for sample in range(len(stroke.drawn))
        if _shows(drawing, stroke, sample)
    )
    kept = {colour for colour, _ in colours.most_common(most)}
    return [colour for colour in colours if colour in kept]


def plot(drawing: Drawing, sample: int, page: Page, pens: list[str]) -> Plot:
    """One sample's strokes as lines on the page; `pens` are colours."""
    lines: list[Line] = []
    drawn = [stroke for stroke in drawing.strokes if bool(stroke.drawn[sample])]
    shown = [stroke for stroke in drawn if _shows(drawing, stroke, sample)]
    scale, (left, low) = page.placed(drawing.wide, drawing.high)
    for stroke in shown:
        pen = 1 + _nearest(colour_name(stroke.colour[sample]), pens)
        ways = ways_of(stroke, sample, drawing.tip, page.tolerance / scale)
        for run in itertools.chain(*(clipped(way, drawing.wide, drawing.high) for way in ways)):
            placed = [(left + x * scale, low + (drawing.high - y) * scale) for x, y in run]
            if lines and lines[-1].pen == pen and math.dist(lines[-1].points[-1], placed[0]) < NEAR:
                lines[-1].points.extend(placed[1:])
            else:
                lines.append(Line(pen, placed))
    return Plot(lines, len(drawn) - len(shown))


def ways_of(stroke: Stroke, sample: int, tip: Tip, tolerance: float) -> list[list[Point]]:
    """Where the pen goes for one stroke, from the canvas's corner, pixels."""
    points = stroke.points[sample] + 0.5
    if not is_filled(tip):
        return [flattened(points, tolerance)]
    rims = [[(x, y) for x, y in rim.tolist()] for rim in outlines(points, float(stroke.width[sample]), tip)]
    return [[*rim, rim[0]] for rim in rims]


def flattened(points: Tensor, tolerance: float) -> list[Point]:
    """A quadratic Bézier, [3, 2], as points of a polyline, at least two.

    Between two of n + 1 points that are evenly spaced in t, a chord is at most |start − 2 control + end| / (4 n²) away
    from the curve: an eighth of the second derivative, times the step's square.
    """
    (x0, y0), (x1, y1), (x2, y2) = points.double().tolist()
    bend = math.hypot(x0 - 2 * x1 + x2, y0 - 2 * y1 + y2)
    n = max(1, math.ceil(math.sqrt(bend / (4 * tolerance))))
    weights = [((1 - t) ** 2, 2 * t * (1 - t), t**2) for t in (i / n for i in range(n + 1))]
    return [(a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2) for a, b, c in weights]


def clipped(points: list[Point], wide: float, high: float) -> Iterator[list[Point]]:
    """The parts of a polyline that lie in the rectangle from (0, 0) to (wide, high)."""
    run: list[Point] = []
    for start, end in itertools.pairwise(points):
        inside = _inside(start, end, (wide, high))
        if inside is not None and run and run[-1] == inside[0]:
            run.append(inside[1])
            continue
        if run:
            yield run
        run = list(inside) if inside is not None else []
    if run:
        yield run


def _inside(start: Point, end: Point, sides: Point) -> tuple[Point, Point] | None:
    """The part of a segment that lies in the rectangle (Liang and Barsky 1984)."""
    first, last = 0.0, 1.0
    for at, towards, side in zip(start, end, sides, strict=True):
        move = towards - at
        if move == 0:
            if not 0 <= at <= side:
                return None
            continue
        enters, leaves = sorted((-at / move, (side - at) / move))
        first, last = max(first, enters), min(last, leaves)
    if first > last:
        return None
    (x0, y0), (x1, y1) = start, end
    ends = [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in (first, last)]
    return (start if first == 0 else ends[0], end if last == 1 else ends[1])


def _shows(drawing: Drawing, stroke: Stroke, sample: int) -> bool:
    """Whether a stroke is drawn and changes paper of the background's colour enough to be seen."""
    changed = (stroke.colour[sample] - drawing.background).abs().max() * stroke.opacity[sample]
    return bool(stroke.drawn[sample]) and float(changed) >= FAINT


def _nearest(colour: str, pens: list[str]) -> int:
    return min(range(len(pens)), key=lambda i: math.dist(_rgb(colour), _rgb(pens[i])))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def write_hpgl(path: Path, plotted: Plot, page: Page) -> None:
    """Absolute coordinates of 1/40 mm from the page's lower left corner; a pen (SP) for each colour."""
    words, holding = ["IN", f"VS{page.feed / 600:.3g}"], 0  # cm a second
    for line in plotted.lines:
        if line.pen != holding:
            words.append(f"SP{line.pen}")
            holding = line.pen
        start, *rest = (f"{round(x * UNITS)},{round(y * UNITS)}" for x, y in line.points)
        words += [f"PU{start}", f"PD{','.join(_changed(start, rest))}", "PU"]
    _write(path, (f"{word};" for word in [*words, "SP0"]))


def write_gcode(path: Path, plotted: Plot, page: Page, pens: list[str]) -> None:
    """Absolute millimetres from the page's lower left corner; the machine pauses (M0) for another pen."""
    words = [
        f"; page {page.width:g} x {page.height:g} mm, from its lower left corner",
        *(f"; pen {number}: {colour}" for number, colour in enumerate(pens, 1)),
        "G21",  # millimetres
        "G90",  # absolute
        page.pen_up,
    ]
    holding = plotted.lines[0].pen if plotted.lines else 0
    for line in plotted.lines:
        if line.pen != holding:
            words += [f"; change to pen {line.pen}: {pens[line.pen - 1]}", "M0"]
            holding = line.pen
        start, *rest = (f"X{x:.3f} Y{y:.3f}" for x, y in line.points)
        words += [f"G0 {start} F{page.travel:g}", page.pen_down]
        words += [f"G1 {point} F{page.feed:g}" for point in _changed(start, rest)]
        words.append(page.pen_up)
    _write(path, [*words, f"G0 X0 Y0 F{page.travel:g}", "M2"])


def _changed(start: str, rest: list[str]) -> list[str]:
    """The points without those that rounding made equal to the one before; of a dot, one stays."""
    found = [point for before, point in zip([start, *rest], rest, strict=False) if point != before]
    return found or rest[:1]


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
