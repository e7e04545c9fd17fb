"""What every brush can do, and what only some can."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import ActionSpec, Stroke, Tip, TipKind
from rlgen_cli.data.images import Splits
from rlgen_cli.data.palette import line_width


class Mark(NamedTuple):
    """What N actions leave: opacity per pixel of a box, colour, and where the pen is afterwards."""

    opacity: Tensor  # whole numbers [N, h, w], 0 where nothing changes, 255 where the colour covers
    colour: Tensor  # whole numbers [N, C]; uint8 in brushes that look colours up, float where gradients flow
    pen: Tensor  # int16 [N, 2]
    drawn: Tensor  # bool [N]: this was a mark, not just a move
    corner: Tensor | None = None  # int64 [N, 2], (x, y) of the box's first pixel; None where it is the whole canvas


def box_cells(corner: Tensor, high: int, wide: int, size: int) -> Tensor:
    """The places of the boxes' pixels in flat canvases of size × size, int64 [N, high · wide]; boxes lie inside."""
    row, column = torch.arange(high, device=corner.device), torch.arange(wide, device=corner.device)
    return (corner[:, 1:] * size + corner[:, :1]) + (row.unsqueeze(1) * size + column).flatten()


def cells_around(middle: Tensor, offset: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The square around pixels (x, y), whole numbers [N, 2], `offset` [k] from them on both axes: its places in flat
    canvases of size × size, int64 [N, k · k] (beyond the border those of the nearest pixel), and which of them are
    inside, bool [N, k · k]."""
    x, y, last = middle[:, :1] + offset, middle[:, 1:] + offset, size - 1  # [N, k] each
    inside = ((y >= 0) & (y <= last)).unsqueeze(2) & ((x >= 0) & (x <= last)).unsqueeze(1)
    cell = y.clamp(0, last).unsqueeze(2) * size + x.clamp(0, last).unsqueeze(1)
    return cell.flatten(1), inside.flatten(1)


class Brush(Protocol):
    """Turns actions into marks. A brush is stateless: the pen's position is the environment's, int16 [N, 2] as (x, y)
    in the brush's own units."""

    pen_range: tuple[int, int]  # smallest and largest pen coordinate; (0, 0) for brushes without a pen
    patch_size: int  # side of the close view around the pen, pixels; 0 for none
    differentiable: bool  # gradients flow from a mark back to its action
    exact_palette: bool  # marks never blend: a pixel that they change has a palette colour
    tip: Tip  # what its strokes look like

    @property
    def action(self) -> ActionSpec: ...

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        """What actions leave when the pen is at `pen` [N, 2]."""
        ...

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        """The same as vectors."""
        ...

    def pen_xy(self, pen: Tensor) -> Tensor:
        """The pen in pixels, float [N, 2]."""
        ...


@runtime_checkable
class MatchesTarget(Protocol):
    """A brush of several strokes an action, in colours that are taken from the target; else as a Brush."""

    pen_range: tuple[int, int]
    patch_size: int
    differentiable: bool
    exact_palette: bool
    tip: Tip
    count: int  # strokes of an action

    @property
    def action(self) -> ActionSpec: ...

    def painted(self, canvas: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """Canvases [N, C, H, W] after actions [N, D], in whole numbers as they were given, uint8 or float; the target
        is float [N, C, H, W] in [0, 1]."""
        ...

    def strokes(self, canvas: Tensor, target: Tensor, action: Tensor) -> list[Stroke]:
        """The same as vectors, in the order in which they are drawn, `count` of [N] each."""
        ...

    def pen_xy(self, pen: Tensor) -> Tensor: ...


@runtime_checkable
class PredictsGain(Protocol):
    """A brush that knows by geometry how much nearer each action would bring the canvas to a target."""

    preview_scale: float  # factor of what the policy is shown; 0 shows nothing

    def action_gain(self, pen: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
        """By how much each action would lessen the squared distance at once, float [N, A]; canvas and target
        [N, C, H, W] are uint8 from 0 to 255, or float from 0 to 1."""
        ...

    def expert_action(self, pen: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
        """The move towards the nearest place where a mark would help, int64 [N]; canvas and target are float
        [N, C, H, W] from 0 to 1."""
        ...


def line_widths(widths: list[float] | Literal["auto"], data: Splits, palette: Tensor) -> list[float]:
    """The widths as they are asked for, or as wide as the data's lines.

    Raises:
        UserError: unless they are positive.
    """
    return [line_width(data.train.images, palette[0].cpu())] if widths == "auto" else check_widths(widths)


def check_widths(widths: list[float]) -> list[float]:
    """The widths as floats.

    Raises:
        UserError: unless they are positive.
    """
    require(len(widths) > 0 and min(widths) > 0, f"widths: must be positive numbers, got {list(widths)}.")
    return [float(width) for width in widths]


def check_margin(margin: int, size: int) -> None:
    """Refuse a margin that leaves no room to draw in.

    Raises:
        UserError: for a value out of range.
    """
    require(0 <= 2 * margin < size - 1, f"margin: must be from 0 to {(size - 2) // 2}, got {margin}.")


def check_patch_size(patch_size: int) -> None:
    """Refuse a close view that has no middle pixel.

    Raises:
        UserError: unless it is odd, or 0 for none.
    """
    odd = patch_size > 0 and patch_size % 2 == 1
    require(odd or patch_size == 0, f"patch_size: must be odd, or 0 for none, got {patch_size}.")


def check_tip(kind: TipKind, taper: float) -> Tip:
    """What strokes of this kind look like.

    Raises:
        UserError: for a taper out of range, or of strokes that have none.
    """
    require(0.0 <= taper <= 1.0, f"taper: must be in [0, 1], got {taper}.")
    require(taper == 0 or kind in ("curve", "line"), f"taper: kind={kind} has none; use it with kind=curve or line.")
    return Tip(kind, float(taper))
