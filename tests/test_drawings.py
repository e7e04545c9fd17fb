"""Drawings as they come about: animated SVG, strips; and the words on pictures."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import rlgen_cli
from rlgen_cli.core.specs import Stroke, Tip, View
from rlgen_cli.domains.canvas.svg import Drawing, Timing, write_svg
from rlgen_cli.evaluation.media.pictures import captioned_sheet
from rlgen_cli.evaluation.media.raster import CAPTION
from tests.conftest import small

SVG = "{http://www.w3.org/2000/svg}"


CURVES = Tip()


def drawing(*strokes, size=10, tip=CURVES):
    """A white drawing on black of strokes (start, control, end), width 2; None is a pen move."""
    none = ((0, 0), (0, 0), (0, 0))
    one = torch.ones(1)
    steps = [
        Stroke(torch.tensor([points or none]).float(), 2 * one, one.view(1, 1), one, torch.tensor([points is not None]))
        for points in strokes
    ]
    return Drawing(steps, size, size, torch.zeros(1), tip)


LINE, CURVE, DOT = ((1, 1), (4, 1), (7, 1)), ((1, 2), (8, 5), (1, 8)), ((5, 5), (5, 5), (5, 5))


def marks(path):
    (group,) = ElementTree.parse(path).iter(f"{SVG}g")
    return list(group)


def animations(mark):
    return {node.attrib["attributeName"]: node.attrib for node in mark.iter(f"{SVG}animate")}


def test_strokes_appear_one_after_another_by_hand(tmp_path):
    """Three strokes in six seconds and a rest of a second and a half: each takes 2 / 7.5 of a turn."""
    write_svg(tmp_path / "a.svg", drawing(LINE, None, CURVE, DOT), 0, timing=Timing(6.0, loop=True))
    line, curve, dot = marks(tmp_path / "a.svg")
    assert animations(line).keys() == {"stroke-dasharray"}  # it is there from the first moment, and grows
    assert animations(line)["stroke-dasharray"]["keyTimes"] == "0;0.00000;0.26667;1"
    assert animations(curve)["visibility"]["keyTimes"] == "0;0.26667"
    assert animations(curve)["stroke-dasharray"]["keyTimes"] == "0;0.26667;0.53333;1"
    assert animations(dot).keys() == {"visibility"}  # what has no length does not grow
    for mark in (line, curve, dot):
        assert {(given["dur"], given["repeatCount"]) for given in animations(mark).values()} == {("7.5s", "indefinite")}


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("loop", [False, True])
def test_without_its_animation_it_is_the_still_drawing(square, loop, tmp_path):
    drawn = drawing(LINE, None, CURVE, DOT, tip=Tip("pixel" if square else "curve"))
    write_svg(tmp_path / "still.svg", drawn, 0)
    write_svg(tmp_path / "moving.svg", drawn, 0, timing=Timing(3.0, loop))
    still, moving = (ElementTree.parse(tmp_path / f"{name}.svg").getroot() for name in ("still", "moving"))
    found = 0
    for node in moving.iter():
        node.attrib.pop("pathLength", None)
        for child in list(node.iter(f"{SVG}animate")):
            if child in list(node):
                found += 1
                assert ("repeatCount" in child.attrib) == loop
                node.remove(child)
    assert found == (2 if square else 4)
    assert ElementTree.tostring(still) == ElementTree.tostring(moving)


def test_a_run_writes_animated_drawings(rlgen, tmp_path):
    rlgen_cli.train(*small("env=pixel", "agent=random", "reward=target"), folder=tmp_path / "run")
    words = ["sample", f"run={tmp_path / 'run'}", "n=2", "out=out"]
    assert rlgen(*words, "format=animated_svg", "film.seconds=2", "film.loop=false", "transparent=true")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "animated_000.svg", "animated_001.svg", "animated_grid.svg", "scores.json",
    }  # fmt: skip
    assert 'dur="2s"' in (tmp_path / "out" / "animated_grid.svg").read_text()
    assert '#000000"/>\n<g' not in (tmp_path / "out" / "animated_000.svg").read_text()  # no paper
    assert rlgen(*words)[0] == 0
    assert (tmp_path / "out" / "000.svg").exists()  # the usual formats


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["film.seconds=0"], "film.seconds: must be a number from 0.1 to 3600, got 0."),
        (["film.loop=2"], "film.loop: must be true or false, got 2."),
        (["format=animated_svg"], "format: must be of png, midi, wav, mp4, webm for this run, got animated_svg."),
        (["film.seconds=2"], "film.seconds, film.loop: are of pictures, and this run makes none."),
    ],
)
def test_what_a_song_cannot_have_is_said_in_a_sentence(words, said, song, rlgen):
    code, _, err = rlgen("sample", f"run={song}", *words)
    assert (code, err.strip().count("\n")) == (2, 0)
    assert said in err


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    folder = tmp_path_factory.mktemp("song") / "run"
    rlgen_cli.train(*small("env=music", "agent=random", "reward=tonality"), folder=folder)
    return folder


def test_an_environment_without_strokes_names_what_it_has(rlgen, tmp_path):
    rlgen_cli.train(*small("env=latent_gan", "agent=random"), folder=tmp_path / "run")
    code, _, err = rlgen("sample", f"run={tmp_path / 'run'}", "n=2", "format=[png,svg]")
    assert code == 2
    assert "format: must be of png, gif, mp4, webm for this run, got svg." in err


def test_a_strip_says_after_how_many_steps_each_column_is(rlgen, tmp_path):
    """Six steps and the beginning: seven columns of pictures of 12 pixels, 14 with what lies between, five times as
    large."""
    rlgen_cli.train(*small("env=pixel", "agent=random", "reward=target"), folder=tmp_path / "run")
    assert rlgen("sample", f"run={tmp_path / 'run'}", "n=3", "out=out", "format=gif")[0] == 0
    with Image.open(tmp_path / "out" / "strip.png") as strip:
        assert strip.size == (5 * (7 * 14 + 2), CAPTION + 5 * (3 * 14 + 2))
        heads = np.asarray(strip.convert("L").crop((0, 0, 7 * 70, CAPTION))) < 130
    assert heads.reshape(CAPTION, 7, 70).any((0, 2)).all()  # a number above each


def test_several_panels_are_each_large_enough_to_be_seen():
    """Three of 44 pixels become seven times as large, one alone twelve times; each has its name above it."""
    pictures, mask = torch.zeros(9, 1, 12, 12), torch.zeros(9, 1, 12, 12, dtype=torch.bool)
    context = {"target": pictures, "damaged": pictures, "known_mask": mask}
    high, wide = captioned_sheet(View(pictures, context, {}), 9, ()).shape[1:]
    assert (high, wide) == (7 * 44 + CAPTION, 3 * 7 * 44 + 2 * 4)
    assert captioned_sheet(View(pictures, {}, {}), 9, ()).shape == (3, 12 * 44, 12 * 44)


def test_the_names_of_labels_lie_where_the_pictures_do():
    """They are written by Pillow, and stand beside pictures that may be a GPU's."""
    view = View(torch.zeros(4, 1, 12, 12, device="meta"), {"label": torch.tensor([0, 1, 1, 0])}, {})
    assert captioned_sheet(view, 4, ("zero", "one")).device.type == "meta"
