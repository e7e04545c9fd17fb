"""Music: MIDI, sound, piano rolls, and films of these."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.specs import State, View
from rlgen_cli.domains.music.encodings import MusicEncoding, pieces
from rlgen_cli.domains.music.notes import Piece, voice_names
from rlgen_cli.domains.music.piano_roll import roll_film, roll_grid
from rlgen_cli.domains.music.sound import sounding, write_wav
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.style import Style
from rlgen_cli.evaluation.media.text import token_diversity
from rlgen_cli.evaluation.media.video import FILMS, write_film
from rlgen_cli.evaluation.rollout import Rollout

SHOWN = 16  # rolls on a sheet


@runtime_checkable
class MakesMusic(Protocol):
    """An environment of sequences that are notes."""

    encoding: MusicEncoding
    bar: int  # sixteenths
    tempo: float  # beats a minute

    def view(self, state: State) -> View: ...


class MusicMedium:
    """Pieces of `env`; `style` says how they are to sound."""

    usual: tuple[str, ...] = ("png", "midi", "wav")
    formats = (*usual, *FILMS)
    last = 16  # samples that the end of a run leaves

    def __init__(self, env: MakesMusic, style: Style) -> None:
        self.env, self.sound, self.fps = env, style.sound, style.film.fps
        self.voices = voice_names(env.encoding.voices)

    def pieces(self, sample: Tensor) -> list[Piece]:
        return pieces(self.env.encoding.roll(sample), self.env.bar, self.sound.tempo or self.env.tempo)

    def sheet(self, view: View, limit: int = SHOWN) -> Tensor:
        """Piano rolls side by side, uint8 [3, H, W]."""
        return roll_grid(self.pieces(view.sample[:limit]), voices=self.voices)

    def diversity(self, sample: Tensor) -> float:
        return token_diversity(sample)

    def numbers(self, view: View) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}

    def audio(self, view: View) -> tuple[Tensor, int]:
        """The first piece, float [S] in [−1, 1], and its rate."""
        samples, rate = sounding(self.pieces(view.sample[:1])[0])
        return torch.from_numpy(samples), rate

    def needs_steps(self, formats: list[str]) -> bool:
        """Only the finished piece is written."""
        return False

    def write(self, made: Rollout, formats: list[str], out: Path) -> dict[str, Any]:
        """One file each, and a sheet of the first pieces' rolls."""
        from rlgen_cli.domains.music.midi import write_midi  # here, since every run imports this module, and few mido

        view, program = self.env.view(made.final), self.sound.program
        for i, piece in enumerate(self.pieces(view.sample)):
            if "midi" in formats:
                write_midi(out / f"{i:03d}.mid", piece, program, self.voices)
            if "wav" in formats:
                write_wav(out / f"{i:03d}.wav", piece, self.sound.soundfont, program or 0)
            if "png" in formats:
                write_png(out / f"{i:03d}.png", roll_grid([piece], voices=self.voices))
            for name in FILMS:
                if name in formats:
                    samples, rate = sounding(piece, self.sound.soundfont, program or 0)
                    frames = roll_film(piece, self.fps, len(samples) / rate, self.voices)
                    write_film(out / f"{i:03d}.{name}", frames, self.fps, (samples, rate))
        if "png" in formats:
            write_png(out / "grid.png", self.sheet(view))
        return {}
