"""`rlgen paint`: strokes on pictures of any size, their colours, budgets, files, and what cannot be painted."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rlgen_cli
from rlgen_cli.core.specs import Tip
from rlgen_cli.data.leaves import Leaves
from rlgen_cli.domains.canvas import painting
from rlgen_cli.domains.canvas.brushes.stroke_cells import Curves, StrokeCells, best_colours, gains
from rlgen_cli.domains.canvas.compositing import Strokes, composite, removal_costs
from rlgen_cli.domains.canvas.painting import CHANGES, along, needed, painted, rescaled, rounds_for, variants
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.plotter import Page
from rlgen_cli.domains.canvas.rasteriser import bezier
from rlgen_cli.domains.canvas.refining import refined
from rlgen_cli.domains.canvas.starts import BlurredStart
from rlgen_cli.evaluation.likeness import mse, psnr, ssim
from tests.conftest import SMALL, small

TILE = 32


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_strokes(k: int, pictures: int = 2) -> Strokes:
    """Strokes of all sizes, some of them beyond the borders of pictures of 50 × 37."""
    middle = 60 * torch.rand(k, 1, 2, generator=rng(1)) - 5
    half, aside = (6 * torch.randn(k, 1, 2, generator=rng(seed)) for seed in (2, 8))
    points = torch.cat([middle - half, middle + aside, middle + half], 1)
    width, opacity = 1 + 9 * torch.rand(k, generator=rng(3)), torch.rand(k, generator=rng(4))
    picture = torch.randint(pictures, (k,), generator=rng(5))
    return Strokes(points, width, opacity, torch.rand(k, 3, generator=rng(6)), picture)


def one_by_one(paper: Tensor, strokes: Strokes) -> Tensor:
    """Each stroke on the whole picture, after those before it."""
    pictures = list(paper)
    side = max(paper.shape[2:])
    for points, width, opacity, colour, picture in zip(*strokes, strict=True):
        alpha = bezier(points[None], width[None], side)[:, : paper.shape[2], : paper.shape[3]] * opacity
        now = pictures[int(picture)]
        pictures[int(picture)] = now + alpha * (colour[:, None, None] - now)
    return torch.stack(pictures)


def test_strokes_within_their_squares_are_those_of_the_whole_picture():
    paper, strokes = torch.rand(2, 3, 37, 50, generator=rng()), some_strokes(40)
    one, two = (Strokes(*(field.clone().requires_grad_(field.is_floating_point()) for field in strokes)) for _ in "ab")
    made, wanted = composite(paper, one, Tip()), one_by_one(paper, two)
    assert torch.allclose(made, wanted, atol=1e-4)
    weight = torch.rand(made.shape, generator=rng(7))
    (made * weight).sum().backward()
    (wanted * weight).sum().backward()
    for mine, theirs in zip(one[:4], two[:4], strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert theirs.grad.abs().max() > 0
        assert (mine.grad - theirs.grad).norm() < 0.01 * theirs.grad.norm()


def test_no_strokes_leave_the_paper():
    paper = torch.rand(1, 3, 20, 20, generator=rng())
    assert torch.equal(composite(paper, some_strokes(0), Tip()), paper)
    far = some_strokes(3)._replace(points=torch.full((3, 3, 2), 500.0), picture=torch.zeros(3, dtype=torch.long))
    assert torch.equal(composite(paper, far, Tip()), paper)


def cells(**changes: Any) -> StrokeCells:
    given: dict[str, Any] = (
        {"size": TILE, "grid": 2, "count": 4, "widths": [1.0, 16.0], "edge": 1.0}
        | {"kind": "curve", "taper": 0.0}
        | changes
    )
    return StrokeCells(palette=torch.zeros(2, 3, dtype=torch.uint8), **given)


def test_what_an_action_draws_by_hand():
    """The upper left cell, in its middle: (u, v) is .2 more than (.3, 0), (−.7, 0) and (−.2, 0): half of it along x,
    upright, a dot."""
    action = torch.full((3, 32), 0.5)
    action[0, 2], action[1, 2], action[2, 2] = 0.65, 0.15, 0.4
    action[0, 6], action[1, 6], action[2, 6] = 0.0, 1.0, 0.5
    flat, upright, dot = cells().curves(action).points[:, 0]
    assert torch.allclose(flat, torch.tensor([[-0.5, 7.5], [7.5, 7.5], [15.5, 7.5]]), atol=1e-3)
    assert torch.allclose(upright[[0, 2]].sort(0).values, torch.tensor([[7.5, -0.5], [7.5, 15.5]]), atol=1e-3)
    assert torch.allclose(dot, torch.full((3, 2), 7.5), atol=1e-3)
    assert cells().curves(action).width[:, 0].tolist() == pytest.approx([1.0, 16.0, 4.0])


def test_the_best_colour_and_its_gain_by_hand():
    """Half a stroke over black: white paper wants (1 · ½) / ¼ = 2, and gets 1; the gain is that of the picture."""
    target, canvas = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., :2] = 0.5
    assert torch.allclose(best_colours(alpha, canvas, target), torch.ones(1, 1, 3))
    best = best_colours(alpha, canvas, target)
    assert gains(alpha, canvas, target, best).item() == pytest.approx(3 * 8 * (1 - 0.25))
    assert gains(alpha, canvas, target, 0.5 * best).item() == pytest.approx(3 * 8 * (1 - 0.75**2))
    shade = best_colours(alpha, canvas, 0.3 * target)
    assert torch.allclose(shade, torch.full((1, 1, 3), 0.6), atol=1e-3)


def test_what_the_brush_paints_is_what_its_strokes_say():
    brush, target = cells(count=3), torch.rand(2, 3, TILE, TILE, generator=rng(1))
    canvas = (255 * torch.rand(2, 3, TILE, TILE, generator=rng(2))).round().to(torch.uint8)
    action = torch.rand(2, 32, generator=rng(3))
    strokes = brush.strokes(canvas, target, action)
    assert len(strokes) == 3
    fields = [torch.stack(parts, 1).flatten(0, 1) for parts in zip(*strokes, strict=True)]
    points, width, colour, opacity, _ = fields
    picture = torch.arange(2).repeat_interleave(3)
    made = composite(canvas / 255, Strokes(points, width, opacity, colour, picture), Tip(), 1.0)
    assert (255 * made - brush.painted(canvas, target, action).float()).abs().max() <= 0.51
    with pytest.raises(Exception, match="count: must be from 1 to grid²"):
        cells(count=5)


def proposing(brush: StrokeCells) -> Any:
    """A painter that is not trained: the same strokes for the same tile."""

    def propose(target: Tensor, canvas: Tensor) -> Curves:
        mean = torch.cat([target.float().mean((1, 2, 3)).view(-1, 1), canvas.float().mean((1, 2, 3)).view(-1, 1)], 1)
        phase = torch.arange(brush.action.dim) * 12.9898
        return brush.curves((torch.sin(mean.sum(1, keepdim=True) + phase) * 43758.5453) % 1.0)

    return propose


def photographs(n: int, high: int, wide: int) -> Tensor:
    """Pictures of overlapping shapes, of any size."""
    images = Leaves(count=30, shapes=40).load(max(high, wide), 3).train.images[:n]
    return images[:, :, :high, :wide].float() / 255


@pytest.mark.parametrize(("high", "wide"), [(48, 70), (70, 48), (20, 90)])
def test_a_budget_is_kept_and_strokes_help(high, wide):
    target = photographs(2, high, wide)
    paper, painter = target.mean((2, 3)), proposing(cells(grid=4, count=16))
    blank = paper[:, :, None, None].expand_as(target)
    errors = [mse(blank, target)]
    for count in (10, 60):
        made = painted(target, paper, painter, TILE, count)
        assert torch.bincount(made.picture, minlength=2).tolist() == [count, count]
        errors.append(mse(composite(blank, made, Tip()), target))
    assert bool((errors[1] < errors[0]).all())
    assert bool((errors[2] < 0.9 * errors[1]).all())


def test_pictures_that_are_painted_together_are_as_each_alone():
    target = photographs(3, 40, 56)
    painter = proposing(cells(grid=4, count=16))
    whole = painted(target, target.mean((2, 3)), painter, TILE, 30)
    for i in range(3):
        alone = painted(target[i : i + 1], target[i : i + 1].mean((2, 3)), painter, TILE, 30)
        mine = whole.of((whole.picture == i).nonzero().squeeze(1))
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(alone[:4], mine[:4], strict=True))


def test_a_palette_limits_colours():
    target, palette = photographs(1, 40, 40), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.8, 0.2, 0.1]])
    made = painted(target, target.mean((2, 3)), proposing(cells(grid=4, count=16)), TILE, 20, Pens(palette))
    assert len(made.width) > 5
    assert float(torch.cdist(made.colour, palette).amin(1).max()) == 0.0


def test_pens_limit_widths_and_opacities():
    """In pixels of the painting, at every level, and also after refinement."""
    target, pens = photographs(1, 70, 90), Pens(narrowest=6.0, widest=9.0, faintest=1.0)
    paper = target.mean((2, 3))
    made = painted(target, paper, proposing(cells(grid=4, count=16)), TILE, 30, pens)
    for strokes in (made, refined(target, paper, made, 5, pens)):
        assert len(strokes.width) == 30
        assert float(strokes.width.min()) >= 5.9
        assert float(strokes.width.max()) <= 9.1
        assert float(strokes.opacity.min()) == 1.0


def test_the_rounds_by_hand():
    """256 strokes at 128 × 128: tiles of 32 show the whole, its quarters, and its sixteenths; shares fill the budget."""
    rounds = rounds_for((128, 128), TILE, 256)
    assert [r.shape for r in rounds] == [(32, 32), (64, 64)] + 9 * [(128, 128)]
    assert [r.replaced for r in rounds] == 8 * [0.0] + 3 * [0.1]
    left = 1.0
    for step in rounds[:-3]:
        left -= step.share * left
    assert left == pytest.approx(0.0, abs=1e-9)
    assert rounds_for((128, 128), TILE, 1)[-1].shape == (32, 32)
    assert rounds_for((600, 400), TILE, 10**6)[-1].shape == (600, 400)


def test_what_a_picture_loses_without_a_stroke():
    """As if each were left out and the rest drawn again, of two pictures whose strokes overlap."""
    strokes = some_strokes(12)._replace(picture=torch.tensor([0, 1]).repeat(6))
    target, paper = torch.rand(2, 3, 37, 50, generator=rng(9)), torch.full((2, 3, 37, 50), 0.4)
    cost = removal_costs(paper, strokes, target, Tip())

    def error(drawn: Strokes) -> Tensor:
        return (composite(paper, drawn, Tip()) - target).square().sum()

    without = [torch.tensor([j for j in range(12) if j != k]) for k in range(12)]
    assert torch.allclose(cost, torch.stack([error(strokes.of(rest)) - error(strokes) for rest in without]), atol=1e-3)
    assert len(cost.unique()) == 12
    kept = needed(strokes, paper, target, 0.34, Pens())  # two of six a picture go
    assert torch.bincount(strokes.picture[kept]).tolist() == [4, 4]
    assert torch.equal(kept, kept.sort().values)
    for i in range(2):
        gone = sorted(set(torch.arange(i, 12, 2).tolist()) - set(kept.tolist()))
        assert sorted(cost[gone].tolist()) == sorted(cost[i::2].tolist())[:2]


def test_painting_anew_what_is_least_needed_brings_it_nearer(monkeypatch):
    target = photographs(4, 40, 56)
    paper, painter = target.mean((2, 3)), proposing(cells(grid=4, count=16))
    blank = paper[:, :, None, None].expand_as(target)

    def error() -> float:
        made = painted(target, paper, painter, TILE, 40)
        assert torch.bincount(made.picture).tolist() == [40] * 4
        return float(mse(composite(blank, made, Tip()), target).mean())

    anew = error()
    monkeypatch.setattr(painting, "REPLACED", ())
    assert anew < 0.99 * error()


@pytest.mark.parametrize(
    ("length", "places", "between"), [(32, [0], [0]), (33, [0, 1], [0]), (96, [0, 32, 64], [16, 48])]
)
def test_tiles_cover_an_axis(length, places, between):
    assert along(length, TILE, shifted=False).tolist() == places
    assert along(length, TILE, shifted=True).tolist() == between


def test_what_a_stroke_is_tried_with_by_hand():
    strokes = Strokes(torch.tensor([[[2.0, 4.0], [4.0, 4.0], [6.0, 4.0]]]), torch.tensor([2.0]), torch.tensor([0.9]),
                      torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))  # fmt: skip
    tried = variants(strokes)
    assert len(CHANGES) == 17
    assert torch.equal(tried.points[0, 0], strokes.points[0])
    for change, points, width, opacity in zip(CHANGES, tried.points[0], tried.width[0], tried.opacity[0], strict=True):
        x, y, turn, length, thick = change
        end = torch.tensor([4 + x + 2 * length * math.cos(turn), 4 + y + 2 * length * math.sin(turn)])
        assert torch.allclose(points[2], end, atol=1e-5)
        assert torch.allclose(points[1], torch.tensor([4 + x, 4 + y]), atol=1e-5)
        assert width.item() == pytest.approx(2 * thick)
        assert opacity.item() == pytest.approx(0.9)


def test_strokes_on_a_larger_picture_are_the_same_larger():
    strokes = some_strokes(5)
    larger = rescaled(strokes, (10, 20), (40, 80))
    assert torch.allclose(larger.points, 4 * strokes.points + 1.5)  # a pixel's middle lies at a whole number
    assert torch.allclose(larger.width, 4 * strokes.width)


def test_refining_lowers_the_error():
    target = photographs(2, 40, 56)
    paper = target.mean((2, 3))
    blank = paper[:, :, None, None].expand_as(target)
    made = painted(target, paper, proposing(cells(grid=4, count=16)), TILE, 40)
    better = refined(target, paper, made, 20, Pens())
    before, after = (mse(composite(blank, strokes, Tip()), target) for strokes in (made, better))
    assert bool((after < 0.8 * before).all())
    assert torch.equal(better.picture, made.picture)
    assert bool((better.colour >= 0).all() and (better.colour <= 1).all() and (better.width > 0).all())
    kept = refined(target, paper, made, 20, Pens(made.colour))
    assert torch.equal(kept.colour, made.colour)
    assert bool((mse(composite(blank, kept, Tip()), target) < before).all())


def test_likeness_by_hand():
    dark, light = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.75)
    assert psnr(dark, light).item() == pytest.approx(-20 * math.log10(0.5), abs=1e-4)
    c = 0.01**2
    assert ssim(dark, light).item() == pytest.approx((2 * 0.25 * 0.75 + c) / (0.25**2 + 0.75**2 + c), abs=1e-3)
    noise = torch.rand(1, 3, 16, 16, generator=rng())
    assert ssim(noise, noise).item() == pytest.approx(1.0, abs=1e-4)
    assert ssim(noise, 1 - noise).item() < 0


def test_a_blurred_start_by_hand():
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    images[..., 4:] = 200
    mean = BlurredStart(sides=[1])(images, torch.zeros(2, 1, dtype=torch.uint8), rng())
    assert mean.unique().tolist() == [100]
    halves = BlurredStart(sides=[2])(images, torch.zeros(2, 1, dtype=torch.uint8), rng())
    assert halves[0, 0, 0].tolist() == [0, 0, 25, 75, 125, 175, 200, 200]


def test_leaves_are_the_same_each_time_and_differ_from_each_other():
    one, two = (Leaves(count=24, shapes=20).load(16, 3) for _ in range(2))
    assert torch.equal(one.train.images, two.train.images)
    assert len(one.train.images.flatten(1).unique(dim=0)) == len(one.train.images)
    assert one.train.images.float().std() > 30


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A run of seconds."""
    run = tmp_path_factory.mktemp("painter") / "run"
    words = ["experiment=painter", "data.count=30", "data.shapes=20", "agent.network.body.channels=4", *SMALL]
    rlgen_cli.train(*words, folder=run)
    return run


