"""Policy networks: a body, perhaps a recurrent part, a head over the action space, and a value."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import ActionSpec, Carry, Continuous, Discrete, Normal, Observation, ObservationSpec, of_kind
from rlgen_cli.policies.denoiser import Denoiser
from rlgen_cli.policies.distributions import Categorical, Distribution, Head, UnitNormal
from rlgen_cli.policies.encoders import Cells, Maps, prepared
from rlgen_cli.policies.precision import Precision, full_precision


class Output(NamedTuple):
    """What a policy network says about T · N observations, step by step."""

    policy: Distribution
    value: Tensor  # [T · N]
    carry: Carry  # after the last step


class PolicyNetwork(nn.Module):
    """π(· | s) and V(s) from shared features.

    Args:
        observation, action: what goes in and what is decided.
        precision: of the passes; densities and values are float32.
        body: builds what turns observations into features (encoders.py, autoencoder.py), from the observation's spec.
        recurrent: builds a memory within the episode (recurrent.py) from the number of features, or null.
        maps: builds convolutions that end in one logit per grid point (encoders.Maps); they take the body's place where
            the actions lie on a grid and there is no recurrent part. Null: the body everywhere.
        denoiser: builds a diffusion model's own network (denoiser.py), which takes the place of all of these where
            actions are the noise of a picture. Null: a network of its own.
        order, continuous, std, init_scale: see distributions.Head.
        dropout: share of the features that training (of agents that imitate) leaves out before head and value.

    Where the observation has action gains, they are added to the logits: the policy starts as the Boltzmann policy of
    what actions gain at once.
    """

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: ActionSpec,
        precision: Precision,
        body: Callable[..., nn.Module],
        recurrent: Callable[..., nn.Module] | None,
        maps: Callable[..., Maps] | None,
        denoiser: Callable[..., Denoiser] | None,
        order: Literal["independent", "autoregressive"],
        continuous: Literal["gaussian", "beta"],
        std: float,
        init_scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        require(std > 0, f"std: must be above 0, got {std}.")
        require(init_scale > 0, f"init_scale: must be above 0, got {init_scale}.")
        require(0.0 <= dropout < 1.0, f"dropout: must be in [0, 1), got {dropout}.")
        self.precision, self.dropout = precision, nn.Dropout(dropout)
        self.gains = tuple(of_kind(observation, "action_gain"))
        self.maps, self.body, self.recurrent, self.off_grid, self.denoiser = None, None, None, None, None
        grid = map_grid(action, recurrent is not None)
        if denoiser is not None:
            require(
                isinstance(action, Normal),
                "denoiser: needs a step's noise as action, as in env=diffusion; use network=mlp here.",
            )
            self.denoiser = denoiser(observation=observation, action=action)
            features = self.denoiser.features
        elif maps is not None and grid is not None:
            assert isinstance(action, Discrete)
            self.maps = maps(observation=observation, grid=grid)
            features, rest = self.maps.features, action.n - grid[0] * grid[1] * grid[2]
            self.off_grid = nn.Linear(features, rest) if rest else None
        else:
            self.body = body(observation=observation)
            features = int(self.body.features)  # type: ignore[arg-type]
            if recurrent is not None:
                self.recurrent = recurrent(features=features)
                features = int(self.recurrent.features)  # type: ignore[arg-type]
            cells = cells_of(self.body, action) if recurrent is None else 1
            self.head = Head(action, features, order, continuous, std, init_scale, cells)
        self.kind = kind_of(self.denoiser, self.maps, self.recurrent, self.body)
        self.value = nn.Linear(features, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def initial_carry(self, n: int) -> Carry:
        """The memory at the start of N episodes."""
        part = self.denoiser if self.denoiser is not None else self.recurrent
        return part.initial_carry(n) if part is not None else None  # type: ignore[operator]

    def prepare(self, observation: Observation) -> Observation:
        """The observation as passes read it (encoders.py)."""
        return prepared(self.maps if self.maps is not None else self.body, observation)

    def forward(self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor) -> Output:
        """What to do in T · N states, given as T steps of N environments.

        Args:
            mask: bool [T · N, A] of allowed actions, or None.
            carry: the memory before the first step. start: bool [T, N], true where a step begins a new episode.
        """
        if self.denoiser is not None:  # always in float32: a mean action is a small difference of two estimates
            features, mean, carry = self.denoiser(observation, carry, start)
            return Output(UnitNormal(mean, self.denoiser.log_prob), self.value(features).squeeze(1), carry)
        with self.precision.autocast(start.device.type, self.kind):
            if self.maps is not None:
                features, logits = self.maps(observation)
                logits = torch.cat([logits, self.off_grid(features)], 1) if self.off_grid is not None else logits
                policy: Distribution = Categorical(self._allowed(logits.float(), observation, mask))
                with full_precision(start.device.type):
                    return Output(policy, self.value(features.float()).squeeze(1), None)
            assert self.body is not None
            features = self.body(observation)
            if self.recurrent is not None:
                features, carry = self.recurrent(features.view(*start.shape, -1), carry, start)
                features = features.flatten(0, 1)
            with full_precision(start.device.type):
                features = self.dropout(features.float())
                policy = self.head(features)
                if isinstance(policy, Categorical) and (mask is not None or self.gains):
                    policy = Categorical(self._allowed(policy.log_p, observation, mask))
                return Output(policy, self.value(features).squeeze(1), carry)

    def _allowed(self, logits: Tensor, observation: Observation, mask: Tensor | None) -> Tensor:
        """Logits [N, A] with the action gains added and forbidden actions at −∞."""
        for name in self.gains:
            logits = logits + observation[name]
        return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


def map_grid(action: ActionSpec, recurrent: bool) -> tuple[int, int, int] | None:
    """The grid of actions that maps could serve, or None."""
    return action.grid if isinstance(action, Discrete) and not recurrent else None


def cells_of(body: nn.Module, action: ActionSpec) -> int:
    """How many parts of the features each decide their own part of the action.

    Raises:
        UserError: for a body whose features belong to the cells of another grid than the action's.
    """
    found = action.cells if isinstance(action, Continuous) else 1
    if found == 1 or not isinstance(body, Cells):
        return 1
    wanted = f"_target_: these features belong to {body.cells} cells, and the action has {found}"
    require(body.cells == found, f"{wanted}; set env.size to env.brush.grid × {2**body.halvings}.")
    return body.cells


def kind_of(*parts: nn.Module | None) -> str:
    """The kind of a network, as precision is chosen by: that of its part with the most work, which comes first."""
    return next(str(part.kind) for part in parts if part is not None)
