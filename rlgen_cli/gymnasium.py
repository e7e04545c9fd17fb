"""rlgen's environments, with their rewards, as Gymnasium environments (`pip install 'rlgen[gym]'`).

    import gymnasium
    import rlgen_cli.gymnasium  # registers rlgen/pixel-v0, rlgen/tiny-v0 and so on: an id per YAML in configs/env

    env = gymnasium.make("rlgen/pixel-v0", overrides=["env.size=16", "reward=target", "data=glyphs"])
    envs = gymnasium.make_vec("rlgen/pixel-v0", num_envs=64, overrides=["experiment=digits"])

`overrides` are what `rlgen train` takes, with the same checks; those of the agent have no effect. `make_vec` steps all
its episodes as one batch. Both take `split` (train, valid, test: whose data the episodes use), `total_steps`, and
`config_dir` for components of your own; `register("bars", config_dir="mine")` gives an environment of yours an id.

An observation is a dictionary of the environment's named tensors, float32 (tokens: whole numbers). `info` has each term
of the reward, unweighted, as `term/<name>`. A vector autoresets in the same step: it begins finished episodes anew
within the step, and leaves what they ended with in `infos["final_obs"]` and `infos["final_info"]`.

What learns along (a discriminator of the reward; with joint=true the generator) learns in `step`, by the stepper that
trainings use (runs/stepper.py), with the progress that `total_steps` environment steps, all environments together,
define. So the same seed and actions give the same observations, but the same rewards only from a new environment on;
each environment trains its own; and an interval counts batched steps, so that a single environment trains more often
than a vector. What must be fitted first (a classifier, a GAN) is fitted when the environment is made, or taken from the
cache.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rlgen_cli.config.compose import composed
from rlgen_cli.config.locate import choices
from rlgen_cli.core.errors import require
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import (
    ActionSpec,
    Continuous,
    Decision,
    Discrete,
    Factored,
    Normal,
    Observation,
    ObservationSpec,
    of_kind,
)  # fmt: skip
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.assemble import SPLITS, assemble
from rlgen_cli.runs.stages import fit_cached
from rlgen_cli.runs.stepper import Stepper

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
except ImportError:
    raise ImportError("rlgen_cli.gymnasium needs Gymnasium: pip install 'rlgen[gym]'.") from None

Arrays: TypeAlias = dict[str, np.ndarray]
NO_AGENT = {"_target_": "rlgen_cli.agents.planners.random.Random"}  # a session has one; here the caller acts
FRAMES_PER_SECOND = 12


class CanvasEnv(gymnasium.Env[Arrays, Any]):
    """One episode at a time: a batch of one state."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND}  # noqa: RUF012

    def __init__(
        self,
        *,
        env: str,
        overrides: Sequence[str] = (),
        split: str = "train",
        total_steps: int | None = None,
        render_mode: str | None = None,
        config_dir: str | None = None,
    ) -> None:
        self.episodes = Episodes(configured(env, overrides, 1, total_steps, config_dir), split)
        self.observation_space = observation_space(self.episodes.env.spec.observation)
        self.action_space = action_space(self.episodes.env.spec.action)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes.begin(self.np_random_seed, again=seed is not None)
        return first(self.episodes.observation()), {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        stepped = self.episodes.step(np.asarray(action)[None])
        info = {name: float(value[0]) for name, value in stepped.terms.items()}
        return first(self.episodes.observation()), float(stepped.reward[0]), bool(stepped.done[0]), False, info

    def render(self) -> Any:
        """The canvas, uint8 [H, W, 3]."""
        return self.episodes.pictures()[0] if self.render_mode == "rgb_array" else None


class CanvasVectorEnv(gymnasium.vector.VectorEnv[dict[str, Any], Any, Any]):
    """`num_envs` episodes stepped as one batch; what is done begins again in the same step."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        *,
        env: str,
        num_envs: int,
        overrides: Sequence[str] = (),
        split: str = "train",
        total_steps: int | None = None,
        render_mode: str | None = None,
        config_dir: str | None = None,
    ) -> None:
        self.episodes = Episodes(configured(env, overrides, num_envs, total_steps, config_dir), split)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = observation_space(self.episodes.env.spec.observation)
        self.single_action_space = action_space(self.episodes.env.spec.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """All episodes anew. One `seed` is enough: they are drawn as a batch from one stream."""
        super().reset(seed=seed)
        self.episodes.begin(self.np_random_seed, again=seed is not None)
        return self.episodes.observation(), {}

    def step(self, actions: Any) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        stepped = self.episodes.step(np.asarray(actions))
        done, infos = stepped.done, masked(stepped.terms, np.ones_like(stepped.done))
        if done.any():
            final = {"final_obs": rows(self.episodes.observation(), done), "final_info": masked(stepped.terms, done)}
            infos |= masked(final, done)
            self.episodes.renew(done)
        return self.episodes.observation(), stepped.reward, done, np.zeros_like(done), infos

    def render(self) -> tuple[Any, ...] | None:
        """The canvases, uint8 [H, W, 3] each."""
        return tuple(self.episodes.pictures()) if self.render_mode == "rgb_array" else None


class Stepped(NamedTuple):
    """What one step of N episodes gave."""

    reward: np.ndarray  # float32 [N]
    done: np.ndarray  # bool [N]
    terms: Arrays  # `term/<name>`: float32 [N], unweighted


class Episodes:
    """N episodes of an environment, and what learns along: what both classes above hold."""

    def __init__(self, config: DictConfig, split: str) -> None:
        require(split in SPLITS, f"split: must be {' or '.join(SPLITS)}, got {split!r}.")
        session = assemble(config)
        for stage in session.stages:
            fit_cached(stage, session)
        self.env, self.device, self.num_envs = session.envs[split], session.device, config.num_envs
        self.total_steps, self.steps = config.total_steps, 0
        self.learners, self.reward = session.learners, session.reward
        self.stepper = Stepper(
            env=self.env, reward=session.reward, learners=session.learners, rng=session.streams["env"],
            num_envs=self.num_envs, group_size=1, together=False,
        )  # fmt: skip
        self.begun = False

    def begin(self, seed: int | None, again: bool) -> None:
        """N fresh episodes: the first ever, or (`again`) those of `seed`, or else those that come next."""
        if not self.begun or again:
            self.stepper.rng = stream(seed or 0, "env", self.device)
        self.begun = True
        self.stepper.enter(self.stepper.fresh())

    def renew(self, done: np.ndarray) -> None:
        """Fresh episodes where `done` [N]."""
        self.stepper.renew(torch.as_tensor(done, device=self.device))

    def step(self, action: np.ndarray) -> Stepped:
        """Step, score, and let everything learn that learns along."""
        if not self.begun:
            raise gymnasium.error.ResetNeeded("step: call reset first.")
        chosen = as_tensor(self.env.spec.action, action, self.device)
        scored, done, _ = self.stepper.step(Decision(chosen), None, min(self.steps / self.total_steps, 1.0))
        self.steps += self.num_envs
        terms = {f"term/{name}": value.numpy(force=True) for name, value in scored.terms.items()}
        return Stepped(scored.total.numpy(force=True), done.numpy(force=True), terms)

    def observation(self) -> Arrays:
        return arrays(self.env.observe(self.stepper.state))

    def pictures(self) -> list[np.ndarray]:
        """The samples, uint8 [H, W, 3] each; sequences as their medium shows them."""
        view = self.stepper.view
        if "picture" in self.env.spec.kinds:
            pictures = list((view.sample.expand(-1, 3, -1, -1) * 255).round().to(torch.uint8))
        else:
            shown = medium(self.env)
            pictures = [shown.sheet(map_tensors(lambda f, i=i: f[i : i + 1], view)) for i in range(self.num_envs)]
        return [picture.permute(1, 2, 0).contiguous().numpy(force=True) for picture in pictures]


def configured(
    env: str, overrides: Sequence[str], num_envs: int, total_steps: int | None, config_dir: str | None
) -> DictConfig:
    """The config that `rlgen train` would have, without its agent."""
    own = [] if config_dir is None else ["--config-dir", config_dir]
    words = [*own, f"env={env}", *overrides, f"num_envs={num_envs}"]
    config = composed("train", words if total_steps is None else [*words, f"total_steps={total_steps}"])
    config.agent = OmegaConf.create(NO_AGENT)
    return config


def observation_space(spec: ObservationSpec) -> spaces.Space[Any]:
    """A dictionary with the spec's names, shapes and ranges; tokens are whole numbers, −1 for none."""
    known: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(part.low, part.high, part.shape, np.float32) for name, part in spec.items()
    }
    for name, part in of_kind(spec, "tokens").items():
        highest = np.broadcast_to(np.array(part.vocabulary) - 1, part.shape)
        known[name] = spaces.Box(np.full_like(highest, -1), highest, dtype=np.int64)
    return spaces.Dict(known)


