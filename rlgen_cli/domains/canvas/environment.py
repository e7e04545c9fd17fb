"""The canvas: an agent draws on it, mark by mark."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rlgen_cli.data.images import Splits
from rlgen_cli.data.palette import grey_palette, image_palette
from rlgen_cli.domains.canvas.brushes import (
    BrushTool,
    FreeBrushTool,
    GridTool,
    MoveTool,
    PixelTool,
    StrokeTool,
    Tool,
    round_through,
)
from rlgen_cli.core.errors import require
from rlgen_cli.core.types import Context, Discrete, EnvSpec, Observation, ObservationSpec, Stroke, View


class CanvasState(NamedTuple):
    """N unfinished pictures. Small on purpose: a replay memory stores it as it is."""

    canvas: Tensor  # uint8 [N, C, H, W] (float after `soften`)
    pen: Tensor  # int16 [N, 2], (x, y) in the tool's units
    step: Tensor  # int16 [N]
    marks: Tensor  # int16 [N]: actions that drew
    index: Tensor  # type: ignore[assignment]  # int32 [N]: the data image that is this episode's target and label
    noise: Tensor  # float [N, K]
    stopped: Tensor  # bool [N]


class PixelCanvas:
    """A batch of square canvases.

    Args:
        data, split: the images that give targets, labels, starts and the palette.
        size: side in pixels, 8 to 128.
        channels: 1 (grey) or 3 (RGB).
        colours: palette size, 2 to 32; the first colour is the background. Grey canvases have evenly spaced greys,
            RGB canvases the colours of the data.
        action: pixel, pen or stroke_grid (discrete), brush (eight decisions a step), stroke (continuous), or
            brush_free (mixed).
        pen: for action=pen: `move` (by −reach…reach) or `grid` (to any lattice point).
        reach, margin, grid, widths, bends, levels, edge, line: see tools.py.
        max_steps: actions an episode.
        stop: adds an action that finishes the picture.
        start: blank, image (a data image with a square of `erase` times the side rubbed out), or random pixels.
        condition: what of the data image the policy sees: none, target, label, or both.
        noise: number of normal inputs, fixed for an episode, that let one policy make many different pictures.
        sight: side of the picture as the policy sees it, or null for `size`; marks are made at full resolution.
        clock: how the policy sees the time: share (of steps left) or steps (an input for each).
        patch: side of the close view around the pen, odd, or 0 for none.
        preview: shows the policy what each pen move would gain at once on the squared distance to the target, as a
            share of the target's own square, times this factor; 0 shows nothing. The pen's geometry, not learned.

    Raises:
        UserError: for a value out of range, or a label condition on data without labels.
    """

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        device: torch.device,
        size: int,
        channels: int,
        colours: int,
        action: Literal["pixel", "pen", "stroke_grid", "brush", "stroke", "brush_free"],
        pen: Literal["move", "grid"],
        reach: int,
        grid: int,
        margin: int,
        widths: list[float],
        bends: list[float],
        levels: int,
        edge: float,
        line: Literal["smooth", "pixel"],
        max_steps: int,
        stop: bool,
        start: Literal["blank", "image", "random"],
        erase: float,
        condition: Literal["none", "target", "label", "both"],
        noise: int,
        sight: int | None,
        clock: Literal["share", "steps"],
        patch: int,
        preview: float,
    ) -> None:
        self.request(size, channels)
        require(2 <= colours <= 32, f"colours: must be from 2 to 32, got {colours}.")
        require(len(widths) > 0 and min(widths) > 0, f"widths: must be positive numbers, got {list(widths)}.")
        require(len(bends) > 0, "bends: must hold at least one number; [0.0] draws straight lines.")
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        require(0.0 <= erase <= 1.0, f"erase: must be in [0, 1], got {erase}.")
        require(noise >= 0, f"noise: must be at least 0, got {noise}.")
        require(
            sight is None or 4 <= sight <= size, f"sight: must be from 4 to env.size = {size}, or null, got {sight}."
        )
        require(patch == 0 or patch % 2 == 1, f"patch: must be odd, or 0 for none, got {patch}.")
        chosen = getattr(data, split).to(device)
        self.images, self.labels, self.classes = chosen.images, chosen.labels, len(chosen.classes)
        require(
            condition not in ("label", "both") or self.classes > 0,
            f"condition: {condition} needs data with labels; this data has none.",
        )
        self.size, self.channels, self.max_steps, self.device = size, channels, max_steps, device
        self.start, self.erase, self.noise, self.patch = start, float(erase), noise, patch
        self.sees_target, self.sees_label = condition in ("target", "both"), condition in ("label", "both")
        palette = grey_palette(colours) if channels == 1 else image_palette(data.train.images, colours)
        self.palette = palette.to(device)
        widths, bends = [float(w) for w in widths], [float(b) for b in bends]
        self.tool: Tool
        if action == "pixel":
            self.tool = PixelTool(size, self.palette)
        elif action == "stroke":
            self.tool = StrokeTool(size, channels, widths, float(edge), device)
        elif action == "brush":
            self.tool = BrushTool(size, self.palette, grid, margin, widths, levels)
        elif action == "brush_free":
            self.tool = FreeBrushTool(size, self.palette, margin, widths)
        elif action == "pen" and pen == "move":
            self.tool = MoveTool(size, self.palette, reach, margin, widths, line)
        else:
            self.tool = GridTool(size, self.palette, grid, margin, widths, bends if action == "stroke_grid" else [0.0])
        self.has_pen = self.tool.pen_range[1] > 0
        require(self.has_pen or patch == 0, f"patch: a close view needs a pen; env.action={action} has none.")
        self.preview = float(preview) if self.sees_target and isinstance(self.tool, MoveTool) else 0.0
        self.stop_action = self._stop_action(stop)
        self.axis = torch.arange(size, device=device)
        self.sight, self.clock = sight or size, clock
        self.seen_axis = torch.arange(self.sight, device=device)
        self.spec = self._spec()

    @staticmethod
    def request(size: int, channels: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(8 <= size <= 128, f"size: must be from 8 to 128, got {size}.")
        require(channels in (1, 3), f"channels: must be 1 (grey) or 3 (RGB), got {channels}.")
        return {"size": size, "channels": channels}

    def _stop_action(self, stop: bool) -> int:
        """The index of the stop action, −1 without one."""
        if not stop:
            return -1
        require(isinstance(self.tool.action, Discrete), "stop: needs discrete actions.")
        assert isinstance(self.tool.action, Discrete)
        return self.tool.action.n

    def _spec(self) -> EnvSpec:
        action = self.tool.action
        if self.stop_action >= 0:
            assert isinstance(action, Discrete)
            action = Discrete(action.n + 1, action.grid)
        planes = self.channels * (1 + self.sees_target) + self.sees_target
        clock = 1 if self.clock == "share" else self.max_steps
        observation = ObservationSpec(
            image=(planes + self.has_pen, self.sight, self.sight),
            patch=(planes + 1 if self.patch else 0, self.patch, self.patch),
            vector=clock + 2 * self.has_pen + self.noise + self.classes * self.sees_label,
            preview=action.n if self.preview and isinstance(action, Discrete) else 0,
            pictures=1 + self.sees_target,
        )
        context = frozenset(["target"] * self.sees_target + ["label"] * self.sees_label)
        return EnvSpec(
            observation,
            action,
            (self.channels, self.size, self.size),
            self.max_steps,
            context,
            self.classes * self.sees_label,
            fixed_length=self.stop_action < 0,
            differentiable=isinstance(self.tool, StrokeTool),
        )

    def reset(self, n: int, rng: torch.Generator) -> CanvasState:
        index = torch.randint(len(self.images), (n,), generator=rng, device=self.device)
        return self.begin(index, rng)

    def begin(self, index: Tensor, rng: torch.Generator) -> CanvasState:
        """Fresh episodes whose data images are `index` [N]."""
        n, device = len(index), self.device
        low, high = self.tool.pen_range
        pen = torch.randint(low, high + 1, (n, 2), generator=rng, device=device, dtype=torch.int16)
        zero = torch.zeros(n, dtype=torch.int16, device=device)
        noise = torch.randn(n, self.noise, generator=rng, device=device)
        stopped = torch.zeros(n, dtype=torch.bool, device=device)
        return CanvasState(self._first(index, rng), pen, zero, zero, index.to(torch.int32), noise, stopped)

    def _first(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """The canvases that episodes begin with, uint8 [N, C, H, W]."""
        n, device = len(index), self.device
        blank = self.palette[0].view(1, -1, 1, 1).repeat(n, 1, self.size, self.size)
        if self.start == "blank":
            return blank
        if self.start == "random":
            colour = torch.randint(len(self.palette), (n, self.size, self.size), generator=rng, device=device)
            return self.palette[colour].permute(0, 3, 1, 2).contiguous()
        side = round(self.erase * self.size)
        corner = torch.randint(self.size - side + 1, (n, 2, 1), generator=rng, device=device)
        inside = (self.axis >= corner) & (self.axis < corner + side)  # [N, 2, size]
        hole = (inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1)).unsqueeze(1)  # [N, 1, H, W]
        return torch.where(hole, blank, self.images[index])

    def step(self, state: CanvasState, action: Tensor) -> CanvasState:
        stopped = state.stopped
        if self.stop_action >= 0:
            stopped = stopped | (action == self.stop_action)
            action = action.clamp(max=self.stop_action - 1)
        still = self.done(state._replace(stopped=stopped))
        mark = self.tool.mark(state.pen, action)
        opacity = mark.opacity.unsqueeze(1).float() / 255  # [N, 1, H, W]
        canvas = state.canvas.float()
        canvas = canvas + (mark.colour.view(*mark.colour.shape, 1, 1) - canvas) * opacity
        soft = state.canvas.is_floating_point()  # see `soften`
        canvas = round_through(canvas) if soft else canvas.round().to(torch.uint8)
        return CanvasState(
            torch.where(still.view(-1, 1, 1, 1), state.canvas, canvas),
            torch.where(still.unsqueeze(1), state.pen, mark.pen),
            state.step + ~self.done(state),
            state.marks + (mark.drawn & ~still),
            state.index,
            state.noise,
            stopped,
        )

    def soften(self, state: CanvasState) -> CanvasState:
        """The same states with the canvas as float, still of whole numbers: `step` then lets gradients through, so
        that a score's gradient reaches the actions of a differentiable tool."""
        return state._replace(canvas=state.canvas.float())

    def done(self, state: CanvasState) -> Tensor:
        return state.stopped | (state.step >= self.max_steps)

    def observe(self, state: CanvasState) -> Observation:
        planes = [state.canvas.float()]
        if self.sees_target:
            planes.append(self.images[state.index].float())
        picture = torch.cat(planes, 1) / 255  # [N, C or 2C, H, W]
        if self.sees_target:
            canvas, target = picture.chunk(2, 1)
            wrong = (target - canvas).abs().mean(1, keepdim=True)  # spares the network a product of planes
            picture = torch.cat([picture, wrong], 1)
        vector = [self._time(state.step), state.noise]
        image = picture if self.sight == self.size else interpolate(picture, [self.sight] * 2, mode="bilinear")
        if self.has_pen:
            xy = self.tool.pen_xy(state.pen)
            image = torch.cat([image, self._pen_plane(xy)], 1)
            vector.append(xy / (self.size - 1))
        if self.sees_label:
            vector.append(torch.nn.functional.one_hot(self.labels[state.index], self.classes))
        return Observation(image, self._patch(picture, state.pen), torch.cat(vector, 1), self._preview(state, picture))

    def _time(self, step: Tensor) -> Tensor:
        """The share of steps left, float [N, 1], or the step as one of `max_steps`, [N, max_steps]."""
        if self.clock == "share":
            return 1 - step.unsqueeze(1) / self.max_steps
        return (step.unsqueeze(1) == torch.arange(self.max_steps, device=self.device)).float()

    def _preview(self, state: CanvasState, picture: Tensor) -> Tensor:
        """What each action would gain at once, float [N, A]."""
        if not self.preview:
            return picture.new_zeros(len(picture), 0)
        assert isinstance(self.tool, MoveTool)
        canvas, target = picture[:, :-1].chunk(2, 1)  # [N, C, H, W] each
        whole = target.square().flatten(1).sum(1, keepdim=True).clamp(min=1.0)
        gain = self.tool.preview(state.pen, *self._gain(canvas, target)) / whole * self.preview
        return gain if self.stop_action < 0 else torch.nn.functional.pad(gain, [0, 1])

    def _gain(self, canvas: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What a mark of opacity m gains at each pixel is a·m − b·m²: a and b for each ink, [N, inks, H, W].

        From (t − c)² − (t − c − m (ink − c))².
        """
        assert isinstance(self.tool, MoveTool)
        inks = self.tool.inks.view(1, -1, self.channels, 1, 1).float() / 255
        change = inks - canvas.unsqueeze(1)  # [N, inks, C, H, W]
        return 2 * ((target - canvas).unsqueeze(1) * change).sum(2), change.square().sum(2)

    def wander(self, state: CanvasState) -> Tensor | None:
        """For scripted baselines: the pen-up move towards the nearest place where a mark would help, [N]; None where
        there is no moving pen or no target to copy."""
        if not (self.sees_target and isinstance(self.tool, MoveTool)):
            return None
        gain = self._gain(state.canvas.float() / 255, self.images[state.index].float() / 255)
        return self.tool.approach(state.pen, self.tool.best_gain(*gain) > 1e-6)

    def _pen_plane(self, xy: Tensor) -> Tensor:
        """1 at the pixel under the pen, as the policy sees it, float [N, 1, H, W]."""
        cell = ((xy + 0.5) * (self.sight / self.size) - 0.5).round().long()
        column, row = (self.seen_axis == cell[:, :1]), (self.seen_axis == cell[:, 1:])  # [N, W], [N, H]
        return (row.unsqueeze(2) & column.unsqueeze(1)).unsqueeze(1).float()

    def _patch(self, picture: Tensor, pen: Tensor) -> Tensor:
        """The picture around the pen and a plane that is 1 on the canvas, float [N, P + 1, k, k]."""
        n, planes = picture.shape[:2]
        if not self.patch:
            return picture.new_zeros(n, 0, 0, 0)
        half = self.patch // 2
        xy = self.tool.pen_xy(pen).round().long()
        offset = torch.arange(-half, half + 1, device=self.device)
        x, y = xy[:, :1] + offset, xy[:, 1:] + offset  # [N, k] each
        inside = ((y >= 0) & (y < self.size)).unsqueeze(2) & ((x >= 0) & (x < self.size)).unsqueeze(1)  # [N, k, k]
        cell = y.clamp(0, self.size - 1).unsqueeze(2) * self.size + x.clamp(0, self.size - 1).unsqueeze(1)
        cells = cell.view(n, 1, -1).expand(-1, planes, -1)
        near = picture.flatten(2).gather(2, cells).view(n, planes, self.patch, self.patch)
        inside = inside.unsqueeze(1).float()
        return torch.cat([near * inside, inside], 1)

    def view(self, state: CanvasState) -> View:
        target = self.images[state.index].float() / 255 if self.sees_target else None
        label = self.labels[state.index] if self.sees_label else None
        return View(state.canvas.float() / 255, Context(target, label), state.marks.long())

    def action_mask(self, state: CanvasState) -> Tensor | None:
        return None

    def stroke(self, state: CanvasState, action: Tensor) -> Stroke:
        """`action` as vectors, for SVG; nothing is drawn where the episode is over or the action is stop."""
        over = self.done(state)
        if self.stop_action >= 0:
            over = over | (action == self.stop_action)
            action = action.clamp(max=self.stop_action - 1)
        stroke = self.tool.stroke(state.pen, action)
        return stroke._replace(drawn=stroke.drawn & ~over)
