"""HPGL and G-code: numbers by hand, and the picture that a plotter would draw."""

import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import rlgen_cli
from rlgen_cli.config.compose import composed
from rlgen_cli.core.specs import Stroke, Tip
from rlgen_cli.domains.canvas.enlarged import enlarged
from rlgen_cli.domains.canvas.plotter import Page, clipped, flattened, pens_of, plot, write_gcode, write_hpgl
from rlgen_cli.domains.canvas.svg import Drawing
from rlgen_cli.evaluation.media.style import Style
from rlgen_cli.runs.style import style_of
from tests.conftest import small
from tests.test_drawings import CURVE, DOT, LINE, drawing

A4 = Page()  # a square of 170 mm from (20, 63.5)


def coloured(drawn, *colours):
    """The same strokes in other colours."""
    strokes = [
        stroke._replace(colour=torch.tensor([list(colour)]))
        for stroke, colour in zip(drawn.strokes, colours, strict=True)
    ]
    return drawn._replace(strokes=strokes, background=torch.zeros(3))


def written(drawn, folder, page=A4, sample=0):
    """The HPGL and the G-code of a drawing, as lists of words and lines."""
    pens = pens_of(drawn, page.pens)
    plotted = plot(drawn, sample, page, pens)
    write_hpgl(folder / "a.hpgl", plotted, page)
    write_gcode(folder / "a.gcode", plotted, page, pens)
    return (folder / "a.hpgl").read_text().split(";\n")[:-1], (folder / "a.gcode").read_text().splitlines()


def hpgl_lines(words):
    """Polylines [points], mm, and the pen of each, as a plotter reads them."""
    found, pen, down, at = [], 0, False, (0.0, 0.0)
    for word in words:
        name, values = word[:2], [float(value) for value in re.findall(r"-?[\d.]+", word[2:])]
        points = [(x / 40, y / 40) for x, y in zip(values[::2], values[1::2], strict=False)]
        if name == "SP":
            pen = int(values[0])
        if name == "PD":
            found.append((pen, [at]))
            found[-1][1].extend(points)
            down = True
        if name == "PU":
            down = False
        at = points[-1] if points else at
        assert name in ("IN", "VS", "SP", "PU", "PD")
        assert down == (name == "PD")
    return found


def gcode_lines(lines):
    """The same of G-code."""
    found, pen, down, at = [], 1, False, (0.0, 0.0)
    for line in lines:
        if change := re.fullmatch(r"; change to pen (\d+): #[0-9a-f]{6}", line):
            pen = int(change.group(1))
        if line in (A4.pen_down, A4.pen_up):
            down = line == A4.pen_down
            found += [(pen, [at])] if down else []
        if move := re.fullmatch(r"G([01]) X(\S+) Y(\S+) F\S+", line):
            at = (float(move.group(2)), float(move.group(3)))
            assert (move.group(1) == "1") == down, "the pen is down while it draws, and up while it travels"
            if down:
                found[-1][1].append(at)
    assert not down
    return found


def test_a_line_by_hand(tmp_path):
    """From pixel (1, 1) to (7, 1) of ten, a pixel 17 mm wide: their middles lie at x 1.5 and 7.5, y 8.5 from below."""
    hpgl, gcode = written(drawing(LINE), tmp_path)
    assert hpgl == ["IN", "VS2.5", "SP1", "PU1820,8320", "PD5900,8320", "PU", "SP0"]
    assert gcode == [
        "; page 210 x 297 mm, from its lower left corner",
        "; pen 1: #ffffff",
        "G21",
        "G90",
        "G0 Z5",
        "G0 X45.500 Y208.000 F6000",
        "G1 Z0 F600",
        "G1 X147.500 Y208.000 F1500",
        "G0 Z5",
        "G0 X0 Y0 F6000",
        "M2",
    ]


def test_the_pen_is_lifted_where_it_moves_without_drawing_and_nowhere_else(tmp_path):
    onwards = ((7, 1), (7, 4), (7, 7))
    hpgl, gcode = written(drawing(LINE, onwards, None, DOT), tmp_path)
    assert [word[:2] for word in hpgl] == ["IN", "VS", "SP", "PU", "PD", "PU", "PU", "PD", "PU", "SP"]
    line, dot = hpgl_lines(hpgl)
    assert line[1] == [(45.5, 208.0), (147.5, 208.0), (147.5, 106.0)]
    assert dot[1] == [(113.5, 140.0)] * 2  # the pen goes down where it is
    assert [(pen, [pytest.approx(p, abs=0.0126) for p in points]) for pen, points in gcode_lines(gcode)] == [line, dot]


