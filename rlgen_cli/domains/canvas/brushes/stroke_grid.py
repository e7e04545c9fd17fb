"""Arcs between the points of a lattice."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Discrete, Stroke, Tip
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.canvas.brushes.brush import Mark, check_patch_size, line_widths
from rlgen_cli.domains.canvas.brushes.lattice import Lattice
from rlgen_cli.domains.canvas.rasteriser import bezier, segment

TABLE_BYTES = 64 * 2**20  # strokes between lattice points are looked up when all of them fit into this


class StrokeGrid:
    """The pen moves to any point of a lattice, up or down, in a straight line or a quadratic Bézier arc.

    Action = plane·grid² + row·grid + column; plane 0 is pen up, the others draw with each colour but the background,
    each bend, and each width. Strokes are looked up in a table when it fits.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; colour 0 is the background.
        grid: lattice points a side.
        margin: pixels that the lattice leaves free at the border.
        widths: of lines, pixels, or auto: one, as wide as the lines of the data's pictures.
        data: these pictures, on the CPU.
        bends: where control points may lie: a bend b puts it b·chord to the left of the chord's middle.
        patch_size: side of the close view around the pen, odd, or 0 for none.

    Raises:
        UserError: for a value out of range.
    """

    differentiable = False
    exact_palette = False
    tip = Tip()

    def __init__(
        self,
        *,
        size: int,
        palette: Tensor,
        grid: int,
        margin: int,
        widths: list[float] | Literal["auto"],
        data: Splits,
        bends: list[float],
        patch_size: int,
    ) -> None:
        require(len(bends) > 0, "bends: must hold at least one number; [0.0] draws straight lines.")
        check_patch_size(patch_size)
        self.size, self.grid, self.patch_size = size, grid, patch_size
        self.lattice = Lattice(size, grid, margin, palette.device)
        self.pen_range, self.inks = self.lattice.pen_range, palette[1:]
        lines = [(float(bend), width) for bend in bends for width in line_widths(widths, data, palette)]
        # Drawn on the CPU, whatever the device, so that a device that holds no data (meta) can be used.
        strokes = LatticeStrokes(Lattice(size, grid, margin, torch.device("cpu")).axis, torch.tensor(lines), size)
        fits = len(lines) * grid**4 * size**2 <= TABLE_BYTES
        straight = not any(bends)
        self.table = strokes.draw_all(straight).to(palette.device) if fits else None
        self.strokes, self.straight = strokes.to(palette.device), straight
        planes = 1 + len(self.inks) * len(lines)
        self.action = Discrete(planes * grid**2, (planes, grid, grid))

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        plane, cell = action // self.grid**2, action % self.grid**2
        opacity = self._opacity(self._line_index(plane), self._cell(pen), cell)
        drawn = plane > 0
        end = torch.stack([cell % self.grid, cell // self.grid], 1).to(torch.int16)
        return Mark(opacity * drawn.view(-1, 1, 1), self._ink(plane), end, drawn)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        plane, cell = action // self.grid**2, action % self.grid**2
        line = self._line_index(plane)
        points, width = self.strokes.points(line, self._cell(pen), cell), self.strokes.lines[line, 1]
        return Stroke(points, width, self._ink(plane).float() / 255, torch.ones_like(width), plane > 0)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return self.lattice.pen_xy(pen)

    def _cell(self, pen: Tensor) -> Tensor:
        return pen[:, 1].long() * self.grid + pen[:, 0]

    def _line_index(self, plane: Tensor) -> Tensor:
        return (plane - 1).clamp(min=0) % len(self.strokes.lines)

    def _ink(self, plane: Tensor) -> Tensor:
        return self.inks[(plane - 1).clamp(min=0) // len(self.strokes.lines)]

    def _opacity(self, line: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Of strokes between lattice cells, uint8 [N, H, W]."""
        if self.table is None:
            return self.strokes.draw(line, start, end, self.straight)
        row = (line * self.grid**2 + start) * self.grid**2 + end
        return self.table[row].view(-1, self.size, self.size)


class LatticeStrokes(NamedTuple):
    """All strokes that a lattice allows; cells are row · grid + column."""

    axis: Tensor  # float [grid], pixels
    lines: Tensor  # float [lines, 2], bend and width
    size: int  # of the canvas

    def points(self, line: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Start, control and end in pixels, [N, 3, 2], of strokes between lattice cells."""
        grid = len(self.axis)
        a = torch.stack([self.axis[start % grid], self.axis[start // grid]], 1)
        b = torch.stack([self.axis[end % grid], self.axis[end // grid]], 1)
        chord = b - a
        left = torch.stack([chord[:, 1], -chord[:, 0]], 1)
        return torch.stack([a, (a + b) / 2 + self.lines[line, :1] * left, b], 1)

    def draw(self, line: Tensor, start: Tensor, end: Tensor, straight: bool) -> Tensor:
        """Opacity, uint8 [N, H, W]; `straight` when no line bends, which is cheaper."""
        points, width = self.points(line, start, end), self.lines[line, 1]
        ends = points[:, 0], points[:, 2]
        alpha = segment(*ends, width, self.size) if straight else bezier(points, width, self.size)
        return (alpha * 255).round().to(torch.uint8)

    def draw_all(self, straight: bool) -> Tensor:
        """All of them, uint8 [lines · grid² · grid², H·W]."""
        cells = torch.arange(len(self.axis) ** 2)
        rows = []
        for line in range(len(self.lines)):
            for start in range(len(cells)):
                chunk = self.draw(torch.full_like(cells, line), torch.full_like(cells, start), cells, straight)
                rows.append(chunk.flatten(1))
        return torch.cat(rows)

    def to(self, device: torch.device) -> "LatticeStrokes":
        return LatticeStrokes(self.axis.to(device), self.lines.to(device), self.size)
