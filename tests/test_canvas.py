"""The canvas keeps its contract with every brush and start; every brush does by hand-worked example what it says."""

import functools
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlgen_cli.agents.planners.random import Random
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Differentiable, DrawsStrokes, HasExpert, PacksStates
from rlgen_cli.core.specs import Discrete, Stroke, Tip
from rlgen_cli.data.images import Images, Splits
from rlgen_cli.data.palette import line_width
from rlgen_cli.domains.canvas.brushes.brush import PredictsGain
from rlgen_cli.domains.canvas.brushes.pen import Pen
from rlgen_cli.domains.canvas.brushes.spiral import SpiralBrush
from rlgen_cli.domains.canvas.brushes.spiral_continuous import SpiralContinuousBrush
from rlgen_cli.domains.canvas.brushes.stroke import StrokeBrush
from rlgen_cli.domains.canvas.brushes.stroke_grid import StrokeGrid
from rlgen_cli.domains.canvas.enlarged import enlarged
from rlgen_cli.domains.canvas.environment import Canvas
from rlgen_cli.domains.canvas.packing import PalettePacking
from rlgen_cli.domains.canvas.rasteriser import bezier, pixel_line, segment
from rlgen_cli.domains.canvas.scores import Coverage, InkCost, Target
from rlgen_cli.domains.canvas.svg import Drawing
from rlgen_cli.domains.canvas.tiny import TinyCanvas
from rlgen_cli.testing import check_env

CONFIGS = Path(__file__).parent.parent / "configs"
CPU, META = torch.device("cpu"), torch.device("meta")
BRUSHES = sorted(path.stem for path in (CONFIGS / "brush").glob("*.yaml"))
GREY3 = torch.tensor([[0], [128], [255]], dtype=torch.uint8)


def component(group: str, choice: str, **changes: Any) -> Any:
    """A component of the config with its defaults, to be finished by the environment."""
    node = yaml.safe_load((CONFIGS / group / f"{choice}.yaml").read_text()) | changes
    node.pop("_partial_", None)
    module, _, name = node.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), name)
    if "data" in inspect.signature(target).parameters:
        node.setdefault("data", pictures(16, 1))
    return functools.partial(target, **node)


def pictures(size: int, channels: int, classes: int = 3) -> Splits:
    """Twelve pictures of bright noise on black."""
    rng = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (12, channels, size, size), generator=rng, dtype=torch.uint8)
    some = torch.rand(12, 1, size, size, generator=rng) < 0.4
    names = tuple("abc"[:classes])
    data = Images(noise * some, torch.arange(12) % max(classes, 1), names)
    return Splits(data, data, data)


def canvas(brush: str = "pen", device: torch.device = CPU, start: str = "blank", **changes: Any) -> Canvas:
    """A small canvas of the config's defaults and `changes`; those of the brush or start have its name before them, as
    in `brush_margin=2`."""
    own: dict[str, dict[str, Any]] = {"brush": {}, "start": {}}
    for key in [*changes]:
        group, _, name = key.partition("_")
        if group in own:
            own[group][name] = changes.pop(key)
    settings = yaml.safe_load((CONFIGS / "env" / "pixel.yaml").read_text())
    settings = {key: value for key, value in settings.items() if key not in ("defaults", "_target_")}
    settings |= {"size": 16, "max_steps": 5, "condition": "target"} | changes
    data = settings.pop("data", None) or pictures(settings["size"], settings["channels"])
    return Canvas(
        data=data,
        split="train",
        device=device,
        brush=component("brush", brush, **own["brush"]),
        start=component("start", start, **own["start"])(),
        **settings,
    )


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"channels": 3, "colours": 5},
    {"start": "image"},
    {"start": "random"},
    {"stop": True},
    {"noise": 3},
    {"condition": "both"},
    {"condition": "label"},
    {"condition": "none"},
    {"observation_size": 8, "time_encoding": "one_hot"},
]
CASES = [
    pytest.param(brush, variant, id=f"{brush} {variant}")
    for brush in BRUSHES
    for variant in VARIANTS
    if not ("stop" in variant and brush in ("spiral", "spiral_continuous", "stroke", "stroke_cells"))
    # Its strokes take the target's colours.
    and not (brush == "stroke_cells" and variant.get("condition") in ("label", "none"))
]


