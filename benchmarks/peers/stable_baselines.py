"""Stable-Baselines3 on rlgen's batched environment, and in its usual way, on a DummyVecEnv of single ones."""

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from omegaconf import DictConfig
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from benchmarks.peers.networks import schedule, zeroed
from benchmarks.peers.task import NETWORK, Greedy, Task, size
from rlgen_cli.core.specs import Observation, ObservationSpec
from rlgen_cli.gymnasium import CanvasVectorEnv, arrays
from rlgen_cli.policies.distributions import small
from rlgen_cli.policies.encoders import MLP


class StableBaselines:
    """An algorithm of Stable-Baselines3 with the settings that rlgen's agent has.

    Args:
        task: what it learns. envs: what it steps, or None for the batched environment.
    """

    def __init__(self, task: Task, envs: VecEnv | None = None) -> None:
        config = task.config()
        envs = envs or Batch(CanvasVectorEnv(env="pixel", num_envs=config.num_envs, overrides=task.environment))
        self.model = model = built(task.algorithm, config, envs, task.session().envs["train"].spec.observation)
        model.set_logger(Logger(folder=None, output_formats=[]))  # else each call of learn would leave a folder
        self.actor = Greedy(self._act)
        self.parameters = size(model.q_net if isinstance(model, DQN) else model.policy)

        def set_progress(num_timesteps: int, total_timesteps: int) -> None:
            model._current_progress_remaining = 1 - num_timesteps / config.total_steps

        # Else each call of learn would begin the schedules anew.
        model._update_current_progress_remaining = set_progress  # type: ignore[method-assign]

    def train(self, steps: int) -> float:
        began = time.perf_counter()
        self.model.learn(steps, log_interval=10**9, reset_num_timesteps=False)
        return time.perf_counter() - began

    def _act(self, observation: Observation) -> Tensor:
        action, _ = self.model.predict(arrays(observation), deterministic=True)
        return torch.as_tensor(action)


class Batch(VecEnv):
    """Our vector environment as Stable-Baselines3 wants one; the episodes are stepped as one batch all the same."""

    def __init__(self, envs: CanvasVectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        observation, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observation

    def step_async(self, actions: Any) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observation, reward, done, _, infos = self.envs.step(self.actions)
        details: list[dict[str, Any]] = [{} for _ in done]
        for i in np.flatnonzero(done):
            details[i]["terminal_observation"] = infos["final_obs"][i]
        return observation, reward, done, details

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def close(self) -> None:
        self.envs.close()


def single_environments(environment: list[str], num_envs: int) -> DummyVecEnv:
    """What a user of Stable-Baselines3 would make of `rlgen/pixel-v0`: one object for each episode, stepped in turn.
    Each reads the data for itself, which takes most of a second."""
    return DummyVecEnv([lambda: gymnasium.make("rlgen/pixel-v0", overrides=environment)] * num_envs)


class Body(BaseFeaturesExtractor):
    """rlgen's own perceptron below the linear heads that Stable-Baselines3 adds; what each action would gain at once
    follows the features."""

    def __init__(self, observation_space: spaces.Dict, spec: ObservationSpec, **sizes: int) -> None:
        super().__init__(observation_space, sizes["width"])
        self.body = MLP(observation=spec, **sizes)

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        return torch.cat([self.body(observation), observation["action_gain"]], 1)  # [N, width + A]


class WithGains(nn.Module):
    """A linear head on the features, to which the gains are added (or, for a value, are not), as in rlgen."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        features, gains = x.split([self.linear.in_features, x.shape[1] - self.linear.in_features], 1)
        out: Tensor = self.linear(features)
        return out + gains if out.shape == gains.shape else out


def built(algorithm: str, config: DictConfig, envs: VecEnv, spec: ObservationSpec) -> BaseAlgorithm:
    """The algorithm with rlgen's network in it."""
    agent, optimizer = config.agent, config.agent.optimizer
    policy: dict[str, Any] = {
        "net_arch": [], "features_extractor_class": Body, "features_extractor_kwargs": {"spec": spec, **NETWORK},
        "optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": optimizer.eps},
    }  # fmt: skip
    rate = schedule(optimizer.learning_rate)
    common: dict[str, Any] = {
        "policy": "MultiInputPolicy", "env": envs, "learning_rate": lambda left: rate(1 - left),
        "max_grad_norm": optimizer.max_grad_norm, "seed": config.seed, "device": "cpu",
    }  # fmt: skip
    if algorithm == "dqn":
        dqn = DQN(**common, **dqn_settings(config), policy_kwargs=policy)
        for network in (dqn.q_net, dqn.q_net_target):
            network.q_net = WithGains(zeroed(network.q_net[0]))  # type: ignore[assignment, arg-type]
        return dqn
    kind = A2C if algorithm == "a2c" else PPO
    model = kind(**common, **rollout_settings(algorithm, config), policy_kwargs=policy | {"ortho_init": False})
    init_scale = agent.network.init_scale
    model.policy.action_net = WithGains(small(model.policy.action_net, init_scale))  # type: ignore[arg-type]
    model.policy.value_net = WithGains(zeroed(model.policy.value_net))  # type: ignore[assignment]
    return model


def dqn_settings(config: DictConfig) -> dict[str, Any]:
    """One update and one soft step of the target per batched environment step, as in rlgen."""
    agent, epsilon = config.agent, config.agent.exploration.epsilon
    return {
        "gamma": agent.gamma.end,
        "buffer_size": agent.replay.buffer_size,
        "learning_starts": agent.learning_starts - 1,  # Stable-Baselines3 learns after it, rlgen from it on
        "batch_size": agent.batch_size,
        "train_freq": 1,
        "gradient_steps": 1,
        "tau": agent.target_update.tau,
        "target_update_interval": config.num_envs,
        "exploration_initial_eps": epsilon.start,
        "exploration_final_eps": epsilon.end,
        "exploration_fraction": epsilon.share,
    }


def rollout_settings(algorithm: str, config: DictConfig) -> dict[str, Any]:
    """What A2C and PPO share, and PPO's own."""
    agent, objective = config.agent, config.agent.objective
    settings = {
        "gamma": agent.gamma,
        "n_steps": agent.num_steps,
        "gae_lambda": agent.gae_lambda,
        "ent_coef": objective.entropy_coef.start,
        "vf_coef": objective.value_coef / 2,  # rlgen halves the squared error
        "normalize_advantage": objective.normalize_advantage,
    }
    if algorithm == "a2c":
        return settings | {"use_rms_prop": False}
    batch = config.num_envs * agent.num_steps // agent.num_minibatches
    return settings | {"n_epochs": agent.update_epochs, "batch_size": batch, "clip_range": objective.clip_range}
