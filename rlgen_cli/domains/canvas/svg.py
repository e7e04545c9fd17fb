"""Strokes as true vectors, in the order in which they were drawn."""

import math
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from rlgen_cli.core.specs import Stroke, Tip
from rlgen_cli.domains.canvas.outlines import is_filled, outlines, own_axes

SMALL = 256  # pixels of a side, up to which a drawing is shown larger than it is
REST = 1.5  # seconds that an animation shows the finished drawing before it begins again


class Drawing(NamedTuple):
    """N samples as strokes."""

    strokes: list[Stroke]  # one entry a step, N strokes each
    wide: int  # of the canvas, pixels
    high: int
    background: Tensor  # a colour [C] in [0, 1]
    tip: Tip  # what strokes look like


class Timing(NamedTuple):
    """When the strokes of an animated drawing appear: one after another within `seconds`; then it stays as it is, or
    with `loop` begins again after a rest."""

    seconds: float
    loop: bool

    @property
    def total(self) -> float:
        """Seconds of one turn."""
        return self.seconds + (REST if self.loop else 0.0)


def svg_marks(drawing: Drawing, sample: int, timing: Timing | None = None) -> list[str]:
    """One SVG element per drawn stroke of one sample: a path, an ellipse, or a square of one pixel.

    An animated element is what it is without animation, but for the time until it has been drawn: a viewer that knows
    no animation shows the finished drawing.
    """
    steps = [step for step, stroke in enumerate(drawing.strokes) if bool(stroke.drawn[sample])]
    marks = []
    for i, step in enumerate(steps):
        element = _mark(drawing, step, sample)
        if timing is not None:
            line = drawing.tip.kind != "pixel" and not is_filled(drawing.tip)
            grows = line and not _is_dot(drawing.strokes[step].points[sample])
            element = _animated(element, timing, i / len(steps), (i + 1) / len(steps), grows)
        marks.append(element)
    return marks


def _mark(drawing: Drawing, step: int, sample: int) -> str:
    stroke = drawing.strokes[step]
    fill = colour_name(stroke.colour[sample])
    if drawing.tip.kind == "pixel":
        x, y = (round(value) for value in stroke.points[sample, 0].tolist())
        return f'<rect id="step{step:03d}" x="{x}" y="{y}" width="1" height="1" fill="{fill}"/>'
    points, width = stroke.points[sample] + 0.5, float(stroke.width[sample])  # pixel centres to SVG's edges
    opacity = float(stroke.opacity[sample])
    if is_filled(drawing.tip):
        faint = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        return f'<{_shape(points, width, drawing.tip)} id="step{step:03d}" fill="{fill}"{faint}/>'
    (x0, y0), (x1, y1), (x2, y2) = points.tolist()
    faint = f' stroke-opacity="{opacity:.3f}"' if opacity < 1 else ""
    return (
        f'<path id="step{step:03d}" d="M{x0:.2f} {y0:.2f}Q{x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}" '
        f'stroke="{fill}" stroke-width="{width:.2f}"{faint}/>'
    )


def _shape(points: Tensor, width: float, tip: Tip) -> str:
    """The name and the place of a filled element."""
    if tip.kind == "ellipse":
        middle, length, along, _ = own_axes(points)
        (x, y), turn = middle.tolist(), math.degrees(math.atan2(along[1], along[0]))
        radii = f'rx="{(length + width) / 2:.2f}" ry="{width / 2:.2f}"'
        return f'ellipse cx="{x:.2f}" cy="{y:.2f}" {radii} transform="rotate({turn:.1f} {x:.2f} {y:.2f})"'
    rims = ("L".join(f"{x:.2f} {y:.2f}" for x, y in rim.tolist()) for rim in outlines(points, width, tip))
    return f'path d="{"".join(f"M{rim}Z" for rim in rims)}"'


def _is_dot(points: Tensor) -> bool:
    """Whether a stroke stays where it begins, so that it has no length that could grow."""
    return bool((points - points[0]).abs().max() < 0.01)


def _animated(element: str, timing: Timing, begin: float, end: float, grows: bool) -> str:
    """The element, hidden until the share `begin` of the drawing's time; it then grows until `end`, or is there."""
    shares = [share * timing.seconds / timing.total for share in (begin, end)]
    start, stop = (f"{share:.5f}" for share in shares)
    turns = f'dur="{timing.total:g}s"' + (' repeatCount="indefinite"' if timing.loop else "")
    parts = []
    if begin > 0:
        appears = f'values="hidden;visible" keyTimes="0;{start}" calcMode="discrete"'
        parts.append(f'<animate attributeName="visibility" {appears} {turns}/>')
    if grows:  # a dash as long as what has been drawn, in parts of the path's length
        dash = f'values="0 1;0 1;1.01 1;1.01 1" keyTimes="0;{start};{stop};1"'
        parts.append(f'<animate attributeName="stroke-dasharray" {dash} {turns}/>')
    tag = element[1 : element.index(" ")]
    length = ' pathLength="1"' if grows else ""
    return f"{element.removesuffix('/>')}{length}>{''.join(parts)}</{tag}>"


def write_svg(path: Path, drawing: Drawing, sample: int, paper: bool = True, timing: Timing | None = None) -> None:
    """One sample as an SVG of its own, on paper of the background's colour or on nothing; animated with a `timing`."""
    path.write_text(_document(drawing.wide, drawing.high, [_tile(drawing, sample, 0, 0, paper, timing)]))


def write_svg_grid(path: Path, drawing: Drawing, columns: int, timing: Timing | None = None) -> None:
    """All samples on one sheet."""
    n, across, down = len(drawing.strokes[0].drawn), drawing.wide + 2, drawing.high + 2
    rows = -(-n // columns)
    places = [(sample % columns * across, sample // columns * down) for sample in range(n)]
    tiles = [_tile(drawing, sample, x, y, True, timing) for sample, (x, y) in enumerate(places)]
    path.write_text(_document(columns * across, rows * down, tiles))


def _document(wide: int, high: int, tiles: list[str]) -> str:
    zoom = 10 if max(wide, high) <= SMALL else 1
    size = f'viewBox="0 0 {wide} {high}" width="{wide * zoom}" height="{high * zoom}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *tiles, "</svg>", ""])


def _tile(drawing: Drawing, sample: int, x: int, y: int, paper: bool, timing: Timing | None) -> str:
    """A nested SVG clips strokes that leave the canvas."""
    wide, high = drawing.wide, drawing.high
    head = f'<svg x="{x}" y="{y}" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">'
    sheet = f'<rect width="{wide}" height="{high}" fill="{colour_name(drawing.background)}"/>'
    group = '<g fill="none" stroke-linecap="round" stroke-linejoin="round">'
    marks = svg_marks(drawing, sample, timing)
    return "\n".join([head, *([sheet] if paper else []), group, *marks, "</g></svg>"])


def colour_name(colour: Tensor) -> str:
    """#rrggbb of a grey or RGB colour in [0, 1]."""
    values = (colour * 255).round().long().tolist()
    red, green, blue = values * 3 if len(values) == 1 else values
    return f"#{red:02x}{green:02x}{blue:02x}"
