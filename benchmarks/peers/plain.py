"""DQN (Mnih et al. 2015) and A2C and PPO (Mnih et al. 2016, Schulman et al. 2017), each as one loop in plain torch, as
short as single-file implementations such as CleanRL have it; written from the papers.

They step rlgen's Gymnasium vector environment, as Stable-Baselines3 does here, which is what such a loop meets
anywhere: the episodes are one batch, and arrays become tensors without a copy.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import mse_loss, smooth_l1_loss

from benchmarks.peers.networks import ActorCritic, Descent, QNetwork, schedule
from benchmarks.peers.task import Loop, Task
from rlgen_cli.core.specs import Observation
from rlgen_cli.gymnasium import CanvasVectorEnv


def plain(task: Task) -> Loop:
    """The loop of the task's algorithm."""
    config, spec = task.config(), task.session().envs["train"].spec
    envs = CanvasVectorEnv(env="pixel", num_envs=config.num_envs, overrides=task.environment)
    torch.manual_seed(config.seed)
    if task.algorithm == "dqn":
        q = QNetwork(spec)
        return Loop(q, dqn(q, envs, config), config.num_envs, lambda seen: q(seen).argmax(1))
    net = ActorCritic(spec, config.agent.network.init_scale)
    return Loop(net, policy_gradient(net, envs, config), config.num_envs, lambda seen: net(seen)[0].argmax(1))


