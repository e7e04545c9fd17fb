"""A pretrained policy that an agent begins as and is kept close to: without one, reward goes up and diversity down."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlgen_cli.core import checkpoint, ranks
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import Carry, EnvSpec, Metrics, Normal, Observation, Transition
from rlgen_cli.core.tree import plain, select, typed
from rlgen_cli.policies.actor import build_network, no_start
from rlgen_cli.policies.distributions import Distribution, UnitNormal
from rlgen_cli.policies.note_rnn import note_rnn_weights
from rlgen_cli.policies.policy_network import Output


class Anchor:
    """A price β on log π(a|s) − log prior(a|s) at each step, whose mean over the policy's actions is the KL divergence.

    The price is part of the reward, so that the return's expectation is reward − β·KL of whole episodes. It is a
    learner of its own: it follows the policy's steps with the prior's memory, and drives β to a KL per step.

    Args:
        prior: none; start (the policy as it was when training began); env (what the environment does without an agent,
            where actions are standard normal then); or the folder of a run or a checkpoint, or an `.npz` with a Note
            RNN, whose policy then is where training begins, too.
        network: the prior's, where it is not built like the policy (which then may see more); else null.
        kl_coef: β, in units of reward per nat; with a `target_kl`, where β begins.
        target_kl: nats per step that β is driven to, or null for a fixed β.
        rate: how fast: β is multiplied by 1 + rate · clip(KL / target − 1, ±0.2) at each update (Ziegler et al. 2019,
            section 2.2).
        env: whose observations the prior reads.
        fresh: the training begins now, so that a run named as prior is read; else a checkpoint brings all weights.
    """

    by_rank = frozenset(["carry", "excess"])

    def __init__(
        self,
        *,
        env: Env,
        prior: Literal["none", "start", "env"] | str,
        network: Callable[..., nn.Module] | None,
        kl_coef: float,
        target_kl: float | None,
        rate: float,
        fresh: bool,
    ) -> None:
        require(kl_coef >= 0, f"kl_coef: must be at least 0, got {kl_coef}.")
        require(target_kl is None or target_kl > 0, f"target_kl: must be above 0, or null for none, got {target_kl}.")
        require(rate >= 0, f"rate: must be at least 0, got {rate}.")
        self.env, self.prior, self.network, self.fresh = env, prior, network, fresh
        self.kl_coef, self.target_kl, self.rate = float(kl_coef), target_kl, float(rate)
        self.net: Any = None

    def attach(self, policy: nn.Module, build: Callable[[], nn.Module], num_envs: int) -> None:
        """Make a network built like `policy` (by `build`) or like `network` the prior; one from elsewhere is copied
        into `policy`, too."""
        if self.prior == "none":
            return
        device = next(policy.parameters()).device
        if self.prior == "env":
            frozen: nn.Module = StandardNormal(self.env.spec)
        else:
            frozen = build() if self.network is None else build_network(self.network, self.env.spec, device)
        if self.prior == "start":
            frozen.load_state_dict(policy.state_dict())
        elif self.prior != "env" and self.fresh:
            weights = saved_weights(self.prior, "anchor.prior", device)
            adopt(frozen, weights, f"anchor.prior: {self.prior}")
            adopt(policy, weights, f"anchor.prior: {self.prior}")
        self.net = frozen.requires_grad_(False)
        self.beta = torch.full((), self.kl_coef, device=device)
        self.carry: Carry = self.net.initial_carry(num_envs)
        self.excess: list[Tensor] = []  # log π − log prior of the steps since the last update, [N] each
        self.kl: Tensor | None = None  # measured since the last update

    @property
    def active(self) -> bool:
        """There is a prior."""
        return self.net is not None

    def initial_carry(self, n: int) -> Carry:
        """The prior's memory at the start of N episodes; None without a prior."""
        return self.net.initial_carry(n) if self.active else None

    def policy(
        self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor
    ) -> tuple[Distribution, Carry]:
        """The prior in T · N states, flat, and its memory afterwards."""
        out = self.net(observation, mask, carry, start)
        return out.policy, out.carry

    @torch.no_grad()
    def observe(self, step: Transition) -> None:
        """Follow a step of the policy, whose `policy_output` holds its log-probabilities."""
        seen = step.observation if self.network is None else None  # built alike, it reads what the policy has read
        observation = self.env.observe(step.state) if seen is None else seen
        mask = self.env.action_mask(step.state)
        prior, carry = self.policy(observation, mask, self.carry, no_start(observation))
        log_prior = prior.evaluate_actions(step.action)[0]
        self.excess.append(step.policy_output.log_prob - log_prior)
        self.carry = select(step.terminated, self.net.initial_carry(len(log_prior)), carry)

    def take_penalty(self) -> Tensor | float:
        """β · (log π − log prior) of the steps since the last call, [T, N]; 0 without a prior."""
        if not self.active:
            return 0.0
        excess, self.excess = torch.stack(self.excess), []
        self.kl = ranks.mean(excess.mean())
        return self.beta * excess

    def update(self, progress: float) -> Metrics:
        """Drive β towards the target, by the KL measured since the last update; {} where none was."""
        if self.kl is None:
            return {}
        kl, self.kl = self.kl, None
        metrics = {"kl": kl, "beta": self.beta}
        if self.target_kl is not None:
            self.beta = self.beta * (1 + self.rate * (kl / self.target_kl - 1).clamp(-0.2, 0.2))
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "beta": self.beta,
            "carry": plain(self.carry),
            "excess": list(self.excess),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.beta, self.carry = state["beta"], typed(state["carry"], self.carry)
        self.excess = state["excess"]


