"""Files of one painting: the picture, its strokes as vectors, a film, and a plotter's page."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Stroke, Tip
from rlgen_cli.domains.canvas.compositing import Strokes, composite
from rlgen_cli.domains.canvas.painting import reduced
from rlgen_cli.domains.canvas.plotter import Page, pens_of, plot, write_gcode, write_hpgl
from rlgen_cli.domains.canvas.svg import Drawing, Timing, write_svg
from rlgen_cli.evaluation.media.pictures import timed
from rlgen_cli.evaluation.media.raster import write_gif, write_png
from rlgen_cli.evaluation.media.style import Film
from rlgen_cli.evaluation.media.video import FILMS, write_film

FORMATS = ("png", "svg", "animated_svg", "gif", *FILMS, "hpgl", "gcode")
GIF_SIDE, GIF_FRAMES = 480, 60  # of a GIF, which has no codec for more


class Painting(NamedTuple):
    """A finished one."""

    strokes: Strokes  # of one picture, lengths in its pixels
    tip: Tip  # what they look like
    paper: Tensor  # the colour below, float [3]
    picture: Tensor  # float [3, H, W] in [0, 1]


def write_painting(painting: Painting, formats: list[str], film: Film, page: Page, place: Path) -> None:
    """Files of these formats; `place` is their path without an ending."""
    named = {name: place.with_name(f"{place.name}.{name}") for name in formats}
    drawing = drawing_of(painting)
    for name, path in named.items():
        if name == "png":
            write_png(path, as_bytes(painting.picture))
        elif name in FILMS:
            write_film(path, film_of(painting, film), film.fps)
        elif name == "gif":
            write_gif(path, [small(frame) for frame in stages(painting, GIF_FRAMES)])
        elif name == "svg":
            write_svg(path, drawing, 0)
        elif name == "animated_svg":
            write_svg(place.with_name(f"{place.name}_animated.svg"), drawing, 0, timing=Timing(film.seconds, film.loop))
    plots = [name for name in ("hpgl", "gcode") if name in named]
    if plots:
        pens = pens_of(drawing, page.pens)
        plotted = plot(drawing, 0, page, pens)
        if "hpgl" in plots:
            write_hpgl(named["hpgl"], plotted, page)
        if "gcode" in plots:
            write_gcode(named["gcode"], plotted, page, pens)


def drawing_of(painting: Painting) -> Drawing:
    """The strokes, one a step, as vectors."""
    s = painting.strokes
    drawn = torch.ones_like(s.width, dtype=torch.bool)
    fields = [field.cpu() for field in (s.points, s.width, s.colour, s.opacity, drawn)]
    strokes = [Stroke(*(field[i : i + 1] for field in fields)) for i in range(len(drawn))]
    high, wide = painting.picture.shape[1:]
    return Drawing(strokes, wide, high, painting.paper.cpu(), painting.tip)


def as_bytes(picture: Tensor) -> Tensor:
    """Uint8 [3, H, W]."""
    return (255 * picture).round().to(torch.uint8)


def small(picture: Tensor) -> Tensor:
    """A picture uint8 [3, H, W] whose sides are GIF_SIDE at most."""
    share = min(1.0, GIF_SIDE / max(picture.shape[1:]))
    shape = (max(1, round(share * picture.shape[1])), max(1, round(share * picture.shape[2])))
    return as_bytes(reduced(picture.unsqueeze(0) / 255, shape)[0])


def stages(painting: Painting, most: int) -> Iterator[Tensor]:
    """The empty paper, and the picture after each of `most` equal parts of its strokes, uint8 [3, H, W]."""
    canvas = painting.paper[:, None, None].expand_as(painting.picture).unsqueeze(0)
    yield as_bytes(canvas[0])
    count = len(painting.strokes.width)
    for part in torch.arange(count).tensor_split(min(most, count)) if count else ():
        canvas = composite(canvas, painting.strokes.of(part), painting.tip)
        yield as_bytes(canvas[0])


def film_of(painting: Painting, film: Film) -> Iterator[Tensor]:
    """The frames of a film, uint8 [3, H, W]."""
    most = max(1, round(film.seconds * film.fps) - 1)
    count = 1 + min(most, len(painting.strokes.width))
    return timed(stages(painting, most), count, film.seconds, film.fps)
