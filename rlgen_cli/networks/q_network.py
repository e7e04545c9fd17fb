"""Q-networks: a perceptron with an output per action, or spatial maps with a value for every grid point."""

from typing import Literal

import torch
from torch import Tensor, nn

from rlgen_cli.errors import require
from rlgen_cli.networks.bodies import Maps, Perceptron
from rlgen_cli.types import Discrete, Factored, Observation, ObservationSpec


class QNetwork(nn.Module):
    """Q-values [N, A] of N observations; of factored actions, each decision's values side by side (branches).

    Args:
        observation, action: what goes in and what is chosen from.
        head: plain (a multilayer perceptron), maps (convolutions that end in one value per grid point), or auto:
            maps where the actions lie on a grid.
        width, layers: hidden layers of the plain head and their units.
        channels, depth: convolutions of the maps and their channels.
        pool: the plain head sees the picture reduced by this factor; the close view around the pen stays sharp.
        dueling: value and advantage streams (Wang et al. 2016, eq. 9), in every branch (Tavakoli et al. 2018, eq. 1).

    Where the observation has a preview, it is added to the Q-values: the network learns the rest, what follows.
    """

    gives = "q"

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: Discrete | Factored,
        dueling: bool,
        head: Literal["auto", "plain", "maps"],
        width: int,
        layers: int,
        pool: int,
        channels: int,
        depth: int,
    ) -> None:
        super().__init__()
        grid = action.grid if isinstance(action, Discrete) else None
        require(head != "maps" or grid is not None, "head: maps need actions that lie on a grid; use plain.")
        self.sizes = branches(action)
        self.maps, self.plain = None, None
        if grid is not None and head != "plain":
            self.maps = Maps(observation=observation, grid=grid, channels=channels, depth=depth)
            features, outputs = channels, sum(self.sizes) - grid[0] * grid[1] * grid[2]  # what lies off the grid
        else:
            self.plain = Perceptron(observation=observation, width=width, layers=layers, pool=pool)
            features, outputs = width, sum(self.sizes)
        self.out = nn.Linear(features, outputs) if outputs else None
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        self.value = nn.Linear(features, 1) if dueling else None

    def forward(self, observation: Observation) -> Tensor:
        if self.maps is not None:
            features, q = self.maps(observation)
            q = torch.cat([q, self.out(features)], 1) if self.out is not None else q
        else:
            assert self.plain is not None
            assert self.out is not None
            features = self.plain(observation)
            q = self.out(features)
        if self.value is not None:
            advantages = [part - part.mean(1, keepdim=True) for part in q.split(self.sizes, 1)]
            q = self.value(features) + torch.cat(advantages, 1)
        return q + observation.preview if observation.preview.shape[1] else q


def branches(action: Discrete | Factored) -> list[int]:
    """How many values each decision of an action has."""
    return [action.n] if isinstance(action, Discrete) else list(action.sizes)
