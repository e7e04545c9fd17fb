"""How files of samples are to be written, as the command line says it."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from rlgen_cli.core.errors import require
from rlgen_cli.domains.canvas.plotter import Page
from rlgen_cli.domains.music.instruments import program_of
from rlgen_cli.evaluation.media.style import Film, Look, Sound, Style

MOST_ENLARGED = 64  # times
LONGEST = 3600  # seconds of an animation
PAGES = {"a5": (148.0, 210.0), "a4": (210.0, 297.0), "a3": (297.0, 420.0), "letter": (215.9, 279.4)}  # mm


def style_of(config: DictConfig) -> Style:
    """The style that the keys of `rlgen sample` and `rlgen draw` ask for.

    Raises:
        UserError: for a value out of range.
    """
    return Style(look=_look(config), film=film_of(config.film), page=page_of(config.plotter), sound=_sound(config))


def _look(config: DictConfig) -> Look:
    check_whole("scale", config.scale, MOST_ENLARGED)
    if config.columns is not None:
        check_whole("columns", config.columns, 10_000)
    check_flag("smooth", config.smooth)
    check_flag("transparent", config.transparent)
    return Look(config.scale, config.smooth, config.transparent, config.columns)


def film_of(film: DictConfig) -> Film:
    """The animations that the keys below `film` ask for."""
    check_number("film.seconds", film.seconds, 0.1, LONGEST)
    check_flag("film.loop", film.loop)
    check_whole("film.fps", film.fps, 120)
    return Film(float(film.seconds), film.loop, film.fps)


def page_of(plotter: DictConfig) -> Page:
    """The plotter's page that the keys below `plotter` ask for."""
    width, height = _size(plotter.page)
    check_number("plotter.margin", plotter.margin, 0, min(width, height) / 2 - 1)
    for name, low, high in (("tolerance", 0.001, 10), ("feed", 1, 1e5), ("travel", 1, 1e5)):
        check_number(f"plotter.{name}", plotter[name], low, high)
    check_whole("plotter.pens", plotter.pens, 255)
    for name in ("pen_up", "pen_down"):
        line = plotter[name]
        fits = isinstance(line, str) and bool(line.strip()) and line.isprintable()
        require(fits, f"plotter.{name}: must be a line of G-code, as in M3 S90, got {line!r}.")
    return Page(
        width=width,
        height=height,
        margin=float(plotter.margin),
        tolerance=float(plotter.tolerance),
        pens=plotter.pens,
        feed=float(plotter.feed),
        travel=float(plotter.travel),
        pen_up=plotter.pen_up,
        pen_down=plotter.pen_down,
    )


def _size(page: Any) -> tuple[float, float]:
    """Width and height in millimetres of a page that is named, or given by them."""
    if isinstance(page, str):
        require(page in PAGES, f"plotter.page: must be {', '.join(PAGES)}, or [width, height] in mm, got {page}.")
        return PAGES[page]
    pair = isinstance(page, ListConfig) and len(page) == 2
    require(pair, f"plotter.page: must be {', '.join(PAGES)}, or [width, height] in mm, got {page}.")
    for side in page:
        check_number("plotter.page", side, 10, 10_000)
    return float(page[0]), float(page[1])


def _sound(config: DictConfig) -> Sound:
    """What music sounds like; `rlgen draw`, which makes none, has no keys for it."""
    soundfont, tempo, instrument = (config.get(name) for name in ("soundfont", "tempo", "instrument"))
    if tempo is not None:
        check_number("tempo", tempo, 20, 400)
    program = None if instrument is None else program_of(instrument)
    return Sound(Path(soundfont).expanduser() if soundfont else None, tempo and float(tempo), program)


def check_whole(name: str, value: Any, most: int, least: int = 1) -> None:
    """Refuse what is not a whole number from `least` to `most`."""
    fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    require(fits, f"{name}: must be a whole number from {least} to {most}, got {value}.")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is not a number from `low` to `high`."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    require(number and low <= value <= high, f"{name}: must be a number from {low:g} to {high:g}, got {value}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    require(isinstance(value, bool), f"{name}: must be true or false, got {value}.")
