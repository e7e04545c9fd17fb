"""Policy networks: a body, perhaps a memory, a head over the action space, and a value."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.policies.encoders import Maps
from rlgen_cli.policies.distributions import Categorical, Distribution, Head
from rlgen_cli.core.types import ActionSpec, Carry, Discrete, Observation, ObservationSpec


class Output(NamedTuple):
    """What a policy network says about T · N observations, step by step."""

    policy: Distribution
    value: Tensor  # [T · N]
    carry: Carry  # after the last step


class PolicyNetwork(nn.Module):
    """π(· | s) and V(s) from shared features.

    Args:
        observation, action: what goes in and what is decided.
        body: builds what turns observations into features (bodies.py, vae.py), from the observation's spec.
        memory: builds a memory within the episode (sequence.py) from the number of features, or null.
        head: plain (from the features), maps (convolutions that end in one logit per grid point; they take the body's
            place), or auto: maps where the actions lie on a grid and there is no memory.
        channels, depth: convolutions of the maps.
        order, continuous, std: see distributions.Head.
        spread: the head's first weights have this standard deviation divided by √features; small is near uniform.
        dropout: share of the features that training (of agents that imitate) leaves out before head and value.

    Where the observation has a preview, it is added to the logits: the policy starts as the Boltzmann policy of what
    actions gain at once.
    """

    gives = "policy"

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: ActionSpec,
        body: Callable[..., nn.Module],
        memory: Callable[..., nn.Module] | None,
        head: Literal["auto", "plain", "maps"],
        channels: int,
        depth: int,
        order: Literal["independent", "autoregressive"],
        continuous: Literal["gaussian", "beta"],
        std: float,
        spread: float,
        dropout: float,
    ) -> None:
        super().__init__()
        require(std > 0, f"std: must be above 0, got {std}.")
        require(spread > 0, f"spread: must be above 0, got {spread}.")
        require(0.0 <= dropout < 1.0, f"dropout: must be in [0, 1), got {dropout}.")
        self.dropout = nn.Dropout(dropout)
        grid = action.grid if isinstance(action, Discrete) else None
        require(head != "maps" or grid is not None, "head: maps need actions that lie on a grid; use plain.")
        require(head != "maps" or memory is None, "head: maps have no memory; use plain with a memory.")
        self.maps, self.body, self.memory, self.spare = None, None, None, None
        if isinstance(action, Discrete) and grid is not None and head != "plain" and memory is None:
            self.maps = Maps(observation=observation, grid=grid, channels=channels, depth=depth)
            features, off_grid = channels, action.n - grid[0] * grid[1] * grid[2]
            self.spare = nn.Linear(features, off_grid) if off_grid else None
        else:
            self.body = body(observation=observation)
            features = int(self.body.features)  # type: ignore[arg-type]
            if memory is not None:
                self.memory = memory(features=features)
                features = int(self.memory.features)  # type: ignore[arg-type]
            self.head = Head(action, features, order, continuous, std, spread)
        self.value = nn.Linear(features, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def carry(self, n: int) -> Carry:
        """The memory at the start of N episodes."""
        return self.memory.fresh(n) if self.memory is not None else None  # type: ignore[operator]

    def forward(self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor) -> Output:
        """What to do in T · N states, given as T steps of N environments.

        Args:
            mask: bool [T · N, A] of allowed actions, or None.
            carry: the memory before the first step. start: bool [T, N], true where a step begins a new episode.
        """
        if self.maps is not None:
            features, logits = self.maps(observation)
            logits = torch.cat([logits, self.spare(features)], 1) if self.spare is not None else logits
            policy: Distribution = Categorical(_allowed(logits.float(), observation.preview, mask))
            return Output(policy, self.value(features).float().squeeze(1), None)
        assert self.body is not None
        features = self.body(observation)
        if self.memory is not None:
            features, carry = self.memory(features.view(*start.shape, -1), carry, start)
            features = features.flatten(0, 1)
        features = self.dropout(features)
        with torch.autocast(features.device.type, enabled=False):  # densities want float32
            policy = self.head(features.float())
            if isinstance(policy, Categorical) and (mask is not None or observation.preview.shape[1]):
                policy = Categorical(_allowed(policy.log_p, observation.preview, mask))
            return Output(policy, self.value(features.float()).squeeze(1), carry)


def _allowed(logits: Tensor, preview: Tensor, mask: Tensor | None) -> Tensor:
    """Logits [N, A] with the preview added and forbidden actions at −∞."""
    logits = logits + preview if preview.shape[1] else logits
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)