@pytest.mark.parametrize(("brush", "variant"), CASES)
def test_contract(brush, variant):
    check_env(canvas(brush, **variant), device=CPU)


@pytest.mark.parametrize(
    ("brush", "variant"),
    [
        pytest.param(
            *case.values, id=case.id, marks=[pytest.mark.slow] if case.values[1] and case.values[0] != "pen" else []
        )
        for case in CASES
    ],
)
@pytest.mark.mostly_slow(4)
def test_on_meta(brush, variant):
    check_env(canvas(brush, META, **variant), device=META)


def test_the_tiny_canvas():
    check_env(TinyCanvas(device=CPU, size=4, cells=4), device=CPU)
    check_env(TinyCanvas(device=META, size=4, cells=4), device=META)


@pytest.mark.parametrize(("brush", "start"), [("pen", "blank"), ("pixel", "random"), ("pen_grid", "image")])
def test_the_same_stream_gives_the_same_episodes(brush, start):
    env = canvas(brush, start=start, noise=2)
    assert all(torch.equal(a, b) for a, b in zip(env.reset(8, stream()), env.reset(8, stream()), strict=True))


def test_the_names_of_what_is_seen():
    everything = canvas(noise=2, condition="both").spec
    shapes = {name: part.shape for name, part in everything.observation.items()}
    assert shapes == {
        "canvas": (1, 16, 16), "target": (1, 16, 16), "difference": (1, 16, 16), "pen": (1, 16, 16),
        "patch": (4, 11, 11), "time": (1,), "noise": (2,), "pen_position": (2,), "label": (3,), "action_gain": (98,),
    }  # fmt: skip
    assert everything.context.keys() == {"target", "label"}
    assert everything.info.keys() == {"num_marks", "background"}
    assert everything.readable == {"target", "label", "num_marks", "background"}
    assert everything.classes == 3
    least = canvas("pixel", condition="none").spec
    assert list(least.observation) == ["canvas", "time"]
    assert least.context == {}
    assert least.classes == 0
    assert "action_gain" not in canvas(brush_preview_scale=0).spec.observation
    assert "patch" not in canvas(brush_patch_size=0).spec.observation
    assert canvas("stroke").spec.differentiable
    assert not canvas("spiral").spec.differentiable


def test_what_the_canvas_can_do():
    env = canvas()
    for capability in (Differentiable, DrawsStrokes, HasExpert, PacksStates):
        assert isinstance(env, capability)
    torch.testing.assert_close(canvas("pixel", channels=3).background, torch.zeros(3))
    assert [name for name in BRUSHES if isinstance(canvas(name).brush, PredictsGain)] == ["pen"]