@pytest.fixture
def cat(tmp_path):
    Image.fromarray((255 * photographs(1, 60, 90)[0]).byte().permute(1, 2, 0).numpy()).save(tmp_path / "my cat.png")
    return tmp_path / "my cat.png"


def test_a_picture_becomes_files(painter, cat, rlgen, tmp_path):
    code, said, error = rlgen(
        "paint", str(cat), f"run={painter}", "strokes=40", "width=96", "refine=3", "out=out",
        "format=[png,svg,animated_svg,gif,hpgl,gcode]",
    )  # fmt: skip
    assert code == 0, error
    assert "my cat: 40 strokes" in said
    endings = {".png", ".svg", "_animated.svg", ".gif", ".hpgl", ".gcode"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"my cat{e}" for e in endings} | {"scores.json"}
    assert Image.open(tmp_path / "out" / "my cat.png").size == (96, 64)
    root = ElementTree.parse(tmp_path / "out" / "my cat.svg").getroot()
    assert root.attrib["viewBox"] == "0 0 96 64"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 40
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["my cat"]["strokes"] == 40
    shown = np.asarray(Image.open(tmp_path / "out" / "my cat.png")).astype(float) / 255
    wanted = np.asarray(Image.open(cat).convert("RGB").resize((96, 64), Image.Resampling.LANCZOS)).astype(float) / 255
    assert ((shown - wanted) ** 2).mean() == pytest.approx(scores["my cat"]["mse"], abs=2e-4)


