"""The registry of media: how samples of a kind are shown and written."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import View
from rlgen_cli.domains.canvas.plotter import Page
from rlgen_cli.evaluation.media.music import MakesMusic, MusicMedium
from rlgen_cli.evaluation.media.pictures import PictureMedium
from rlgen_cli.evaluation.media.style import Film, Look, Sound, Style
from rlgen_cli.evaluation.media.text import MakesText, TextMedium
from rlgen_cli.evaluation.rollout import Rollout

FORMATS = frozenset(name for kind in (PictureMedium, MusicMedium, TextMedium) for name in kind.formats)


class Medium(Protocol):
    """How samples are shown and written."""

    formats: tuple[str, ...]  # that there are
    usual: tuple[str, ...]  # that are written where none is asked for
    last: int  # samples that the end of a run leaves

    def sheet(self, view: View, limit: int = ...) -> Tensor:
        """Some samples as one picture, uint8 [3, H, W]."""
        ...

    def diversity(self, sample: Tensor) -> float:
        """How far apart neighbours in a batch are; 0 is collapse."""
        ...

    def numbers(self, view: View) -> dict[str, float]:
        """What else there is to say of finished samples, by name."""
        ...

    def audio(self, view: View) -> tuple[Tensor, int] | None:
        """The first sample as sound, [S], and its rate; None for what is silent."""
        ...

    def needs_steps(self, formats: list[str]) -> bool:
        """Whether `formats` show how samples came about, so that all steps are to be recorded."""
        ...

    def write(self, made: Rollout, formats: list[str], out: Path) -> dict[str, Any]:
        """Files of `formats` into the folder `out`; returns what else there is to tell of them, for scores.json."""
        ...


def medium(env: Env, style: Style | None = None) -> Medium:
    """The medium of what `env` makes.

    Args:
        style: how files are written.

    Raises:
        UserError: for what such samples cannot have.
    """
    style = style or Style()
    pictures, music = "picture" in env.spec.kinds, "music" in env.spec.kinds
    timed = style.film._replace(fps=Film().fps) != Film()
    require(
        pictures or style.look == Look(),
        "scale, smooth, transparent, columns: are of pictures, and this run makes none.",
    )
    require(pictures or style.page == Page(), "plotter: draws strokes, and this run makes none.")
    require(pictures or not timed, "film.seconds, film.loop: are of pictures, and this run makes none.")
    require(pictures or music or style.film == Film(), "film.fps: is of pictures and music, and this run makes text.")
    require(music or style.sound == Sound(), "soundfont, tempo, instrument: are of music, and this run makes none.")
    if pictures:
        return PictureMedium(env, style)
    if music:
        assert isinstance(env, MakesMusic)
        return MusicMedium(env, style)
    assert isinstance(env, MakesText)
    return TextMedium(env)
