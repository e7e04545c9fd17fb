"""`rlgen pretrain`: what agents begin with or steer. A sequence model by maximum likelihood, until held-out data says
stop; or a GAN, for all its updates."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build, gan_key
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.runs.log import RunLog
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import Interrupt, claim, config_of, logged_failure, name_of
from rlgen_cli.core.types import Metrics

CHUNK = 500  # held-out sequences at once


@dataclass(frozen=True)
class Course:
    """What is trained, and for how long; every `interval` updates it is judged, shown and saved."""

    update: Callable[[float], Metrics]  # with the progress in [0, 1]
    total: int  # updates
    interval: int
    judge: Callable[[str], dict[str, float]]  # on a split; the first number is the one that is to be small
    patience: int  # intervals without a smaller one, after which it stops
    keep_best: bool


class Progress:
    """How far a course is, as a checkpoint holds it."""

    def __init__(self) -> None:
        self.step, self.best_step, self.lowest = 0, 0, 1e30

    @property
    def best(self) -> str:
        """The checkpoint with the lowest held-out number."""
        return name_of(self.best_step)


def course(session: Session) -> Course:
    """What there is to pretrain in this session."""
    gan, config, agent = session.gan, session.config, session.agent
    if gan is not None:
        require(gan.trains, "gan: a generator from a file is not trained; use gan=r1.")
        return Course(
            lambda progress: gan.update(progress, session.reward), gan.steps, max(1, gan.steps // 20), lambda split: {},
            gan.steps, False,
        )  # fmt: skip
    if not isinstance(getattr(agent, "nll", None), Callable) or session.data is None:  # type: ignore[arg-type]
        raise UserError("agent: pretraining is by maximum likelihood; use agent=likelihood.")
    require(config.epochs >= 1, f"epochs: must be at least 1, got {config.epochs}.")
    patience = config.epochs if config.patience is None else config.patience
    require(patience >= 1, f"patience: must be at least 1, or null for never, got {patience}.")
    require(config.keep in ("best", "last"), f"keep: must be best or last, got {config.keep}.")
    passes = len(session.data.train.tokens) // agent.batch_size  # type: ignore[attr-defined]
    return Course(
        agent.update, config.epochs * passes, passes, lambda split: held_out(session, split), patience,
        config.keep == "best",
    )  # fmt: skip


def pretrain(session: Session, folder: Path, resuming: bool = False) -> str:
    """Take the course in `folder`, a new one or (`resuming`) from its newest checkpoint. Returns the final status."""
    plan, done = course(session), Progress()
    if resuming:
        restore(session, done, folder)
    else:
        claim(session, folder)
    run = RunLog(folder, done.step, plan.total, OmegaConf.to_yaml(session.config, resolve=True))
    stop_at = min(plan.total, session.config.stop_at or plan.total)
    with Interrupt() as interrupt, logged_failure(run, done):
        patient = True
        while done.step < stop_at and patient and not interrupt.asked:
            heard = [plan.update(done.step / plan.total)]
            done.step += 1
            while done.step % plan.interval and done.step < stop_at and not interrupt.asked:
                heard.append(plan.update(done.step / plan.total))
                done.step += 1
            run.scalars(done.step, _means(heard) | judge(session, plan, done, run))
            patient = done.step - done.best_step < plan.patience * plan.interval
            save(session, done, folder)
        over = done.step >= plan.total or not patient
        if over:
            finish(session, plan, done, run)
        run.status("finished" if over else "preempted", done.step, best=done.best)
    run.close()
    return "finished" if over else "preempted"


def judge(session: Session, plan: Course, done: Progress, run: RunLog) -> dict[str, float]:
    """Held-out numbers, and what samples look like."""
    numbers = plan.judge("valid")
    lowest = next(iter(numbers.values()), -float(done.step))  # where nothing is measured, the newest is the best
    if lowest < done.lowest:
        done.lowest, done.best_step = lowest, done.step
    env, rng = session.envs["valid"], stream(session.config.seed, "eval", session.device)
    view = env.view(rollout(env, session.agent, env.reset(session.config.eval_episodes, rng), rng).final)
    picture = medium(env).sheet(view)
    run.picture(done.step, "samples", picture)
    (run.folder / "samples").mkdir(exist_ok=True)
    write_png(run.folder / "samples" / f"{name_of(done.step)}.png", picture)
    return numbers


def save(session: Session, done: Progress, folder: Path) -> None:
    """A complete checkpoint; the newest and the best are kept."""
    streams = {name: generator.get_state() for name, generator in session.streams.items()}
    checkpoint.save(
        folder / "checkpoints" / name_of(done.step),
        {**session.state_dict(), "progress": dict(vars(done)), "streams": streams},
    )
    checkpoint.prune(folder, 1, done.best)


def restore(session: Session, done: Progress, folder: Path) -> None:
    """Everything as it was at the newest intact checkpoint."""
    saved = checkpoint.load_newest(folder, session.device)
    session.load(saved)
    vars(done).update(saved["progress"])
    for name, generator in session.streams.items():
        generator.set_state(saved["streams"][name].cpu())


def finish(session: Session, plan: Course, done: Progress, run: RunLog) -> None:
    """Leave the weights that count, their numbers and samples, and the GAN where trainings look for it."""
    if plan.keep_best:
        for folder in checkpoint.steps(run.folder):
            if folder.name != done.best:
                shutil.rmtree(folder)
        session.load(checkpoint.load_newest(run.folder, session.device, session.parts))
    scores = {name: value for split in ("valid", "test") for name, value in plan.judge(split).items()}
    if scores:
        run.scalars(done.step + 1, scores)
    if session.gan is not None:
        session.gan.chart()
        if "picture" in session.envs["train"].spec.kinds:
            session.gan.export(run.folder / "generator")
        checkpoint.cached("gans", gan_key(session.config, session.gan.real), session.gan, lambda: None)
    write_samples(session, "test", medium(session.envs["train"]).last, 0, None, run.folder / "samples" / "final")


def resume(folder: Path, overrides: dict[str, Any]) -> str:
    """Go on in a run's folder, exactly; `overrides` are new top-level settings."""
    return pretrain(build(config_of(folder, overrides), fresh=False), folder, resuming=True)


def _means(heard: list[Metrics]) -> dict[str, float]:
    """Mean of each metric; the likelihood's is called as what it is compared with."""
    names = {"nll": "nll/train"}
    return {names.get(name, name): float(torch.stack([metrics[name] for metrics in heard]).mean()) for name in heard[0]}


@torch.no_grad()
def held_out(session: Session, split: str) -> dict[str, float]:
    """Mean −log p of a token of `split`, in nats."""
    agent: Any = session.agent
    tokens: Tensor = getattr(session.data, split).tokens
    rng = stream(session.config.seed, "held out", session.device)
    nll = torch.cat([agent.nll(part, rng).mean(0) for part in tokens.split(CHUNK)]).mean()
    return {f"nll/{split}": float(nll)}