def test_the_painter_that_comes_with_rlgen_paints_better_than_one_of_seconds(painter, cat, rlgen, tmp_path):
    found = []
    for words in ([], [f"run={painter}"]):
        code, _, error = rlgen("paint", str(cat), "strokes=60", "width=128", "format=png", *words)
        assert code == 0, error
        found.append(json.loads((tmp_path / "outputs" / "painted" / "scores.json").read_text())["my cat"]["psnr"])
    assert found[0] > found[1] + 1.0


def test_a_film_has_all_frames(painter, cat, rlgen, tmp_path):
    av = pytest.importorskip("av", reason="needs rlgen[video]")
    words = ["strokes=30", "width=64", "format=mp4", "film.seconds=1", "film.fps=10", "out=out"]
    code, _, error = rlgen("paint", str(cat), f"run={painter}", *words)
    assert code == 0, error
    with av.open(str(tmp_path / "out" / "my cat.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 10 + 15  # and a rest of a second and a half
    assert frames[0].std((0, 1)).max() < 3  # paper
    assert frames[-1].std((0, 1)).max() > 10


def test_python_paints_as_the_command_does(painter, cat, tmp_path):
    out = rlgen_cli.paint(str(cat), f"run={painter}", "strokes=10", "width=40", "format=png", "out=made")
    assert Image.open(out / "my cat.png").size == (40, 27)


def test_folders_and_names_that_are_alike(painter, cat, rlgen, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / "more" / name)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    code, _, error = rlgen("paint", "more", "a.png", f"run={painter}", "strokes=5", "width=40", "format=png", "out=out")
    assert code == 0, error
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "a_2.png", "scores.json"}


def odd(kind: str, path: Any) -> None:
    """A picture that is not just RGB."""
    ramp = Image.fromarray(np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16))
    plain = Image.new("RGB", (40, 40), "teal")
    if kind == "cmyk":
        plain.convert("CMYK").save(path.with_suffix(".jpg"))
    elif kind == "sixteen":
        ramp.save(path.with_suffix(".png"))
    elif kind == "animated":
        plain.save(path.with_suffix(".gif"), save_all=True, append_images=[Image.new("RGB", (40, 40), "red")])
    elif kind == "transparent":
        Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(path.with_suffix(".png"))
    elif kind == "turned":
        exif = Image.Exif()
        exif[274] = 6  # a quarter turn
        Image.new("RGB", (80, 40), "teal").save(path.with_suffix(".jpg"), exif=exif)


