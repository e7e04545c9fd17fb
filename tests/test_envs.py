"""Every environment keeps its contract; every tool does by hand-worked example what it says."""

import pytest
import torch

from rlgen_cli.domains.canvas.rasteriser import bezier, pixel_line, segment
from rlgen_cli.domains.canvas.brushes import BrushTool, FreeBrushTool, GridTool, StrokeTool
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.tree import map_tensors
from tests.conftest import session

ACTIONS = [
    "action=pixel",
    "action=pen",
    "action=pen env.pen=grid",
    "action=stroke_grid env.bends=[-0.3,0,0.3]",
    "action=brush",
    "action=brush_free",
    "action=stroke",
    "action=stroke env.sight=8 env.clock=steps",
    "action=pen env.sight=8 env.patch=0",
]
VARIANTS = [
    "env.channels=3 env.colours=5", "env.start=image", "env.start=random", "env.stop=true", "env.noise=3",
    "env.condition=both", "env.condition=label reward=coverage", "env.condition=none reward=coverage",
]  # fmt: skip


def make(text: str):
    """An environment, its session, and eight fresh episodes."""
    words = text.split()
    patch = 5 if "action=pen" in words and "env.pen=grid" not in words else 0
    run = session(
        "agent=random", "env.size=16", "env.max_steps=5", "data.per_class=4", f"env.patch={patch}", "threads=1",
        *(f"env.{word}" if word.startswith("action=") else word for word in words),
    )  # fmt: skip
    env = run.envs["train"]
    return env, run, env.reset(8, run.streams["env"])


ALL = ACTIONS + [f"action=pen {v}" for v in VARIANTS] + [f"action=pixel {v}" for v in VARIANTS]


@pytest.mark.parametrize("text", ALL)
def test_contract(text):
    if text.startswith("action=stroke ") and "stop" in text:
        pytest.skip("a continuous action has no stop")
    env, run, state = make(text)
    spec = env.spec
    for step in range(spec.max_steps + 2):
        observation, view = env.observe(state), env.view(state)
        assert observation.image.shape == (8, *spec.observation.image)
        assert observation.patch.shape == (8, *spec.observation.patch)
        assert observation.vector.shape == (8, spec.observation.vector)
        assert observation.preview.shape == (8, spec.observation.preview)
        assert all(torch.isfinite(field).all() for field in observation if field is not None)
        assert view.sample.shape == (8, *spec.sample)
        assert view.sample.dtype == torch.float32
        assert 0 <= view.sample.min() <= view.sample.max() <= 1
        assert {name for name, field in view.context._asdict().items() if field is not None} == spec.context
        action = spec.action.sample(8, run.streams["policy"])
        before = map_tensors(torch.clone, state)
        after, again = env.step(state, action), env.step(state, action)
        for a, b, c in zip(state, before, state, strict=True):
            assert torch.equal(a, b), "step changed the state it was given"
            assert a is c
        assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True)), "step is not a function"
        assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(state, after, strict=True))
        over = env.done(state)
        assert over.all() if step >= spec.max_steps else True
        for a, b in zip(state, after, strict=True):
            assert torch.equal(a[over], b[over]), "a finished state moved"
        state = after
    assert env.done(state).all()


@pytest.mark.parametrize("text", ["action=pen", "action=pixel env.start=random"])
def test_the_same_stream_gives_the_same_episodes(text):
    one, two = make(text)[2], make(text)[2]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_pixel_is_put_where_the_action_says():
    env, _, state = make("action=pixel env.channels=3 env.colours=5")
    action = torch.full((8,), 3 * 256 + 2 * 16 + 7)  # colour 3 at x = 7, y = 2
    changed = env.step(state, action).canvas
    assert torch.equal(changed[:, :, 2, 7], env.palette[3].expand(8, 3))
    changed[:, :, 2, 7] = state.canvas[:, :, 2, 7]
    assert torch.equal(changed, state.canvas)


def test_pixel_lines_by_hand():
    # Two to the right: three columns, each three pixels high.
    wanted = torch.zeros(13, 13)
    wanted[5:8, 6:9] = 1
    assert torch.equal(pixel_line(2, 0, 3, 3), wanted)
    # A diagonal counts as steep: each row three pixels wide.
    wanted = torch.zeros(13, 13)
    for i in range(3):
        wanted[6 - i, 5 - i : 8 - i] = 1
    assert torch.equal(pixel_line(-2, -2, 3, 3), wanted)
    # (3, 1): the rows are rounded from 0, 1/3, 2/3, 1.
    wanted = torch.zeros(13, 13)
    for x, y in ((6, 6), (7, 6), (8, 7), (9, 7)):
        wanted[y - 1 : y + 2, x] = 1
    assert torch.equal(pixel_line(3, 1, 3, 3), wanted)
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
    bezier(points, width, 11).sum().backward()
    assert torch.isfinite(points.grad).all()
    assert points.grad.abs().sum() > 0
    assert width.grad.item() > 0


