"""The canvas: an agent draws on it, mark by mark.

When to use it: for pictures that are made of marks, as copies of given ones or from nothing, and where the order of
the strokes or a vector file matters. Canvases have at most 128 pixels a side and 32 colours; for photographs it is
not made.

What to expect: copies are learned in minutes on a processor (docs/results/resketch.md, docs/results/sprites.md), by
the pathwise gradient with the least error (docs/results/learning_to_paint.md). Drawing from nothing takes millions of
steps, a discriminator and a classifier, and is judged by what accepts it (docs/results/digits.md).
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rlgen_cli.core.errors import require
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.specs import (
    ActionSpec,
    Context,
    Discrete,
    EnvSpec,
    Observation,
    ObservationSpec,
    PictureSpec,
    Stroke,
    TensorSpec,
    View,
    image,
    vector,
)
from rlgen_cli.core.time_encoding import TimeEncoding, encoded_time, time_spec
from rlgen_cli.data.images import Splits
from rlgen_cli.data.palette import canvas_palette
from rlgen_cli.domains.canvas.brushes.brush import Brush, Mark, MatchesTarget, PredictsGain, box_cells, cells_around
from rlgen_cli.domains.canvas.packing import PalettePacking
from rlgen_cli.domains.canvas.rasteriser import round_straight_through
from rlgen_cli.domains.canvas.starts import Start


class CanvasState(NamedTuple):
    """N unfinished pictures. Small on purpose: a replay memory stores it."""

    canvas: Tensor  # uint8 [N, C, H, W] (float in a differentiable state, uint8 [N, bytes] in a packed one)
    pen: Tensor  # int16 [N, 2], (x, y) in the brush's units
    step: Tensor  # int16 [N]
    marks: Tensor  # int16 [N]: actions that drew
    index: Tensor  # type: ignore[assignment]  # int32 [N]: the data image that is this episode's target and label
    noise: Tensor  # float [N, K]
    stopped: Tensor  # bool [N]


class Canvas:
    """A batch of square canvases.

    Args:
        data, split: the images that give targets, labels, starts and the palette.
        device: of all tensors; the palette is computed before anything moves there.
        size: side in pixels, 8 to 128.
        channels: 1 (grey) or 3 (RGB).
        colours: palette size, 2 to 32; the first colour is the background. Grey canvases have evenly spaced greys,
            RGB canvases the colours of the data.
        background: black, white, or auto: of grey canvases the one that the borders of the data's images are closer to,
            of RGB canvases their commonest colour.
        brush: what an action does; it is given `size` and `palette`, uint8 [colours, C] on the device.
        start: what canvases hold before the first action.
        max_steps: actions an episode.
        stop: adds an action that finishes the picture.
        condition: what of the data image the policy sees: none, target, label, or both.
        noise: number of normal inputs, fixed for an episode, that let one policy make many different pictures.
        observation_size: side of the picture as the policy sees it, or null for `size`; marks are made at full
            resolution.
        time_encoding: how the policy sees the time: fraction (of steps left) or one_hot (an input for each step).

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
        background: Literal["auto", "black", "white"],
        brush: Callable[..., Brush | MatchesTarget],
        start: Start,
        max_steps: int,
        stop: bool,
        condition: Literal["none", "target", "label", "both"],
        noise: int,
        observation_size: int | None,
        time_encoding: TimeEncoding,
    ) -> None:
        self.request(size, channels)
        require(2 <= colours <= 32, f"colours: must be from 2 to 32, got {colours}.")
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        require(0 <= noise <= 1024, f"noise: must be from 0 to 1024, got {noise}.")
        require(
            observation_size is None or 4 <= observation_size <= size,
            f"observation_size: must be from 4 to env.size = {size}, or null, got {observation_size}.",
        )
        chosen = {"train": data.train, "valid": data.valid, "test": data.test}[split].to(device)
        self.images, self.labels, self.classes = chosen.images, chosen.labels, len(chosen.classes)
        self.class_names = chosen.classes
        require(
            condition not in ("label", "both") or self.classes > 0,
            f"condition: {condition} needs data with labels; this data has none.",
        )
        self.size, self.channels, self.max_steps, self.device = size, channels, max_steps, device
        self.noise, self.start, self.time_encoding = noise, start, time_encoding
        self.sees_target, self.sees_label = condition in ("target", "both"), condition in ("label", "both")
        palette = canvas_palette(data.train.images, colours, background)
        self.on_paper = channels == 1 and int(palette[0, 0]) == 255
        self.palette = palette.to(device)
        self.background = self.palette[0].float() / 255
        self.brush = brush(size=size, palette=self.palette)
        # The brush again, where its strokes take the target's colours; asked once, since a step is a hot path.
        self.matching = self.brush if isinstance(self.brush, MatchesTarget) else None
        copies = self.sees_target or self.matching is None
        require(copies, "brush: its strokes take the target's colours; set env.condition=target.")
        self.tip = self.brush.tip
        self.has_pen = self.brush.pen_range[1] > 0
        # The brush again, where it can say what each action would gain (there must be a target), and where it is shown.
        self.predicting = self.brush if self.sees_target and isinstance(self.brush, PredictsGain) else None
        self.previewing = self.predicting if self.predicting and self.predicting.preview_scale != 0 else None
        exact = self.brush.exact_palette and start.exact_palette
        self.packing = PalettePacking(palette, (channels, size, size), device) if exact else None
        if self.previewing is not None:
            self.gain_scale = self.previewing.preview_scale / self._target_squares().unsqueeze(1)  # [images, 1]
        self.stop_action = self._stop_action(stop)
        self.most_marks = max_steps * (self.matching.count if self.matching is not None else 1)
        self.observation_size = observation_size or size
        self.around = torch.arange(self.brush.patch_size, device=device) - self.brush.patch_size // 2
        self.spec = self._spec()

    @staticmethod
    def request(size: int, channels: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(8 <= size <= 128, f"size: must be from 8 to 128, got {size}.")
        require(channels in (1, 3), f"channels: must be 1 (grey) or 3 (RGB), got {channels}.")
        return {"size": size, "channels": channels}

    def _stop_action(self, stop: bool) -> int | None:
        """The index of the stop action, None without one."""
        if not stop:
            return None
        action = self.brush.action
        require(isinstance(action, Discrete), f"stop: needs discrete actions, and this brush has {action}.")
        assert isinstance(action, Discrete)
        return action.n

    def _spec(self) -> EnvSpec:
        shape = PictureSpec(self.channels, self.size, self.size)
        context = {"target": image(*shape.shape)} if self.sees_target else {}
        if self.sees_label:
            context["label"] = TensorSpec("label", (), 0, self.classes)
        action = self._action_spec()
        return EnvSpec(
            observation=self._observation_spec(action),
            action=action,
            sample=shape,
            max_steps=self.max_steps,
            context=context,
            info={"num_marks": TensorSpec("label", (), 0, self.most_marks + 1), "background": vector(self.channels)},
            class_names=self.class_names if self.sees_label else (),
            fixed_length=self.stop_action is None,
            differentiable=self.brush.differentiable,
        )

    def _action_spec(self) -> ActionSpec:
        action = self.brush.action
        if self.stop_action is None:
            return action
        assert isinstance(action, Discrete)
        return Discrete(action.n + 1, action.grid)

    def _observation_spec(self, action: ActionSpec) -> ObservationSpec:
        side, k = self.observation_size, self.brush.patch_size
        spec = {"canvas": image(self.channels, side, side)}
        if self.sees_target:
            spec |= {"target": image(self.channels, side, side), "difference": image(1, side, side)}
        planes = sum(part.shape[0] for part in spec.values())
        if self.has_pen:
            spec["pen"] = image(1, side, side)
        if k:
            spec["patch"] = TensorSpec("patch", (planes + 1, k, k), 0.0, 1.0)
        spec["time"] = time_spec(self.time_encoding, self.max_steps)
        if self.noise:
            spec["noise"] = vector(self.noise)
        if self.has_pen:
            spec["pen_position"] = vector(2, 0.0, 1.0)
        if self.sees_label:
            spec["label"] = vector(self.classes, 0.0, 1.0)
        if self.previewing is not None:
            assert isinstance(action, Discrete)
            spec["action_gain"] = TensorSpec("action_gain", (action.n,))
        return spec

    def _target_squares(self) -> Tensor:
        """Each data image's squared distance from the background, float [images]; a blank one counts as one full pixel,
        as in the score."""
        paper = self.background.view(-1, 1, 1)
        parts = [(part / 255 - paper).flatten(1).square().sum(1) for part in self.images.split(4096)]
        return torch.cat(parts).clamp(min=1.0)

    def reset(self, n: int, rng: torch.Generator) -> CanvasState:
        index = torch.randint(len(self.images), (n,), generator=rng, device=self.device)
        return self.start_from(index, rng)

    def start_from(self, index: Tensor, rng: torch.Generator) -> CanvasState:
        """Fresh episodes whose data images are `index` [N]."""
        n, device = len(index), self.device
        low, high = self.brush.pen_range
        pen = torch.randint(low, high + 1, (n, 2), generator=rng, device=device, dtype=torch.int16)
        zero = torch.zeros(n, dtype=torch.int16, device=device)
        noise = torch.randn(n, self.noise, generator=rng, device=device)
        stopped = torch.zeros(n, dtype=torch.bool, device=device)
        canvas = self.start(self.images[index], self.palette, rng)
        return CanvasState(canvas, pen, zero, zero, index.to(torch.int32), noise, stopped)

    def with_picture(self, picture: Tensor) -> Self:
        """The same canvas for pictures, uint8 [M, C, H, W], in the place of the data."""
        other = copy.copy(self)
        other.images, other.labels = picture, self.labels[:1].expand(len(picture))
        if other.previewing is not None:
            other.gain_scale = other.previewing.preview_scale / other._target_squares().unsqueeze(1)
        return other

    def step(self, state: CanvasState, action: Tensor) -> CanvasState:
        action, stops = self._split_stop(action)
        stopped = state.stopped | stops
        over = self.done(state._replace(stopped=stopped))
        canvas, pen, marks = self._drawn(state, action, over)
        step = state.step + ~self.done(state)
        return CanvasState(canvas, pen, step, state.marks + marks, state.index, state.noise, stopped)

    def _drawn(self, state: CanvasState, action: Tensor, over: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Canvases, pens, and how many marks actions [N] of the brush made; all as before where `over`, bool [N]."""
        if self.matching is not None:
            canvas = self.matching.painted(state.canvas, self._target(state), action)
            marks = (self.matching.count * ~over).to(state.marks.dtype)
            return torch.where(over.view(-1, 1, 1, 1), state.canvas, canvas), state.pen, marks
        mark = cast(Brush, self.brush).mark(state.pen, action)
        canvas = painted(state.canvas, mark._replace(opacity=mark.opacity * ~over.view(-1, 1, 1)))
        return canvas, torch.where(over.unsqueeze(1), state.pen, mark.pen), mark.drawn & ~over

    def _split_stop(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The brush's actions, and bool [N]: this one stops (the brush's action is then any valid one)."""
        if self.stop_action is None:
            return action, torch.zeros(len(action), dtype=torch.bool, device=self.device)
        return action.clamp(max=self.stop_action - 1), action == self.stop_action

    def differentiable_state(self, state: CanvasState) -> CanvasState:
        """The same states with the canvas as float, still of whole numbers: `step` then lets gradients through, so
        that a score's gradient reaches the actions of a differentiable brush."""
        return state._replace(canvas=state.canvas.float())

    def done(self, state: CanvasState) -> Tensor:
        return state.stopped | (state.step >= self.max_steps)

    def observe(self, state: CanvasState) -> Observation:
        canvas = state.canvas  # as bytes, unless gradients flow
        if canvas.is_floating_point():
            canvas = canvas / 255
        pictures, target = {"canvas": self._as_ink(canvas)}, None  # [N, C, H, W] each
        if self.sees_target:
            target = self._target(state) if canvas.is_floating_point() else self.images.index_select(0, state.index)
            pictures |= {"target": self._as_ink(target), "difference": difference(canvas, target)}
        observation = {name: self._as_seen(picture) for name, picture in pictures.items()}
        xy = self.brush.pen_xy(state.pen)  # [N, 2]
        if self.has_pen:
            observation["pen"] = self._pen_plane(xy)
        if self.brush.patch_size:
            observation["patch"] = self._patch(list(pictures.values()), xy)
        observation["time"] = encoded_time(state.step, self.max_steps, self.time_encoding)
        if self.noise:
            observation["noise"] = state.noise
        if self.has_pen:
            observation["pen_position"] = xy / (self.size - 1)
        if self.sees_label:
            classes = torch.arange(self.classes, device=self.device)
            observation["label"] = (self.labels[state.index].unsqueeze(1) == classes).float()
        if self.previewing is not None and target is not None:
            gain = self.previewing.action_gain(state.pen, canvas, target) * self.gain_scale[state.index]
            observation["action_gain"] = gain if self.stop_action is None else pad(gain, [0, 1])
        return observation

    def _target(self, state: CanvasState) -> Tensor:
        """Float [N, C, H, W] in [0, 1]."""
        return self.images.index_select(0, state.index) / 255

    def _as_ink(self, picture: Tensor) -> Tensor:
        """Black ink on white paper looks to the policy as white on black does, which is learned as well."""
        if not self.on_paper:
            return picture
        return 1 - picture if picture.is_floating_point() else 255 - picture

    def _as_seen(self, picture: Tensor) -> Tensor:
        """At the observation's size."""
        side = self.observation_size
        return picture if side == self.size else interpolate(as_unit(picture), [side, side], mode="bilinear")

    def _pen_plane(self, xy: Tensor) -> Tensor:
        """White at the pixel under the pen, as the policy sees it, uint8 [N, 1, H, W]."""
        cell = ((xy + 0.5) * (self.observation_size / self.size) - 0.5).round().long()
        side = self.observation_size
        plane = torch.zeros(len(xy), side * side, dtype=torch.uint8, device=self.device)
        return plane.scatter_(1, cell[:, 1:] * side + cell[:, :1], 255).view(-1, 1, side, side)

    def _patch(self, pictures: list[Tensor], xy: Tensor) -> Tensor:
        """The pictures' P planes around the pen and one that is white on the canvas, as bytes or floats, as they are,
        [N, P + 1, k, k]."""
        n, k = len(xy), self.brush.patch_size
        cell, inside = cells_around(xy.round().long(), self.around, self.size)
        cell, inside = cell.unsqueeze(1), inside.unsqueeze(1)
        near = [picture.flatten(2).gather(2, cell.expand(-1, picture.shape[1], -1)) * inside for picture in pictures]
        white = 1 if pictures[0].is_floating_point() else 255
        return torch.cat([*near, inside.to(pictures[0].dtype) * white], 1).view(n, -1, k, k)

    def view(self, state: CanvasState) -> View:
        context: Context = {"target": self._target(state)} if self.sees_target else {}
        if self.sees_label:
            context["label"] = self.labels[state.index]
        info = {"num_marks": state.marks.long(), "background": self.background.expand(len(state.marks), -1)}
        return View(state.canvas / 255, context, info)

    def action_mask(self, state: CanvasState) -> Tensor | None:
        return None

    def expert_action(self, state: CanvasState) -> Tensor | None:
        """The move towards the nearest place where a mark would help, int64 [N]; None where the brush cannot say or
        there is no target to copy."""
        if self.predicting is None:
            return None
        return self.predicting.expert_action(state.pen, state.canvas.float() / 255, self._target(state))

    def strokes(self, state: CanvasState, action: Tensor) -> list[Stroke]:
        """`action` as vectors, for SVG; nothing is drawn where the episode is over or the action is stop."""
        action, stops = self._split_stop(action)
        idle = self.done(state) | stops
        if self.matching is not None:
            made = self.matching.strokes(state.canvas, self._target(state), action)
        else:
            made = [cast(Brush, self.brush).stroke(state.pen, action)]
        return [stroke._replace(drawn=stroke.drawn & ~idle) for stroke in made]

    def pack(self, state: CanvasState) -> CanvasState:
        """The states with canvases in few bits a pixel, where every pixel has a palette colour; else as they are."""
        return state if self.packing is None else state._replace(canvas=self.packing.pack(state.canvas))

    def unpack(self, packed: CanvasState) -> CanvasState:
        """The inverse of `pack`, to the bit."""
        return packed if self.packing is None else packed._replace(canvas=self.packing.unpack(packed.canvas))


def difference(one: Tensor, other: Tensor) -> Tensor:
    """By how much two pictures [N, C, H, W] differ, the mean of their channels, [N, 1, H, W]: bytes for bytes."""
    wrong = (one - other).abs() if one.is_floating_point() else torch.maximum(one, other) - torch.minimum(one, other)
    if wrong.shape[1] == 1:
        return wrong
    mean = wrong.mean(1, keepdim=True, dtype=torch.float32)
    return mean if one.is_floating_point() else mean.round().to(torch.uint8)


def painted(canvas: Tensor, mark: Mark) -> Tensor:
    """Canvases [N, C, H, W] with the marks on them; where a mark has a box, no other pixel is touched."""
    if mark.corner is None:
        return blended(canvas, mark.colour.view(*mark.colour.shape, 1, 1), mark.opacity.unsqueeze(1))
    cells = box_cells(mark.corner, mark.opacity.shape[1], mark.opacity.shape[2], canvas.shape[3])
    cells = cells.unsqueeze(1).expand(-1, canvas.shape[1], -1)  # [N, C, h · w]
    flat = canvas.flatten(2)
    new = blended(flat.gather(2, cells), mark.colour.unsqueeze(2), mark.opacity.flatten(1).unsqueeze(1))
    return flat.scatter(2, cells, new).view_as(canvas)


def blended(paper: Tensor, colour: Tensor, opacity: Tensor) -> Tensor:
    """`colour` over `paper`, in whole numbers from 0 to 255, as is `opacity`; all broadcast to the paper's shape."""
    mixed = paper + (colour - paper.float()) * (opacity / 255)
    # A float canvas lets gradients through, see `differentiable_state`.
    return round_straight_through(mixed) if paper.is_floating_point() else mixed.round_().to(torch.uint8)
