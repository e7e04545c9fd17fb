"""Strokes as true vectors, in the order in which they were drawn."""

from pathlib import Path

from torch import Tensor

from rlgen_cli.core.specs import Stroke


def svg_paths(strokes: list[Stroke], sample: int) -> list[str]:
    """One SVG path per drawn stroke of one sample."""
    paths = []
    for step, stroke in enumerate(strokes):
        if not bool(stroke.drawn[sample]):
            continue
        (x0, y0), (x1, y1), (x2, y2) = (stroke.points[sample] + 0.5).tolist()  # pixel centres to SVG's edges
        colour = _colour(stroke.colour[sample])
        opacity = float(stroke.opacity[sample])
        faint = f' stroke-opacity="{opacity:.3f}"' if opacity < 1 else ""
        paths.append(
            f'<path id="step{step:03d}" d="M{x0:.2f} {y0:.2f}Q{x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}" '
            f'stroke="{colour}" stroke-width="{float(stroke.width[sample]):.2f}"{faint}/>'
        )
    return paths


def write_svg(path: Path, strokes: list[Stroke], sample: int, size: int, background: Tensor) -> None:
    """One sample as an SVG of its own; `background` is a colour [C] in [0, 1]."""
    path.write_text(_document(size, size, [_tile(strokes, sample, size, background, 0, 0)]))


def write_svg_grid(path: Path, strokes: list[Stroke], columns: int, size: int, background: Tensor) -> None:
    """All samples on one sheet."""
    n, pitch = len(strokes[0].drawn), size + 2
    rows = -(-n // columns)
    tiles = [
        _tile(strokes, sample, size, background, sample % columns * pitch, sample // columns * pitch)
        for sample in range(n)
    ]
    path.write_text(_document(columns * pitch, rows * pitch, tiles))


def _document(wide: int, high: int, tiles: list[str]) -> str:
    size = f'viewBox="0 0 {wide} {high}" width="{wide * 10}" height="{high * 10}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *tiles, "</svg>", ""])


def _tile(strokes: list[Stroke], sample: int, size: int, background: Tensor, x: int, y: int) -> str:
    """A nested SVG clips strokes that leave the canvas."""
    head = f'<svg x="{x}" y="{y}" width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
    sheet = f'<rect width="{size}" height="{size}" fill="{_colour(background)}"/>'
    group = '<g fill="none" stroke-linecap="round" stroke-linejoin="round">'
    return "\n".join([head, sheet, group, *svg_paths(strokes, sample), "</g></svg>"])


def _colour(colour: Tensor) -> str:
    """#rrggbb of a grey or RGB colour in [0, 1]."""
    values = (colour * 255).round().long().tolist()
    red, green, blue = values * 3 if len(values) == 1 else values
    return f"#{red:02x}{green:02x}{blue:02x}"
