"""Deep Q-learning (Mnih et al. 2015) with its common improvements as flags.

Deviations from the papers, numbered:
1. Rewards of trained terms (a discriminator) are recomputed when a batch is drawn, since they go stale in a memory.
2. n-step targets (Sutton 1988) come from windows of n + 1 successive frames, and every position of a window is
   trained, on the return up to the window's end: its first position has n steps, its last has one. `trace` < 1 mixes
   these with bootstrapped values (λ-returns). No correction is made for exploratory actions inside a window.
3. Soft backup (Haarnoja et al. 2017, eq. 9) uses log-mean-exp instead of log-sum-exp: a constant per step for a fixed
   number of actions, which keeps values near those of hard backup. RL Tuner's Ψ keeps the sum, its G weighs each
   action by a prior (Jaques et al. 2017, sections 4.1 and 4.2). A temperature above 0 makes the policy Boltzmann, in
   evaluation too, whatever the backup.
4. Prioritised replay (Schaul et al. 2016) ranks a window by the mean |TD error| of its positions.
5. With several decisions a step (branches, Tavakoli et al. 2018), each branch is trained towards the same target,
   which bootstraps from the mean of the branches' values (their eq. 6), and a window's error is the branches' mean.
6. The learning rate, ε, γ and the temperature follow the training's progress, not a step count; a γ that rises
   learns the next strokes first and long plans later (François-Lavet et al. 2015).
7. A network that remembers learns from whole episodes, from the first frame on, so no memory is stored and none is
   stale; windows are then `max_steps` long, whatever `n_step` says.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from rlgen_cli.core.errors import require
from rlgen_cli.memory.replay import Replay, Window
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.q_network import branches
from rlgen_cli.policies.anchor import Prior
from rlgen_cli.core.returns import lambda_returns, soft_value
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.core.types import Carry, Choice, Discrete, Env, EnvSpec, Factored, Metrics, Reward, State, Transition


class Frames(NamedTuple):
    """States as networks take them: T steps of N environments, flat, and where episodes begin, bool [T, N]."""

    state: State
    start: Tensor


class Memories(NamedTuple):
    """What the networks remember of N episodes; None for one that remembers nothing."""

    q: Carry
    prior: Carry


class DQN:
    """Q-learning from a replay memory of states.

    Args:
        network: builds a Q-network from observation spec, action spec and `dueling`.
        gamma: discount per step.
        backup: the value of a state: q (the maximum), soft, or RL Tuner's psi and g (which needs a `prior`).
        temperature: of the policy and of all backups but q; 0 for a greedy policy.
        prior: a pretrained policy to begin with (prior.py); with backup=g the policy is it times exp(G / temperature).
        double, dueling, n_step, trace, priority, correction: see the module.
        updates: gradient steps per batched environment step, may be a fraction.
        batch_size: windows per update. warmup: environment steps before the first update.
        target_update: soft (rate `tau` per update) or hard (a copy every `target_interval` updates).
        epsilon, learning_rate (and gamma, temperature): schedules over the training.
        sober: share of the environments that never take ε-random actions, so that a discriminator sees what the
            policy itself makes.

    Raises:
        UserError: for a value out of range.
    """

    group, wants = 1, "q"

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
        precision: Precision,
        network: Callable[..., torch.nn.Module],
        gamma: Linear,
        backup: Literal["q", "soft", "psi", "g"],
        prior: Prior,
        double: bool,
        dueling: bool,
        n_step: int,
        trace: float,
        temperature: Linear,
        priority: float,
        correction: float,
        capacity: int,
        warmup: int,
        batch_size: int,
        updates: float,
        target_update: Literal["soft", "hard"],
        tau: float,
        target_interval: int,
        epsilon: Linear,
        sober: float,
        learning_rate: Linear,
        max_grad_norm: float,
    ) -> None:
        for discount in (gamma.start, gamma.end):
            require(0.0 <= discount <= 1.0, f"gamma: must be in [0, 1], got {discount}.")
        require(n_step >= 1, f"n_step: must be at least 1, got {n_step}.")
        require(0.0 <= trace <= 1.0, f"trace: must be in [0, 1], got {trace}.")
        coldest = min(temperature.start, temperature.end)
        constant = coldest > 0 or temperature.start == temperature.end == 0
        require(constant, "temperature: must be above 0 from start to end, or 0 at both for a greedy policy.")
        require(backup == "q" or coldest > 0, f"temperature: must be above 0 with backup={backup}.")
        require(backup == "q" or not double, f"double: goes with backup=q, not with {backup}.")
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(updates > 0, f"updates: must be above 0, got {updates}.")
        require(0.0 < tau <= 1.0, f"tau: must be in (0, 1], got {tau}.")
        require(target_interval >= 1, f"target_interval: must be at least 1, got {target_interval}.")
        require(0.0 <= sober <= 1.0, f"sober: must be in [0, 1], got {sober}.")
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        assert isinstance(env.spec.action, Discrete | Factored)
        self.env, self.reward, self.rng, self.precision = env, reward, rng, precision
        self.actions, self.sizes = env.spec.action, branches(env.spec.action)
        self.gamma, self.backup, self.double, self.trace = gamma, backup, double, float(trace)
        self.warm, self.temperature = coldest > 0, temperature
        self.batch_size, self.updates = batch_size, float(updates)
        self.target_update, self.tau, self.target_interval = target_update, float(tau), target_interval
        self.epsilon, self.learning_rate, self.max_grad_norm = epsilon, learning_rate, float(max_grad_norm)
        self.daring = torch.arange(num_envs, device=device) >= round(sober * num_envs)  # these explore

        def build() -> torch.nn.Module:
            net = network(observation=env.spec.observation, action=env.spec.action, dueling=dueling)
            return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        self.online, self.target = build(), build().requires_grad_(False)
        prior.begin(self.online)
        self.target.load_state_dict(self.online.state_dict())
        self.prior = prior.frozen(env.spec, device) if backup == "g" else None
        self.remembers = self.carry(1) is not None
        self.length = env.spec.max_steps if self.remembers else n_step
        self.first_calls = max(warmup // num_envs, self.length + 1)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=learning_rate(0.0), eps=1e-5, foreach=True)
        self.replay = Replay(capacity, num_envs, device, priority, correction, self.remembers)
        self.progress, self.credit, self.count = 0.0, 0.0, 0

    def carry(self, n: int) -> Carry:
        q = self.online.carry(n)  # type: ignore[operator]
        prior = self.prior.carry(n) if self.prior is not None else None  # type: ignore[operator]
        return None if q is None and prior is None else Memories(q, prior)

    @torch.no_grad()
    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        """Greedy, or Boltzmann at `temperature`; with `explore`, uniform with probability ε."""
        start = torch.zeros_like(env.done(state)).unsqueeze(0)
        memories = carry or Memories(None, None)
        q, q_carry = self._q(self.online, env, state, memories.q, start)
        log_prior, prior_carry = self._log_prior(env, state, memories.prior, start)
        if self.warm:
            uniform = torch.rand(q.shape, generator=rng, device=q.device).clamp(1e-9, 1 - 1e-7)
            q = q / self.temperature(self.progress) + log_prior
            q = q - (-uniform.log()).log()  # the Gumbel trick draws from the softmax
        action, carry = self._best(q), None if carry is None else Memories(q_carry, prior_carry)
        if not explore:
            return Choice(action, carry)
        random = self._random(q, rng)
        dare = torch.rand(len(action), generator=rng, device=q.device) < self.epsilon(self.progress)
        dare = (dare & self.daring).view(-1, *[1] * (action.dim() - 1))
        return Choice(torch.where(dare, random, action), carry)

    def _random(self, q: Tensor, rng: torch.Generator) -> Tensor:
        """Uniform among the allowed actions, those whose Q is finite."""
        noise = torch.rand(q.shape, generator=rng, device=q.device)
        return self._best(noise.masked_fill(q == -torch.inf, -1.0))

    def observe(self, transition: Transition) -> None:
        self.replay.add(transition)

    def update(self, progress: float) -> Metrics:
        self.progress = progress
        if self.replay.calls < self.first_calls:
            return {}
        self.credit += self.updates
        metrics: Metrics = {}
        while self.credit >= 1:
            self.credit -= 1
            metrics = self._update()
        return metrics

    def _update(self) -> Metrics:
        """One gradient step on `batch_size` windows."""
        window = self.replay.sample(self.batch_size, self.length, self.rng)
        shape = (self.batch_size, self.length)
        with torch.no_grad():
            reward = window.settled
            before, after = (self.env.view(rows(window.states, shape, which)) for which in (BEFORE, AFTER))
            fresh = self.reward.fresh(before, after, window.terminated.flatten())
            if fresh is not None:
                reward = reward + fresh.view(shape)
        first = self._frames(window, shape, BEFORE)
        then = first if self.remembers else self._frames(window, shape, AFTER)
        online = self._pick(self._along(self.online, first), shape, BEFORE)
        with torch.no_grad():
            value = self._value(then, shape).view(shape)
        ended = window.terminated | ~window.valid
        td_target = lambda_returns(reward, value, ended, self.gamma(self.progress), self.trace)
        q = self._of(online, window.action.flatten(0, 1)).view(*shape, -1)  # [B, L, F]
        weight = window.valid * window.weight.unsqueeze(1)
        misfit = smooth_l1_loss(q, td_target.unsqueeze(2).expand_as(q), reduction="none").mean(2)
        loss = (misfit * weight).sum() / window.valid.sum().clamp(min=1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.online.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self._follow()
        error = ((q.detach() - td_target.unsqueeze(2)).abs().mean(2) * window.valid).mean(1)
        self.replay.set_urgency(window.start, error)
        return {"loss": loss.detach(), "q": q.detach().mean(), "td_error": error.mean()}

    def _frames(self, window: Window, shape: tuple[int, int], which: slice) -> Frames:
        """The chosen frames of every window; for networks that remember, all frames in the order of time."""
        if not self.remembers:
            return Frames(rows(window.states, shape, which), torch.zeros_like(window.valid).view(1, -1))
        batch, length = shape

        def ordered(field: Tensor) -> Tensor:
            return field.view(batch, length + 1, *field.shape[1:]).transpose(0, 1).flatten(0, 1)

        final = ~window.valid  # the next frame begins another episode
        start = torch.cat([torch.zeros_like(final[:, :1]), final], 1).T
        return Frames(map_tensors(ordered, window.states), start)

    def _pick(self, said: Tensor, shape: tuple[int, int], which: slice) -> Tensor:
        """What was said of `_frames`, [·, A], in the chosen frames only, window by window, [B · L, A]."""
        if not self.remembers:
            return said
        batch, length = shape
        return said.view(length + 1, batch, -1).transpose(0, 1)[:, which].flatten(0, 1)

    def _along(self, network: torch.nn.Module, frames: Frames) -> Tensor:
        """Q-values of all frames, the memory being that of a beginning."""
        carry = network.carry(frames.start.shape[1])  # type: ignore[operator]
        return self._q(network, self.env, frames.state, carry, frames.start)[0]

    def _value(self, frames: Frames, shape: tuple[int, int]) -> Tensor:
        """V of the target network after each step of the windows, [B · L]."""
        q = self._pick(self._along(self.target, frames), shape, AFTER)
        if self.backup == "q":
            best = self._best(self._pick(self._along(self.online, frames), shape, AFTER) if self.double else q)
            return self._of(q, best).mean(1)
        temperature = self.temperature(self.progress)
        if self.prior is not None:
            carry = self.prior.carry(frames.start.shape[1])  # type: ignore[operator]
            log_prior = self._log_prior(self.env, frames.state, carry, frames.start)[0]
            return temperature * torch.logsumexp(q / temperature + self._pick(log_prior, shape, AFTER), 1)
        sums = [soft_value(part, temperature, mean=self.backup == "soft") for part in q.split(self.sizes, 1)]
        return torch.stack(sums).mean(0)

    def _q(self, network: torch.nn.Module, env: Env, state: State, carry: Carry, start: Tensor) -> tuple[Tensor, Carry]:
        """Q-values, float32 [N, A], with forbidden actions at −∞; and what the network remembers."""
        with self.precision():
            out = network(env.observe(state), carry, start)
        mask = env.action_mask(state)
        q = out.q.float()
        return q if mask is None else q.masked_fill(~mask, -torch.inf), out.carry

    def _log_prior(self, env: Env, state: State, carry: Carry, start: Tensor) -> tuple[Tensor, Carry]:
        """The prior's log-probabilities, [N, A], and its memory; without a prior zeros."""
        if self.prior is None:
            return torch.zeros((), device=start.device), None
        out = self.prior(env.observe(state), env.action_mask(state), carry, start)
        return out.policy.log_p, out.carry

    def _best(self, q: Tensor) -> Tensor:
        """The best action, [N], or of each branch, [N, F]."""
        best = torch.stack([part.argmax(1) for part in q.split(self.sizes, 1)], 1)
        return best.squeeze(1) if isinstance(self.actions, Discrete) else best

    def _of(self, q: Tensor, action: Tensor) -> Tensor:
        """Q of an action in each branch, [N, F]; a single decision has one."""
        chosen = action.view(len(q), -1).unbind(1)
        parts = zip(q.split(self.sizes, 1), chosen, strict=True)
        return torch.cat([part.gather(1, choice.unsqueeze(1)) for part, choice in parts], 1)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the target network towards the online one."""
        self.count += 1
        target: list[Tensor] = list(self.target.parameters())
        online: list[Tensor] = list(self.online.parameters())
        if self.target_update == "soft":
            torch._foreach_lerp_(target, online, self.tau)
        elif self.count % self.target_interval == 0:
            torch._foreach_copy_(target, online)

    def state_dict(self) -> dict[str, Any]:
        return {
            "online": self.online.state_dict(),
            "prior": {} if self.prior is None else self.prior.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "progress": self.progress,
            "credit": self.credit,
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])
        self.optimizer.load_state_dict(state["optimizer"])
        state_type = type(self.env.reset(1, torch.Generator(device=self.rng.device).manual_seed(0)))
        self.replay.load_state_dict(state["replay"], state_type)
        self.progress, self.credit, self.count = state["progress"], state["credit"], state["count"]


BEFORE, AFTER = slice(None, -1), slice(1, None)  # each step of a window is between two of its frames


def rows(states: State, shape: tuple[int, int], which: slice) -> State:
    """The chosen frames of every window, flat: rows [B · (L + 1)] to [B · L]."""
    batch, length = shape

    def pick(field: Tensor) -> Tensor:
        return field.view(batch, length + 1, *field.shape[1:])[:, which].flatten(0, 1)

    return map_tensors(pick, states)
