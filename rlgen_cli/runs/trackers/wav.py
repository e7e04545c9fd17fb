"""A sound as a file, for clients that take one."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from rlgen_cli.domains.music.sound import write_wave


@contextlib.contextmanager
def wav_file(name: str, step: int, wave: Tensor, rate: int) -> Iterator[str]:
    """The path of a WAV file of a wave [S] in [−1, 1], which is there within this alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name.replace('/', '_')}_{step:09d}.wav"
        write_wave(path, wave.cpu().numpy(), rate)
        yield str(path)
