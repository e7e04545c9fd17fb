"""The smallest canvas: ink the cells of a pattern. Every agent must solve it in seconds, so the tests use it.

When to use it: in tests, and to see within seconds that an agent of your own learns. It makes nothing worth looking
at.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Discrete, EnvSpec, Observation, PictureSpec, TensorSpec, View, image, vector


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
        picture = image(1, size, size)
        self.spec = EnvSpec(
            observation={"canvas": picture, "target": picture, "time": vector(1, 0.0, 1.0)},
            action=Discrete(size * size, (1, size, size)),
            sample=PictureSpec(1, size, size),
            max_steps=cells,
            context={"target": picture},
            info={"num_marks": TensorSpec("label", (), 0, cells + 1)},
        )

    def reset(self, n: int, rng: torch.Generator) -> TinyState:
        order = torch.rand(n, self.size**2, generator=rng, device=self.device).argsort(1)
        target = (order < self.cells).to(torch.uint8).view(n, 1, self.size, self.size) * 255
        return TinyState(torch.zeros_like(target), target, torch.zeros(n, dtype=torch.int16, device=self.device))

    def step(self, state: TinyState, action: Tensor) -> TinyState:
        going = ~self.done(state)
        cells = torch.arange(self.size**2, device=self.device)
        hit = (action.unsqueeze(1) == cells).view_as(state.canvas)
        canvas = torch.where(hit & going.view(-1, 1, 1, 1), 255, state.canvas).to(torch.uint8)
        return TinyState(canvas, state.target, state.step + going)

    def done(self, state: TinyState) -> Tensor:
        return state.step >= self.cells

    def observe(self, state: TinyState) -> Observation:
        return {"canvas": state.canvas, "target": state.target, "time": 1 - state.step.unsqueeze(1) / self.cells}

    def view(self, state: TinyState) -> View:
        target = state.target.float() / 255
        return View(state.canvas.float() / 255, {"target": target}, {"num_marks": state.step.long()})

    def action_mask(self, state: TinyState) -> Tensor | None:
        return None
