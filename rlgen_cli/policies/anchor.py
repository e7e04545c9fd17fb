"""A pretrained policy that an agent begins as and is kept close to: without one, reward goes up and diversity down."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.memory.rollouts import Segment
from rlgen_cli.policies.note_rnn import note_rnn_weights
from rlgen_cli.core.tree import plain, select, typed
from rlgen_cli.core.types import Carry, EnvSpec, Metrics, Observation


class Anchor:
    """A price β on log π(a|s) − log prior(a|s) at each step, whose mean over the policy's actions is the KL divergence.

    The price is part of the reward, so that the return's expectation is reward − β·KL of whole episodes.

    Args:
        prior: none; start (the policy as it was when training began); or the folder of a run or a checkpoint, or an
            `.npz` with a Note RNN, whose policy then is where training begins, too.
        network: the prior's, where it is not built like the policy (which then may see more); else null.
        coefficient: β, in units of reward per nat; with a `target`, where β begins.
        target: nats per step that β is driven to, or null for a fixed β.
        fresh: the training begins now, so that a run named as prior is read; else a checkpoint brings all weights.
        rate: how fast: β is multiplied by 1 + rate · clip(KL / target − 1, ±0.2) at each update (Ziegler et al. 2019,
            section 2.2).
    """

    def __init__(
        self,
        *,
        prior: Literal["none", "start"] | str,
        network: Callable[..., nn.Module] | None,
        coefficient: float,
        target: float | None,
        rate: float,
        fresh: bool,
    ) -> None:
        require(coefficient >= 0, f"coefficient: must be at least 0, got {coefficient}.")
        require(target is None or target > 0, f"target: must be above 0, or null for none, got {target}.")
        require(rate >= 0, f"rate: must be at least 0, got {rate}.")
        self.prior, self.coefficient, self.target, self.rate = prior, float(coefficient), target, float(rate)
        self.network, self.fresh = network, fresh
        self.net: nn.Module | None = None

    def attach(self, policy: nn.Module, build: Callable[[], nn.Module], num_envs: int, spec: EnvSpec) -> None:
        """Make a network built like `policy` (by `build`) or like `network` the prior; one from elsewhere is copied
        into `policy`, too."""
        if self.prior == "none":
            return
        device = next(policy.parameters()).device
        if self.network is None:
            frozen = build()
        else:
            frozen = self.network(observation=spec.observation, action=spec.action).to(device)
        if self.prior == "start":
            frozen.load_state_dict(policy.state_dict())
        elif self.fresh:
            weights = saved_weights(self.prior, "anchor.prior", device)
            adopt(frozen, weights, f"anchor.prior: {self.prior}")
            adopt(policy, weights, f"anchor.prior: {self.prior}")
        self.net = frozen.requires_grad_(False)
        self.beta = torch.full((), self.coefficient, device=device)
        self.carry: Carry = frozen.carry(num_envs)  # type: ignore[operator]

    def log_prob(
        self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor, action: Tensor
    ) -> tuple[Tensor, Carry]:
        """Log prior of the actions of T · N states, flat, and the prior's memory afterwards."""
        assert self.net is not None
        out = self.net(observation, mask, carry, start)
        return out.policy.judge(action)[0], out.carry

    @torch.no_grad()
    def charge(self, segment: Segment, said: Tensor, observation: Observation, mask: Tensor | None) -> Metrics:
        """The price of each step of a segment, [T, N], as `price`, and what to log; {} without a prior.

        `said` [T, N] are the log probabilities that the policy gave its actions. Segments must come in order, since a
        prior's own memory goes on from one to the next.
        """
        if self.net is None:
            return {}
        action = segment.action.flatten(0, 1)
        prior, carry = self.log_prob(observation, mask, self.carry, segment.starts(), action)
        self.carry = select(segment.terminated[-1], self.net.carry(said.shape[1]), carry)  # type: ignore[operator]
        excess = said - prior.view_as(said)
        metrics = {"price": self.beta * excess, "kl": excess.mean(), "beta": self.beta}
        self.adapt(metrics["kl"])
        return metrics

    def adapt(self, kl: Tensor) -> None:
        """Drive β towards the target, by the KL just measured."""
        if self.target is not None:
            self.beta = self.beta * (1 + self.rate * (kl / self.target - 1).clamp(-0.2, 0.2))

    def state_dict(self) -> dict[str, Any]:
        if self.net is None:
            return {}
        return {"net": self.net.state_dict(), "beta": self.beta, "carry": plain(self.carry)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.net is None:
            return
        self.net.load_state_dict(state["net"])
        self.beta, self.carry = state["beta"], typed(state["carry"], self.carry)


class Prior:
    """A pretrained policy whose weights a Q-network begins with, and which G-learning (dqn.py) departs from.

    Args:
        source: none; the folder of a run or a checkpoint; or an `.npz` with a Note RNN.
        network: the prior's, a policy network; null where it is not kept.
        fresh: as in Anchor.
    """

    def __init__(self, *, source: Literal["none"] | str, network: Callable[..., nn.Module] | None, fresh: bool) -> None:
        self.source, self.network, self.fresh = source, network, fresh

    def begin(self, q: nn.Module) -> None:
        """Let the Q-network's values be the prior's logits."""
        if self.source == "none" or not self.fresh:
            return
        weights = saved_weights(self.source, "prior.source", next(q.parameters()).device)
        logits = {name.replace("head.logits.0.", "out."): weight for name, weight in weights.items()}
        adopt(
            q, {name: logits[name] for name in logits if not name.startswith("value.")}, f"prior.source: {self.source}"
        )

    def frozen(self, spec: EnvSpec, device: torch.device) -> nn.Module:
        """The prior itself; a checkpoint brings its weights when training goes on."""
        require(self.source != "none", "prior.source: must name a pretrained run (or a Note RNN's .npz) for this.")
        require(
            self.network is not None, "prior.network: must be given for this, as in network@agent.prior.network=lstm."
        )
        assert self.network is not None
        net = self.network(observation=spec.observation, action=spec.action).to(device)
        if self.fresh:
            adopt(net, saved_weights(self.source, "prior.source", device), f"prior.source: {self.source}")
        return net.requires_grad_(False)


def saved_weights(source: str, key: str, device: torch.device) -> dict[str, Tensor]:
    """The policy's weights in a run's or a checkpoint's folder, or a Note RNN's in an `.npz`."""
    folder, only = Path(source), frozenset(["agent"])
    if folder.suffix == ".npz":
        return {name: weight.to(device) for name, weight in note_rnn_weights(folder, key).items()}
    if (folder / "manifest.json").is_file():
        saved = checkpoint.load(folder, device, only)
    elif (folder / "checkpoints").is_dir():
        saved = checkpoint.load_newest(folder, device, only)
    else:
        raise UserError(f"{key}: must be none, start, the folder of a run or a checkpoint, or an .npz, got {source}.")
    if "network" not in saved.get("agent", {}):
        raise UserError(
            f"{key}: the agent of {source} has no policy; use a run of rlgen pretrain, or of an agent with a policy."
        )
    return saved["agent"]["network"]


@torch.no_grad()
def adopt(net: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Take `weights` over; what `net` sees beyond them (more columns) weighs nothing at first, and a value that they
    lack stays as it is."""
    own = net.state_dict()
    lacking = [name for name in own if name not in weights and not name.startswith("value.")]
    if lacking:
        raise UserError(f"{where} has another network than this run (it has no {lacking[0]}).")
    for name, weight in weights.items():
        mine: Any = own.get(name)
        fits = mine is not None and mine.shape[:1] == weight.shape[:1] and mine.shape[2:] == weight.shape[2:]
        if not fits or (weight.dim() > 1 and mine.shape[1] < weight.shape[1]):
            raise UserError(f"{where} has another network than this run ({name} does not fit).")
        if mine.shape != weight.shape:
            mine.zero_()
            mine[:, : weight.shape[1]] = weight
        else:
            mine.copy_(weight)
