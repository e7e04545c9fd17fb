"""The strokes of a painting, drawn by Chromium from its SVG, against our raster of them."""

import io

import numpy as np
import pytest
from PIL import Image

from rlgen_cli.core.specs import Tip
from rlgen_cli.domains.canvas.compositing import composite
from rlgen_cli.domains.canvas.painting import painted
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.plotter import Page
from rlgen_cli.domains.canvas.refining import refined
from rlgen_cli.evaluation.media.painting import Painting, write_painting
from rlgen_cli.evaluation.media.style import Film
from tests.test_paint import TILE, cells, photographs, proposing
from tests.test_report_in_a_browser import chromium, pytestmark  # noqa: F401

PENS = {"any": Pens(), **{kind: Pens(tip=Tip(kind)) for kind in ("line", "ellipse", "triangle")}}
PENS |= {"tapered": Pens(tip=Tip("curve", 0.8)), "bristles": Pens(bristles=5)}


@pytest.mark.parametrize(("name", "updates"), [*((name, 60) for name in PENS), ("any", 0)])
def test_the_svg_in_a_browser_is_the_png(chromium, name, updates, tmp_path):  # noqa: F811
    """Also after a finish by gradient, which may bend strokes as a painter does not."""
    target, pens = photographs(1, 120, 160), PENS[name]
    paper = target.mean((2, 3))
    made = painted(target, paper, proposing(cells(grid=4, count=16)), TILE, 150, pens)
    made = refined(target, paper, made, updates, pens) if updates else made
    made = pens.hairs(made)
    picture = composite(paper[:, :, None, None].expand_as(target), made, pens.tip)[0]
    write_painting(Painting(made, pens.tip, paper[0], picture), ["png", "svg"], Film(), Page(), tmp_path / "made")
    text = (tmp_path / "made.svg").read_text().replace('width="1600" height="1200"', 'width="160" height="120"', 1)
    page = chromium.new_context(viewport={"width": 160, "height": 120}).new_page()
    page.set_content(f"<body style='margin:0'>{text}</body>")
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)
    ours = np.asarray(Image.open(tmp_path / "made.png")).astype(float)
    assert seen.shape == ours.shape
    assert np.abs(seen - ours).mean() < 2.0  # of 255
    assert np.quantile(np.abs(seen - ours), 0.99) < 16
