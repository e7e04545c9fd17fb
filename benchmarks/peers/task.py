"""The task that every library is trained on: its settings, in rlgen's words, and what a trained one is asked for."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from rlgen_cli.config.compose import composed
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Observation, State
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.runs.assemble import Session, assemble

ENVIRONMENT = [
    "env=pixel", "env.size=16", "brush=pen", "env.brush.reach=3", "env.brush.widths=[1.5]", "env.brush.patch_size=7",
    "env.brush.preview_scale=10", "env.max_steps=24", "reward=target", "device=cpu", "precision=float32", "threads=1",
    "eval_interval=1000000000", "checkpoint_interval=1000000000",
]  # fmt: skip
NETWORK = {"width": 128, "layers": 2, "pool": 1, "embed": 16}
POLICY_GRADIENT = [
    "agent.network.maps=null", "agent.gamma=0.95", "agent.gae_lambda=0.95", "agent.target_kl=null",
    "agent.objective.normalize_advantage=true", "agent.objective.entropy_coef={start:0.01,end:0.01,share:1.0}",
    "agent.objective.value_coef=0.5", "agent.optimizer.max_grad_norm=0.5", "agent.evaluate=mode",
    "agent.optimizer.learning_rate={start:1e-3,end:1e-5,share:1.0}",
]  # fmt: skip
LONGEST_ROLLOUT = 24  # steps of each environment that an update may need; all others divide it
AGENTS: dict[str, list[str]] = {
    "dqn": [
        "agent=dqn", "agent.network.maps=null", "agent.gamma={start:0.95,end:0.95}", "agent.batch_size=256",
        "agent.replay.buffer_size=25600", "agent.learning_starts=2048", "agent.gradient_steps=1",
        "agent.target_update.tau=0.01", "agent.exploration.epsilon={start:1.0,end:0.02,share:0.3}",
        "agent.optimizer.learning_rate={start:1e-3,end:1e-5,share:1.0}", "agent.optimizer.max_grad_norm=10",
    ],
    "a2c": ["agent=actor_critic", *POLICY_GRADIENT, "agent.num_steps=8", "agent.update_epochs=1",
            "agent.num_minibatches=1"],
    "ppo": ["agent=ppo", *POLICY_GRADIENT, f"agent.num_steps={LONGEST_ROLLOUT}", "agent.update_epochs=4",
            "agent.num_minibatches=4", "agent.objective.clip_range=0.2"],
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One training, the same for every library.

    Args:
        algorithm: dqn, a2c or ppo.
        environment: words for the environment alone. words: all that `rlgen train` would be given.
    """

    algorithm: str
    environment: list[str]
    words: list[str]

    def config(self) -> DictConfig:
        """Where the settings of every library come from."""
        return composed("train", self.words)

    def session(self) -> Session:
        """rlgen's objects, fresh."""
        return assemble(self.config())


class Peer(Protocol):
    """A library in training."""

    @property
    def actor(self) -> Actor:
        """Acts without exploring, as far as it has been trained."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers it trains."""
        ...

    def train(self, steps: int) -> float:
        """Go on for so many environment steps, all environments together, a multiple of the longest rollout; returns
        the seconds that it took."""
        ...


class Loop:
    """A training that is a generator, which yields after every `frames` environment steps."""

    def __init__(self, net: nn.Module, loop: Iterator[None], frames: int, act: Callable[[Observation], Tensor]) -> None:
        self.loop, self.frames = loop, frames
        self.actor, self.parameters = Greedy(act), size(net)

    def train(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps // self.frames):
            next(self.loop)
        return time.perf_counter() - began


class Greedy:
    """A function of the observation where rlgen expects what acts."""

    def __init__(self, act: Callable[[Observation], Tensor]) -> None:
        self.act = act

    @torch.no_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        return self.act(env.observe(state))


def size(module: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def held_out(session: Session, actor: Actor, episodes: int) -> float:
    """Mean return of an actor that does not explore, over the same held-out episodes for every one."""
    env, reward = session.envs["test"], session.reward
    start = env.view(env.reset(episodes, stream(0, "eval", session.device)))  # where evaluate begins too
    blank = sum(reward.terms[name].weight * float(score.mean()) for name, score in reward.score(start).items())
    return evaluate(env, actor, reward, episodes=episodes, seed=0, device=session.device).total - blank