def action_space(spec: ActionSpec) -> spaces.Space[Any]:
    """The space whose actions `as_tensor` takes."""
    if isinstance(spec, Discrete):
        return spaces.Discrete(spec.n)
    if isinstance(spec, Factored):
        return spaces.MultiDiscrete(list(spec.sizes))
    if isinstance(spec, Normal):
        return spaces.Box(-np.inf, np.inf, (spec.dim,), np.float32)
    dim = spec.dim if isinstance(spec, Continuous) else len(spec.discrete.sizes) + spec.continuous.dim
    return spaces.Box(0.0, 1.0, (dim,), np.float32)


def as_tensor(spec: ActionSpec, action: np.ndarray, device: torch.device) -> Tensor:
    """N actions of the space as `Env.step` takes them; of a mixed one, the first columns are binned into the sizes."""
    given = torch.as_tensor(action, device=device)
    if isinstance(spec, Discrete | Factored):
        return given.long()
    given = given.float()
    if isinstance(spec, Continuous | Normal):
        return given
    sizes = torch.tensor(spec.discrete.sizes, device=device)
    share, rest = given.split([len(sizes), spec.continuous.dim], 1)  # [N, F], [N, dim]
    return torch.cat([(share * sizes).floor().clamp(min=0).minimum(sizes - 1), rest], 1)