@pytest.mark.parametrize("tolerance", [1.0, 0.1, 0.003])
def test_no_chord_leaves_its_curve_by_more_than_the_tolerance(tolerance):
    points = torch.tensor([[0.0, 0.0], [40, 10], [0, 20]])
    found = flattened(points, tolerance)
    t = np.linspace(0, 1, 4001)[:, None]
    curve = (1 - t) ** 2 * points[0].numpy() + 2 * t * (1 - t) * points[1].numpy() + t**2 * points[2].numpy()
    worst = max(min(distance(point, a, b) for a, b in pairwise(found)) for point in curve[::20].tolist())
    assert tolerance / 20 < worst <= tolerance
    assert found[0] == (0, 0)
    assert found[-1] == (0, 20)
    assert len(flattened(torch.tensor([[0.0, 0], [5, 5], [10, 10]]), tolerance)) == 2


def distance(point, start, end):
    """Of a point from a segment."""
    along = [e - s for s, e in zip(start, end, strict=True)]
    square = sum(part**2 for part in along)
    share = sum((p - s) * part for p, s, part in zip(point, start, along, strict=True)) / square
    share = min(max(share, 0), 1)
    return math.dist(point, [s + share * part for s, part in zip(start, along, strict=True)])


def test_what_leaves_the_canvas_is_not_drawn():
    """A corner of the polyline lies to the right of the square; below, all of it does."""
    runs = list(clipped([(-2, 5), (5, 5), (15, 5), (5, 15)], 10, 10))
    assert runs == [[(0, 5), (5, 5), (10, 5)], [(10, 10), (10, 10)]]
    assert list(clipped([(2, 11), (8, 12)], 10, 10)) == []
    assert list(clipped([(3, 3), (3, 3)], 10, 10)) == [[(3, 3), (3, 3)]]


def test_each_colour_has_a_pen_and_what_erases_is_left_out(tmp_path):
    strokes = [LINE, CURVE, LINE, DOT, CURVE]
    red, blue, black, dark = (1.0, 0, 0), (0, 0, 1.0), (0, 0, 0), (0.05, 0, 0)
    drawn = coloured(drawing(*strokes), red, blue, black, dark, red)
    assert pens_of(drawn, 8) == ["#ff0000", "#0000ff"]
    assert plot(drawn, 0, A4, pens_of(drawn, 8)).left_out == 2
    hpgl, gcode = written(drawn, tmp_path)
    assert [word for word in hpgl if word.startswith("SP")] == ["SP1", "SP2", "SP1", "SP0"]
    assert [pen for pen, _ in gcode_lines(gcode)] == [pen for pen, _ in hpgl_lines(hpgl)] == [1, 2, 1]
    assert gcode[1:3] == ["; pen 1: #ff0000", "; pen 2: #0000ff"]
    assert [gcode[i - 1] for i, line in enumerate(gcode) if line == "M0"] == [
        "; change to pen 2: #0000ff", "; change to pen 1: #ff0000",
    ]  # fmt: skip
    one = written(drawn, tmp_path, A4._replace(pens=1))[0]  # the pen that is used most draws all
    assert [word for word in one if word.startswith("SP")] == ["SP1", "SP0"]
    faint = drawn._replace(strokes=[stroke._replace(opacity=torch.tensor([0.06])) for stroke in drawn.strokes])
    assert plot(faint, 0, A4, pens_of(faint, 8)) == ([], 5)
    assert written(faint, tmp_path)[0] == ["IN", "VS2.5", "SP0"]


def test_another_page_by_hand(tmp_path):
    """The square has 80 mm a side in the middle of 200 × 100: a pixel is 8 mm wide."""
    page = Page(200.0, 100.0, 10.0, feed=600.0, travel=900.0, pen_up="M5", pen_down="M3 S90")
    hpgl, gcode = written(drawing(LINE), tmp_path, page)
    assert hpgl[1:5] == ["VS1", "SP1", f"PU{(60 + 12) * 40},{(10 + 68) * 40}", f"PD{(60 + 60) * 40},{78 * 40}"]
    assert gcode[4:-2] == [
        "M5", "G0 X72.000 Y78.000 F900", "M3 S90", "G1 X120.000 Y78.000 F600", "M5",
    ]  # fmt: skip


