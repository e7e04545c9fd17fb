"""Reward-weighted regression (Peters and Schaal 2007; for diffusion models Lee et al. 2023): the policy is fitted to
samples of the prior, each as often as its reward says.

The aim is π* ∝ prior · exp(R / β), the policy of the highest reward at a price β on the KL divergence from the prior.
What is minimised is KL(π* ‖ π), so that the policy keeps all that π* has, where agents that minimise KL(π ‖ π*) may
drop some of it.

Deviations from the papers, numbered:

1. While it learns, the policy acts as the prior, so that the aim stays exact. Importance weights, by which it could act
   as it is, were tried: after some hundred updates a handful of episodes had all the weight.
2. What is fitted is the mean of the actions that lead to a sample, which the environment knows, not the actions that
   happened to be drawn, whose noise is many times larger.
3. The policy is a moving average of the weights that are trained.
4. With `reference_size`, a state is fitted to the mean of what leads to so many samples of the aim, each by how likely
   the state is on the way to it (a stable target field, Xu et al. 2023), and states are on the way to any sample of the
   prior, also where the aim has none. That is exact where samples are dense, as in few dimensions; for pictures it
   draws towards the most common ones.

When to use it: in env=diffusion, for a reward with or without a gradient that the prior meets at least in one sample
of a hundred, where diversity is to stay. For what the prior hardly ever makes there is nothing to fit to.

What to expect: most of the way to the exact answer within a minute after enough samples were made; what remains wrong
are samples between two kinds, which the policy goes on making more often than it should
(docs/results/diffusion_three.md).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.moving_average import follow
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, KnowsWays
from rlgen_cli.core.specs import Carry, Decision, EnvSpec, Metrics, Normal, Observation, State, Transition
from rlgen_cli.memory.weighted_buffer import WeightedBuffer
from rlgen_cli.policies.actor import NetworkPolicy, build_average, build_network


class ExploresByPrior:
    """A policy that acts by standard normal actions while it explores, and by a network when it does not."""

    def __init__(self, policy: NetworkPolicy, action: Normal) -> None:
        self.policy, self.action = policy, action
        self.net = policy.net

    def initial_carry(self, n: int) -> Carry:
        return self.policy.initial_carry(n)

    def act(
        self, observation: Observation, mask: Tensor | None, carry: Carry, *, explore: bool, rng: torch.Generator
    ) -> Decision:
        if not explore:
            return self.policy.act(observation, mask, carry, explore=False, rng=rng)
        some = next(iter(observation.values()))
        return Decision(self.action.sample(len(some), rng, some.device), carry)

    def state_dict(self) -> dict[str, Any]:
        return self.policy.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state)


class RewardWeighted:
    """A policy fitted to weighted samples of the prior.

    Args:
        network: builds a policy network from observation and action specs.
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        kl_coef: β, the reward that a nat of KL divergence from the prior costs.
        buffer_size: finished samples that are kept. learning_starts: the first update comes once so many are there.
        reference_size: samples whose mean a state is fitted to; 0: the one sample that it is on the way to.
        batch_size: samples of an update. updates: for each window of episodes. All are those of all ranks.
        ema_decay: of the exponential moving average of the weights, which acts; it begins faster.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range, or an environment that does not know what leads to a sample.
    """

    by_rank = frozenset(["buffer", "returns"])

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
        kl_coef: float,
        buffer_size: int,
        learning_starts: int,
        reference_size: int,
        batch_size: int,
        updates: int,
        ema_decay: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(kl_coef > 0, f"kl_coef: must be above 0, got {kl_coef}.")
        require(reference_size >= 0, f"reference_size: must be at least 0, got {reference_size}.")
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        require(0.0 <= ema_decay < 1.0, f"ema_decay: must be in [0, 1), got {ema_decay}.")
        fits = 1 <= learning_starts <= buffer_size
        require(fits, f"learning_starts: must be from 1 to buffer_size = {buffer_size}, got {learning_starts}.")
        require(isinstance(env, KnowsWays), "_target_: this environment does not say what leads to a sample.")
        assert isinstance(env.spec.action, Normal)
        self.batch_size = ranks.share(batch_size, "batch_size")
        self.learning_starts = max(1, learning_starts // ranks.count())
        room = max(1, buffer_size // ranks.count())
        require_memory(room * footprint(env, device), f"buffer_size: {buffer_size} samples")
        self.env, self.rng, self.kl_coef = env, rng, float(kl_coef)
        self.reference_size = reference_size
        self.updates, self.ema_decay = updates, float(ema_decay)
        net = build_network(network, env.spec, device)
        self.trained = NetworkPolicy(net=net, evaluate=evaluate)
        average = build_average(network, net, env.spec, device)
        self.policy = ExploresByPrior(NetworkPolicy(net=average, evaluate=evaluate), env.spec.action)
        self.optimizer = optimizer(parameters=net.parameters())
        self.buffer = WeightedBuffer(room, env.reset(1, torch.Generator(device=rng.device).manual_seed(0)))
        self.returns = torch.zeros(num_envs, device=device)  # of the episodes that are going on
        self.steps, self.updates_done = 0, 0

    def observe(self, step: Transition) -> None:
        done = step.terminated
        self.returns = self.returns + step.reward
        self.buffer.add(step.next_state, self.returns / self.kl_coef, done)
        self.returns = self.returns * ~done
        self.steps += 1

    def update(self, progress: float) -> Metrics:
        """Updates at the end of each window of episodes, once enough of them are there."""
        windows, more = divmod(self.steps, self.env.spec.max_steps)
        if more or windows * len(self.returns) < self.learning_starts:
            return {}
        metrics: Metrics = {
            "effective_samples": self.buffer.effective_size(), "log_z": self.buffer.log_mean_weight()
        }  # fmt: skip
        for _ in range(self.updates):
            loss = self._loss()
            self.optimizer.step(loss, progress)
            follow(self.policy.policy.net, self.trained.net, self.ema_decay, self.updates_done)
            self.updates_done += 1
            metrics["loss"] = loss.detach()
        return metrics

    def _loss(self) -> Tensor:
        """The weighted squared error of the mean action on ways to samples of the buffer."""
        assert isinstance(self.env, KnowsWays)
        with torch.no_grad():
            way = self.env.on_the_way(self._ends(), self.rng)
            if self.reference_size:
                references = self.buffer.draw(self.reference_size, self.rng)
                way = way._replace(action=self.env.action_towards(way.state, references))
        error = self.trained.mode_at(self.env, way.state) - way.action
        return (way.weight * error.square().mean(1)).mean()

    def _ends(self) -> State:
        """The samples that an update's states are on the way to."""
        if self.reference_size:
            return self.buffer.draw_any(self.batch_size, self.rng)
        return self.buffer.draw(self.batch_size, self.rng)

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            "returns": self.returns,
            "counts": [self.steps, self.updates_done],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.returns, (self.steps, self.updates_done) = state["returns"], state["counts"]
