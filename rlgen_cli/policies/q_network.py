"""Q-networks: a body, perhaps a recurrent part, and an output per action; or maps with a value for every grid point."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.specs import Carry, Discrete, Factored, Observation, ObservationSpec, of_kind
from rlgen_cli.policies.encoders import Maps, prepared
from rlgen_cli.policies.policy_network import kind_of, map_grid
from rlgen_cli.policies.precision import Precision


class QOutput(NamedTuple):
    """What a Q-network says about T · N observations, step by step."""

    q: Tensor  # float32 [T · N, A]
    carry: Carry  # after the last step


class QNetwork(nn.Module):
    """Q-values of N observations; of factored actions, each decision's values side by side (branches).

    Args:
        observation, action: what goes in and what is chosen from.
        precision, body, recurrent, maps: as in policy_network.PolicyNetwork.
        dueling: value and advantage streams (Wang et al. 2016, eq. 9), in every branch (Tavakoli et al. 2018, eq. 1).

    Where the observation has action gains, they are added to the Q-values: the network learns the rest, what follows.
    """

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: Discrete | Factored,
        precision: Precision,
        dueling: bool,
        body: Callable[..., nn.Module],
        recurrent: Callable[..., nn.Module] | None,
        maps: Callable[..., Maps] | None,
    ) -> None:
        super().__init__()
        self.precision, self.sizes = precision, branches(action)
        self.gains = tuple(of_kind(observation, "action_gain"))
        self.maps, self.body, self.recurrent = None, None, None
        grid = map_grid(action, recurrent is not None)
        if maps is not None and grid is not None:
            self.maps = maps(observation=observation, grid=grid)
            features, outputs = (
                self.maps.features,
                sum(self.sizes) - grid[0] * grid[1] * grid[2],
            )  # what lies off the grid
        else:
            self.body = body(observation=observation)
            features, outputs = int(self.body.features), sum(self.sizes)  # type: ignore[arg-type]
            if recurrent is not None:
                self.recurrent = recurrent(features=features)
                features = int(self.recurrent.features)  # type: ignore[arg-type]
        self.kind = kind_of(self.maps, self.recurrent, self.body)
        self.out = nn.Linear(features, outputs) if outputs else None
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        self.value = nn.Linear(features, 1) if dueling else None

    def initial_carry(self, n: int) -> Carry:
        """The memory at the start of N episodes."""
        return self.recurrent.initial_carry(n) if self.recurrent is not None else None  # type: ignore[operator]

    def prepare(self, observation: Observation) -> Observation:
        """The observation as passes read it (encoders.py)."""
        return prepared(self.maps if self.maps is not None else self.body, observation)

    def forward(self, observation: Observation, carry: Carry, start: Tensor) -> QOutput:
        """Q in T · N states, given as T steps of N environments; `start` as in PolicyNetwork."""
        maps = []  # values of actions on a grid
        with self.precision.autocast(start.device.type, self.kind):
            if self.maps is not None:
                features, on_grid = self.maps(observation)
                maps = [on_grid.float()]
            else:
                assert self.body is not None
                features = self.body(observation)
                if self.recurrent is not None:
                    features, carry = self.recurrent(features.view(*start.shape, -1), carry, start)
                    features = features.flatten(0, 1)
        features = features.float()
        q = torch.cat([*maps, self.out(features)], 1) if self.out is not None else maps[0]
        if self.value is not None:
            advantages = [part - part.mean(1, keepdim=True) for part in q.split(self.sizes, 1)]
            q = self.value(features) + torch.cat(advantages, 1)
        for name in self.gains:
            q = q + observation[name]
        return QOutput(q, carry)


def branches(action: Discrete | Factored) -> list[int]:
    """How many values each decision of an action has."""
    return [action.n] if isinstance(action, Discrete) else list(action.sizes)
