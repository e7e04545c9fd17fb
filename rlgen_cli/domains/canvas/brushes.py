"""What an action does to a canvas: six tools, each with its action space.

A tool is stateless. The pen's position is the environment's, int16 [N, 2] as (x, y) in the tool's own units.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlgen_cli.domains.canvas.rasteriser import bezier, pixel_line, segment
from rlgen_cli.core.errors import require
from rlgen_cli.core.types import ActionSpec, Continuous, Discrete, Factored, Mixed, Stroke

TABLE_BYTES = 64 * 2**20  # strokes between grid points are looked up when all of them fit into this


class Mark(NamedTuple):
    """What N actions leave: opacity per pixel, colour, and where the pen is afterwards."""

    opacity: Tensor  # whole numbers [N, H, W], 0 where nothing changes, 255 where the colour covers
    colour: Tensor  # whole numbers [N, C]; uint8 in tools that are looked up, float where gradients flow
    pen: Tensor  # int16 [N, 2]
    drawn: Tensor  # bool [N]: this was a mark, not just a move


class Tool(Protocol):
    inks: Tensor  # uint8 [inks, C], the colours that marks can have
    pen_range: tuple[int, int]  # smallest and largest pen coordinate; (0, 0) for tools without a pen

    @property
    def action(self) -> ActionSpec: ...

    def mark(self, pen: Tensor, action: Tensor) -> Mark: ...

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke: ...

    def pen_xy(self, pen: Tensor) -> Tensor:
        """The pen in pixels, float [N, 2]."""
        ...


class PixelTool:
    """Colour c at (x, y): action = c·H·W + y·W + x."""

    pen_range = (0, 0)

    def __init__(self, size: int, palette: Tensor) -> None:
        self.size, self.palette, self.inks = size, palette, palette
        self.action = Discrete(len(palette) * size * size, (len(palette), size, size))
        self.cells = torch.arange(size * size, device=palette.device)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        cell = action % (self.size * self.size)
        hit = (cell.unsqueeze(1) == self.cells).to(torch.uint8) * 255  # [N, H·W]
        colour = self.palette[action // (self.size * self.size)]
        return Mark(hit.view(-1, self.size, self.size), colour, pen, torch.ones_like(action, dtype=torch.bool))

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        cell = action % (self.size * self.size)
        xy = torch.stack([cell % self.size, cell // self.size], 1).float()
        colour = self.palette[action // (self.size * self.size)].float() / 255
        one = torch.ones_like(xy[:, 0])
        return Stroke(xy.unsqueeze(1).expand(-1, 3, -1), one, colour, one, one.bool())

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()


class MoveTool:
    """The pen moves by −reach…reach on both axes, up or down (ReSketch: reach 3 gives 98 actions).

    Action = plane·(2·reach + 1)² + (dy + reach)·(2·reach + 1) + dx + reach; plane 0 is pen up, the others draw with
    each ink and width. The pen starts and stays at least `margin` pixels inside the canvas. `line=pixel` draws
    without anti-aliasing.
    """

    def __init__(self, size: int, palette: Tensor, reach: int, margin: int, widths: list[float], line: str) -> None:
        require(1 <= reach < size, f"reach: must be from 1 to {size - 1}, got {reach}.")
        require(0 <= 2 * margin < size - 1, f"margin: must be from 0 to {(size - 2) // 2}, got {margin}.")
        whole = all(float(w).is_integer() for w in widths)
        require(line == "smooth" or whole, f"widths: must be whole numbers with line=pixel, got {list(widths)}.")
        self.size, self.reach, self.widths, self.device = size, reach, widths, palette.device
        self.inks = palette[1:]  # colour 0 is the background
        self.side = 2 * reach + 1
        self.planes = 1 + len(self.inks) * len(widths)
        self.action = Discrete(self.planes * self.side**2)
        self.pen_range = (margin, size - 1 - margin)
        self.middle = reach + int(max(widths)) + 1
        self.windows = self._windows(line).to(self.device)  # uint8 [widths, moves, k, k]
        self.width_of = torch.tensor(widths, device=self.device)
        self.axis = torch.arange(size, device=self.device)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        plane, _, end = self._decode(pen, action)
        move = (end - pen + self.reach).long()  # after clipping at the border
        kind = (plane - 1).clamp(min=0) % len(self.widths)
        window = self.windows[kind, move[:, 1] * self.side + move[:, 0]]  # [N, k, k]
        # Pixel p shows window cell p − pen + middle; outside the window lies its empty border.
        last = 2 * self.middle
        columns = (self.axis - pen[:, :1] + self.middle).clamp(0, last)  # [N, W]
        rows = (self.axis - pen[:, 1:] + self.middle).clamp(0, last)  # [N, H]
        cell = rows.unsqueeze(2) * (last + 1) + columns.unsqueeze(1)  # [N, H, W]
        opacity = window.flatten(1).gather(1, cell.flatten(1)).view(-1, self.size, self.size)
        drawn = plane > 0
        return Mark(opacity * drawn.view(-1, 1, 1), self._ink(plane), end, drawn)

    def preview(self, pen: Tensor, linear: Tensor, square: Tensor) -> Tensor:
        """Σ (linear·m − square·m²) over the opacities m that each action would leave, float [N, A]; 0 for pen up.

        `linear` and `square` are [N, inks, H, W].
        """
        n, k = len(pen), 2 * self.middle + 1
        reach = torch.arange(-self.middle, self.middle + 1, device=self.device)
        side = self.size + 2 * self.middle
        corner = (pen[:, 1].long() + self.middle) * side + pen[:, 0] + self.middle
        offset = (reach.unsqueeze(1) * side + reach).flatten()
        cell = (corner.unsqueeze(1) + offset).view(n, 1, k * k).expand(-1, linear.shape[1], -1)

        def near(field: Tensor) -> Tensor:  # [N, inks, k·k]
            return torch.nn.functional.pad(field, [self.middle] * 4).flatten(2).gather(2, cell)

        marks = self.windows.flatten(2).flatten(0, 1).float() / 255  # [widths · moves, k·k]
        sums = near(linear) @ marks.T - near(square) @ marks.square().T
        sums = sums.view(n, -1, len(self.widths), self.side**2)
        move = torch.arange(self.side**2, device=self.device)
        delta = torch.stack([move % self.side, move // self.side], 1) - self.reach
        end = (pen.unsqueeze(1) + delta).clamp(*self.pen_range) - pen.unsqueeze(1) + self.reach  # [N, moves, 2]
        clipped = (end[..., 1] * self.side + end[..., 0]).view(n, 1, 1, -1).expand_as(sums)
        drawn = sums.gather(3, clipped).flatten(1)
        return torch.cat([drawn.new_zeros(n, self.side**2), drawn], 1)

    def best_gain(self, linear: Tensor, square: Tensor) -> Tensor:
        """The most that one mark could gain from each pen position, as in `preview`: [N, H, W]."""
        k = 2 * self.middle + 1
        marks = self.windows.view(-1, 1, k, k).float() / 255

        def spread(field: Tensor, weights: Tensor) -> Tensor:  # [N · inks, widths · moves, H, W]
            return torch.nn.functional.conv2d(field.flatten(0, 1).unsqueeze(1), weights, padding=self.middle)

        sums = (spread(linear, marks) - spread(square, marks.square())).amax(1)
        return sums.view(len(linear), -1, self.size, self.size).amax(1)

    def approach(self, pen: Tensor, wanted: Tensor) -> Tensor:
        """The pen-up action towards the nearest position [N, H, W] that is wanted; it stays where none is."""
        low, high = self.pen_range
        reachable = (self.axis >= low) & (self.axis <= high)
        wanted = wanted & reachable & reachable.view(-1, 1)
        away_x = (self.axis - pen[:, :1]).abs().unsqueeze(1)  # [N, 1, W]
        away_y = (self.axis - pen[:, 1:]).abs().unsqueeze(2)  # [N, H, 1]
        distance = torch.maximum(away_x, away_y).float().masked_fill(~wanted, torch.inf).flatten(1)
        cell = distance.argmin(1)
        goal = torch.stack([cell % self.size, cell // self.size], 1)
        goal = torch.where(distance.amin(1, keepdim=True).isinf(), pen.long(), goal)
        step = (goal - pen).clamp(-self.reach, self.reach) + self.reach
        return step[:, 1] * self.side + step[:, 0]

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        plane, _, end = self._decode(pen, action)
        start, stop = pen.float(), end.float()
        width = self.width_of[(plane - 1).clamp(min=0) % len(self.widths)]
        points = torch.stack([start, (start + stop) / 2, stop], 1)
        return Stroke(points, width, self._ink(plane).float() / 255, torch.ones_like(width), plane > 0)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()

    def _ink(self, plane: Tensor) -> Tensor:
        return self.inks[(plane - 1).clamp(min=0) // len(self.widths)]

    def _decode(self, pen: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Plane [N], move [N], and the pen's end [N, 2]."""
        plane, move = action // self.side**2, action % self.side**2
        delta = torch.stack([move % self.side, move // self.side], 1) - self.reach
        return plane, move, (pen + delta).clamp(*self.pen_range).to(torch.int16)

    def _windows(self, line: str) -> Tensor:
        """Every move's line around its start, in a window whose outermost cells are empty."""
        k, middle = 2 * self.middle + 1, float(self.middle)
        rows = []
        for width in self.widths:
            for dy in range(-self.reach, self.reach + 1):
                for dx in range(-self.reach, self.reach + 1):
                    if line == "pixel":
                        inner = pixel_line(dx, dy, self.reach, int(width))
                        border = (k - inner.shape[0]) // 2
                        rows.append(torch.nn.functional.pad(inner, [border] * 4))
                    else:
                        start = torch.tensor([[middle, middle]])
                        end = start + torch.tensor([[dx, dy]])
                        rows.append(segment(start, end, torch.tensor([width]), k)[0])
        return (torch.stack(rows) * 255).round().to(torch.uint8).view(len(self.widths), self.side**2, k, k)


class GridTool:
    """The pen moves to any point of a grid × grid lattice, in a straight line or a quadratic Bézier arc.

    Action = plane·grid² + row·grid + column; plane 0 is pen up, the others draw with each ink, bend and width. A bend
    b puts the control point b·chord to the left of the chord's middle. The lattice leaves `margin` pixels
    free. Strokes are looked up in a table when it fits.
    """

    def __init__(
        self, size: int, palette: Tensor, grid: int, margin: int, widths: list[float], bends: list[float]
    ) -> None:
        require(0 <= 2 * margin < size - 1, f"margin: must be from 0 to {(size - 2) // 2}, got {margin}.")
        require(2 <= grid <= size, f"grid: must be from 2 to env.size = {size}, got {grid}.")
        self.size, self.grid, self.device = size, grid, palette.device
        self.inks = palette[1:]
        kinds = [(bend, width) for bend in bends for width in widths]
        self.kinds = torch.tensor(kinds, device=self.device)  # [B·W, 2]
        self.straight = not any(bends)
        planes = 1 + len(self.inks) * len(kinds)
        self.action = Discrete(planes * grid**2, (planes, grid, grid))
        self.pen_range = (0, grid - 1)
        self.axis = torch.linspace(margin, size - 1 - margin, grid, device=self.device)
        self.table = self._table() if len(kinds) * grid**4 * size**2 <= TABLE_BYTES else None

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        plane, cell = action // self.grid**2, action % self.grid**2
        kind = (plane - 1).clamp(min=0) % len(self.kinds)
        start = pen[:, 1].long() * self.grid + pen[:, 0]
        opacity = self._draw(kind, start, cell) if self.table is None else self._look_up(kind, start, cell)
        drawn = plane > 0
        end = torch.stack([cell % self.grid, cell // self.grid], 1).to(torch.int16)
        return Mark(opacity * drawn.view(-1, 1, 1), self._ink(plane), end, drawn)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        plane, cell = action // self.grid**2, action % self.grid**2
        kind = (plane - 1).clamp(min=0) % len(self.kinds)
        points = self._points(kind, pen[:, 1].long() * self.grid + pen[:, 0], cell)
        width = self.kinds[kind, 1]
        return Stroke(points, width, self._ink(plane).float() / 255, torch.ones_like(width), plane > 0)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return self.axis[pen.long()]

    def _ink(self, plane: Tensor) -> Tensor:
        return self.inks[(plane - 1).clamp(min=0) // len(self.kinds)]

    def _points(self, kind: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Start, control and end in pixels, [N, 3, 2], of strokes between lattice cells."""
        a = torch.stack([self.axis[start % self.grid], self.axis[start // self.grid]], 1)
        b = torch.stack([self.axis[end % self.grid], self.axis[end // self.grid]], 1)
        chord = b - a
        left = torch.stack([chord[:, 1], -chord[:, 0]], 1)
        return torch.stack([a, (a + b) / 2 + self.kinds[kind, :1] * left, b], 1)

    def _draw(self, kind: Tensor, start: Tensor, end: Tensor) -> Tensor:
        points, width = self._points(kind, start, end), self.kinds[kind, 1]
        if self.straight:
            alpha = segment(points[:, 0], points[:, 2], width, self.size)
        else:
            alpha = bezier(points, width, self.size)
        return (alpha * 255).round().to(torch.uint8)

    def _look_up(self, kind: Tensor, start: Tensor, end: Tensor) -> Tensor:
        assert self.table is not None
        return self.table[(kind * self.grid**2 + start) * self.grid**2 + end].view(-1, self.size, self.size)

    def _table(self) -> Tensor:
        """Uint8 [kinds · grid² · grid², H·W]."""
        cells = torch.arange(self.grid**2, device=self.device)
        rows = []
        for kind in range(len(self.kinds)):
            for start in range(self.grid**2):
                rows.append(self._draw(torch.full_like(cells, kind), torch.full_like(cells, start), cells).flatten(1))
        return torch.cat(rows)


class Touch(NamedTuple):
    """A decoded brush action."""

    points: Tensor  # float [N, 3, 2], start, control, end in pixels
    width: Tensor  # float [N], pixels
    opacity: Tensor  # float [N]
    ink: Tensor  # int64 [N]
    pen: Tensor  # int16 [N, 2], afterwards
    drawn: Tensor  # bool [N]

    def mark(self, inks: Tensor, size: int) -> Mark:
        alpha = bezier(self.points, self.width, size) * (self.opacity * self.drawn).view(-1, 1, 1)
        return Mark((alpha * 255).round(), inks[self.ink], self.pen, self.drawn)

    def stroke(self, inks: Tensor) -> Stroke:
        return Stroke(self.points, self.width, inks[self.ink].float() / 255, self.opacity, self.drawn)


class BrushTool:
    """SPIRAL's brush: eight decisions a step (Ganin et al. 2018, section 4.1).

    Action = (x, y, control x, control y, width, pressure, colour, pen): a quadratic Bézier from where the pen is to
    the lattice point (x, y); `levels` widths from the smallest to the largest and as many pressures (opacities, up to
    1); pen 0 moves without drawing.
    """

    def __init__(self, size: int, palette: Tensor, grid: int, margin: int, widths: list[float], levels: int) -> None:
        require(0 <= 2 * margin < size - 1, f"margin: must be from 0 to {(size - 2) // 2}, got {margin}.")
        require(2 <= grid <= size, f"grid: must be from 2 to env.size = {size}, got {grid}.")
        require(levels >= 1, f"levels: must be at least 1, got {levels}.")
        self.size, self.inks = size, palette[1:]
        self.action = Factored((grid, grid, grid, grid, levels, levels, len(self.inks), 2))
        self.pen_range = (0, grid - 1)
        self.axis = torch.linspace(margin, size - 1 - margin, grid, device=palette.device)
        # One level is the largest width and full pressure.
        self.width_of = torch.linspace(max(widths), min(widths), levels, device=palette.device).flip(0)
        self.pressure_of = torch.linspace(1.0, 1 / levels, levels, device=palette.device).flip(0)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        return self._touch(pen, action).mark(self.inks, self.size)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        return self._touch(pen, action).stroke(self.inks)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return self.axis[pen.long()]

    def _touch(self, pen: Tensor, action: Tensor) -> Touch:
        points = torch.stack([self.pen_xy(pen), self.axis[action[:, 2:4]], self.axis[action[:, :2]]], 1)
        width, pressure = self.width_of[action[:, 4]], self.pressure_of[action[:, 5]]
        return Touch(points, width, pressure, action[:, 6], action[:, :2].to(torch.int16), action[:, 7] > 0)


class FreeBrushTool:
    """The brush with free points, widths and pressures: action = (colour, pen; x, y, control x, control y, width,
    pressure), two whole numbers and six in [0, 1]."""

    UNITS = 64  # of the pen's position, per pixel

    def __init__(self, size: int, palette: Tensor, margin: int, widths: list[float]) -> None:
        require(0 <= 2 * margin < size - 1, f"margin: must be from 0 to {(size - 2) // 2}, got {margin}.")
        self.size, self.inks, self.narrow, self.wide = size, palette[1:], min(widths), max(widths)
        self.low, self.span = float(margin), float(size - 1 - 2 * margin)
        self.action = Mixed(Factored((len(self.inks), 2)), Continuous(6))
        self.pen_range = (margin * self.UNITS, (size - 1 - margin) * self.UNITS)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        return self._touch(pen, action).mark(self.inks, self.size)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        return self._touch(pen, action).stroke(self.inks)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float() / self.UNITS

    def _touch(self, pen: Tensor, action: Tensor) -> Touch:
        free = action[:, 2:].clamp(0, 1)
        end, control = self.low + self.span * free[:, :2], self.low + self.span * free[:, 2:4]
        width = self.narrow + (self.wide - self.narrow) * free[:, 4]
        after = (end * self.UNITS).round().to(torch.int16)
        points = torch.stack([self.pen_xy(pen), control, self.pen_xy(after)], 1)
        return Touch(points, width, free[:, 5], action[:, 0].long(), after, action[:, 1] > 0)


class StrokeTool:
    """A free quadratic Bézier: action = (x0, y0, x1, y1, x2, y2, width, opacity, colour…) in [0, 1].

    `edge` is how many pixels its rim takes to fade. Differentiable: opacity and colour are rounded to whole numbers as
    on every canvas, and gradients pass the rounding unchanged (straight through).
    """

    pen_range = (0, 0)

    def __init__(self, size: int, channels: int, widths: list[float], edge: float, device: torch.device) -> None:
        require(edge > 0, f"edge: must be above 0, got {edge}.")
        self.size, self.narrow, self.wide, self.edge = size, min(widths), max(widths), edge
        self.inks = torch.full((1, channels), 255, dtype=torch.uint8, device=device)
        self.action = Continuous(8 + channels)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        stroke = self.stroke(pen, action)
        alpha = bezier(stroke.points, stroke.width, self.size, self.edge) * stroke.opacity.view(-1, 1, 1)
        return Mark(round_through(alpha * 255), round_through(stroke.colour * 255), pen, stroke.drawn)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        action = action.clamp(0, 1)
        points = action[:, :6].view(-1, 3, 2) * self.size - 0.5  # from border to border, whatever the size
        width = self.narrow + (self.wide - self.narrow) * action[:, 6]
        return Stroke(points, width, action[:, 8:], action[:, 7], torch.ones_like(width, dtype=torch.bool))

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()


def round_through(x: Tensor) -> Tensor:
    """`x` rounded; its gradient is that of `x` (the straight-through estimator)."""
    return x + (x.round() - x).detach()
