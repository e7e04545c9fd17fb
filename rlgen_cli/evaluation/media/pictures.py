"""Pictures: grids as PNG, how they came about as GIF, film and strip, strokes as SVG, still or animated, and for a
plotter."""

import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import DrawsStrokes, Env
from rlgen_cli.core.specs import State, Stroke, View
from rlgen_cli.domains.canvas.enlarged import enlarged, stages
from rlgen_cli.domains.canvas.plotter import Page, pens_of, plot, write_gcode, write_hpgl
from rlgen_cli.domains.canvas.svg import REST, Drawing, Timing, write_svg, write_svg_grid
from rlgen_cli.evaluation import likeness
from rlgen_cli.evaluation.media.raster import (
    GAP,
    bare,
    beside,
    captioned,
    enlarge,
    grid,
    magnified,
    numbered,
    words_grid,
    write_gif,
    write_png,
)
from rlgen_cli.evaluation.media.style import Look, Style
from rlgen_cli.evaluation.media.video import FILMS, write_film
from rlgen_cli.evaluation.rollout import Rollout

Shown = TypeVar("Shown")
PLOTS = ("hpgl", "gcode")
VECTORS = ("svg", "animated_svg", *PLOTS)


class PictureMedium:
    """`env` makes pictures; `style` says how they are written."""

    formats: tuple[str, ...] = ("png", "gif", *VECTORS, *FILMS)
    last = 64  # samples that the end of a run leaves

    def __init__(self, env: Env, style: Style) -> None:
        self.env, self.look, self.style = env, style.look, style
        strokes = isinstance(env, DrawsStrokes)
        lacking = (PLOTS if env.tip.kind == "pixel" else ()) if isinstance(env, DrawsStrokes) else VECTORS
        self.formats = tuple(name for name in self.formats if name not in lacking)
        self.usual: tuple[str, ...] = tuple(name for name in ("png", "gif", "svg") if name in self.formats)
        able = strokes or not self.look.transparent
        require(able, "transparent: leaves out the background of a canvas, and this run has none.")
        plots = "hpgl" in self.formats or style.page == Page()
        require(plots, "plotter: draws strokes, and this run makes none.")

    def needs_steps(self, formats: list[str]) -> bool:
        """Whether all but the PNG of plain pixels are made from how a picture came about."""
        return formats != ["png"] or self.look.scale > 1 or self.look.transparent

    def sheet(self, view: View, limit: int = 64) -> Tensor:
        return captioned_sheet(view, limit, self.env.spec.class_names)

    def diversity(self, sample: Tensor) -> float:
        return diversity(sample)

    def audio(self, view: View) -> None:
        """Pictures are silent."""

    def numbers(self, view: View) -> dict[str, float]:
        """Of a repair, how near it comes to the truth, and how near the damaged picture was."""
        context = view.context
        if not {"damaged", "target"} <= context.keys():
            return {}
        return {
            "psnr": psnr(repaired(view), context["target"]),
            "psnr_damaged": psnr(context["damaged"], context["target"]),
        }

    def write(self, made: Rollout, formats: list[str], out: Path) -> dict[str, Any]:
        """A grid and one file each; a time-lapse and a strip; vectors. Tells the pens of a plotter."""
        env, view = self.env, self.env.view(made.final)
        drawing = drawing_of(env, made) if isinstance(env, DrawsStrokes) and made.actions else None
        began_blank = drawing is not None and is_blank(env.view(made.states[0]))
        if "png" in formats:
            sheet = captioned_sheet(view, len(view.sample), env.spec.class_names, columns=self.look.columns)
            write_png(out / "grid.png", sheet)
            for i, image in enumerate(self._single(view, drawing if began_blank else None)):
                write_png(out / f"{i:03d}.png", (image * 255).round().to(torch.uint8))
        if "gif" in formats:
            sheets = [grid(repaired(env.view(state)), self.look.columns) for _, state in _some(made, 128)]
            write_gif(out / "timelapse.gif", [enlarge(sheet, 320) for sheet in sheets])
            shown = {step: repaired(env.view(state))[:8] for step, state in _some(made, 11)}
            write_png(out / "strip.png", numbered(enlarge(strip(list(shown.values()))), list(shown)))
        for name in FILMS:
            if name in formats:
                frames = self._frames(made, drawing if began_blank else None)
                write_film(out / f"timelapse.{name}", frames, self.style.film.fps)
        if drawing is None:
            return {}
        self._write_vectors(drawing, len(view.sample), formats, out)
        plots = [name for name in PLOTS if name in formats]
        return {"plotter": self._write_plots(drawing, len(view.sample), plots, out)} if plots else {}

    def _write_vectors(self, drawing: Drawing, n: int, formats: list[str], out: Path) -> None:
        """The strokes of N samples."""
        columns, film = self.look.columns or math.ceil(math.sqrt(n)), self.style.film
        timings = {"svg": None, "animated_svg": Timing(film.seconds, film.loop)}
        for name in timings.keys() & set(formats):
            called = "animated_" if name == "animated_svg" else ""
            write_svg_grid(out / f"{called}grid.svg", drawing, columns, timings[name])
            for i in range(n):
                file = out / f"{called}{i:03d}.svg"
                write_svg(file, drawing, i, paper=not self.look.transparent, timing=timings[name])

    def _write_plots(self, drawing: Drawing, n: int, formats: list[str], out: Path) -> dict[str, Any]:
        """A page for each of N samples, all with the same pens."""
        page, left_out, lines = self.style.page, 0, 0
        pens = pens_of(drawing, page.pens)
        for i in range(n):
            plotted = plot(drawing, i, page, pens)
            left_out, lines = left_out + plotted.left_out, lines + len(plotted.lines)
            if "hpgl" in formats:
                write_hpgl(out / f"{i:03d}.hpgl", plotted, page)
            if "gcode" in formats:
                write_gcode(out / f"{i:03d}.gcode", plotted, page, pens)
        return {"pens": pens, "lines": lines, "strokes_left_out": left_out}

    def _frames(self, made: Rollout, drawing: Drawing | None) -> Iterator[Tensor]:
        """How all samples come about, and a rest, uint8 [3, H, W] each; one sample has no border around it.

        Args:
            drawing: the strokes, where there is nothing on the canvas but them.
        """
        look, film, states = self.look, self.style.film, [*made.states, made.final]
        steps: Iterator[Tensor] = (repaired(self.env.view(state)).cpu() for state in states)  # [N, C, H, W] each
        if drawing is not None and look.scale > 1 and drawing.tip.kind != "pixel":
            n = len(drawing.strokes[0].drawn)
            drawn = (stages(drawing, sample, look.scale) for sample in range(n))
            steps = (torch.stack(pictures)[:, :-1] for pictures in zip(*drawn, strict=True))
        else:
            steps = (torch.stack([resized(picture, look.scale, look.smooth) for picture in step]) for step in steps)
        shown = (bare(step) if len(step) == 1 else grid(step, look.columns, GAP * look.scale) for step in steps)
        shown = (sheet if look.scale > 1 else enlarge(sheet, 480) for sheet in shown)
        yield from timed(shown, len(states), film.seconds, film.fps)

    def _single(self, view: View, drawing: Drawing | None) -> Iterator[Tensor]:
        """The pictures as they are written one by one, float [3, H, W] in [0, 1], or [4, H, W] where they are
        transparent.

        Args:
            drawing: the strokes, where there is nothing on the canvas but them.
        """
        look, plain = self.look, repaired(view).cpu()
        if drawing is not None and drawing.tip.kind != "pixel" and look != Look(columns=look.columns):
            for i in range(len(plain)):
                picture, covered = enlarged(drawing, i, look.scale).split([plain.shape[1], 1])
                yield torch.cat([picture.expand(3, -1, -1), covered][: 1 + look.transparent])
            return
        background = view.info["background"].cpu().view(len(plain), -1, 1, 1) if look.transparent else None
        covered = None if background is None else (plain != background).any(1, keepdim=True).float()
        pictures = plain.expand(-1, 3, -1, -1)
        pictures = pictures if covered is None else torch.cat([pictures, covered], 1)
        for picture in pictures:
            yield resized(picture, look.scale, look.smooth)


