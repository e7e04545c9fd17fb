"""Deep Q-learning (Mnih et al. 2015) with its common improvements as flags.

Deviations from the papers, numbered:
1. Rewards of trained terms (a discriminator) are recomputed when a batch is drawn, since they go stale in a memory.
2. n-step targets (Sutton 1988) come from windows of n + 1 successive frames, and every position of a window is
   trained, on the return up to the window's end: its first position has n steps, its last has one. `trace` < 1 mixes
   these with bootstrapped values (λ-returns). No correction is made for exploratory actions inside a window.
3. Soft backup (Haarnoja et al. 2017, eq. 9) uses log-mean-exp instead of log-sum-exp: a constant per step for a fixed
   number of actions, which keeps values near those of hard backup. The policy is then Boltzmann, in evaluation too.
4. Prioritised replay (Schaul et al. 2016) ranks a window by the mean |TD error| of its positions.
5. With several decisions a step (branches, Tavakoli et al. 2018), each branch is trained towards the same target,
   which bootstraps from the mean of the branches' values (their eq. 6), and a window's error is the branches' mean.
6. The learning rate, ε, γ and the temperature follow the training's progress, not a step count; a γ that rises
   learns the next strokes first and long plans later (François-Lavet et al. 2015).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from rlgen_cli.errors import require
from rlgen_cli.memory.replay import Replay
from rlgen_cli.networks.precision import Precision
from rlgen_cli.networks.q_network import branches
from rlgen_cli.returns import lambda_returns, soft_value
from rlgen_cli.schedules import Linear
from rlgen_cli.tree import map_tensors
from rlgen_cli.types import Carry, Choice, Discrete, Env, EnvSpec, Factored, Metrics, Reward, State, Transition


class DQN:
    """Q-learning from a replay memory of states.

    Args:
        network: builds a Q-network from observation spec, action spec and `dueling`.
        gamma: discount per step. temperature: of the soft backup and policy; 0 is the hard maximum.
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
        soft = coldest > 0 or temperature.start == temperature.end == 0
        require(soft, "temperature: must be above 0 from start to end, or 0 at both for the hard maximum.")
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(updates > 0, f"updates: must be above 0, got {updates}.")
        require(0.0 < tau <= 1.0, f"tau: must be in (0, 1], got {tau}.")
        require(target_interval >= 1, f"target_interval: must be at least 1, got {target_interval}.")
        require(0.0 <= sober <= 1.0, f"sober: must be in [0, 1], got {sober}.")
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        assert isinstance(env.spec.action, Discrete | Factored)
        self.env, self.reward, self.rng, self.precision = env, reward, rng, precision
        self.actions, self.sizes = env.spec.action, branches(env.spec.action)
        self.gamma, self.double, self.n_step, self.trace = gamma, double, n_step, float(trace)
        self.soft, self.temperature = coldest > 0, temperature
        self.batch_size, self.updates = batch_size, float(updates)
        self.target_update, self.tau, self.target_interval = target_update, float(tau), target_interval
        self.epsilon, self.learning_rate, self.max_grad_norm = epsilon, learning_rate, float(max_grad_norm)
        self.first_calls = max(warmup // num_envs, n_step + 1)
        self.daring = torch.arange(num_envs, device=device) >= round(sober * num_envs)  # these explore

        def build() -> torch.nn.Module:
            net = network(observation=env.spec.observation, action=env.spec.action, dueling=dueling)
            return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        self.online, self.target = build(), build().requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=learning_rate(0.0), eps=1e-5, foreach=True)
        self.replay = Replay(capacity, num_envs, device, priority, correction)
        self.progress, self.credit, self.count = 0.0, 0.0, 0

    def carry(self, n: int) -> Carry:
        return None

    @torch.no_grad()
    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        """Greedy, or Boltzmann at `temperature`; with `explore`, uniform with probability ε."""
        q = self._q(self.online, env, state)
        if self.soft:
            uniform = torch.rand(q.shape, generator=rng, device=q.device).clamp(1e-9, 1 - 1e-7)
            q = q / self.temperature(self.progress) - (-uniform.log()).log()  # the Gumbel trick draws from the softmax
        action = self._best(q)
        if not explore:
            return Choice(action)
        random = self.actions.sample(len(action), rng)
        dare = torch.rand(len(action), generator=rng, device=q.device) < self.epsilon(self.progress)
        return Choice(torch.where((dare & self.daring).view(-1, *[1] * (action.dim() - 1)), random, action))

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
        window = self.replay.sample(self.batch_size, self.n_step, self.rng)
        shape = (self.batch_size, self.n_step)
        before = _positions(window.states, shape, slice(None, -1))
        after = _positions(window.states, shape, slice(1, None))
        with torch.no_grad():
            reward = window.settled
            fresh = self.reward.fresh(self.env.view(before), self.env.view(after), window.terminated.flatten())
            if fresh is not None:
                reward = reward + fresh.view(shape)
            value = self._value(after).view(shape)
            ended = window.terminated | ~window.valid
            td_target = lambda_returns(reward, value, ended, self.gamma(self.progress), self.trace)
        q = self._of(self._q(self.online, self.env, before), window.action.flatten(0, 1)).view(*shape, -1)  # [B, L, F]
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

    def _q(self, network: torch.nn.Module, env: Env, state: State) -> Tensor:
        """Q-values, float32 [N, A], with forbidden actions at −∞."""
        with self.precision():
            q = network(env.observe(state)).float()
        mask = env.action_mask(state)
        return q if mask is None else q.masked_fill(~mask, -torch.inf)

    def _best(self, q: Tensor) -> Tensor:
        """The best action, [N], or of each branch, [N, F]."""
        best = torch.stack([part.argmax(1) for part in q.split(self.sizes, 1)], 1)
        return best.squeeze(1) if isinstance(self.actions, Discrete) else best

    def _of(self, q: Tensor, action: Tensor) -> Tensor:
        """Q of an action in each branch, [N, F]; a single decision has one."""
        chosen = action.view(len(q), -1).unbind(1)
        parts = zip(q.split(self.sizes, 1), chosen, strict=True)
        return torch.cat([part.gather(1, choice.unsqueeze(1)) for part, choice in parts], 1)

    def _value(self, state: State) -> Tensor:
        """V of the target network, [N]: soft, double (van Hasselt et al. 2016), or the plain maximum."""
        q = self._q(self.target, self.env, state)
        if self.soft:
            return torch.stack(
                [soft_value(part, self.temperature(self.progress)) for part in q.split(self.sizes, 1)]
            ).mean(0)
        return self._of(q, self._best(self._q(self.online, self.env, state) if self.double else q)).mean(1)

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
        self.optimizer.load_state_dict(state["optimizer"])
        state_type = type(self.env.reset(1, torch.Generator(device=self.rng.device).manual_seed(0)))
        self.replay.load_state_dict(state["replay"], state_type)
        self.progress, self.credit, self.count = state["progress"], state["credit"], state["count"]


def _positions(states: State, shape: tuple[int, int], which: slice) -> State:
    """The chosen frames of every window, flat: rows [B · (L + 1)] to [B · L]."""
    batch, length = shape

    def pick(field: Tensor) -> Tensor:
        return field.view(batch, length + 1, *field.shape[1:])[:, which].flatten(0, 1)

    return map_tensors(pick, states)