def dqn(net: QNetwork, envs: CanvasVectorEnv, config: DictConfig) -> Iterator[None]:
    """Deep Q-learning from a ring of observations."""
    agent, n, total = config.agent, config.num_envs, config.total_steps
    gamma, tau, epsilon = agent.gamma.end, agent.target_update.tau, schedule(agent.exploration.epsilon)
    target, descent = copy.deepcopy(net), Descent(list(net.parameters()), agent.optimizer)
    observation = tensors(envs.reset(seed=config.seed)[0])
    ring = Ring(agent.replay.buffer_size // n, observation)
    for step in range(0, total, n):
        with torch.no_grad():
            greedy = net(observation).argmax(1)
        explore = torch.rand(n) < epsilon(step / total)
        action = torch.where(explore, torch.randint(net.head.out_features, (n,)), greedy)
        after, reward, done, _, _ = envs.step(action.numpy())
        ring.add(observation, action, torch.from_numpy(reward), torch.from_numpy(done))
        observation = tensors(after)
        if step + n >= agent.learning_starts:
            batch = ring.sample(agent.batch_size)
            with torch.no_grad():
                value = target(batch.after).amax(1)
                td_target = batch.reward + gamma * value * ~batch.done
            q = net(batch.observation).gather(1, batch.action.unsqueeze(1)).squeeze(1)
            descent.step(smooth_l1_loss(q, td_target), step / total)
            with torch.no_grad():
                for old, new in zip(target.parameters(), net.parameters(), strict=True):
                    old.lerp_(new, tau)
        yield


class Batch(NamedTuple):
    """Transitions, [B, …] each."""

    observation: Observation
    action: Tensor
    reward: Tensor
    done: Tensor
    after: Observation


class Ring:
    """The newest batched steps, with each observation once: the next row's is what came after. Where an episode ended
    it is the next one's first, which no target looks at.

    Args:
        rows: how many. example: an observation of N environments.
    """

    def __init__(self, rows: int, example: Observation) -> None:
        self.rows, self.n, self.count = rows, len(next(iter(example.values()))), 0
        self.observation = {name: torch.zeros(rows, *field.shape) for name, field in example.items()}
        self.action = torch.zeros(rows, self.n, dtype=torch.long)
        self.reward, self.done = torch.zeros(rows, self.n), torch.zeros(rows, self.n, dtype=torch.bool)

    def add(self, observation: Observation, action: Tensor, reward: Tensor, done: Tensor) -> None:
        """One step of N environments, in the place of the oldest."""
        row = self.count % self.rows
        for name, field in observation.items():
            self.observation[name][row] = field
        self.action[row], self.reward[row], self.done[row] = action, reward, done
        self.count += 1

    def sample(self, size: int) -> Batch:
        """Transitions at random, but for the newest, whose next observation is not here yet."""
        back = torch.randint(1, min(self.count, self.rows), (size,))
        env, row = torch.randint(self.n, (size,)), (self.count - 1 - back) % self.rows
        here, there = row * self.n + env, (row + 1) % self.rows * self.n + env
        flat = {name: field.flatten(0, 1) for name, field in self.observation.items()}
        observation, after = ({name: field[at] for name, field in flat.items()} for at in (here, there))
        action, reward, done = (field.flatten()[here] for field in (self.action, self.reward, self.done))
        return Batch(observation, action, reward, done, after)


def policy_gradient(net: ActorCritic, envs: CanvasVectorEnv, config: DictConfig) -> Iterator[None]:
    """PPO; with one pass over the rollout as one batch, and no clip, A2C."""
    agent, objective, n, total = config.agent, config.agent.objective, config.num_envs, config.total_steps
    descent = Descent(list(net.parameters()), agent.optimizer)
    observation = tensors(envs.reset(seed=config.seed)[0])
    shape = (agent.num_steps, n)
    seen = {name: torch.zeros(agent.num_steps, *field.shape) for name, field in observation.items()}
    actions, dones = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    log_probs, values, rewards = (torch.zeros(shape) for _ in range(3))
    for step in range(0, total, n):
        t = step // n % agent.num_steps
        with torch.no_grad():
            logits, values[t] = net(observation)
            policy = Categorical(logits=logits, validate_args=False)
            actions[t] = policy.sample()
            log_probs[t] = policy.log_prob(actions[t])
        for name, field in observation.items():
            seen[name][t] = field
        after, reward, done, _, _ = envs.step(actions[t].numpy())
        rewards[t], dones[t] = torch.from_numpy(reward), torch.from_numpy(done)
        observation = tensors(after)
        if t == agent.num_steps - 1:
            with torch.no_grad():
                last = net(observation)[1]
            advantages = generalised_advantages(rewards, values, dones, last, agent.gamma, agent.gae_lambda)
            batch = {name: field.flatten(0, 1) for name, field in seen.items()}
            flat = [part.flatten() for part in (actions, log_probs, advantages, advantages + values)]
            for _ in range(agent.update_epochs):
                for index in torch.randperm(len(flat[0])).chunk(agent.num_minibatches):
                    chosen = {name: field[index] for name, field in batch.items()}
                    loss = surrogate(net, objective, chosen, *(part[index] for part in flat))
                    descent.step(loss, step / total)
        yield


def generalised_advantages(
    reward: Tensor, value: Tensor, done: Tensor, last: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """GAE(λ) of T steps of N environments, all [T, N] but for `last` [N], the value of what came after."""
    advantages, advantage = torch.zeros_like(reward), torch.zeros_like(last)
    for t in reversed(range(len(reward))):
        going = 1 - done[t]
        advantage = reward[t] + gamma * last * going - value[t] + gamma * gae_lambda * going * advantage
        advantages[t], last = advantage, value[t]
    return advantages


def surrogate(
    net: ActorCritic, objective: DictConfig, observation: Observation, action: Tensor, old: Tensor, advantage: Tensor,
    returns: Tensor,
) -> Tensor:  # fmt: skip
    """The loss of B steps: policy, value and entropy."""
    logits, value = net(observation)
    policy = Categorical(logits=logits, validate_args=False)
    ratio = (policy.log_prob(action) - old).exp()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    gain = ratio * advantage
    if objective.clip_range is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - objective.clip_range, 1 + objective.clip_range) * advantage)
    value_loss = 0.5 * mse_loss(value, returns)
    return -gain.mean() + objective.value_coef * value_loss - objective.entropy_coef.start * policy.entropy().mean()


def tensors(observation: dict[str, Any]) -> Observation:
    """The arrays of the vector environment, which does not change them afterwards."""
    return {name: torch.from_numpy(field) for name, field in observation.items()}