BRUSHES = {
    "pen": ["brush=pen", "env.brush.widths=[1.5]"],
    "spiral": ["brush=spiral", "env.brush.grid=8", "env.brush.widths=[1.5]", "env.brush.levels=1"],
}


@pytest.mark.parametrize("brush", BRUSHES)
def test_the_plotter_draws_the_drawing(brush, rlgen, tmp_path):
    words = small("env=pixel", "agent=random", "reward=target", *BRUSHES[brush])
    rlgen_cli.train(*words, folder=tmp_path / "run")
    code, out, err = rlgen(
        "sample", f"run={tmp_path / 'run'}", "n=3", "format=[png,hpgl,gcode]", "scale=6", "out=out", "plotter.page=a5"
    )
    assert code == 0, err
    assert "plotter: pens 1 #ffffff; 0 strokes hardly show and are left out" in out
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["plotter"]["pens"] == ["#ffffff"]
    for i in range(3):
        with Image.open(tmp_path / "out" / f"00{i}.png") as png:
            wanted = np.asarray(png.convert("L"), float) / 255
        words = (tmp_path / "out" / f"00{i}.hpgl").read_text().split(";\n")[:-1]
        lines = (tmp_path / "out" / f"00{i}.gcode").read_text().splitlines()
        for found in (hpgl_lines(words), gcode_lines(lines)):
            points = np.array([point for _, line in found for point in line])
            assert points.size == 0 or ((points >= 20).all() and (points <= [128, 190]).all())
            assert np.abs(seen(found, 1.5) - wanted).mean() < 0.01
        assert wanted.max() > 0.9


def seen(found, width):
    """The paper after polylines of an A5 page, on a canvas of 12 pixels that is six times as large."""
    one, strokes = torch.ones(1), []
    for _, line in found:
        line = [((x - 20) / 9 - 0.5, (159 - y) / 9 - 0.5) for x, y in line]
        for a, b in pairwise(line):
            middle = [(p + q) / 2 for p, q in zip(a, b, strict=True)]
            strokes.append(Stroke(torch.tensor([[a, middle, b]]), width * one, one.view(1, 1), one, one.bool()))
    return enlarged(Drawing(strokes, 12, 12, torch.zeros(1), Tip()), 0, 6)[0].numpy()


WRONG = {
    "plotter.page=a9": "plotter.page: must be a5, a4, a3, letter, or [width, height] in mm, got a9.",
    "plotter.page=[100]": "plotter.page: must be a5, a4, a3, letter, or [width, height] in mm, got [100].",
    "plotter.page=[100,5]": "plotter.page: must be a number from 10 to 10000, got 5.",
    "plotter.margin=105": "plotter.margin: must be a number from 0 to 104, got 105.",
    "plotter.tolerance=0": "plotter.tolerance: must be a number from 0.001 to 10, got 0.",
    "plotter.pens=0": "plotter.pens: must be a whole number from 1 to 255, got 0.",
    "plotter.feed=fast": "plotter.feed: must be a number from 1 to 100000, got fast.",
    "plotter.pen_up=''": "plotter.pen_up: must be a line of G-code, as in M3 S90, got ''.",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_page_that_cannot_be(word, rlgen):
    code, _, err = rlgen("sample", "run=nowhere", word)
    assert code == 2
    assert WRONG[word] in err


def test_pixels_are_not_plotted(rlgen, tmp_path):
    rlgen_cli.train(*small("env=pixel", "brush=pixel", "agent=random", "reward=target"), folder=tmp_path / "run")
    for words, said in (
        (["format=gcode"], "format: must be of png, gif, svg, animated_svg, mp4, webm for this run, got gcode."),
        (["plotter.page=a5"], "plotter: draws strokes, and this run makes none."),
    ):
        code, _, err = rlgen("sample", f"run={tmp_path / 'run'}", *words)
        assert code == 2
        assert said in err


def test_the_command_lines_style_is_pythons():
    assert style_of(composed("sample", [])) == Style()
    assert style_of(composed("draw", ["image=a.png"])) == Style()
