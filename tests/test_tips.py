"""What strokes look like: curves, lines, ellipses, triangles, tapered ones, and bristles."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import rlgen_cli
from rlgen_cli.core.specs import Stroke, Tip
from rlgen_cli.domains.canvas.compositing import Strokes, composite
from rlgen_cli.domains.canvas.outlines import outlines
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.plotter import Page, pens_of, plot
from rlgen_cli.domains.canvas.rasteriser import rasterised
from rlgen_cli.domains.canvas.refining import refined
from rlgen_cli.domains.canvas.svg import Drawing, write_svg
from tests.test_paint import SMALL

SVG = "{http://www.w3.org/2000/svg}"
FILLED = [Tip("ellipse"), Tip("triangle"), Tip("curve", 0.7), Tip("line", 1.0)]
# From (8, 16) to (24, 16), 8 wide, on 33 pixels: by hand, the ellipse's radii are 12 and 4, the triangle is 8 wide and
# 20 tall.
LYING = torch.tensor([[[8.0, 16.0], [16.0, 16.0], [24.0, 16.0]]])
WIDE = torch.tensor([8.0])


def alpha(tip, points=LYING, width=WIDE, size=33):
    return rasterised(points, width, size, tip, 1.0)[0]


def test_an_ellipse_by_hand():
    made = alpha(Tip("ellipse"))
    assert float(made.sum()) == pytest.approx(math.pi * 12 * 4, rel=0.02)
    assert made[16, 5:28].min() == 1.0  # from 16 − 12 to 16 + 12, and half a pixel of the rim beyond
    assert made[16, 4] == made[16, 28] == pytest.approx(0.5, abs=0.01)
    assert made[12, 16] == made[20, 16] == pytest.approx(0.5, abs=0.01)
    assert made[12, 8] == 0  # where a line of this width would cover


def test_a_triangle_by_hand():
    made = alpha(Tip("triangle"))
    assert float(made.sum()) == pytest.approx(8 * 20 / 2, rel=0.02)
    assert made[14:19, 9].min() > 0.9
    assert float(made[16, 8]) == pytest.approx(0.5, abs=1e-3)  # the base
    assert made[16, 29:].max() == 0  # the tip is at 28
    assert made[:, 18].sum() == pytest.approx(4.0, abs=0.1)  # half as wide in the middle


def test_a_taper_by_hand():
    made = alpha(Tip("curve", 0.5))
    assert made[:, 8].sum() == pytest.approx(8.0, abs=0.15)
    assert made[:, 16].sum() == pytest.approx(6.0, abs=0.15)
    assert made[:, 24].sum() == pytest.approx(4.0, abs=0.15)
    assert made[16, 27:].max() == 0  # the round end has half the radius of the round start
    assert made[16, 4] == pytest.approx(0.5)


BENT = torch.tensor([[[10.0, 12.0], [20.0, 30.0], [36.0, 20.0]], [[12.0, 30.0], [20.0, 20.0], [28.0, 10.0]]])


@pytest.mark.parametrize("points", [*BENT, torch.full((3, 2), 20.0)], ids=["bent", "straight", "dot"])
@pytest.mark.parametrize("tip", FILLED, ids=str)
def test_the_outline_is_the_rim_of_the_raster(tip, points):
    if tip.kind == "line":
        points = torch.stack([points[0], (points[0] + points[2]) / 2, points[2]])
    made = alpha(tip, points[None], torch.tensor([9.0]), 48)
    large = Image.new("L", (480, 480))
    for rim in outlines(points, 9.0, tip):
        ImageDraw.Draw(large).polygon([(10 * (x + 0.5), 10 * (y + 0.5)) for x, y in rim.tolist()], fill=255)
    wanted = np.asarray(large.resize((48, 48), Image.Resampling.BOX)) / 255
    assert wanted.sum() > 20
    assert np.abs(made.numpy() - wanted).mean() < 0.004
    assert np.abs(made.numpy() - wanted).max() < 0.5


@pytest.mark.parametrize("points", [LYING, torch.full((1, 3, 2), 16.0)], ids=["stroke", "dot"])
@pytest.mark.parametrize("tip", FILLED, ids=str)
def test_gradients_reach_points_and_width(tip, points):
    points, width = points.clone().requires_grad_(), WIDE.clone().requires_grad_()
    by_points, by_width = torch.autograd.grad(alpha(tip, points, width).sum(), [points, width])
    assert bool(by_points.isfinite().all())
    assert float(by_width) > 1.0


def strokes(count, picture=None):
    rng = torch.Generator().manual_seed(3)
    points = 40 * torch.rand(count, 3, 2, generator=rng)
    picture = torch.zeros(count, dtype=torch.long) if picture is None else picture
    colour = torch.rand(count, 3, generator=rng)
    return Strokes(points, torch.full((count,), 9.0), torch.full((count,), 0.8), colour, picture)


def test_bristles_lie_beside_each_other_along_their_stroke():
    straight = strokes(1)._replace(points=LYING)
    made = Pens(bristles=4).hairs(straight)
    assert len(made.width) == 4
    y = made.points[:, :, 1]
    assert bool((y.diff(dim=0).abs() > 1.0).all())  # 9 / 4 apart, each up to .15 of that elsewhere
    assert bool(((y - 16).abs() < 4.5).all())
    assert bool(((made.points[:, 0, 0] - 8).abs() <= 9 / 4).all())
    assert bool(((made.points[:, 2, 0] - 24).abs() <= 9 / 4).all())
    assert bool((made.width.sum() < 9.0 * 1.2) & (made.width > 0.6 * 9 / 4 - 1e-4).all())
    assert made.colour.unique(dim=0).shape == (1, 3)


def test_bristles_are_those_of_the_picture_alone():
    pens, both = Pens(bristles=3), strokes(6, torch.tensor([0, 1, 0, 1, 1, 0]))
    made = pens.hairs(both)
    alone = pens.hairs(both.of((both.picture == 1).nonzero().squeeze(1)))
    assert torch.equal(made.points[made.picture == 1], alone.points)
    assert len(pens.hairs(strokes(0)).width) == 0
    assert torch.equal(Pens().hairs(both).points, both.points)


@pytest.mark.parametrize("pens", [*(Pens(tip=tip) for tip in FILLED), Pens(bristles=3)], ids=str)
def test_a_finish_moves_strokes_of_each_kind(pens):
    target, paper, begun = torch.rand(1, 3, 40, 40), torch.full((1, 3), 0.5), strokes(8)
    begun = begun._replace(points=pens.points(begun.points))

    def error(made):
        picture = composite(paper[:, :, None, None].expand_as(target), pens.hairs(made), pens.tip)
        return float((picture - target).square().mean())

    made = refined(target, paper, begun, 15, pens)
    assert error(made) < error(begun)
    if pens.tip.kind != "curve":
        assert torch.allclose(made.points[:, 1], (made.points[:, 0] + made.points[:, 2]) / 2)


def drawing(tip):
    one = torch.ones(1)
    return Drawing([Stroke(LYING, WIDE, torch.ones(1, 3), 0.5 * one, one.bool())], 33, 33, torch.zeros(3), tip)


@pytest.mark.parametrize(("tip", "element"), [*zip(FILLED, ["ellipse", "path", "path", "path"], strict=True)], ids=str)
def test_a_filled_stroke_in_svg_and_on_a_plotter(tip, element, tmp_path):
    write_svg(tmp_path / "made.svg", drawing(tip), 0)
    (mark,) = ElementTree.parse(tmp_path / "made.svg").getroot().iter(f"{SVG}{element}")
    assert mark.attrib["fill"] == "#ffffff"
    assert mark.attrib["fill-opacity"] == "0.500"
    assert "stroke" not in mark.attrib
    if element == "ellipse":
        assert [float(mark.attrib[key]) for key in ("cx", "cy", "rx", "ry")] == [16.5, 16.5, 12.0, 4.0]
    lines = plot(drawing(tip), 0, Page(), pens_of(drawing(tip), 2)).lines
    assert len(lines) == (2 if tip.taper else 1)
    assert all(line.points[0] == line.points[-1] for line in lines)  # round it and back


def test_a_painter_of_ellipses_learns_and_draws_them(rlgen, tmp_path):
    words = ["experiment=painter", "env.brush.kind=ellipse", *SMALL]
    rlgen_cli.train(*words, "data.count=30", "agent.network.body.channels=4", folder=tmp_path / "run")
    assert rlgen("sample", f"run={tmp_path / 'run'}", "n=1", "out=out", "format=svg")[0] == 0
    root = ElementTree.parse(tmp_path / "out" / "000.svg").getroot()
    assert len(list(root.iter(f"{SVG}ellipse"))) == 16 * 2
    assert not list(root.iter(f"{SVG}path"))