def test_what_is_seen_by_hand():
    env = canvas(condition="both", time_encoding="fraction", brush_patch_size=3)
    state = env.reset(2, stream())
    state = state._replace(
        canvas=torch.full_like(state.canvas, 51),
        pen=torch.tensor([[1, 2], [14, 14]], dtype=torch.int16),
        step=torch.tensor([0, 4], dtype=torch.int16),
        index=torch.tensor([4, 2], dtype=torch.int32),
    )
    seen, target = env.observe(state), env.images[[4, 2]]
    assert torch.equal(seen["target"], target)
    assert torch.equal(seen["canvas"], state.canvas)
    assert torch.equal(seen["difference"], (target.int() - 51).abs().to(torch.uint8))
    assert seen["pen"].nonzero().tolist() == [[0, 0, 2, 1], [1, 0, 14, 14]]  # row y, column x
    torch.testing.assert_close(seen["pen_position"], torch.tensor([[1 / 15, 2 / 15], [14 / 15, 14 / 15]]))
    torch.testing.assert_close(seen["time"], torch.tensor([[1.0], [0.2]]))
    assert seen["label"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert torch.equal(seen["patch"][0, 1], target[0, 0, 1:4, 0:3])
    assert seen["patch"][0, 3].tolist() == [[255, 255, 255]] * 3  # all of it lies on the canvas


def test_one_hot_time_counts_steps():
    env, rng = canvas("stroke", time_encoding="one_hot"), stream()
    state = env.reset(8, rng)
    for step in range(5):
        time = env.observe(state)["time"]
        assert time.argmax(1).tolist() == [step] * 8
        assert time.sum(1).tolist() == [1.0] * 8
        state = env.step(state, env.spec.action.sample(8, rng))


def test_observation_size_changes_what_is_seen_only():
    env, other = canvas("stroke", observation_size=8), canvas("stroke")
    state, same = env.reset(8, stream()), other.reset(8, stream())
    action = env.spec.action.sample(8, stream(1))
    assert env.observe(state)["canvas"].shape[-1] == 8
    assert torch.equal(env.step(state, action).canvas, other.step(same, action).canvas)


def test_a_pixel_is_set_where_the_action_says():
    env = canvas("pixel", channels=3, colours=5)
    state = env.reset(8, stream())
    action = torch.full((8,), 3 * 256 + 2 * 16 + 7)  # colour 3 at x = 7, y = 2
    changed = env.step(state, action).canvas
    assert torch.equal(changed[:, :, 2, 7], env.palette[3].expand(8, 3))
    changed[:, :, 2, 7] = state.canvas[:, :, 2, 7]
    assert torch.equal(changed, state.canvas)


def test_pixel_lines_by_hand():
    # Two to the right: three columns, each three pixels high.
    expected = torch.zeros(13, 13)
    expected[5:8, 6:9] = 1
    assert torch.equal(pixel_line(2, 0, 3, 3), expected)
    # A diagonal counts as steep: each row three pixels wide.
    expected = torch.zeros(13, 13)
    for i in range(3):
        expected[6 - i, 5 - i : 8 - i] = 1
    assert torch.equal(pixel_line(-2, -2, 3, 3), expected)
    # (3, 1): the rows are rounded from 0, 1/3, 2/3, 1.
    expected = torch.zeros(13, 13)
    for x, y in ((6, 6), (7, 6), (8, 7), (9, 7)):
        expected[y - 1 : y + 2, x] = 1
    assert torch.equal(pixel_line(3, 1, 3, 3), expected)
    assert pixel_line(0, 0, 3, 3).sum() == 3


def test_segments_and_curves_cover_what_is_near():
    start, end, width = torch.tensor([[2.0, 5.0]]), torch.tensor([[8.0, 5.0]]), torch.tensor([2.0])
    alpha = segment(start, end, width, 11)[0]
    assert alpha[5, 2:9].min() > 0.999  # the axis
    assert torch.allclose(alpha[6, 2:9], torch.tensor(0.5), atol=1e-4)  # one pixel off: 2 / 2 + .5 − 1
    assert alpha[8].max() == 0
    assert alpha[5, 1].item() == pytest.approx(0.5, abs=1e-4)  # round ends
    straight = torch.tensor([[[2.0, 5.0], [5.0, 5.0], [8.0, 5.0]]])
    assert torch.allclose(bezier(straight, width, 11)[0], alpha, atol=1e-4)
    bent = torch.tensor([[[2.0, 8.0], [5.0, 2.0], [8.0, 8.0]]])  # passes (5, 5) at t = 1/2
    curve = bezier(bent, width, 11)[0]
    assert curve[5, 5] > 0.95
    assert curve[8, 5] == 0


def test_bezier_is_differentiable():
    points = torch.tensor([[[2.0, 8.0], [5.0, 2.0], [8.0, 8.0]]], requires_grad=True)
    width = torch.tensor([2.0], requires_grad=True)
    by_points, by_width = torch.autograd.grad(bezier(points, width, 11).sum(), [points, width])
    assert torch.isfinite(by_points).all()
    assert by_points.abs().sum() > 0
    assert by_width.item() > 0


def test_the_rim_is_as_soft_as_asked():
    line = torch.tensor([[[2.0, 8.0], [8.0, 8.0], [14.0, 8.0]]])
    soft = bezier(line, torch.tensor([2.0]), 17, edge=4.0)[0, :, 8]
    # (1 − distance) / 4 + 1/2, between 0 and 1
    assert soft[8:12].tolist() == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=1e-3)


