"""A bar chart, bar by bar."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Discrete, EnvSpec, Observation, PictureSpec, View, vector


class NewEnvState(NamedTuple):
    """Everything there is to know about N episodes; every tensor begins with N."""

    heights: Tensor  # int16 [N, W], 0 where no bar stands yet
    step: Tensor  # int16 [N]


class NewEnv:
    """`width` bars from left to right; an action is the height of the next one.

    Args:
        device: where tensors lie; the program gives it.
        width: bars, and pixels a side; from the YAML.
    """

    def __init__(self, *, device: torch.device, width: int) -> None:
        self.width, self.device = width, device
        self.columns = torch.arange(width, device=device)
        self.spec = EnvSpec(
            observation={"heights": vector(width, 0.0, 1.0), "time": vector(1, 0.0, 1.0)},
            action=Discrete(width + 1),
            sample=PictureSpec(1, width, width),
            max_steps=width,
        )

    def reset(self, n: int, rng: torch.Generator) -> NewEnvState:
        """N episodes that begin."""
        heights = torch.zeros(n, self.width, dtype=torch.int16, device=self.device)
        return NewEnvState(heights, heights[:, 0].clone())

    def step(self, state: NewEnvState, action: Tensor) -> NewEnvState:
        """The states after `action`, int64 [N]; a finished episode stays as it is."""
        here = self.columns == state.step.unsqueeze(1)  # bool [N, W]; nowhere once the chart is finished
        heights = torch.where(here, action.unsqueeze(1).to(torch.int16), state.heights)
        return NewEnvState(heights, (state.step + 1).clamp(max=self.width))

    def done(self, state: NewEnvState) -> Tensor:
        """Which episodes are over, bool [N]."""
        return state.step >= self.width

    def observe(self, state: NewEnvState) -> Observation:
        """What the policy sees: the tensors that the spec names, [N, …] each."""
        return {"heights": state.heights / self.width, "time": 1 - state.step.unsqueeze(1) / self.width}

    def view(self, state: NewEnvState) -> View:
        """What rewards see: the sample, pictures [N, C, H, W] in [0, 1], and what is fixed for an episode."""
        rows = self.columns.flip(0).view(-1, 1)  # the lowest row last
        chart = rows < state.heights.unsqueeze(1)  # bool [N, W, W]
        return View(chart.float().unsqueeze(1), {}, {})

    def action_mask(self, state: NewEnvState) -> Tensor | None:
        """Which actions are allowed, bool [N, A]; None where all are."""
        return None