def test_the_table_of_grid_strokes_is_the_rasteriser():
    palette = torch.tensor([[0], [255]], dtype=torch.uint8)
    tool = GridTool(16, palette, 4, 1, [1.5, 2.5], [0.0, 0.4])
    assert tool.table is not None
    rng = torch.Generator().manual_seed(0)
    pen = torch.randint(4, (50, 2), generator=rng, dtype=torch.int16)
    action = tool.action.sample(50, rng)
    looked_up = tool.mark(pen, action).opacity
    tool.table = None
    assert torch.equal(tool.mark(pen, action).opacity, looked_up)


def test_the_pen_stops_at_the_border_and_lifts():
    env, _, state = make("action=pen")
    state = state._replace(pen=torch.tensor([[1, 1]] * 8, dtype=torch.int16))
    up_left = torch.zeros(8, dtype=torch.long)  # dx = dy = −3, pen up
    moved = env.step(state, up_left)
    assert (moved.pen == 1).all()  # env.margin
    assert torch.equal(moved.canvas, state.canvas)
    assert (moved.marks == 0).all()
    drawn = env.step(state, up_left + 49)
    assert (drawn.marks == 1).all()
    assert (drawn.canvas.flatten(1).amax(1) == 255).all()


@pytest.mark.parametrize("line", ["env.line=pixel", "env.line=smooth"])
def test_the_preview_is_what_the_reward_will_be(line):
    run = session("agent=random", "env.size=16", "env.patch=0", "data.per_class=4", "threads=1", line, "env.preview=10")
    env = run.envs["train"]
    state = env.reset(60, run.streams["env"])
    border = torch.arange(60) % 2 == 0
    state = state._replace(pen=torch.where(border.unsqueeze(1), 1, state.pen.long()).to(torch.int16))
    promised = env.observe(state).preview
    for _ in range(30):
        action = env.spec.action.sample(60, run.streams["policy"])
        after = env.step(state, action)
        got = run.reward(env.view(state), env.view(after), env.done(after)).total
        expected = promised.gather(1, action.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)  # canvases are rounded to 1/255


def test_stop_finishes_the_picture():
    env, _, state = make("action=pen env.stop=true")
    stopped = env.step(state, torch.full((8,), env.stop_action))
    assert env.done(stopped).all()
    assert torch.equal(stopped.canvas, state.canvas)


def test_a_rubbed_out_start_leaves_the_rest():
    env, _, state = make("action=pen env.start=image env.erase=0.5")
    kept = (state.canvas == env.images[state.index.long()]).flatten(1).float().mean(1)
    assert (kept >= 0.75).all()
    assert (state.canvas.float().sum((1, 2, 3)) <= env.images[state.index.long()].float().sum((1, 2, 3))).all()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("env.size=4", "env.size"), ("env.size=200", "env.size"), ("env.channels=2", "env.channels"),
        ("env.colours=1", "env.colours"), ("env.reach=0", "env.reach"), ("env.widths=[]", "env.widths"),
        ("env.max_steps=0", "env.max_steps"), ("env.erase=2", "env.erase"), ("env.patch=4", "env.patch"),
        ("env.noise=-1", "env.noise"), ("env.widths=[2.5] env.line=pixel", "env.widths"),
        ("env.action=pixel env.patch=3", "env.patch"), ("env.action=stroke env.stop=true env.patch=0", "env.stop"),
        ("env.pen=grid env.grid=50", "env.grid"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(override, key):
    with pytest.raises(UserError, match=f"^{key}: "):
        session("agent=random", "data.per_class=2", *override.split())


PALETTE = torch.tensor([[0], [128], [255]], dtype=torch.uint8)


def test_a_brush_by_hand():
    """From the pen at lattice (0, 0) = pixel (1, 1) straight to (2, 0) = (9, 1); widths 1 or 3; pressures 1/2 or 1."""
    tool = BrushTool(16, PALETTE, 4, 1, [1.0, 3.0], 2)
    assert tool.action.sizes == (4, 4, 4, 4, 2, 2, 2, 2)
    pen = torch.zeros(2, 2, dtype=torch.int16)
    down = torch.tensor([[2, 0, 1, 0, 1, 0, 1, 1], [2, 0, 1, 0, 1, 0, 1, 0]])
    mark, stroke = tool.mark(pen, down), tool.stroke(pen, down)
    xs = torch.linspace(1, 14, 4)
    assert stroke.points[0].tolist() == [[1.0, 1.0], [xs[1].item(), 1.0], [xs[2].item(), 1.0]]
    assert stroke.width.tolist() == [3.0, 3.0]
    assert mark.opacity[0, 1, 2:9].tolist() == [128.0] * 7  # half pressure
    assert mark.opacity[0, 5].max() == 0
    assert mark.colour[0].item() == 255
    assert mark.pen.tolist() == [[2, 0], [2, 0]]
    assert mark.opacity[1].max() == 0  # the pen was up
    assert mark.drawn.tolist() == [True, False]


def test_a_free_brush_by_hand():
    tool = FreeBrushTool(16, PALETTE, 1, [1.0, 3.0])
    pen = torch.tensor([[64, 64]], dtype=torch.int16)  # pixel (1, 1)
    action = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.5, 0.0, 0.5, 1.0]])
    mark, stroke = tool.mark(pen, action), tool.stroke(pen, action)
    assert stroke.points[0].tolist() == [[1.0, 1.0], [7.5, 1.0], [14.0, 1.0]]
    assert stroke.width.item() == 2.0
    assert mark.colour.item() == 128
    assert mark.pen.tolist() == [[14 * 64, 64]]
    assert mark.opacity[0, 1, 2:14].min() == 255