def test_curves_are_where_a_fine_sampling_finds_them():
    rng = stream()
    points, width = torch.rand(100, 3, 2, generator=rng) * 28, torch.rand(100, generator=rng) * 3 + 1
    t = torch.linspace(0, 1, 1001).view(1, -1, 1)
    curve = (1 - t) ** 2 * points[:, :1] + 2 * t * (1 - t) * points[:, 1:2] + t**2 * points[:, 2:]
    cells = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="xy"), -1).view(-1, 2)
    distance = torch.stack([torch.cdist(cells, one).amin(1) for one in curve]).view(-1, 28, 28)
    expected = (width.view(-1, 1, 1) / 2 + 0.5 - distance).clamp(0, 1)
    error = (bezier(points, width, 28) - expected).abs()
    assert error.mean() < 2e-4
    assert (error > 0.05).float().mean() < 5e-4  # folds so sharp that the nearest point is missed


def test_the_table_of_lattice_strokes_is_the_rasteriser():
    brush = StrokeGrid(
        size=16,
        palette=GREY3,
        grid=4,
        margin=1,
        widths=[1.5, 2.5],
        data=pictures(16, 1),
        bends=[0.0, 0.4],
        patch_size=0,
    )
    assert brush.table is not None
    rng = stream()
    pen = torch.randint(4, (50, 2), generator=rng, dtype=torch.int16)
    action = brush.action.sample(50, rng)
    looked_up = brush.mark(pen, action).opacity
    brush.table = None
    assert torch.equal(brush.mark(pen, action).opacity, looked_up)


def test_an_arc_of_the_lattice_by_hand():
    """From (1, 1) = pixel (5, 5) to (3, 1) = (13, 5), bent by half the chord to its left, which is upwards."""
    palette = GREY3[[0, 2]]
    brush = StrokeGrid(
        size=16, palette=palette, grid=4, margin=1, widths=[2.0], data=pictures(16, 1), bends=[0.0, 0.5], patch_size=0
    )
    pen = torch.tensor([[1, 1]], dtype=torch.int16)
    action = torch.tensor([2 * 16 + 1 * 4 + 3])  # plane 2: the second bend
    stroke, mark = brush.stroke(pen, action), brush.mark(pen, action)
    axis = torch.linspace(1, 14, 4)
    (ax, ay), (bx, _) = (axis[1].item(), axis[1].item()), (axis[3].item(), axis[1].item())
    expected = torch.tensor([[ax, ay], [(ax + bx) / 2, ay - (bx - ax) / 2], [bx, ay]])
    torch.testing.assert_close(stroke.points[0], expected)
    assert mark.pen.tolist() == [[3, 1]]
    assert mark.colour.item() == 255


def test_the_pen_stops_at_the_border_and_lifts():
    env = canvas()
    state = env.reset(8, stream())
    state = state._replace(pen=torch.tensor([[1, 1]] * 8, dtype=torch.int16))
    up_left = torch.zeros(8, dtype=torch.long)  # dx = dy = −3, pen up
    moved = env.step(state, up_left)
    assert (moved.pen == 1).all()  # the margin
    assert torch.equal(moved.canvas, state.canvas)
    assert (env.view(moved).info["num_marks"] == 0).all()
    drawn = env.step(state, up_left + 49)
    assert (env.view(drawn).info["num_marks"] == 1).all()
    assert InkCost()(env.view(drawn)).tolist() == [-1.0] * 8
    assert (drawn.canvas.flatten(1).amax(1) == 255).all()