@pytest.mark.parametrize(("size", "width"), [((1, 1), 1), ((1, 1), 8), ((300, 4), 60)])
def test_a_picture_of_one_colour_needs_no_strokes(size, width, painter, rlgen, tmp_path):
    Image.new("RGB", size, "teal").save(tmp_path / "plain.png")
    words = [f"run={painter}", f"width={width}", "strokes=5", "format=[png,svg,animated_svg,gif,gcode]", "out=out"]
    code, said, error = rlgen("paint", "plain.png", *words)
    assert code == 0, error
    assert "plain: 0 strokes, PSNR" in said
    colours = Image.open(tmp_path / "out" / "plain.png").getcolors()
    assert colours is not None
    assert len(colours) == 1


@pytest.mark.parametrize("kind", ["cmyk", "sixteen", "animated", "transparent", "turned"])
def test_odd_pictures_are_painted(kind, painter, rlgen, tmp_path):
    odd(kind, tmp_path / "odd")
    (file,) = tmp_path.glob("odd.*")
    words = ["strokes=5", "width=40", "format=png", "background=yellow", "out=out"]
    code, _, error = rlgen("paint", str(file), f"run={painter}", *words)
    assert code == 0, error
    made = Image.open(tmp_path / "out" / "odd.png")
    assert made.size == ((40, 80) if kind == "turned" else (40, 40))
    if kind == "transparent":
        assert np.abs(np.asarray(made).astype(int) - [255, 255, 0]).max() <= 2
    if kind == "animated":
        assert np.abs(np.asarray(made).astype(int) - [0, 128, 128]).max() <= 8  # the first picture


