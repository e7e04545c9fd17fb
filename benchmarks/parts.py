"""The parts of a benchmark: each has a folder of its own, is resumed where it was cut off, and is skipped when it is
finished."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks.report import Row
from rlgen_cli.agents.maximum_likelihood import MaximumLikelihood
from rlgen_cli.config.compose import composed
from rlgen_cli.core import checkpoint
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import View
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.images import Splits
from rlgen_cli.evaluation.media.music import MakesMusic, MusicMedium
from rlgen_cli.evaluation.media.style import Style
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.runs.saved_run import config_of
from rlgen_cli.runs.stages import run_stages
from rlgen_cli.runs.trainer import train

STOPPED = "Stopped, and saved; the same command goes on."
# What a training of seconds has; a benchmark adds sizes of its own.
QUICK = [
    "threads=1", "num_envs=8", "total_steps=256", "log_interval=128", "eval_interval=256", "eval_episodes=4",
    "checkpoint_interval=256",
]  # fmt: skip

# The same of a diffusion model, whose steps are slow.
QUICK_TRAINING = [
    "num_envs=8", "total_steps=64", "log_interval=32", "eval_interval=64", "eval_episodes=4", "checkpoint_interval=64",
]  # fmt: skip


class Training(Protocol):
    """`train` or `pretrain`."""

    def __call__(self, session: Session, folder: Path, resuming: bool = False) -> str:
        """The final status."""
        ...


def trained(folder: Path, words: list[str]) -> Path:
    """The finished run of `rlgen train WORDS` in this folder.

    Raises:
        SystemExit: when it is interrupted, or the folder holds a run with another config.
    """
    return _finish(folder, composed("train", words), train)


def pretrained(folder: Path, words: list[str]) -> Path:
    """The finished run of `rlgen pretrain WORDS` in this folder; raises as `trained` does."""
    return _finish(folder, composed("pretrain", words), pretrain)


def _finish(folder: Path, config: DictConfig, training: Training) -> Path:
    begun = (folder / "config.yaml").is_file()
    if begun:
        config = _same(folder, config)
    if not finished(folder):
        session = assemble(config, fresh=not checkpoint.steps(folder))
        if training(session, folder, resuming=begun) != "finished":
            raise SystemExit(STOPPED)
    return folder


def _same(folder: Path, asked: DictConfig) -> DictConfig:
    """The config of the run in the folder, which must be the one that is asked for."""
    found = config_of(folder, Trust(), training=True)
    here, wanted = (OmegaConf.to_container(config, resolve=True) for config in (found, asked))
    if here != wanted:
        raise SystemExit(f"folder: {folder} holds a run with another config; name another folder, or remove it.")
    return found


def finished(run: Path) -> bool:
    """Whether a run came to its end."""
    path = run / "status.json"
    return path.is_file() and json.loads(path.read_text())["status"] == "finished"


def prepared(folder: Path, words: list[str]) -> Session:
    """The session of `rlgen train WORDS`, everything fitted that a training would begin with, in this folder.

    Raises:
        SystemExit: when it is interrupted.
    """
    session = assemble(composed("train", words))
    if run_stages(session, folder):
        raise SystemExit(STOPPED)
    return session


def with_planner(words: list[str], planner: str) -> Session:
    """The session of an experiment with a planner in place of the agent that the experiment has settings for."""
    config = composed("train", words)
    OmegaConf.set_struct(config, False)
    config.agent = composed("train", [f"agent={planner}"]).agent
    return assemble(config)


def opened(saved: Path, changes: dict[str, Any] | None = None) -> Session:
    """A run with the weights of its newest checkpoint, or of the one whose folder `saved` is.

    Args:
        saved: a run's folder, or a checkpoint's. changes: of its config, by dotted key.
    """
    config = composed("sample", [f"run='{saved}'"])
    config.set = changes
    return open_run(config).session


def likelihood_model(words: list[str], folder: Path) -> tuple[Session, MaximumLikelihood]:
    """The session of `rlgen pretrain WORDS` with the policy of a run, whatever trained that, and its agent, whose
    temperature can be set."""
    session = assemble(composed("pretrain", words), fresh=False)
    agent = session.agent
    assert isinstance(agent, MaximumLikelihood)
    agent.policy.load_state_dict(checkpoint.load(checkpoint.newest(folder), "policy", session.device)["policy"])
    return session, agent


def data_of(session: Session) -> Splits:
    """The session's data, which there must be."""
    assert session.data is not None
    return session.data


def music_of(session: Session) -> MusicMedium:
    """How the session's samples are shown and written, which must be music."""
    env = session.envs["test"]
    assert isinstance(env, MakesMusic)
    return MusicMedium(env, Style())


def step_of(saved: Path) -> int:
    """The environment step (or update) at which a checkpoint was written."""
    return int(saved.name.removeprefix("step_"))


@torch.no_grad()
def final_views(session: Session, split: str, count: int, seed: int) -> list[View]:
    """What a session makes on a split in so many episodes, 500 at a time."""
    env, rng = session.envs[split], stream(seed, "sample", session.device)
    sizes = [500] * (count // 500) + ([count % 500] if count % 500 else [])
    return [env.view(rollout(env, session.actor, env.reset(size, rng), rng).final) for size in sizes]


def best_of_groups(score: Tensor, size: int) -> Tensor:
    """Of each `size` successive samples with scores [N] the index of the best; the last ones that fill no group are
    left out."""
    groups = score[: len(score) // size * size].unflatten(0, (-1, size))
    return torch.arange(len(groups), device=score.device) * size + groups.argmax(1)


def updates_of(run: Path, saved: Path | None = None) -> int:
    """Steps of the optimizer that a run's agent took until its newest checkpoint, or until the one that is named."""
    agent = checkpoint.load(saved or checkpoint.newest(run), "training", "cpu")["agent"]
    return int(max(entry["step"] for entry in agent["optimizer"]["state"].values()))


def seconds_until(run: Path, step: int | None = None, stage: str | None = None) -> float:
    """Wall time that a run's training (or one of its stages) took until `step` (to its end)."""
    seconds = [float(line["seconds"]) for line in records(run, stage) if step is None or line["step"] <= step]
    return max(seconds, default=0.0)


def likelihood_cost(run: Path) -> Row:
    """Updates, which are its steps, and minutes of a model's training by maximum likelihood."""
    return [f"{step_of(checkpoint.newest(run)):,}", f"{seconds_until(run, stage='model') / 60:.1f}"]


def training_cost(run: Path) -> Row:
    """Updates and minutes of an agent's training."""
    return [f"{updates_of(run):,}", f"{seconds_until(run) / 60:.1f}"]


def records(run: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """What a run's training (or one of its stages) logged."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("stage") == stage]


def evaluations(run: Path, metric: str) -> list[dict[str, Any]]:
    """The records of a run's evaluations, which have this metric."""
    return [record for record in records(run) if metric in record]


def remembered(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` gives (plain numbers, text, lists, dictionaries), measured once and kept as JSON."""
    if not path.is_file():
        value = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(value, indent=1).encode())
    return json.loads(path.read_text())
