"""Deep Q-learning (Mnih et al. 2015) with its common improvements.

Deviations from the papers, numbered:

1. Rewards of learned terms (a discriminator) are recomputed when a batch is drawn, since they go stale in a replay.
2. n-step targets (Sutton 1988) come from windows of n + 1 successive frames, and every position of a window is
   trained, on the return up to the window's end: its first position has n steps, its last has one. `td_lambda` < 1
   mixes these with bootstrapped values (λ-returns). No correction is made for exploratory actions inside a window.
3. With an entropy-regularised backup (backups.py), the steps of a window after its first earn the entropy of their own
   choice, V(s) − Q(s, a) by the target network, which is −τ log π(a|s) for the Boltzmann policy: λ-returns then have
   the fixed point of one-step targets. A temperature above 0 makes the policy Boltzmann, in evaluation too, whatever
   the backup.
4. Prioritised replay (Schaul et al. 2016) ranks a window by the mean |TD error| of its positions.
5. With several decisions a step (branches, Tavakoli et al. 2018), each branch is trained towards the same target,
   which bootstraps from the mean of the branches' values (their eq. 6), and a window's error is the branches' mean.
6. The learning rate, ε, γ and the temperature follow the training's progress, not a step count; a γ that rises
   learns the next strokes first and long plans later (François-Lavet et al. 2015).
7. A network that remembers learns from whole episodes, from the first frame on, so no memory is stored and none is
   stale; windows are then `max_steps` long, whatever `n_step` says.

When to use it: with discrete actions, where each action changes the score at once; it is the default for copying
pictures and for drawing from nothing. With `backup=soft` its samples differ; a greedy one makes the same sample
again.

What to expect: of the agents compared on one task it learned fastest in steps (docs/results/agents.md). An update
costs more than a policy's, and the replay memory is most of what it keeps (docs/results/speed.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, mse_loss

from rlgen_cli.agents.backups import Backup, NextValues
from rlgen_cli.core import ranks, seeding
from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, Reward
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import (
    Carry,
    Decision,
    Discrete,
    EnvSpec,
    Factored,
    Metrics,
    Observation,
    State,
    Transition,
)  # fmt: skip
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.memory.replay import Replay, Window
from rlgen_cli.policies.actor import build_network, no_start
from rlgen_cli.policies.anchor import QPrior
from rlgen_cli.policies.encoders import prepared
from rlgen_cli.policies.exploration import EpsilonGreedy
from rlgen_cli.policies.q_network import branches
from rlgen_cli.policies.target_network import HardUpdate, SoftUpdate


class Memories(NamedTuple):
    """What the networks remember of N episodes; None for one that remembers nothing."""

    q: Carry
    prior: Carry


class QPolicy:
    """Greedy in Q, or Boltzmann where `temperature` is above 0; explores by `exploration`."""

    def __init__(
        self,
        *,
        net: nn.Module,
        prior: nn.Module | None,
        action: Discrete | Factored,
        exploration: EpsilonGreedy,
        temperature: Linear,
    ) -> None:
        self.net: Any = net
        self.prior: Any = prior
        self.action, self.sizes = action, branches(action)
        self.exploration, self.temperature = exploration, temperature
        self.boltzmann = min(temperature.start, temperature.end) > 0
        self.progress = 0.0

    def initial_carry(self, n: int) -> Carry:
        q = self.net.initial_carry(n)
        prior = self.prior.initial_carry(n) if self.prior is not None else None
        return None if q is None and prior is None else Memories(q, prior)

    @torch.no_grad()
    def act(
        self, observation: Observation, mask: Tensor | None, carry: Carry, *, explore: bool, rng: torch.Generator
    ) -> Decision:
        start, memories = no_start(observation), carry or Memories(None, None)
        q, q_carry = self.values(self.net, observation, mask, memories.q, start)
        prior_carry = None
        if self.boltzmann:
            logits = q / self.temperature(self.progress)
            if self.prior is not None:
                log_prior, prior_carry = self.log_prior(observation, mask, memories.prior, start)
                logits = logits + log_prior
            uniform = torch.rand(q.shape, generator=rng, device=q.device).clamp(1e-9, 1 - 1e-7)
            q = logits - (-uniform.log()).log()  # the Gumbel trick draws from the softmax
        action, carry = self.best(q), None if carry is None else Memories(q_carry, prior_carry)
        if not explore:
            return Decision(action, carry)
        noise = torch.rand(q.shape, generator=rng, device=q.device)
        uniform = self.best(noise.masked_fill(q == -torch.inf, -1.0))  # among the allowed actions
        return Decision(self.exploration.choose(action, uniform, self.progress, rng), carry)

    def observe(self, env: Env, state: State) -> Observation:
        """What the Q-networks read of states."""
        return prepared(self.net, env.observe(state))

    def values(
        self, net: nn.Module, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor
    ) -> tuple[Tensor, Carry]:
        """Q-values, float32 [N, A], with forbidden actions at −∞; and what the network remembers."""
        out = net(observation, carry, start)
        return out.q if mask is None else out.q.masked_fill(~mask, -torch.inf), out.carry

    def log_prior(
        self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor
    ) -> tuple[Tensor, Carry]:
        """The prior's log-probabilities, [N, A], and its memory."""
        out = self.prior(observation, mask, carry, start)
        return out.policy.log_p, out.carry

    def best(self, q: Tensor) -> Tensor:
        """The best action, [N], or of each branch, [N, F]."""
        best = torch.stack([part.argmax(1) for part in q.split(self.sizes, 1)], 1)
        return best.squeeze(1) if isinstance(self.action, Discrete) else best

    def of_action(self, q: Tensor, action: Tensor) -> Tensor:
        """Q of an action in each branch, [N, F]; a single decision has one."""
        chosen = action.view(len(q), -1).unbind(1)
        parts = zip(q.split(self.sizes, 1), chosen, strict=True)
        return torch.cat([part.gather(1, choice.unsqueeze(1)) for part, choice in parts], 1)

    def state_dict(self) -> dict[str, Any]:
        prior = {} if self.prior is None else {"prior": self.prior.state_dict()}
        return {"q_network": self.net.state_dict(), "progress": self.progress, **prior}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["q_network"])
        self.progress = state["progress"]
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])