@pytest.mark.parametrize("line", ["pixel", "smooth"])
def test_the_preview_is_what_the_reward_will_be(line):
    env, score, rng = canvas(brush_line=line, brush_preview_scale=10.0), Target(norm="l2", per="target"), stream()
    state = env.reset(60, rng)
    border = torch.arange(60) % 2 == 0
    state = state._replace(pen=torch.where(border.unsqueeze(1), 1, state.pen.long()).to(torch.int16))
    promised = env.observe(state)["action_gain"]
    for _ in range(30):
        action = env.spec.action.sample(60, rng)
        gain = 10 * (score(env.view(env.step(state, action))) - score(env.view(state)))
        expected = promised.gather(1, action.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(gain, expected, atol=2e-2, rtol=2e-2)  # canvases are rounded to 1/255


def test_the_expert_goes_where_a_mark_helps():
    env = canvas(brush_widths=[1], brush_line="pixel")
    state = env.reset(2, stream())
    env.images = torch.zeros_like(env.images)
    env.images[:, :, 8, 12] = 255
    state = state._replace(pen=torch.tensor([[3, 8], [12, 8]], dtype=torch.int16))
    action = env.expert_action(state)
    assert action is not None
    moved = env.step(state, action)
    # Moves cover three pixels, so that a mark helps from (9, 8) on; the first pen needs two steps, the second none.
    assert moved.pen.tolist()[0] == [6, 8]
    assert moved.pen.tolist()[1] == [12, 8]
    assert torch.equal(moved.canvas, state.canvas)
    assert canvas("stroke").expert_action(state) is None
    assert canvas(condition="none").expert_action(state) is None


def test_stop_finishes_the_picture():
    env = canvas(stop=True)
    state = env.reset(8, stream())
    action = torch.full((8,), 98)  # the last
    stopped = env.step(state, action)
    assert env.done(stopped).all()
    assert torch.equal(stopped.canvas, state.canvas)
    assert not env.strokes(state, action)[0].drawn.any()
    assert not env.spec.fixed_length
    assert env.spec.action == Discrete(99)
    assert (env.observe(state)["action_gain"][:, 98] == 0).all()


def test_a_rubbed_out_start_leaves_the_rest():
    env = canvas(start="image", start_erase=0.5)
    state = env.reset(8, stream())
    images = env.images[state.index.long()]
    assert ((state.canvas == images).flatten(1).float().mean(1) >= 0.75).all()
    assert (state.canvas.float().sum((1, 2, 3)) < images.float().sum((1, 2, 3))).all()
    assert torch.equal(canvas(start="image", start_erase=0).reset(8, stream()).canvas, images)


@pytest.mark.parametrize(
    ("brush", "changes", "key"),
    [
        ("pen", {"size": 4}, "size"), ("pen", {"size": 200}, "size"), ("pen", {"channels": 2}, "channels"),
        ("pen", {"colours": 1}, "colours"), ("pen", {"max_steps": 0}, "max_steps"), ("pen", {"noise": -1}, "noise"),
        ("pen", {"observation_size": 17}, "observation_size"), ("stroke", {"stop": True}, "stop"),
        ("pen", {"brush_reach": 0}, "reach"), ("pen", {"brush_widths": []}, "widths"),
        ("pen", {"brush_widths": [0.0]}, "widths"), ("pen", {"brush_patch_size": 4}, "patch_size"),
        ("pen", {"brush_patch_size": -1}, "patch_size"), ("pen", {"brush_margin": 8}, "margin"),
        ("pen", {"brush_widths": [2.5], "brush_line": "pixel"}, "widths"), ("pen_grid", {"brush_grid": 50}, "grid"),
        ("stroke_grid", {"brush_bends": []}, "bends"), ("spiral", {"brush_levels": 0}, "levels"),
        ("spiral", {"brush_grid": 1}, "grid"), ("spiral_continuous", {"brush_margin": -1}, "margin"),
        ("stroke", {"brush_edge": 0}, "edge"), ("pen", {"start": "image", "start_erase": 2}, "erase"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(brush, changes, key):
    with pytest.raises(UserError, match=f"^{key}: "):
        canvas(brush, **changes)


def test_labels_need_classes():
    data = pictures(16, 1, classes=0)
    with pytest.raises(UserError, match=r"^condition: label needs data with labels"):
        Canvas(
            data=data, split="train", device=CPU, size=16, channels=1, colours=2, background="auto",
            brush=component("brush", "pixel"), start=component("start", "blank")(), max_steps=5, stop=False, condition="label", noise=0,
            observation_size=None, time_encoding="fraction",
        )  # fmt: skip


def test_spiral_by_hand():
    """From the pen at lattice (0, 0) = pixel (1, 1) straight to (2, 0) = (9, 1); widths 1 or 3; pressures 1/2 or 1."""
    brush = SpiralBrush(size=16, palette=GREY3, grid=4, margin=1, widths=[1.0, 3.0], levels=2, patch_size=0)
    assert brush.action.sizes == (4, 4, 4, 4, 2, 2, 2, 2)
    pen = torch.zeros(2, 2, dtype=torch.int16)
    down = torch.tensor([[2, 0, 1, 0, 1, 0, 1, 1], [2, 0, 1, 0, 1, 0, 1, 0]])
    mark, stroke = brush.mark(pen, down), brush.stroke(pen, down)
    xs = torch.linspace(1, 14, 4)
    assert stroke.points[0].tolist() == [[1.0, 1.0], [xs[1].item(), 1.0], [xs[2].item(), 1.0]]
    assert stroke.width.tolist() == [3.0, 3.0]
    assert mark.opacity[0, 1, 2:9].tolist() == [128.0] * 7  # half pressure
    assert mark.opacity[0, 5].max() == 0
    assert mark.colour[0].item() == 255
    assert mark.pen.tolist() == [[2, 0], [2, 0]]
    assert mark.opacity[1].max() == 0  # the pen was up
    assert mark.drawn.tolist() == [True, False]


def test_one_level_is_the_largest_width_and_full_pressure():
    brush = SpiralBrush(size=16, palette=GREY3, grid=4, margin=1, widths=[1.0, 3.0], levels=1, patch_size=0)
    assert (brush.widths.tolist(), brush.pressures.tolist()) == ([3.0], [1.0])


def test_spiral_continuous_by_hand():
    brush = SpiralContinuousBrush(size=16, palette=GREY3, margin=1, widths=[1.0, 3.0], patch_size=0)
    pen = torch.tensor([[64, 64]], dtype=torch.int16)  # pixel (1, 1)
    action = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.5, 0.0, 0.5, 1.0]])
    mark, stroke = brush.mark(pen, action), brush.stroke(pen, action)
    assert stroke.points[0].tolist() == [[1.0, 1.0], [7.5, 1.0], [14.0, 1.0]]
    assert stroke.width.item() == 2.0
    assert mark.colour.item() == 128
    assert mark.pen.tolist() == [[14 * 64, 64]]
    assert mark.opacity[0, 1, 2:14].min() == 255


def test_strokes_are_the_same_at_every_size():
    """Twice the canvas, width and rim: each small pixel is the mean of four large ones, but for the rim's curvature."""
    action = torch.rand(20, 9, generator=stream())
    palette = GREY3[:2]
    small = StrokeBrush(size=16, palette=palette, widths=[1.0, 4.0], edge=2.0)
    large = StrokeBrush(size=32, palette=palette, widths=[2.0, 8.0], edge=4.0)
    pen = torch.zeros(20, 2)
    pooled = torch.nn.functional.avg_pool2d(large.mark(pen, action).opacity.unsqueeze(1), 2).squeeze(1)
    assert (pooled - small.mark(pen, action).opacity).abs().mean() < 3


def test_a_differentiable_state_takes_the_same_steps_and_lets_gradients_through():
    env = canvas("stroke", brush_edge=2)
    state = env.reset(8, stream())
    action = env.spec.action.sample(8, stream(1))
    exact = env.step(env.step(state, action), action.flip(0))
    action.requires_grad_()
    soft = env.step(env.step(env.differentiable_state(state), action), action.flip(0))
    assert torch.equal(soft.canvas.to(torch.uint8), exact.canvas)
    assert torch.equal(soft.canvas, soft.canvas.round())
    (grad,) = torch.autograd.grad(env.view(soft).sample.sum(), action)
    assert torch.isfinite(grad).all()
    assert (grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("colours", "per_byte"), [(2, 8), (3, 4), (4, 4), (5, 2), (16, 2), (17, 1), (32, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_packing_loses_nothing(colours, per_byte, channels):
    rng = stream()
    palette = torch.randperm(256, generator=rng)[:colours].to(torch.uint8).unsqueeze(1).repeat(1, channels)
    if channels == 3:
        palette[:, 1] = torch.randint(256, (colours,), generator=rng)
    packing = PalettePacking(palette, (channels, 9, 9), CPU)
    index = torch.randint(colours, (6, 9, 9), generator=rng)
    pictures = palette[index].permute(0, 3, 1, 2).contiguous()
    packed = packing.pack(pictures)
    assert packed.dtype == torch.uint8
    assert packed.shape == (6, -(-81 // per_byte))  # 81 pixels do not fill the last byte
    unpacked = packing.unpack(packed)
    assert torch.equal(unpacked, pictures)
    assert unpacked.is_contiguous()


def test_packing_by_hand():
    """Pixel i is bit i: black, white, white, black … is 2 + 4; the ninth pixel begins a second byte."""
    picture = torch.tensor([[0, 255, 255], [0, 0, 0], [0, 0, 255]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert PalettePacking(GREY3[[0, 2]], (1, 3, 3), CPU).pack(picture).tolist() == [[6, 1]]
    # With three colours, two bits a pixel: 0 + 2·4 + 2·16 + 0; black, black, black, black; … 2.
    grey = torch.tensor([[0, 255, 255], [0, 0, 0], [0, 128, 255]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert PalettePacking(GREY3, (1, 3, 3), CPU).pack(grey).tolist() == [[40, 64, 2]]


def test_equal_palette_colours_are_one():
    palette = torch.tensor([[0], [7], [7], [255]], dtype=torch.uint8)
    packing = PalettePacking(palette, (1, 2, 2), CPU)
    picture = torch.tensor([[7, 0], [255, 7]], dtype=torch.uint8).view(1, 1, 2, 2)
    assert torch.equal(packing.unpack(packing.pack(picture)), picture)


@pytest.mark.parametrize(
    ("brush", "changes", "size"),
    [
        ("pixel", {}, 32), ("pixel", {"channels": 3, "colours": 32}, 256), ("pixel", {"start": "random"}, 32),
        ("pen", {"brush_line": "pixel", "colours": 4}, 64), ("pen", {"brush_line": "smooth"}, None),
        ("pixel", {"start": "image"}, None), ("pen_grid", {}, None), ("stroke_grid", {}, None), ("spiral", {}, None),
        ("spiral_continuous", {}, None), ("stroke", {}, None),
    ],
)  # fmt: skip
def test_states_are_packed_where_marks_do_not_blend(brush, changes, size):
    env, rng = canvas(brush, **changes), stream()
    state = env.reset(8, rng)
    for _ in range(4):
        state = env.step(state, env.spec.action.sample(8, rng))
        packed = env.pack(state)
        assert (packed is state) == (size is None)
        if size is not None:
            assert packed.canvas.shape == (8, size)
        assert all(torch.equal(a, b) for a, b in zip(env.unpack(packed), state, strict=True))


def test_resketch_has_98_actions():
    palette = GREY3[[0, 2]]
    settings: dict[str, Any] = {
        "reach": 3,
        "margin": 1,
        "widths": [3.0],
        "data": pictures(28, 1),
        "line": "pixel",
        "patch_size": 11,
        "preview_scale": 15.0,
    }
    assert Pen(size=28, palette=palette, **settings).action.n == 98


def lines(width: int, ink: int = 255, size: int = 28) -> Splits:
    """Horizontal, vertical and slanted lines of a width, on black or (ink 0) on white."""
    images = torch.full((3, 1, size, size), 255 - ink, dtype=torch.uint8)
    axis = torch.arange(size)
    for i in range(width):
        images[0, 0, 10 + i, 3:-3] = ink
        images[1, 0, 3:-3, 10 + i] = ink
        images[2, 0, axis[3:-8], axis[3:-8] + i] = ink
    data = Images(images, torch.zeros(3, dtype=torch.long))
    return Splits(data, data, data)


@pytest.mark.parametrize("ink", [255, 0])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_the_width_of_lines_is_measured(width, ink):
    """To a third, since outlines of few directions count too much or too little."""
    splits = lines(width, ink)
    found = line_width(splits.train.images, torch.tensor([255 - ink], dtype=torch.uint8))
    assert found == pytest.approx(width, rel=0.34)


@pytest.mark.parametrize("brush", ["pen", "pen_grid", "stroke_grid"])
def test_a_brush_as_wide_as_the_datas_lines(brush):
    env = canvas(brush, size=28, data=lines(1), brush_widths="auto", brush_data=lines(1))
    state = env.reset(4, stream())
    assert float(env.strokes(state, torch.full((4,), 60))[0].width[0]) < 1.5
    thick = canvas(brush, size=28, data=lines(5), brush_widths="auto", brush_data=lines(5))
    assert float(thick.strokes(state, torch.full((4,), 60))[0].width[0]) > 3.5
    assert canvas("pen", size=28, brush_widths="auto", brush_line="pixel", brush_data=lines(3)).brush.exact_palette


def negative(splits: Splits) -> Splits:
    """The same pictures, black where they were white."""
    return Splits(*(Images(255 - part.images, part.labels, part.classes) for part in splits))


@pytest.mark.parametrize("brush", ["pen", "pen_grid", "pixel", "stroke_grid", "spiral"])
def test_black_ink_on_white_paper_is_the_negative_of_white_on_black(brush):
    """The same actions leave the negative picture, look the same to the policy, and score and gain the same."""
    data = pictures(16, 1)
    night, paper = canvas(brush, data=data), canvas(brush, data=negative(data))
    assert night.background.tolist() == [0.0]
    assert paper.background.tolist() == [1.0]
    states, rng, score = [env.reset(8, stream()) for env in (night, paper)], stream(1), Target(norm="l2", per="target")
    assert torch.equal(states[0].canvas, 255 - states[1].canvas)
    torch.testing.assert_close(score(paper.view(states[1])), torch.full((8,), -1.0))
    for _ in range(4):
        action = Random().plan(night, states[0], rng)
        states = [env.step(state, action) for env, state in zip((night, paper), states, strict=True)]
        torch.testing.assert_close(states[0].canvas.int(), 255 - states[1].canvas.int(), atol=1, rtol=0)
        scores = [score(env.view(state)) for env, state in zip((night, paper), states, strict=True)]
        torch.testing.assert_close(scores[0], scores[1], atol=0.01, rtol=0)
        seen = [env.observe(state) for env, state in zip((night, paper), states, strict=True)]
        for name in seen[0]:
            torch.testing.assert_close(seen[0][name], seen[1][name], atol=0.005, rtol=1e-4)
    covered = [Coverage()(env.view(state)) for env, state in zip((night, paper), states, strict=True)]
    torch.testing.assert_close(covered[0], covered[1], atol=0.01, rtol=0)


@pytest.mark.parametrize(("background", "found"), [("black", 0.0), ("white", 1.0), ("auto", 0.0)])
def test_the_background_can_be_chosen(background, found):
    assert canvas("pen", background=background).background.tolist() == [found]
    colour = canvas("pen", channels=3, colours=4, background=background).background
    assert colour.tolist() == [found] * 3  # the commonest colour of these pictures is black


def test_a_drawing_is_rasterised_at_any_size_by_hand():
    """A bar of three pixels' width across the middle of a canvas of eight pixels, at four times the size."""
    points = torch.tensor([[[-8.0, 3.5], [3.5, 3.5], [16.0, 3.5]]])
    points[:, 1] = (points[:, 0] + points[:, 2]) / 2
    one = torch.ones(1)
    stroke = Stroke(points, 3 * one, torch.tensor([[1.0]]), 0.5 * one, one.bool())
    hidden = stroke._replace(drawn=~stroke.drawn, opacity=one)
    drawing = Drawing([stroke, hidden], 8, 8, torch.tensor([0.2]), Tip())
    picture, covered = enlarged(drawing, 0, 4)
    assert picture.shape == (32, 32)
    # Its rim lies at rows 16 − 6 and 16 + 6, between pixels.
    assert covered[10:22].allclose(torch.tensor(0.5))
    assert covered[:10].sum() == covered[22:].sum() == 0
    assert picture[10:22].allclose(torch.tensor(0.6))
    assert picture[:10].allclose(torch.tensor(0.2))
    bent = drawing._replace(strokes=[stroke._replace(points=points + torch.tensor([[0, 0.0], [0, 8], [0, 0]]))])
    assert enlarged(bent, 0, 4)[1, 22:].sum() > 0
