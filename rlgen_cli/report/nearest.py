"""Samples beside the training pictures that are nearest to them: who only repeats its data shows it here."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rlgen_cli.core.files import content_of
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.folder import LARGEST_FILE, decoded
from rlgen_cli.data.images import Images, pil_to_tensor, to_channels
from rlgen_cli.evaluation.media.raster import beside, enlarge, grid
from rlgen_cli.evaluation.novelty import nearest
from rlgen_cli.report.made import data_url, numbered
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.saved_run import config_of


def nearest_sheet(folder: Path, count: int, trust: list[str]) -> str | None:
    """A run's first samples, and at their right the nearest training pictures, as a data URL; None of a run without
    pictures.

    Raises:
        UserError: for a run that names what is not trusted, or data that is not there.
    """
    files = numbered(folder / "samples" / "final", "png", count)
    session = assemble(config_of(folder, Trust(trust)), fresh=False) if files else None
    if session is None or session.data is None or not isinstance(session.data.train, Images):
        return None
    real = session.data.train.images.cpu()
    pictures = [pil_to_tensor(decoded(content_of(file, LARGEST_FILE)).convert("RGB")) for file in files]
    made = to_channels(torch.stack(pictures), real.shape[1])
    if made.shape[1:] != real.shape[1:]:
        return None
    columns = 4 if len(made) > 2 else 1
    sheets = [grid(part.float() / 255, columns) for part in (made, real[nearest(made, real)[1]])]
    shown = enlarge(beside(*sheets), 640).permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(out, "PNG", optimize=True)
    return data_url(out.getvalue())
