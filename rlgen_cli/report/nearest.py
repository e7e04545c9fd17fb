"""Samples beside the training data that are nearest to them: who only repeats its data shows it here."""

import io
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from rlgen_cli.core.files import content_of
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.folder import LARGEST_FILE, decoded
from rlgen_cli.data.images import Images, pil_to_tensor, to_channels
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.piano_roll import roll_grid
from rlgen_cli.domains.music.scores import SequenceNovelty
from rlgen_cli.evaluation.media.music import MusicMedium
from rlgen_cli.evaluation.media.raster import beside, enlarge, grid
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.novelty import nearest
from rlgen_cli.report.made import data_url, numbered
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.sample import make_samples
from rlgen_cli.runs.saved_run import config_of

MOST_PIECES = 4


def nearest_sheet(folder: Path, count: int, trust: list[str]) -> str | None:
    """A run's first samples, and at the right of each the nearest of the training data, as a data URL; None of a run
    that has neither pictures nor music, or learned from none.

    Raises:
        UserError: for a run that names what is not trusted, or data that is not there.
    """
    if not (folder / "samples" / "final" / "grid.png").exists():
        return None
    session = assemble(config_of(folder, Trust(trust)), fresh=False)
    real = None if session.data is None else session.data.train
    if isinstance(real, Images):
        sheet = pictures_sheet(folder, count, real)
    elif isinstance(real, Sequences) and "music" in session.envs["test"].spec.kinds:
        sheet = pieces_sheet(folder, min(count, MOST_PIECES), trust)
    else:
        return None
    return None if sheet is None else png_url(sheet)


def pictures_sheet(folder: Path, count: int, real: Images) -> Tensor | None:
    """Pictures that the run has written, and the training pictures nearest to them, uint8 [3, H, W]."""
    images = real.images.cpu()
    files = numbered(folder / "samples" / "final", "png", count)
    if not files:
        return None
    pictures = [pil_to_tensor(decoded(content_of(file, LARGEST_FILE)).convert("RGB")) for file in files]
    made = to_channels(torch.stack(pictures), images.shape[1])
    if made.shape[1:] != images.shape[1:]:
        return None
    columns = 4 if len(made) > 2 else 1
    sheets = [grid(part.float() / 255, columns) for part in (made, images[nearest(made, images)[1]])]
    return enlarge(beside(*sheets), 640)


def pieces_sheet(folder: Path, count: int, trust: list[str]) -> Tensor:
    """The run's last samples, made again, and the training pieces nearest to them, as piano rolls, two pairs a row,
    uint8 [3, H, W]."""
    asked = {"run": str(folder), "n": count, "seed": 0, "split": "test", "device": "cpu", "set": None, "trust": trust}
    session: Session = open_run(OmegaConf.create(asked)).session
    env = session.envs["test"]
    shown = medium(env)
    assert isinstance(shown, MusicMedium)
    assert session.data is not None
    made = make_samples(session, "test", shown.last, 0, record=False).view.sample[:count].cpu()
    real = session.data.train
    near = SequenceNovelty(real=real, limit=len(real.tokens)).nearest(made)[1]
    pairs = torch.stack([made, real.tokens[near]], 1).flatten(0, 1)
    return roll_grid(shown.pieces(pairs), columns=4, voices=shown.voices)


def png_url(sheet: Tensor) -> str:
    """A picture, uint8 [3, H, W], as a data URL."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())).save(out, "PNG", optimize=True)
    return data_url(out.getvalue())
