"""`rlgen pretrain`: a run that is stages alone. What agents begin with or steer: a sequence model by maximum
likelihood, until held-out data says stop; or a GAN, for all its updates."""

from pathlib import Path
from typing import Any

import torch

from rlgen_cli.agents.maximum_likelihood import MaximumLikelihood
from rlgen_cli.config.instantiate import call, plain
from rlgen_cli.config.settings import FitSettings
from rlgen_cli.core import checkpoint, ranks, seeding
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Denoises
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Metrics
from rlgen_cli.core.stages import Stage
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.generators import TrainsGenerator
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.folder import claim, keep_config, name_of
from rlgen_cli.runs.lock import held
from rlgen_cli.runs.log import Records, run_log
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.saved_run import continued, opening
from rlgen_cli.runs.stages import run_stage
from rlgen_cli.runs.tracking import trackers_of

CHUNK = 500  # held-out sequences at once


class WithPolicy:
    """An agent and its policy as one trainable, for a stage."""

    def __init__(self, agent: MaximumLikelihood) -> None:
        self.agent = agent

    def update(self, progress: float) -> Metrics:
        return self.agent.update(progress)

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.agent.policy.state_dict(), "agent": self.agent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.agent.policy.load_state_dict(state["policy"])
        self.agent.load_state_dict(state["agent"])


def stages(session: Session) -> list[Stage]:
    """What there is to pretrain in this session; the last is what it is for.

    Raises:
        UserError: where there is nothing.
    """
    if isinstance(session.source, TrainsGenerator):
        return session.stages
    agent = session.agent
    if session.source is not None:
        trained = "flow" if isinstance(session.source.generator, Denoises) else "r1"
        raise UserError(f"generator: one from a file is not trained; use generator={trained}.")
    if not isinstance(agent, MaximumLikelihood):
        raise UserError("agent: pretraining is by maximum likelihood; use agent=maximum_likelihood.")
    names = FitSettings.__dataclass_fields__
    fit: FitSettings = call(FitSettings, {k: v for k, v in plain(session.config).items() if k in names}, "", {})
    model = Stage(
        "model", WithPolicy(agent), fit.epochs * agent.batches, agent.batches, None, lambda: None,
        lambda split: held_out(session, agent, split), fit.patience, fit.keep == "best", ("agent",),
    )  # fmt: skip
    return [*session.stages, model]


def pretrain(session: Session, folder: Path, resuming: bool = False) -> str:
    """Fit everything in `folder`, a new one or (`resuming`) where it was cut off; returns the final status."""
    todo = stages(session)
    session.trackers = trackers_of(session.config)
    with held(folder):
        (keep_config if resuming else claim)(session, folder)
        with session.trackers.recording(folder, plain(session.config), resuming):
            for stage in todo:
                last = stage is todo[-1]
                if stopped := run_stage(stage, session, folder, session.settings.stop_at if last else None):
                    return stopped
            ranks.by_first(lambda: finish(session, todo[-1], folder))
    return "finished"


def finish(session: Session, stage: Stage, folder: Path) -> None:
    """Leave a checkpoint that opens as a prior or for sampling, held-out numbers, samples, and a generator's file."""
    step = stage.updates
    run = run_log(folder, step - 1, step, session.trackers)  # whatever an earlier end has recorded is recorded anew
    numbers = {} if stage.evaluate is None else {**stage.evaluate("valid"), **stage.evaluate("test")}
    if numbers:
        run.scalars(step, numbers)
    streams = {"streams": seeding.streams_state(session.streams)}
    parts = {"policy": session.policy_state(), "training": {}, "streams": streams}
    checkpoint.save(folder / "checkpoints" / name_of(step), parts)
    if isinstance(session.source, TrainsGenerator):
        session.source.export(folder / "generator")
    show(session, run, step)
    write_samples(session, "test", medium(session.envs["train"]).last, 0, None, folder / "samples" / "final")
    run.status("finished", step, best=name_of(step))
    run.close()


@torch.no_grad()
def show(session: Session, run: Records, step: int) -> None:
    """A sheet of samples."""
    env, rng = session.envs["valid"], stream(session.settings.seed, "eval", session.device)
    final = rollout(env, session.actor, env.reset(session.settings.eval_episodes, rng), rng).final
    picture = medium(env).sheet(env.view(final))
    session.trackers.picture(step, "samples", picture)
    (run.folder / "samples").mkdir(exist_ok=True)
    write_png(run.folder / "samples" / f"{name_of(step)}.png", picture)


def resume(folder: Path, overrides: dict[str, Any]) -> str:
    """Go on in a run's folder, exactly; `overrides` are new top-level settings."""
    with opening(folder):
        session = assemble(ranks.from_first(lambda: continued(folder, overrides)))
    return pretrain(session, folder, resuming=True)


@torch.no_grad()
def held_out(session: Session, agent: MaximumLikelihood, split: str) -> dict[str, float]:
    """Mean −log p of a token of `split`, in nats."""
    assert session.data is not None
    sequences: Sequences = getattr(session.data, split)
    rng = stream(session.settings.seed, "held out", session.device)
    nll = torch.cat([agent.nll(part, rng).mean(0) for part in sequences.tokens.split(CHUNK)]).mean()
    return {f"nll/{split}": float(nll)}