def _some(made: Rollout, most: int) -> list[tuple[int, State]]:
    """The beginning, about `most` states on the way, and the end, each with how many steps came before it."""
    every = -(-len(made.states) // most)
    return [*list(enumerate(made.states))[::every], (len(made.states), made.final)]


def timed(steps: Iterator[Shown], count: int, seconds: float, fps: int) -> Iterator[Shown]:
    """Frames that show `count` steps evenly within some seconds, and then rest on the last."""
    total = max(1, round(seconds * fps))
    for i, step in enumerate(steps):
        yield from itertools.repeat(step, (i + 1) * total // count - i * total // count)
    yield from itertools.repeat(step, round(REST * fps))


def strip(steps: list[Tensor]) -> Tensor:
    """Samples [N, C, H, W] at some steps, a row each, from left to right, uint8 [3, H, W]."""
    columns = torch.stack(steps, 1)  # [N, steps, C, H, W]
    return grid(columns.flatten(0, 1), columns=len(steps))


def repaired(view: View) -> Tensor:
    """The samples, with what is known put over them."""
    context = view.context
    if not {"damaged", "known_mask"} <= context.keys():
        return view.sample
    return torch.where(context["known_mask"], context["damaged"], view.sample)


def psnr(made: Tensor, target: Tensor) -> float:
    """Mean peak signal-to-noise ratio of pictures in [0, 1], dB."""
    return float(likeness.psnr(made, target).mean())


def diversity(samples: Tensor) -> float:
    """Mean distance (root mean squared pixel difference) between neighbours in the batch: 0 is collapse."""
    return float((samples - samples.roll(1, 0)).square().flatten(1).mean(1).sqrt().mean())


def panels(view: View, limit: int, columns: int | None = None) -> dict[str, Tensor]:
    """The samples as a grid, uint8 [3, H, W]; before it what was given, after it the targets, where there are any."""
    context = view.context
    found = {"given": context.get("damaged"), "made": repaired(view), "wanted": context.get("target")}
    return {name: grid(pictures[:limit], columns) for name, pictures in found.items() if pictures is not None}


def sheet(view: View, limit: int = 64) -> Tensor:
    """The panels side by side, uint8 [3, H, W]."""
    return functools.reduce(beside, panels(view, limit).values())


def is_blank(view: View) -> bool:
    """Whether there is nothing but the background on all canvases."""
    background = view.info["background"].view(len(view.sample), -1, 1, 1)
    return bool((view.sample == background).all())


def drawing_of(env: DrawsStrokes, made: Rollout) -> Drawing:
    """The strokes of samples whose steps were recorded."""
    steps = zip(made.states, made.actions, strict=True)
    strokes = [stroke for state, action in steps for stroke in env.strokes(state, action)]
    strokes = [Stroke(*(field.cpu() for field in stroke)) for stroke in strokes]
    return Drawing(strokes, env.size, env.size, env.background.cpu(), env.tip)


def resized(picture: Tensor, scale: int, smooth: bool) -> Tensor:
    """A picture [C, H, W] in [0, 1], `scale` times as large."""
    if scale == 1:
        return picture
    if not smooth:
        return magnified(picture, scale)
    large = interpolate(picture.unsqueeze(0), scale_factor=float(scale), mode="bicubic", antialias=True)
    return large[0].clamp(0, 1)


def captioned_sheet(view: View, limit: int, class_names: tuple[str, ...], columns: int | None = None) -> Tensor:
    """The panels side by side, enlarged so that they can be seen, each with its name above it where there are several;
    at the right the names of the labels that were asked for, uint8 [3, H, W]."""
    found = panels(view, limit, columns)
    least = 512 if len(found) == 1 else 320  # pixels of each
    factor = max(1, round(least / max(found["made"].shape)))
    shown = {name: magnified(panel, factor) for name, panel in found.items()}
    if "label" in view.context:
        asked = [class_names[i] for i in view.context["label"][:limit].tolist()]
        shown["label asked"] = words_grid(asked, view.sample.shape[-1], factor, columns).to(view.sample.device)
    if len(shown) == 1:
        return shown["made"]
    return functools.reduce(beside, (captioned(panel, name) for name, panel in shown.items()))
