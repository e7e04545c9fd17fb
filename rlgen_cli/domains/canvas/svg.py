"""Strokes as true vectors, in the order in which they were drawn."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from rlgen_cli.core.specs import Stroke


class Drawing(NamedTuple):
    """N samples as strokes."""

    strokes: list[Stroke]  # one entry a step, N strokes each
    size: int  # of the square canvas, pixels
    background: Tensor  # a colour [C] in [0, 1]
    square_marks: bool  # a mark is a whole pixel


def svg_marks(drawing: Drawing, sample: int) -> list[str]:
    """One SVG element per drawn stroke of one sample: a path, or a square of one pixel."""
    paths = []
    for step, stroke in enumerate(drawing.strokes):
        if not bool(stroke.drawn[sample]):
            continue
        colour = _colour(stroke.colour[sample])
        if drawing.square_marks:
            x, y = (round(value) for value in stroke.points[sample, 0].tolist())
            paths.append(f'<rect id="step{step:03d}" x="{x}" y="{y}" width="1" height="1" fill="{colour}"/>')
            continue
        (x0, y0), (x1, y1), (x2, y2) = (stroke.points[sample] + 0.5).tolist()  # pixel centres to SVG's edges
        opacity = float(stroke.opacity[sample])
        faint = f' stroke-opacity="{opacity:.3f}"' if opacity < 1 else ""
        paths.append(
            f'<path id="step{step:03d}" d="M{x0:.2f} {y0:.2f}Q{x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}" '
            f'stroke="{colour}" stroke-width="{float(stroke.width[sample]):.2f}"{faint}/>'
        )
    return paths


def write_svg(path: Path, drawing: Drawing, sample: int, paper: bool = True) -> None:
    """One sample as an SVG of its own, on paper of the background's colour or on nothing."""
    path.write_text(_document(drawing.size, drawing.size, [_tile(drawing, sample, 0, 0, paper)]))


def write_svg_grid(path: Path, drawing: Drawing, columns: int) -> None:
    """All samples on one sheet."""
    n, pitch = len(drawing.strokes[0].drawn), drawing.size + 2
    rows = -(-n // columns)
    tiles = [_tile(drawing, sample, sample % columns * pitch, sample // columns * pitch) for sample in range(n)]
    path.write_text(_document(columns * pitch, rows * pitch, tiles))


def _document(wide: int, high: int, tiles: list[str]) -> str:
    size = f'viewBox="0 0 {wide} {high}" width="{wide * 10}" height="{high * 10}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *tiles, "</svg>", ""])


def _tile(drawing: Drawing, sample: int, x: int, y: int, paper: bool = True) -> str:
    """A nested SVG clips strokes that leave the canvas."""
    size = drawing.size
    head = f'<svg x="{x}" y="{y}" width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
    sheet = f'<rect width="{size}" height="{size}" fill="{_colour(drawing.background)}"/>'
    group = '<g fill="none" stroke-linecap="round" stroke-linejoin="round">'
    return "\n".join([head, *([sheet] if paper else []), group, *svg_marks(drawing, sample), "</g></svg>"])


def _colour(colour: Tensor) -> str:
    """#rrggbb of a grey or RGB colour in [0, 1]."""
    values = (colour * 255).round().long().tolist()
    red, green, blue = values * 3 if len(values) == 1 else values
    return f"#{red:02x}{green:02x}{blue:02x}"
