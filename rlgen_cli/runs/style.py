"""How files of samples are to be written, as the command line says it."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.core.errors import require
from rlgen_cli.evaluation.media.style import Film, Look, Sound, Style

MOST_ENLARGED = 64  # times
LONGEST = 3600  # seconds of an animation


def style_of(config: DictConfig) -> Style:
    """The style that the keys of `rlgen sample` and `rlgen draw` ask for.

    Raises:
        UserError: for a value out of range.
    """
    return Style(look=_look(config), film=_film(config.film), sound=_sound(config))


def _look(config: DictConfig) -> Look:
    check_whole("scale", config.scale, MOST_ENLARGED)
    if config.columns is not None:
        check_whole("columns", config.columns, 10_000)
    check_flag("smooth", config.smooth)
    check_flag("transparent", config.transparent)
    return Look(config.scale, config.smooth, config.transparent, config.columns)


def _film(film: DictConfig) -> Film:
    check_number("film.seconds", film.seconds, 0.1, LONGEST)
    check_flag("film.loop", film.loop)
    return Film(float(film.seconds), film.loop)


def _sound(config: DictConfig) -> Sound:
    """Of what draws, there is none."""
    soundfont = config.get("soundfont")
    return Sound(Path(soundfont).expanduser() if soundfont else None)


def check_whole(name: str, value: Any, most: int) -> None:
    """Refuse what is not a whole number from 1 to `most`."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
    require(fits, f"{name}: must be a whole number from 1 to {most}, got {value}.")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is not a number from `low` to `high`."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    require(number and low <= value <= high, f"{name}: must be a number from {low:g} to {high:g}, got {value}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    require(isinstance(value, bool), f"{name}: must be true or false, got {value}.")
