"""Negative-aware fine-tuning (DiffusionNFT, Zheng et al. 2025): from finished samples alone, towards the good ones and
away from the bad ones.

Each sample that the acting policy made is noised anew. At the noisy sample, the mean action m of the trained policy and
m_old of the acting one give two guesses, m⁺ = m_old + β (m − m_old) and m⁻ = m_old − β (m − m_old), and the loss is
r · |m⁺ − a|² + (1 − r) · |m⁻ − a|², where a leads to the sample and r in [0, 1] says how good it is among those of its
group. No log-probability is needed, and how the sampler went does not matter.

Deviations from the paper, numbered:

1. The share r is ½ + ½ · clip((R − mean of the group) / (deviation of all · `advantage_clip`), −1, 1); the paper leaves
   the scale open.
2. The price on the divergence from the model is that on its exact KL divergence, and there is one by `kl_coef`.
3. The weights that act follow by a moving average that is slowed down to `ema_decay`, by the rule that all averages
   here have.

When to use it: in env=diffusion, for a reward without a gradient, where reward_weighted has nothing to fit to since the
model hardly ever meets the reward.

What to expect: the reward rises from the first windows, where the score function needs a rate so small that it hardly
moves (docs/results/captions.md).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.moving_average import follow
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, KnowsWays
from rlgen_cli.core.specs import EnvSpec, Metrics, Normal, State, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.policies.actor import NetworkPolicy, build_average, build_network


class NFT:
    """A policy moved towards better samples of its own, and away from worse ones.

    Args:
        network: builds a policy network from observation and action specs.
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        group_size: episodes that ask for the same, and are compared.
        beta: β, how far the two guesses reach; the smaller, the further each update moves.
        advantage_clip: deviations of the return from its group's mean that count as wholly good or bad.
        kl_coef: weight of the KL divergence from the model, 0 for none.
        num_minibatches, epochs: updates for each window of episodes, and how often all are gone through.
        ema_decay: of the moving average of the weights, which acts; it begins faster.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range, or an environment that does not know what leads to a sample.
    """

    by_rank = frozenset(["returns"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Actions are standard normal where nothing is learned, and episodes have one length."""
        return isinstance(spec.action, Normal) and spec.fixed_length

    def __init__(
        self,
        *,
        env: Env,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        network: Callable[..., nn.Module],
        optimizer: Callable[..., Adam],
        group_size: int,
        beta: float,
        advantage_clip: float,
        kl_coef: float,
        num_minibatches: int,
        epochs: int,
        ema_decay: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(group_size >= 2, f"group_size: must be at least 2, got {group_size}.")
        require(num_envs % group_size == 0, f"group_size: must divide num_envs = {num_envs}, got {group_size}.")
        require(beta > 0, f"beta: must be above 0, got {beta}.")
        require(advantage_clip > 0, f"advantage_clip: must be above 0, got {advantage_clip}.")
        require(kl_coef >= 0, f"kl_coef: must be at least 0, got {kl_coef}.")
        fits = 1 <= num_minibatches <= num_envs
        require(fits, f"num_minibatches: must be from 1 to num_envs = {num_envs}, got {num_minibatches}.")
        require(epochs >= 1, f"epochs: must be at least 1, got {epochs}.")
        require(0.0 <= ema_decay < 1.0, f"ema_decay: must be in [0, 1), got {ema_decay}.")
        require(isinstance(env, KnowsWays), "_target_: this environment does not say what leads to a sample.")
        self.env, self.rng, self.group_size = env, rng, group_size
        self.beta, self.advantage_clip, self.kl_coef = float(beta), float(advantage_clip), float(kl_coef)
        self.num_minibatches, self.epochs, self.ema_decay = num_minibatches, epochs, float(ema_decay)
        net = build_network(network, env.spec, device)
        self.trained = NetworkPolicy(net=net, evaluate=evaluate)
        average = build_average(network, net, env.spec, device)
        self.policy = NetworkPolicy(net=average, evaluate=evaluate)
        self.optimizer = optimizer(parameters=net.parameters())
        self.returns = torch.zeros(num_envs, device=device)  # of the episodes that are going on
        self.final: State | None = None  # where the newest step led to
        self.steps, self.updates_done = 0, 0

    def observe(self, step: Transition) -> None:
        self.returns = self.returns + step.reward
        self.final = step.next_state
        self.steps += 1

    def update(self, progress: float) -> Metrics:
        """Updates at the end of each window of episodes."""
        if self.steps % self.env.spec.max_steps:
            return {}
        optimality, metrics = self._optimality(), Metrics()
        for _ in range(self.epochs):
            order = torch.randperm(len(optimality), generator=self.rng, device=optimality.device)
            for chosen in order.chunk(self.num_minibatches):
                loss, metrics = self._loss(chosen, optimality[chosen])
                self.optimizer.step(loss, progress)
        follow(self.policy.net, self.trained.net, self.ema_decay, self.updates_done)
        self.updates_done += 1
        metrics |= {"return": self.returns.mean()}
        self.returns = torch.zeros_like(self.returns)
        return metrics

    def _optimality(self) -> Tensor:
        """How good each episode is among its group, [N] in [0, 1]."""
        group = self.returns.unflatten(0, (-1, self.group_size))
        advantage = (group - group.mean(1, keepdim=True)).flatten()
        scale = self.advantage_clip * ranks.mean(advantage.square().mean()).sqrt() + 1e-6
        return 0.5 + 0.5 * (advantage / scale).clamp(-1, 1)

    def _loss(self, chosen: Tensor, optimality: Tensor) -> tuple[Tensor, Metrics]:
        """The loss of the chosen episodes, whose `optimality` is [B], and what to log."""
        assert isinstance(self.env, KnowsWays)
        with torch.no_grad():
            final = map_tensors(lambda field: field.index_select(0, chosen), self.final)
            way = self.env.on_the_way(final, self.rng)
            old = self.policy.mode_at(self.env, way.state)
        mean = self.trained.mode_at(self.env, way.state)
        ahead, behind = ((old + sign * self.beta * (mean - old) - way.action).square().mean(1) for sign in (1.0, -1.0))
        kl = 0.5 * mean.square().sum(1)
        fit = (way.weight * (optimality * ahead + (1 - optimality) * behind)).mean() / self.beta
        return fit + self.kl_coef * kl.mean(), {"loss": fit.detach(), "kl": kl.detach().mean()}

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy. No window of episodes is saved half: what a step led to is in the
        environment's state."""
        return {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "returns": self.returns,
            "counts": [self.steps, self.updates_done],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.returns, (self.steps, self.updates_done) = state["returns"], state["counts"]
