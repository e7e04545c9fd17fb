"""Stable-Baselines3 beside rlgen: DQN, A2C and PPO on one task, with the same network and the same settings.

python -m benchmarks.vs_sb3                                      two seeds each, about eight minutes on one core
python -m benchmarks.vs_sb3 seeds=3 steps=400000 only=dqn,ppo    more seeds, longer, fewer algorithms
"""

import dataclasses
import sys
import time
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from benchmarks.judge import SHARED
from benchmarks.report import new_run, seconds_until, table, write
from rlgen_cli.agents.dqn import DQN as RlgenDQN
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.gymnasium import CanvasVectorEnv, arrays
from rlgen_cli.policies.encoders import Perceptron
from rlgen_cli.policies.distributions import small
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import Choice, Env, Observation, State

EPISODES = 500  # held-out ones
MNIST = ["data=mnist", f"data.root={SHARED / 'mnist'}"]
TASK = [
    *(MNIST if (SHARED / "mnist").exists() else ["data=glyphs"]), "env=pixel", "env.size=16", "env.action=pen",
    "env.pen=move", "env.reach=3", "env.widths=[1.5]", "env.max_steps=24", "env.patch=7", "env.preview=10",
    "reward=target", "num_envs=64", "device=cpu", "precision=float32", "eval_interval=1000000000",
    "checkpoint_interval=1000000000",
]  # fmt: skip
NETWORK = {"width": 128, "layers": 2, "pool": 1, "embed": 16}
AGENTS: dict[str, list[str]] = {
    "dqn": [
        "agent=dqn", "agent.network.head=plain", "agent.gamma={start:0.95,end:0.95}", "agent.batch_size=256",
        "agent.capacity=25600", "agent.warmup=2048", "agent.updates=1", "agent.tau=0.01",
        "agent.epsilon={start:1.0,end:0.02,share:0.3}", "agent.learning_rate={start:1e-3,end:1e-5,share:1.0}",
        "agent.max_grad_norm=10",
    ],
    "a2c": [
        "agent=actor_critic", "agent.network.head=plain", "agent.gamma=0.95", "agent.trace=0.95",
        "agent.normalise=true", "agent.stop_kl=null", "agent.entropy={start:0.01,end:0.01,share:1.0}",
        "agent.value_weight=0.5", "agent.max_grad_norm=0.5", "agent.evaluate=mode",
        "agent.learning_rate={start:1e-3,end:1e-5,share:1.0}",
        "agent.rollout=8", "agent.epochs=1", "agent.minibatches=1",
    ],
    "ppo": [
        "agent=ppo", "agent.network.head=plain", "agent.gamma=0.95", "agent.trace=0.95",
        "agent.normalise=true", "agent.stop_kl=null", "agent.entropy={start:0.01,end:0.01,share:1.0}",
        "agent.value_weight=0.5", "agent.max_grad_norm=0.5", "agent.evaluate=mode",
        "agent.learning_rate={start:1e-3,end:1e-5,share:1.0}",
        "agent.rollout=24", "agent.epochs=4", "agent.minibatches=4", "agent.clip=0.2",
    ],
}  # fmt: skip