BAD = {
    "broken.png": (b"\x89PNG\r\n\x1a\nno more", r"files: .*broken\.png is no picture that can be read"),
    "nothing.jpg": (b"", r"files: .*nothing\.jpg is no picture that can be read"),
    "text.jpg": (b"hello", r"files: .*text\.jpg is no picture that can be read \(it is no image"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_pictures_are_said(name, painter, rlgen, tmp_path):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    code, _, error = rlgen("paint", name, f"run={painter}")
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(said, error), error


WRONG = {
    "strokes=0": r"strokes: must be a whole number from 1 to 100000, got 0\.",
    "width=0": r"width: must be a whole number from 1 to 4096, got 0\.",
    "refine=-1": r"refine: must be a whole number from 0 to 100000, got -1\.",
    "refine=2.5": r"refine: must be a whole number from 0 to 100000, got 2\.5\.",
    "kind=star": r"kind: must be curve, line, ellipse or triangle, got star\.",
    "taper=2": r"taper: must be a number from 0 to 1, got 2\.",
    "kind=ellipse taper=0.5": r"taper: kind=ellipse has none; use it with kind=curve or line\.",
    "bristles=40": r"bristles: must be a whole number from 0 to 32, got 40\.",
    "kind=triangle bristles=4": r"bristles: kind=triangle has none; use them with kind=curve or line\.",
    "palette=red": r"palette: must be a list of colours",
    "palette=[red,nocolour]": r"palette: 'nocolour' is no colour; give a name or #rrggbb\.",
    "widths=3": r"widths: must be the smallest and the largest, as in \[4,40\], got 3\.",
    "widths=[9,3]": r"widths: the first must be the smaller one",
    "widths=[0,3]": r"widths: must be a number from 0\.1 to",
    "opaque=7": r"opaque: must be true or false, got 7\.",
    "paper=nocolour": r"paper: 'nocolour' is no colour",
    "background=nocolour": r"background: 'nocolour' is no colour",
    "format=bmp": r"format: must be of png, svg, animated_svg, gif, mp4, webm, hpgl, gcode, got bmp\.",
    "run=nowhere": r"run: ",
}


@pytest.mark.parametrize(("word", "said"), WRONG.items())
def test_values_that_cannot_be_are_said(word, said, painter, cat, rlgen):
    run = [] if word.startswith("run=") else [f"run={painter}"]
    code, _, error = rlgen("paint", str(cat), *run, *word.split())
    assert code == 2
    assert re.search(said, error), error


def test_what_is_not_there_and_what_is_too_high_is_said(painter, rlgen, tmp_path):
    assert "files: there is no dog.png." in rlgen("paint", "dog.png", f"run={painter}")[2]
    (tmp_path / "empty").mkdir()
    assert "files: empty holds no image file." in rlgen("paint", "empty", f"run={painter}")[2]
    Image.new("L", (2, 60_000)).save(tmp_path / "strip.png")
    assert "strip.png would be 3000000 pixels high" in rlgen("paint", "strip.png", "width=100", f"run={painter}")[2]
    assert "files" in rlgen("paint", f"run={painter}")[2]


def test_a_run_of_something_else_paints_nothing(cat, rlgen, tmp_path):
    rlgen_cli.train(*small("env=pixel", "agent=random", "reward=target"), folder=tmp_path / "pen")
    code, _, error = rlgen("paint", str(cat), f"run={tmp_path / 'pen'}")
    assert code == 2
    assert "run: it paints no pictures in colour; train one with experiment=painter." in error


def test_a_page_takes_a_drawing_that_is_not_square():
    """A4 with a margin of 20 mm: 170 × 257 mm are free, and a drawing of 100 × 50 is as wide as that."""
    scale, (left, low) = Page().placed(100, 50)
    assert (scale, left, low) == pytest.approx((1.7, 20.0, (297 - 85) / 2))