def arrays(observation: Observation) -> Arrays:
    """N observations, float32 [N, …] each (whole numbers int64), as copies, since callers keep them."""
    return {
        name: (as_unit(field) if field.dtype != torch.int64 else field).numpy(force=True).copy()
        for name, field in observation.items()
    }


def first(observation: Arrays) -> Arrays:
    """The observation of a batch of one."""
    return {name: field[0] for name, field in observation.items()}


def rows(observation: Arrays, where: np.ndarray) -> np.ndarray:
    """Observations one by one, an object array [N] that is None where `where` [N] is false."""
    found = np.full(len(where), None, dtype=object)
    for i in np.flatnonzero(where):
        found[i] = {name: field[i] for name, field in observation.items()}
    return found


def masked(infos: dict[str, Any], where: np.ndarray) -> dict[str, Any]:
    """`infos` with a mask beside each entry that says for which environments it holds, as Gymnasium has it."""
    return infos | {f"_{name}": where.copy() for name in infos}


def register(env: str, config_dir: str | None = None) -> None:
    """Make `rlgen/<env>-v0` known to Gymnasium; `env` names a YAML in configs/env, or in the folder env of
    `config_dir`, which `rlgen train --config-dir` takes, too."""
    gymnasium.register(
        f"rlgen/{env}-v0",
        f"{__name__}:{CanvasEnv.__name__}",
        vector_entry_point=f"{__name__}:{CanvasVectorEnv.__name__}",
        kwargs={"env": env} | ({} if config_dir is None else {"config_dir": config_dir}),
    )


for name in choices("env"):
    register(name)
