"""The smallest canvas: ink the cells of a pattern. Every agent must solve it in seconds, so the tests use it."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.types import Context, Discrete, EnvSpec, Observation, ObservationSpec, View


class TinyState(NamedTuple):
    canvas: Tensor  # uint8 [N, 1, S, S], 0 or 255
    target: Tensor  # uint8 [N, 1, S, S], 0 or 255
    step: Tensor  # int16 [N]


class TinyCanvas:
    """`size` × `size` cells, `cells` of them wanted; each action inks one cell; `cells` actions make a picture."""

    def __init__(self, *, device: torch.device, size: int, cells: int) -> None:
        require(2 <= size <= 8, f"size: must be from 2 to 8, got {size}.")
        require(1 <= cells < size * size, f"cells: must be from 1 to {size * size - 1}, got {cells}.")
        self.size, self.cells, self.device = size, cells, device
        self.spec = EnvSpec(
            ObservationSpec((2, size, size), (0, 0, 0), 1, pictures=2),
            Discrete(size * size, (1, size, size)),
            (1, size, size),
            cells,
            frozenset(["target"]),
            classes=0,
        )

    def reset(self, n: int, rng: torch.Generator) -> TinyState:
        order = torch.rand(n, self.size**2, generator=rng, device=self.device).argsort(1)
        target = (order < self.cells).to(torch.uint8).view(n, 1, self.size, self.size) * 255
        return TinyState(torch.zeros_like(target), target, torch.zeros(n, dtype=torch.int16, device=self.device))

    def step(self, state: TinyState, action: Tensor) -> TinyState:
        going = ~self.done(state)
        hit = torch.nn.functional.one_hot(action, self.size**2).view_as(state.canvas).bool()
        canvas = torch.where(hit & going.view(-1, 1, 1, 1), 255, state.canvas).to(torch.uint8)
        return TinyState(canvas, state.target, state.step + going)

    def done(self, state: TinyState) -> Tensor:
        return state.step >= self.cells

    def observe(self, state: TinyState) -> Observation:
        image = torch.cat([state.canvas, state.target], 1).float() / 255
        none = image.new_zeros(len(image), 0)
        return Observation(image, image.new_zeros(len(image), 0, 0, 0), 1 - state.step.unsqueeze(1) / self.cells, none)

    def view(self, state: TinyState) -> View:
        return View(state.canvas.float() / 255, Context(target=state.target.float() / 255), state.step.long())

    def action_mask(self, state: TinyState) -> Tensor | None:
        return None
