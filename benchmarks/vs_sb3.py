"""Stable-Baselines3 beside rlgen: DQN, A2C and PPO on one task, with the same network and the same settings.

python -m benchmarks.vs_sb3 [seeds=1,2] [steps=200000] [agents=dqn,a2c,ppo]
"""

import sys
import time
from typing import Any, NamedTuple

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from omegaconf import DictConfig
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, opened, remembered, seconds_until, trained
from benchmarks.report import Row, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import ObservationSpec, State
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.gymnasium import CanvasVectorEnv, arrays
from rlgen_cli.policies.distributions import small
from rlgen_cli.policies.encoders import MLP
from rlgen_cli.runs.assemble import Session, assemble

TASK = [
    "env=pixel", "env.size=16", "brush=pen", "env.brush.reach=3", "env.brush.widths=[1.5]", "env.brush.patch_size=7",
    "env.brush.preview_scale=10", "env.max_steps=24", "reward=target", "num_envs=64", "device=cpu",
    "precision=float32", "threads=1", "eval_interval=1000000000", "checkpoint_interval=1000000000",
]  # fmt: skip
NETWORK = {"width": 128, "layers": 2, "pool": 1, "embed": 16}
POLICY_GRADIENT = [
    "agent.network.maps=null", "agent.gamma=0.95", "agent.gae_lambda=0.95", "agent.target_kl=null",
    "agent.objective.normalize_advantage=true", "agent.objective.entropy_coef={start:0.01,end:0.01,share:1.0}",
    "agent.objective.value_coef=0.5", "agent.optimizer.max_grad_norm=0.5", "agent.evaluate=mode",
    "agent.optimizer.learning_rate={start:1e-3,end:1e-5,share:1.0}",
]  # fmt: skip
AGENTS: dict[str, list[str]] = {
    "dqn": [
        "agent=dqn", "agent.network.maps=null", "agent.gamma={start:0.95,end:0.95}", "agent.batch_size=256",
        "agent.replay.buffer_size=25600", "agent.learning_starts=2048", "agent.gradient_steps=1",
        "agent.target_update.tau=0.01", "agent.exploration.epsilon={start:1.0,end:0.02,share:0.3}",
        "agent.optimizer.learning_rate={start:1e-3,end:1e-5,share:1.0}", "agent.optimizer.max_grad_norm=10",
    ],
    "a2c": ["agent=actor_critic", *POLICY_GRADIENT, "agent.num_steps=8", "agent.update_epochs=1",
            "agent.num_minibatches=1"],
    "ppo": ["agent=ppo", *POLICY_GRADIENT, "agent.num_steps=24", "agent.update_epochs=4", "agent.num_minibatches=4",
            "agent.objective.clip_range=0.2"],
}  # fmt: skip
SMALL = [*QUICK, "total_steps=384"]
SMALL_DQN = ["agent.learning_starts=64", "agent.batch_size=16"]


class Result(NamedTuple):
    """A training's."""

    held_out: float  # mean return of held-out episodes
    rate: float  # environment steps a second
    parameters: int


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


class ModelPlanner:
    """A model of Stable-Baselines3 where rlgen expects one that acts."""

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model = model

    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        action, _ = self.model.predict(arrays(env.observe(state)), deterministic=True)
        return torch.as_tensor(action)


def their_model(name: str, config: DictConfig, task: list[str], spec: ObservationSpec) -> BaseAlgorithm:
    """The algorithm of Stable-Baselines3 with the settings that the config's agent has."""
    agent, optimizer = config.agent, config.agent.optimizer
    envs = CanvasVectorEnv(env="pixel", num_envs=config.num_envs, overrides=task)
    policy: dict[str, Any] = {
        "net_arch": [], "features_extractor_class": Body, "features_extractor_kwargs": {"spec": spec, **NETWORK},
        "optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": optimizer.eps},
    }  # fmt: skip
    rate = Linear(optimizer.learning_rate.start, optimizer.learning_rate.end, optimizer.learning_rate.share)
    common: dict[str, Any] = {
        "policy": "MultiInputPolicy", "env": Batch(envs), "learning_rate": lambda left: rate(1 - left),
        "max_grad_norm": optimizer.max_grad_norm, "seed": config.seed, "device": "cpu",
    }  # fmt: skip
    if name == "dqn":
        dqn = DQN(**common, **dqn_settings(config), policy_kwargs=policy)
        for network in (dqn.q_net, dqn.q_net_target):
            network.q_net = WithGains(zeroed(network.q_net[0]))  # type: ignore[assignment, arg-type]
        return dqn
    kind = A2C if name == "a2c" else PPO
    model = kind(**common, **rollout_settings(name, config), policy_kwargs=policy | {"ortho_init": False})
    init_scale = agent.network.init_scale
    model.policy.action_net = WithGains(small(model.policy.action_net, init_scale))  # type: ignore[arg-type]
    model.policy.value_net = WithGains(zeroed(model.policy.value_net))  # type: ignore[assignment]
    return model


