"""A pen that moves by a few pixels, up or down."""

from typing import Literal

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.specs import Discrete, Stroke, Tip
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.canvas.brushes.brush import Mark, cells_around, check_margin, check_patch_size, line_widths
from rlgen_cli.domains.canvas.rasteriser import pixel_line, segment


class Pen:
    """The pen moves by −reach…reach on both axes, up or down (ReSketch: reach 3 gives 98 actions).

    Action = plane·(2·reach + 1)² + (dy + reach)·(2·reach + 1) + dx + reach; plane 0 is pen up, the others draw with
    each colour but the background, and each width.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; colour 0 is the background.
        reach: the longest move on each axis, pixels.
        margin: the pen starts and stays at least this many pixels inside the canvas.
        widths: of lines, pixels, or auto: one, as wide as the lines of the data's pictures.
        data: these pictures, on the CPU.
        line: smooth, or pixel (no anti-aliasing).
        patch_size: side of the close view around the pen, odd, or 0 for none.
        preview_scale: where there is a target, the policy is shown what each move would gain at once on the squared
            distance to it, as a fraction of the target's own square, times this factor; 0 shows nothing. This is
            the pen's geometry, not learned.

    Raises:
        UserError: for a value out of range.
    """

    differentiable = False
    tip = Tip()

    def __init__(
        self,
        *,
        size: int,
        palette: Tensor,
        reach: int,
        margin: int,
        widths: list[float] | Literal["auto"],
        data: Splits,
        line: Literal["smooth", "pixel"],
        patch_size: int,
        preview_scale: float,
    ) -> None:
        require(1 <= reach < size, f"reach: must be from 1 to {size - 1}, got {reach}.")
        check_margin(margin, size)
        check_patch_size(patch_size)
        measured = widths == "auto"
        widths = line_widths(widths, data, palette)
        if measured and line == "pixel":
            widths = [float(round(widths[0]))]
        whole = all(width.is_integer() for width in widths)
        require(line == "smooth" or whole, f"widths: must be whole numbers with line=pixel, got {widths}.")
        self.size, self.reach, self.patch_size, self.preview_scale = size, reach, patch_size, float(preview_scale)
        self.exact_palette = line == "pixel"
        self.inks = palette[1:]
        self.side = 2 * reach + 1
        planes = 1 + len(self.inks) * len(widths)
        self.action = Discrete(planes * self.side**2)
        self.pen_range = (margin, size - 1 - margin)
        self.middle = reach + int(max(widths)) + 1
        windows = [_windows(width, reach, self.middle, line) for width in widths]
        self.windows = torch.stack(windows).to(palette.device)  # uint8 [widths, moves, k, k]
        self.box = min(2 * self.middle + 1, size)  # side of the part of the canvas that a window covers
        marks = self.windows.flatten(2).flatten(0, 1).float() / 255
        self.gain_weights = torch.cat([marks, -marks.square()], 1).T.contiguous()  # [2 · k·k, widths · moves]
        self.around = torch.arange(-self.middle, self.middle + 1, device=palette.device)
        move = torch.arange(self.side**2, device=palette.device)
        self.moves = torch.stack([move % self.side, move // self.side], 1) - reach  # [moves, 2]
        self.widths = torch.tensor(widths).to(palette.device)
        self.axis = torch.arange(size, device=palette.device)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        plane, end = self._decode(pen, action)
        move = (end - pen + self.reach).long()  # after clipping at the border
        window = self.windows[self._width_index(plane), move[:, 1] * self.side + move[:, 0]]  # [N, k, k]
        # The box is the window, shifted so that it lies inside the canvas: pixel p shows window cell p − pen + middle,
        # and what is outside the window is like its border, which is empty.
        last, corner = 2 * self.middle, (pen.long() - self.middle).clamp(0, self.size - self.box)
        inside = corner - pen + self.middle  # [N, 2], the window cell of the box's first pixel
        columns = (self.axis[: self.box] + inside[:, :1]).clamp(0, last)  # [N, box]
        rows = (self.axis[: self.box] + inside[:, 1:]).clamp(0, last)
        cell = rows.unsqueeze(2) * (last + 1) + columns.unsqueeze(1)
        opacity = window.flatten(1).gather(1, cell.flatten(1)).view(-1, self.box, self.box)
        drawn = plane > 0
        return Mark(opacity * drawn.view(-1, 1, 1), self._ink(plane), end, drawn, corner)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        plane, end = self._decode(pen, action)
        start, stop = pen.float(), end.float()
        width = self.widths[self._width_index(plane)]
        points = torch.stack([start, (start + stop) / 2, stop], 1)
        return Stroke(points, width, self._ink(plane).float() / 255, torch.ones_like(width), plane > 0)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()

    def action_gain(self, pen: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
        return self._mark_sums(pen, canvas, target)

    def expert_action(self, pen: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
        """The pen-up move towards the nearest place from which a mark would help, int64 [N]."""
        return self._approach(pen, self._best_gain(*self._pixel_gain(canvas, target)) > 1e-6)

    def _pixel_gain(self, canvas: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What a mark of opacity m gains at each pixel is a·m − b·m²: a and b for each ink, [N, inks, H, W].

        From (t − c)² − (t − c − m (ink − c))².
        """
        inks = self.inks.view(1, -1, canvas.shape[1], 1, 1).float() / 255
        change = inks - canvas.unsqueeze(1)  # [N, inks, C, H, W]
        return 2 * ((target - canvas).unsqueeze(1) * change).sum(2), change.square().sum(2)

    def _mark_sums(self, pen: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
        """Σ (a·m − b·m²) over the opacities m that each action would leave, float [N, A]; 0 for pen up."""
        n, moves = len(pen), self.side**2
        cell, inside = cells_around(pen, self.around, self.size)  # [N, k·k] each
        cells = cell.unsqueeze(1).expand(-1, canvas.shape[1], -1)
        near = (as_unit(part.flatten(2).gather(2, cells)).unsqueeze(3) for part in (canvas, target))
        linear, square = (part * inside.view(n, 1, -1, 1) for part in self._pixel_gain(*near))
        sums = torch.cat([linear.flatten(2), square.flatten(2)], 2) @ self.gain_weights  # [N, inks, widths · moves]
        # A move beyond the border ends at it.
        end = (pen.unsqueeze(1) + self.moves).clamp(*self.pen_range) - pen.unsqueeze(1) + self.reach  # [N, moves, 2]
        clipped = (end[..., 1] * self.side + end[..., 0]).view(n, 1, moves)
        sums = sums.view(n, -1, moves)
        drawn = sums.gather(2, clipped.expand_as(sums)).flatten(1)
        return torch.nn.functional.pad(drawn, [moves, 0])

    def _best_gain(self, linear: Tensor, square: Tensor) -> Tensor:
        """The most that one mark could gain from each pen position, as in `_mark_sums`: [N, H, W]."""
        k = 2 * self.middle + 1
        marks = self.windows.view(-1, 1, k, k).float() / 255

        def correlate(plane: Tensor, weights: Tensor) -> Tensor:  # [N · inks, widths · moves, H, W]
            return torch.nn.functional.conv2d(plane.flatten(0, 1).unsqueeze(1), weights, padding=self.middle)

        sums = (correlate(linear, marks) - correlate(square, marks.square())).amax(1)
        return sums.view(len(linear), -1, self.size, self.size).amax(1)

    def _approach(self, pen: Tensor, useful: Tensor) -> Tensor:
        """The pen-up action towards the nearest useful position (bool [N, H, W]); it stays where there is none."""
        low, high = self.pen_range
        reachable = (self.axis >= low) & (self.axis <= high)
        useful = useful & reachable & reachable.view(-1, 1)
        away_x = (self.axis - pen[:, :1]).abs().unsqueeze(1)  # [N, 1, W]
        away_y = (self.axis - pen[:, 1:]).abs().unsqueeze(2)  # [N, H, 1]
        distance = torch.maximum(away_x, away_y).float().masked_fill(~useful, torch.inf).flatten(1)
        cell = distance.argmin(1)
        goal = torch.stack([cell % self.size, cell // self.size], 1)
        goal = torch.where(distance.amin(1, keepdim=True).isinf(), pen.long(), goal)
        step = (goal - pen).clamp(-self.reach, self.reach) + self.reach
        return step[:, 1] * self.side + step[:, 0]

    def _decode(self, pen: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Plane [N] and the pen's end [N, 2]."""
        plane, move = action // self.side**2, action % self.side**2
        delta = torch.stack([move % self.side, move // self.side], 1) - self.reach
        return plane, (pen + delta).clamp(*self.pen_range).to(torch.int16)

    def _width_index(self, plane: Tensor) -> Tensor:
        return (plane - 1).clamp(min=0) % len(self.widths)

    def _ink(self, plane: Tensor) -> Tensor:
        return self.inks[(plane - 1).clamp(min=0) // len(self.widths)]


def _windows(width: float, reach: int, middle: int, line: str) -> Tensor:
    """Every move's line around its start, in a window whose outermost cells are empty, uint8 [moves, k, k]."""
    k = 2 * middle + 1
    rows = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if line == "pixel":
                inner = pixel_line(dx, dy, reach, int(width))
                rows.append(torch.nn.functional.pad(inner, [(k - inner.shape[0]) // 2] * 4))
            else:
                start = torch.tensor([[float(middle), float(middle)]])
                rows.append(segment(start, start + torch.tensor([[dx, dy]]), torch.tensor([width]), k)[0])
    return (torch.stack(rows) * 255).round().to(torch.uint8)