class DQN:
    """Q-learning from a replay memory of states.

    Args:
        network: builds a Q-network from observation and action specs.
        backup: the value of a state (backups.py). prior: a pretrained policy to begin with (policies/anchor.py).
        replay: builds the memory (memory/replay.py). exploration: how it explores (policies/exploration.py).
        target_update: how the target network follows (policies/target_network.py).
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        gamma: discount per step, a schedule. n_step, td_lambda: see the module.
        temperature: of the policy and of entropy-regularised backups, a schedule; 0 for a greedy policy.
        batch_size: windows per update. gradient_steps: updates per batched environment step, may be a fraction.
        learning_starts: environment steps before the first update.
        huber_delta: TD errors above it count linearly, so that values lean towards the median of their targets, not
            the mean; None: all are squared.

    Raises:
        UserError: for a value out of range, or a backup that the temperature or a missing prior rules out.
    """

    by_rank = frozenset(["replay"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """DQN maximises over finite sets: one decision, or several side by side."""
        return isinstance(spec.action, Discrete | Factored)

    def __init__(
        self,
        *,
        env: Env,
        reward: Reward,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        network: Callable[..., nn.Module],
        backup: Backup,
        prior: QPrior,
        replay: Callable[..., Replay],
        exploration: EpsilonGreedy,
        target_update: SoftUpdate | HardUpdate,
        optimizer: Callable[..., Adam],
        gamma: Linear,
        n_step: int,
        td_lambda: float,
        temperature: Linear,
        batch_size: int,
        gradient_steps: float,
        learning_starts: int,
        huber_delta: float | None,
    ) -> None:
        for discount in (gamma.start, gamma.end):
            require(0.0 <= discount <= 1.0, f"gamma: must be in [0, 1], got {discount}.")
        require(n_step >= 1, f"n_step: must be at least 1, got {n_step}.")
        require(0.0 <= td_lambda <= 1.0, f"td_lambda: must be in [0, 1], got {td_lambda}.")
        coldest = min(temperature.start, temperature.end)
        constant = coldest > 0 or temperature.start == temperature.end == 0
        require(constant, "temperature: must be above 0 from start to end, or 0 at both for a greedy policy.")
        soft = backup.entropy_regularised
        require(coldest > 0 or not soft, "temperature: must be above 0 with an entropy-regularised backup.")
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(0 < gradient_steps <= 10_000, f"gradient_steps: must be above 0, at most 10000, got {gradient_steps}.")
        bounded = huber_delta is None or huber_delta > 0
        require(bounded, f"huber_delta: must be above 0, or null for squared errors, got {huber_delta}.")
        assert isinstance(env.spec.action, Discrete | Factored)
        self.huber_delta = huber_delta
        self.env, self.reward, self.rng, self.backup = env, reward, rng, backup
        self.gamma, self.td_lambda, self.target_update = gamma, float(td_lambda), target_update
        self.batch_size, self.gradient_steps = ranks.share(batch_size, "batch_size"), float(gradient_steps)
        online = build_network(network, env.spec, device)
        self.target = build_network(network, env.spec, device).requires_grad_(False)
        prior.initialise(online)
        self.target.load_state_dict(online.state_dict())
        frozen = prior.frozen(env.spec, device) if backup.needs_prior else None
        self.policy = QPolicy(
            net=online, prior=frozen, action=env.spec.action, exploration=exploration, temperature=temperature
        )
        self.remembers = self.policy.initial_carry(1) is not None
        self.length = env.spec.max_steps if self.remembers else n_step
        frames = self.batch_size * (self.length + 1)
        require_memory(frames * footprint(env, device), f"batch_size: {batch_size} windows of {self.length} steps")
        self.first_calls = max(learning_starts // (num_envs * ranks.count()), self.length + 1)
        self.optimizer = optimizer(parameters=online.parameters())
        self.replay = replay(env=env, num_envs=num_envs, device=device, whole_episodes=self.remembers)
        needed = self.replay.bytes_with(env.reset(1, seeding.stream(0, "footprint", device)))
        require_memory(needed, f"replay.buffer_size: {self.replay.frames * num_envs} frames")
        # So that a window can always begin: in one of two successive frames, or where an episode does.
        least = 2 * self.length + 1 if self.remembers else self.length + 2
        enough = self.replay.frames >= least
        size = f"must be at least {least} frames for each of {num_envs} environments = {least * num_envs}"
        require(enough, f"replay.buffer_size: {size}, to hold windows of {self.length} steps.")
        self.credit, self.updates = 0.0, 0

    def observe(self, step: Transition) -> None:
        self.replay.add(step)

    def update(self, progress: float) -> Metrics:
        self.policy.progress = progress
        if self.replay.calls < self.first_calls:
            return {}
        self.credit += self.gradient_steps
        metrics: Metrics = {}
        while self.credit >= 1:
            self.credit -= 1
            metrics = self._update(progress)
        return metrics

    def _update(self, progress: float) -> Metrics:
        """One gradient step on `batch_size` windows."""
        window = self.replay.sample(self.batch_size, self.length, self.rng)
        frames = self._frames(window)
        # A network that remembers must read all frames; another need not follow gradients through the last.
        online = self._values(self.policy.net, frames, 0, self.length + self.remembers)
        q = self._of_action(online[: self.length], window.action)  # [L, B, F]
        # What stands beside a final frame is no action that was taken there, and may be forbidden.
        q = q.masked_fill(~window.valid.unsqueeze(2), 0.0)
        with torch.no_grad():
            td_target = self._td_target(window, frames, online.detach(), progress)
        td_target = td_target.unsqueeze(2).expand_as(q)
        td_error = (q - td_target).abs()  # [L, B, F]
        losses = self._loss(q, td_target).mean(2)  # [L, B]
        steps = ranks.mean(window.valid.sum()).clamp(min=1)  # a rank's part of those of all
        loss = (losses * window.valid * window.weight).sum() / steps
        self.optimizer.step(loss, progress)
        self.updates += 1
        self.target_update.follow(self.target, self.policy.net, self.updates)
        error = (td_error.detach().mean(2) * window.valid).mean(0)
        self.replay.set_priority(window.start, error)
        return {"loss": loss.detach(), "q": q.detach().mean(2).sum() / steps, "td_error": error.mean()}

    def _loss(self, q: Tensor, td_target: Tensor) -> Tensor:
        """Half the squared errors, or Huber's, of the same shape."""
        if self.huber_delta is None:
            return mse_loss(q, td_target, reduction="none") / 2
        return huber_loss(q, td_target, reduction="none", delta=self.huber_delta)

    def _td_target(self, window: Window, frames: "Frames", online: Tensor, progress: float) -> Tensor:
        """λ-returns of each position of the windows, [L, B]; `online` is Q of the online network, as far as known."""
        reward = window.static_reward
        if self.reward.has_learned_terms:
            learned = self.reward.learned_reward(self.env.view(window.states), window.terminated.flatten())
            reward = reward + learned.view_as(reward)
        q = self._values(self.target, frames, 0 if self.remembers else 1, self.length + 1)[-self.length :]
        if not self.backup.needs_online:
            online_q = None
        elif self.remembers:
            online_q = online[1:].flatten(0, 1)
        else:
            last = self._values(self.policy.net, frames, self.length, self.length + 1)
            online_q = torch.cat([online[1:], last]).flatten(0, 1)
        temperature = self.policy.temperature(progress)
        values = NextValues(q.flatten(0, 1), online_q, self._log_prior(frames), self.policy.sizes, temperature)
        value = self.backup.value(values).view_as(reward)
        bonus = None
        if self.backup.entropy_regularised and self.length > 1:
            chosen_q = self._of_action(q[:-1], window.action[1:]).mean(2)
            # No action was taken in a final frame.
            bonus = (value[:-1] - chosen_q).masked_fill(~window.valid[1:], 0.0).T
        ended = window.terminated | ~window.valid
        return lambda_returns(reward.T, value.T, ended.T, self.gamma(progress), self.td_lambda, bonus).T

    def _frames(self, window: Window) -> "Frames":
        """What networks see of the windows' frames."""
        first = torch.zeros_like(window.valid[:1])
        start = torch.cat([first, ~window.valid])  # the frame after a final one begins another episode
        mask = self.env.action_mask(window.states)
        prior = self.env.observe(window.states) if self.backup.needs_prior else None
        return Frames(self.policy.observe(self.env, window.states), prior, mask, start)

    def _values(self, network: nn.Module, frames: "Frames", first: int, last: int) -> Tensor:
        """Q-values in the frames from `first` to before `last`, [last − first, B, A]; the memory of a network that has
        one is that of a beginning."""
        seen = frames.part(first, last)
        carry = network.initial_carry(self.batch_size)  # type: ignore[operator]
        q = self.policy.values(network, seen.observation, seen.mask, carry, seen.start)[0]
        return q.unflatten(0, seen.start.shape)

    def _of_action(self, q: Tensor, action: Tensor) -> Tensor:
        """Q of the actions [T, B, …] in each branch, [T, B, F], of Q of all, [T, B, A]."""
        return self.policy.of_action(q.flatten(0, 1), action.flatten(0, 1)).unflatten(0, q.shape[:2])

    def _log_prior(self, frames: "Frames") -> Tensor | None:
        """The prior's log-probabilities after each step, [L · B, A]; None where the backup takes no prior."""
        if not self.backup.needs_prior:
            return None
        seen = frames.part(0, self.length + 1)
        assert seen.raw is not None
        carry = self.policy.prior.initial_carry(self.batch_size)
        log_prior = self.policy.log_prior(seen.raw, seen.mask, carry, seen.start)[0]
        return log_prior[self.batch_size :]

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "credit": self.credit,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay.load_state_dict(state["replay"], self._example())
        self.credit, self.updates = state["credit"], state["updates"]

    def _example(self) -> Transition:
        """A transition of one environment: it gives the types in a checkpoint."""
        rng = torch.Generator(device=self.rng.device).manual_seed(0)
        state = self.env.reset(1, rng)
        action = self.env.spec.action.sample(1, rng, self.replay.device)
        zero = torch.zeros(1, device=self.replay.device)
        return Transition(state, action, zero, zero, state, self.env.done(state))


class Frames(NamedTuple):
    """What networks see of T successive frames of B windows, step by step: rows [T · B]."""

    observation: Observation  # as the Q-networks read it, of which both have the same
    raw: Observation | None  # for a prior, whose network may be another
    mask: Tensor | None
    start: Tensor  # bool [T, B], the frame begins an episode

    def part(self, first: int, last: int) -> "Frames":
        """The frames from `first` to before `last`; nothing is copied."""
        batch = self.start.shape[1]
        whole = self._replace(start=self.start.flatten())
        chosen = map_tensors(lambda field: field[first * batch : last * batch], whole)
        return chosen._replace(start=chosen.start.unflatten(0, (-1, batch)))
