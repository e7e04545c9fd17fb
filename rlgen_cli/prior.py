"""A policy that an agent is kept close to: without it, reward goes up and diversity goes down."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli import checkpoint
from rlgen_cli.errors import UserError, require
from rlgen_cli.memory.segment import Segment
from rlgen_cli.tree import select
from rlgen_cli.types import Carry, Metrics, Observation


class Anchor:
    """A price β on log π(a|s) − log prior(a|s) at each step, whose mean over the policy's actions is the KL divergence.

    The price is part of the reward, so that the return's expectation is reward − β·KL of whole episodes.

    Args:
        prior: none; start (the policy as it was when training began); or the folder of a run or a checkpoint, whose
            policy then is where training begins, too.
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
        coefficient: float,
        target: float | None,
        rate: float,
        fresh: bool,
    ) -> None:
        require(coefficient >= 0, f"coefficient: must be at least 0, got {coefficient}.")
        require(target is None or target > 0, f"target: must be above 0, or null for none, got {target}.")
        require(rate >= 0, f"rate: must be at least 0, got {rate}.")
        self.prior, self.coefficient, self.target, self.rate = prior, float(coefficient), target, float(rate)
        self.fresh = fresh
        self.net: nn.Module | None = None

    def attach(self, policy: nn.Module, frozen: nn.Module, num_envs: int, device: torch.device) -> None:
        """Make `frozen`, a network built like `policy`, the prior; a prior from a run is copied into `policy`."""
        if self.prior == "none":
            return
        if self.prior != "start" and self.fresh:
            try:
                policy.load_state_dict(_weights(self.prior, device))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"anchor.prior: {self.prior} has another network than this run ({reason}).") from None
        frozen.load_state_dict(policy.state_dict())
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
        memory = {} if self.carry is None else {"carry": self.carry._asdict()}
        return {"net": self.net.state_dict(), "beta": self.beta, **memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.net is None:
            return
        self.net.load_state_dict(state["net"])
        self.beta = state["beta"]
        if self.carry is not None:
            self.carry = type(self.carry)(**state["carry"])


def _weights(source: str, device: torch.device) -> dict[str, Tensor]:
    """The policy's weights in a run's or a checkpoint's folder."""
    folder, only = Path(source), frozenset(["agent"])
    if (folder / "manifest.json").is_file():
        saved = checkpoint.load(folder, device, only)
    elif (folder / "checkpoints").is_dir():
        saved = checkpoint.load_newest(folder, device, only)
    else:
        raise UserError(f"anchor.prior: must be none, start, or the folder of a run or a checkpoint, got {source}.")
    if "network" not in saved.get("agent", {}):
        raise UserError(
            f"anchor.prior: the agent of {source} has no policy; use a run of actor_critic, ppo or policy_gradient."
        )
    return saved["agent"]["network"]