class Batch(VecEnv):
    """Our vector environment as Stable-Baselines3 wants one; the episodes are stepped as one batch all the same."""

    def __init__(self, envs: CanvasVectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> dict[str, np.ndarray]:
        observation, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
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
    """rlgen's own perceptron below the linear heads that Stable-Baselines3 adds; the preview follows the features."""

    def __init__(self, observation_space: Any, spec: Any, **sizes: int) -> None:
        super().__init__(observation_space, sizes["width"])
        self.body = Perceptron(observation=spec, **sizes)

    def forward(self, seen: dict[str, Tensor]) -> Tensor:
        observation = Observation(seen["image"], seen["patch"], seen["vector"], seen["preview"])
        return torch.cat([self.body(observation), observation.preview], 1)  # [N, width + A]


class Upon(nn.Module):
    """A linear head on the features, to which the preview is added (or, for a value, is not), as in rlgen."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        features, preview = x.split([self.linear.in_features, x.shape[1] - self.linear.in_features], 1)
        out = self.linear(features)
        return out + preview if out.shape == preview.shape else out


class Foreign:
    """A model of Stable-Baselines3 where rlgen expects an agent, for evaluation."""

    group = 1

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model = model

    def carry(self, n: int) -> None:
        return None

    def act(self, env: Env, state: State, carry: None, *, explore: bool, rng: torch.Generator) -> Choice:
        action, _ = self.model.predict(arrays(env.observe(state)), deterministic=not explore)
        return Choice(torch.as_tensor(action))


def foreign(name: str, session: Session) -> BaseAlgorithm:
    """The algorithm of Stable-Baselines3 with the settings that the session's agent has."""
    config, agent = session.config, session.config.agent
    envs = CanvasVectorEnv(env="pixel", num_envs=config.num_envs, overrides=TASK)
    body = {"spec": session.envs["train"].spec.observation, **NETWORK}
    policy = {
        "net_arch": [],
        "features_extractor_class": Body,
        "features_extractor_kwargs": body,
        "optimizer_class": torch.optim.Adam,
        "optimizer_kwargs": {"eps": 1e-5},
    }
    rate = Linear(agent.learning_rate.start, agent.learning_rate.end, agent.learning_rate.share)
    common = {
        "policy": "MultiInputPolicy",
        "env": Batch(envs),
        "learning_rate": lambda left: rate(1 - left),
        "max_grad_norm": agent.max_grad_norm,
        "seed": config.seed,
        "device": "cpu",
    }
    if name == "dqn":
        model: BaseAlgorithm = DQN(**common, **dqn_settings(config), policy_kwargs=policy)
        for network in (model.policy.q_net, model.policy.q_net_target):
            network.q_net = Upon(silent(network.q_net[0]))
        return model
    settings = rollout_settings(name, config)
    model = (A2C if name == "a2c" else PPO)(**common, **settings, policy_kwargs=policy | {"ortho_init": False})
    model.policy.action_net = Upon(small(model.policy.action_net))
    model.policy.value_net = Upon(silent(model.policy.value_net))
    return model


def silent(linear: nn.Linear) -> nn.Linear:
    """Zeros at first, as in rlgen."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def dqn_settings(config: DictConfig) -> dict[str, Any]:
    """One update and one soft step of the target per batched environment step, as in rlgen."""
    agent = config.agent
    return {
        "gamma": agent.gamma.end,
        "buffer_size": agent.capacity,
        "learning_starts": agent.warmup,
        "batch_size": agent.batch_size,
        "train_freq": 1,
        "gradient_steps": 1,
        "tau": agent.tau,
        "target_update_interval": config.num_envs,
        "exploration_initial_eps": agent.epsilon.start,
        "exploration_final_eps": agent.epsilon.end,
        "exploration_fraction": agent.epsilon.share,
    }


def rollout_settings(name: str, config: DictConfig) -> dict[str, Any]:
    """What A2C and PPO share, and PPO's own."""
    agent = config.agent
    settings = {
        "gamma": agent.gamma,
        "n_steps": agent.rollout,
        "gae_lambda": agent.trace,
        "ent_coef": agent.entropy.start,
        "vf_coef": agent.value_weight / 2,  # rlgen halves the squared error
        "normalize_advantage": agent.normalise,
    }
    if name == "a2c":
        return settings | {"use_rms_prop": False}
    batch = config.num_envs * agent.rollout // agent.minibatches
    return settings | {"n_epochs": agent.epochs, "batch_size": batch, "clip_range": agent.clip}


def held_out(session: Session) -> float:
    """Mean return of the session's agent, not exploring, over the same episodes on test data for every agent."""
    env, reward = session.envs["test"], session.reward
    start = env.view(env.reset(EPISODES, stream(0, "eval", session.device)))  # where evaluate begins too
    blank = sum(reward.terms[name].weight * float(score.mean()) for name, score in reward.score(start).items())
    return evaluate(session, "test", EPISODES, 0).total - blank


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def ours(session: Session) -> tuple[float, float, int]:
    """rlgen: mean return, environment steps/s, parameters."""
    run = new_run("vs_sb3")
    train(session, run)
    network = session.agent.online if isinstance(session.agent, RlgenDQN) else session.agent.actor.net
    seconds = seconds_until(run, 2 * session.config.total_steps)  # its last record comes before the last checkpoint
    return held_out(session), session.config.total_steps / seconds, size(network)


def theirs(name: str, session: Session) -> tuple[float, float, int]:
    """Stable-Baselines3: mean return, environment steps/s, parameters."""
    model = foreign(name, session)
    began = time.perf_counter()
    model.learn(session.config.total_steps, log_interval=10**9)
    rate = model.num_timesteps / (time.perf_counter() - began)
    judged = dataclasses.replace(session, agent=Foreign(model))
    return held_out(judged), rate, size(model.policy.q_net if name == "dqn" else model.policy)


def composed_for(name: str, steps: int, seed: int) -> DictConfig:
    """The config of one algorithm; `random` and `greedy`, for reference, have no settings."""
    network = [f"agent.network.body.{key}={value}" for key, value in NETWORK.items()]
    agent = [*AGENTS[name], *network] if name in AGENTS else [f"agent={name}"]
    times = [f"total_steps={steps}", f"log_interval={max(steps // 10, 1)}", f"seed={seed}"]
    return composed("train", [*TASK, *agent, *times])


def row(name: str, library: str, results: list[tuple[float, float, int]]) -> list[object]:
    """One line of the table, over the seeds."""
    returns, rates, sizes = zip(*results, strict=True)
    each = ", ".join(f"{value:.2f}" for value in returns)
    return [name, library, f"{sizes[0]:,}", f"**{np.mean(returns):.2f}** ({each})", f"{np.median(rates):,.0f}"]


def main() -> None:
    register_resolvers()
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    seeds, steps = int(given.get("seeds", 2)), int(given.get("steps", 200_000))
    chosen = given.get("only", ",".join(AGENTS)).split(",")
    rows: list[list[object]] = [["algorithm", "library", "parameters", "held-out return (each seed)", "steps/s"]]
    for name, note in (("random", "random actions"), ("greedy", "one-step search by the true reward")):
        rows.append([note, "", "", f"{held_out(build(composed_for(name, 1, 1))):.2f}", ""])
    for name in chosen:
        pairs: list[tuple[Any, Any]] = []
        for seed in range(1, seeds + 1):
            sessions = [build(composed_for(name, steps, seed)) for _ in range(2)]
            pairs.append((theirs(name, sessions[0]), ours(sessions[1])))
            print(f"{name}, seed {seed}: Stable-Baselines3 {pairs[-1][0]}, rlgen {pairs[-1][1]}", flush=True)
        for library, results in zip(("Stable-Baselines3", "rlgen"), zip(*pairs, strict=True), strict=True):
            rows.append(row(name.upper(), library, list(results)))
    write("vs_sb3", "Beside Stable-Baselines3", [about(steps), table(rows)])


def about(steps: int) -> str:
    """What was equal, and what was not."""
    from stable_baselines3 import __version__

    data = "MNIST digits" if TASK[0] == "data=mnist" else "glyphs"
    return (
        f"Copying {data} by pen: 16 × 16, 24 moves, 64 environments, {steps:,} environment steps. "
        f"Stable-Baselines3 {__version__} steps the same batched environment by `rlgen_cli.gymnasium`, and trains "
        "rlgen's own perceptron (a features extractor) with the same heads, to which a preview of what each move "
        "gains at once is added (without it Stable-Baselines3's A2C and PPO ended with a blank canvas). Equal are the "
        "initial values, Adam, learning rates, discount, batches, updates per step, rollouts and epochs. The return is "
        "the mean over "
        f"{EPISODES} episodes on held-out data, the same for all, without exploration; 10 would be a perfect copy. "
        "Not equal: Stable-Baselines3's DQN tosses one coin for all environments when it explores; rlgen's replay "
        "stores uint8 states, Stable-Baselines3's float32 observations. Speed is that of the whole training loop."
    )


if __name__ == "__main__":
    main()