def zeroed(linear: nn.Linear) -> nn.Linear:
    """Zeros at first, as in rlgen."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def dqn_settings(config: DictConfig) -> dict[str, Any]:
    """One update and one soft step of the target per batched environment step, as in rlgen."""
    agent, epsilon = config.agent, config.agent.exploration.epsilon
    return {
        "gamma": agent.gamma.end,
        "buffer_size": agent.replay.buffer_size,
        "learning_starts": agent.learning_starts,
        "batch_size": agent.batch_size,
        "train_freq": 1,
        "gradient_steps": 1,
        "tau": agent.target_update.tau,
        "target_update_interval": config.num_envs,
        "exploration_initial_eps": epsilon.start,
        "exploration_final_eps": epsilon.end,
        "exploration_fraction": epsilon.share,
    }


def rollout_settings(name: str, config: DictConfig) -> dict[str, Any]:
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
    if name == "a2c":
        return settings | {"use_rms_prop": False}
    batch = config.num_envs * agent.num_steps // agent.num_minibatches
    return settings | {"n_epochs": agent.update_epochs, "batch_size": batch, "clip_range": objective.clip_range}


def held_out(session: Session, actor: Actor, episodes: int) -> float:
    """Mean return of an actor that does not explore, over the same held-out episodes for every one."""
    env, reward = session.envs["test"], session.reward
    start = env.view(env.reset(episodes, stream(0, "eval", session.device)))  # where evaluate begins too
    blank = sum(reward.terms[name].weight * float(score.mean()) for name, score in reward.score(start).items())
    return evaluate(env, actor, reward, episodes=episodes, seed=0, device=session.device).total - blank


def size(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


class Comparison:
    """The trainings of both libraries."""

    def __init__(self, call: Call) -> None:
        self.call, self.steps, self.episodes = call, int(call.settings["steps"]), call.pick(500, 20)
        self.task = [*TASK, *mnist(call), *call.pick([], SMALL)]

    def words(self, name: str, seed: int) -> list[str]:
        """What rlgen is trained with."""
        network = [f"agent.network.body.{key}={value}" for key, value in NETWORK.items()]
        steps = [f"total_steps={self.steps}", f"log_interval={max(self.steps // 10, 1)}"]
        small = [*SMALL, *(SMALL_DQN if name == "dqn" else [])]
        return [*AGENTS[name], *network, *self.task, f"seed={seed}", *steps, *self.call.pick([], small)]

    def ours(self, name: str, seed: int) -> Result:
        """rlgen."""
        folder = trained(self.call.parts / f"{name}_{seed}_{self.steps}", self.words(name, seed))
        session = opened(folder)
        assert session.agent is not None
        network: Any = session.agent.policy
        steps = session.settings.total_steps
        return Result(held_out(session, session.actor, self.episodes), steps / seconds_until(folder), size(network.net))

    def theirs(self, name: str, seed: int) -> Result:
        """Stable-Baselines3, trained once and then remembered."""

        def measured() -> Result:
            session = assemble(composed("train", self.words(name, seed)))
            model = their_model(name, session.config, self.task, session.envs["train"].spec.observation)
            began = time.perf_counter()
            model.learn(session.settings.total_steps, log_interval=10**9)
            rate = model.num_timesteps / (time.perf_counter() - began)
            network = model.q_net if isinstance(model, DQN) else model.policy
            return Result(held_out(session, ModelPlanner(model), self.episodes), rate, size(network))

        return Result(*remembered(self.call.parts / f"sb3_{name}_{seed}_{self.steps}.json", measured))

    def by_planner(self, name: str) -> str:
        """The return of a planner, for reference."""
        session = assemble(composed("train", [*self.task, f"agent={name}"]))
        return f"{held_out(session, session.actor, self.episodes):.2f}"

    def about(self) -> str:
        """What was equal, and what was not."""
        return (
            f"Copying MNIST digits by pen: 16 × 16, 24 moves, 64 environments, {self.steps:,} environment steps. "
            f"Stable-Baselines3 {stable_baselines3.__version__} steps the same batched environment by "
            "`rlgen_cli.gymnasium`, and trains rlgen's own perceptron (a features extractor) with the same heads, to "
            "which what each move gains at once is added (without it Stable-Baselines3's A2C and PPO ended with a "
            "blank canvas). Equal are the initial values, Adam, learning rates, discount, batches, updates per step, "
            f"rollouts and epochs. The return is the mean over {self.episodes} episodes on held-out data, the same for "
            "all, without exploration; 10 would be a perfect copy. Not equal: Stable-Baselines3's DQN tosses one coin "
            "for all environments when it explores; rlgen's replay packs states, Stable-Baselines3's holds float32 "
            "observations. Speed is that of the whole training loop."
        )


def row(name: str, library: str, results: list[Result]) -> Row:
    """One line of the table, over the seeds."""
    returns = [result.held_out for result in results]
    each = ", ".join(f"{value:.2f}" for value in returns)
    rate = np.median([result.rate for result in results])
    return [name, library, f"{results[0].parameters:,}", f"**{np.mean(returns):.2f}** ({each})", f"{rate:,.0f}"]


def measure(call: Call) -> None:
    compared = Comparison(call)
    rows: list[Row] = [
        ["algorithm", "library", "parameters", "held-out return (each seed)", "steps/s"],
        ["random actions", "", "", compared.by_planner("random"), ""],
        ["one-step search by the true reward", "", "", compared.by_planner("greedy"), ""],
    ]
    for name in call.each("agents"):
        pairs = [(compared.theirs(name, seed), compared.ours(name, seed)) for seed in call.seeds()]
        print(name, *pairs, flush=True)
        theirs, ours = zip(*pairs, strict=True)
        rows += [row(name.upper(), "Stable-Baselines3", list(theirs)), row(name.upper(), "rlgen", list(ours))]
    write(call, "Beside Stable-Baselines3", [compared.about(), table(rows)])


def main(arguments: list[str]) -> None:
    run("vs_sb3", measure, arguments, seeds="1,2", steps="200000", agents="dqn,a2c,ppo")


if __name__ == "__main__":
    main(sys.argv[1:])