def divergence(policy: Distribution, prior: Distribution, action: Tensor, log_prob: Tensor) -> Tensor:
    """Numbers [N] whose mean over the policy's actions is KL(π ‖ prior): of normal variables the divergence itself, and
    of others log π − log prior of the actions."""
    if isinstance(policy, UnitNormal) and isinstance(prior, UnitNormal):
        return policy.divergence(prior)
    return log_prob - prior.evaluate_actions(action)[0]


class StandardNormal(nn.Module):
    """The policy whose actions leave an environment as it would be without an agent, a prior that needs no network.

    Raises:
        UserError: for an environment with other actions.
    """

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        normal = isinstance(spec.action, Normal)
        require(normal, f"prior: env stands for standard normal actions, and here is {spec.action}; use start or none.")
        self.dim = spec.action.dim if isinstance(spec.action, Normal) else 0

    def initial_carry(self, n: int) -> Carry:
        """It remembers nothing."""
        return None

    def forward(self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor) -> Output:
        """As PolicyNetwork's."""
        zero = torch.zeros(start.numel(), self.dim, device=start.device)
        return Output(UnitNormal(zero), zero[:, 0], None)


@runtime_checkable
class HasAnchor(Protocol):
    """An agent that can be kept close to a prior."""

    anchor: Anchor


class QPrior:
    """A pretrained policy whose weights a Q-network begins with, and which G-learning (agents/dqn.py) departs from.

    Args:
        source: none; the folder of a run or a checkpoint; or an `.npz` with a Note RNN.
        network: the prior's, a policy network; null where it is not kept.
        fresh: as in Anchor.
    """

    def __init__(self, *, source: Literal["none"] | str, network: Callable[..., nn.Module] | None, fresh: bool) -> None:
        self.source, self.network, self.fresh = source, network, fresh

    def initialise(self, q_network: nn.Module) -> None:
        """Let the Q-network's values be the prior's logits."""
        if self.source == "none" or not self.fresh:
            return
        weights = saved_weights(self.source, "prior.source", next(q_network.parameters()).device)
        logits = {name.replace("head.logits.0.", "out."): weight for name, weight in weights.items()}
        kept = {name: weight for name, weight in logits.items() if not name.startswith("value.")}
        adopt(q_network, kept, f"prior.source: {self.source}")

    def frozen(self, spec: EnvSpec, device: torch.device) -> nn.Module:
        """The prior itself; a checkpoint brings its weights when training goes on."""
        require(self.source != "none", "prior.source: must name a pretrained run (or a Note RNN's .npz) for this.")
        if self.network is None:
            raise UserError("prior.network: must be given for this, as in +network@agent.prior.network=lstm.")
        net = build_network(self.network, spec, device)
        if self.fresh:
            adopt(net, saved_weights(self.source, "prior.source", device), f"prior.source: {self.source}")
        return net.requires_grad_(False)


def saved_weights(source: str, key: str, device: torch.device) -> dict[str, Tensor]:
    """The policy's weights in a run's or a checkpoint's folder, or a Note RNN's in an `.npz`; of a checkpoint, only the
    part `policy` is read."""
    folder = Path(source)
    if folder.suffix == ".npz":
        return {name: weight.to(device) for name, weight in note_rnn_weights(folder, key).items()}
    if (folder / "manifest.json").is_file():
        saved = checkpoint.load(folder, "policy", device)
    elif (folder / "checkpoints").is_dir():
        saved = checkpoint.load(checkpoint.newest(folder, "policy"), "policy", device)
    else:
        raise UserError(f"{key}: must be none, start, the folder of a run or a checkpoint, or an .npz, got {source}.")
    if "network" not in saved.get("policy", {}):
        raise UserError(
            f"{key}: the agent of {source} has no policy network; use a run of rlgen pretrain, or of an agent with one."
        )
    return saved["policy"]["network"]


@torch.no_grad()
def adopt(net: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Take `weights` over; what `net` sees beyond them (more columns) weighs nothing at first, and a value that they
    lack stays as it is."""
    own = net.state_dict()
    lacking = [name for name in own if name not in weights and not name.startswith("value.")]
    if lacking:
        raise UserError(f"{where} has another network than this run (it has no {lacking[0]}).")
    for name, weight in weights.items():
        mine = own.get(name)
        if mine is None or not _fits(mine, weight):
            raise UserError(f"{where} has another network than this run ({name} does not fit).")
        if mine.shape == weight.shape:
            mine.copy_(weight)
        else:
            mine.zero_()
            mine[:, : weight.shape[1]] = weight


def _fits(mine: Tensor, weight: Tensor) -> bool:
    """`mine` has the shape of `weight`, or more columns."""
    same = mine.shape[:1] == weight.shape[:1] and mine.shape[2:] == weight.shape[2:]
    return same and (weight.dim() < 2 or mine.shape[1] >= weight.shape[1])