def test_strokes_are_the_same_at_every_size():
    """Twice the canvas, width and rim: each small pixel is the mean of four large ones, but for the rim's curvature."""
    action = torch.rand(20, 9, generator=torch.Generator().manual_seed(0))
    small = StrokeTool(16, 1, [1.0, 4.0], 2.0, torch.device("cpu")).mark(torch.zeros(20, 2), action).opacity
    large = StrokeTool(32, 1, [2.0, 8.0], 4.0, torch.device("cpu")).mark(torch.zeros(20, 2), action).opacity
    pooled = torch.nn.functional.avg_pool2d(large.unsqueeze(1), 2).squeeze(1)
    assert (pooled - small).abs().mean() < 3


def test_a_soft_canvas_takes_the_same_steps_and_lets_gradients_through():
    env, run, state = make("action=stroke env.edge=2")
    action = env.spec.action.sample(8, run.streams["policy"])
    hard = env.step(env.step(state, action), action.flip(0))
    action.requires_grad_()
    soft = env.step(env.step(env.soften(state), action), action.flip(0))
    assert torch.equal(soft.canvas.to(torch.uint8), hard.canvas)
    assert torch.equal(soft.canvas, soft.canvas.round())
    (slope,) = torch.autograd.grad(env.view(soft).sample.sum(), action)
    assert torch.isfinite(slope).all()
    assert (slope.abs().sum(1) > 0).all()


def test_the_rim_is_as_soft_as_asked():
    line = torch.tensor([[[2.0, 8.0], [8.0, 8.0], [14.0, 8.0]]])
    soft = bezier(line, torch.tensor([2.0]), 17, edge=4.0)[0, :, 8]
    # (1 − distance) / 4 + 1/2, between 0 and 1
    assert soft[8:12].tolist() == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=1e-3)


def test_curves_are_where_a_fine_sampling_finds_them():
    rng = torch.Generator().manual_seed(0)
    points, width = torch.rand(100, 3, 2, generator=rng) * 28, torch.rand(100, generator=rng) * 3 + 1
    t = torch.linspace(0, 1, 1001).view(1, -1, 1)
    curve = (1 - t) ** 2 * points[:, :1] + 2 * t * (1 - t) * points[:, 1:2] + t**2 * points[:, 2:]
    cells = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="xy"), -1).view(-1, 2)
    distance = torch.stack([torch.cdist(cells, one).amin(1) for one in curve]).view(-1, 28, 28)
    wanted = (width.view(-1, 1, 1) / 2 + 0.5 - distance).clamp(0, 1)
    error = (bezier(points, width, 28) - wanted).abs()
    assert error.mean() < 2e-4
    assert (error > 0.05).float().mean() < 5e-4  # folds so sharp that the nearest point is missed


def test_the_clock_counts_steps():
    env, run, state = make("action=stroke env.clock=steps")
    for step in range(5):
        assert env.observe(state).vector.argmax(1).tolist() == [step] * 8
        assert env.observe(state).vector.sum(1).tolist() == [1.0] * 8
        state = env.step(state, env.spec.action.sample(8, run.streams["policy"]))


def test_sight_changes_what_is_seen_only():
    env, run, state = make("action=stroke env.sight=8")
    other, _, same = make("action=stroke")
    action = env.spec.action.sample(8, run.streams["policy"])
    assert env.observe(state).image.shape[-1] == 8
    assert torch.equal(env.step(state, action).canvas, other.step(same, action).canvas)
