"""Music: MIDI, sound, and piano rolls."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.specs import State, View
from rlgen_cli.domains.music.encodings import MusicEncoding, pieces
from rlgen_cli.domains.music.notes import Piece, voice_names
from rlgen_cli.domains.music.piano_roll import roll_grid
from rlgen_cli.domains.music.sound import sounding, write_wav
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.style import Sound
from rlgen_cli.evaluation.media.text import token_diversity
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
    """Pieces of `env`; `sound` says how they are to sound."""

    formats: tuple[str, ...] = ("png", "midi", "wav")
    usual = formats
    last = 16  # samples that the end of a run leaves

    def __init__(self, env: MakesMusic, sound: Sound) -> None:
        self.env, self.sound = env, sound

    def pieces(self, sample: Tensor) -> list[Piece]:
        return pieces(self.env.encoding.roll(sample), self.env.bar, self.sound.tempo or self.env.tempo)

    def sheet(self, view: View, limit: int = SHOWN) -> Tensor:
        """Piano rolls side by side, uint8 [3, H, W]."""
        return roll_grid(self.pieces(view.sample[:limit]))

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

        view = self.env.view(made.final)
        for i, piece in enumerate(self.pieces(view.sample)):
            if "midi" in formats:
                write_midi(out / f"{i:03d}.mid", piece, self.sound.program, voice_names(self.env.encoding.voices))
            if "wav" in formats:
                write_wav(out / f"{i:03d}.wav", piece, self.sound.soundfont, self.sound.program or 0)
            if "png" in formats:
                write_png(out / f"{i:03d}.png", roll_grid([piece]))
        if "png" in formats:
            write_png(out / "grid.png", self.sheet(view))
        return {}
