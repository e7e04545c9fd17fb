"""Q-networks: a body, perhaps a memory, and an output per action; or spatial maps with a value for every grid point."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.policies.encoders import Maps
from rlgen_cli.core.types import Carry, Discrete, Factored, Observation, ObservationSpec


class Valued(NamedTuple):
    """What a Q-network says about T · N observations, step by step."""

    q: Tensor  # [T · N, A]
    carry: Carry  # after the last step


class QNetwork(nn.Module):
    """Q-values of N observations; of factored actions, each decision's values side by side (branches).

    Args:
        observation, action: what goes in and what is chosen from.
        body, memory, head, channels, depth: as in policy.PolicyNetwork.
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
        body: Callable[..., nn.Module],
        memory: Callable[..., nn.Module] | None,
        head: Literal["auto", "plain", "maps"],
        channels: int,
        depth: int,
    ) -> None:
        super().__init__()
        grid = action.grid if isinstance(action, Discrete) else None
        require(head != "maps" or grid is not None, "head: maps need actions that lie on a grid; use plain.")
        require(head != "maps" or memory is None, "head: maps have no memory; use plain with a memory.")
        self.sizes = branches(action)
        self.maps, self.body, self.memory = None, None, None
        if grid is not None and head != "plain" and memory is None:
            self.maps = Maps(observation=observation, grid=grid, channels=channels, depth=depth)
            features, outputs = channels, sum(self.sizes) - grid[0] * grid[1] * grid[2]  # what lies off the grid
        else:
            self.body = body(observation=observation)
            features, outputs = int(self.body.features), sum(self.sizes)  # type: ignore[arg-type]
            if memory is not None:
                self.memory = memory(features=features)
                features = int(self.memory.features)  # type: ignore[arg-type]
        self.out = nn.Linear(features, outputs) if outputs else None
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        self.value = nn.Linear(features, 1) if dueling else None

    def carry(self, n: int) -> Carry:
        """The memory at the start of N episodes."""
        return self.memory.fresh(n) if self.memory is not None else None  # type: ignore[operator]

    def forward(self, observation: Observation, carry: Carry, start: Tensor) -> Valued:
        """Q in T · N states, given as T steps of N environments; `start` as in PolicyNetwork."""
        if self.maps is not None:
            features, q = self.maps(observation)
            q = torch.cat([q, self.out(features)], 1) if self.out is not None else q
        else:
            assert self.body is not None
            assert self.out is not None
            features = self.body(observation)
            if self.memory is not None:
                features, carry = self.memory(features.view(*start.shape, -1), carry, start)
                features = features.flatten(0, 1)
            q = self.out(features)
        if self.value is not None:
            advantages = [part - part.mean(1, keepdim=True) for part in q.split(self.sizes, 1)]
            q = self.value(features) + torch.cat(advantages, 1)
        return Valued(q + observation.preview if observation.preview.shape[1] else q, carry)


def branches(action: Discrete | Factored) -> list[int]:
    """How many values each decision of an action has."""
    return [action.n] if isinstance(action, Discrete) else list(action.sizes)
