"""`rlgen train`: the whole loop, readable from top to bottom."""

import json
import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build, check_foreign
from rlgen_cli.core.errors import UserError
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.runs.log import RunLog, environment
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.core.tree import plain, repeat, select, typed
from rlgen_cli.core.types import Carry, Metrics, Scored, State, Transition

log = logging.getLogger(__name__)
WORST = -1e30  # below any score, and JSON can say it
COUNTERS = ("step", "latest_total", "best", "best_total")


def train(session: Session, folder: Path, resuming: bool = False) -> str:
    """Train in `folder`, a new one or (`resuming`) from its newest checkpoint; returns the final status."""
    config, env, agent, reward, streams = (
        session.config, session.envs["train"], session.agent, session.reward, session.streams,
    )  # fmt: skip
    n, groups = config.num_envs, config.num_envs // agent.group

    def begin() -> State:
        return repeat(env.reset(groups, streams["env"]), agent.group)

    loop = Loop(begin(), agent.carry(n), Tally(n, session.device, list(reward.terms)))
    if resuming:
        restore(session, loop, folder)
    else:
        claim(session, folder)
    run = RunLog(folder, loop.step, config.total_steps, OmegaConf.to_yaml(config, resolve=True))
    stop_at = min(config.total_steps, config.stop_at or config.total_steps)
    with Interrupt() as interrupt, logged_failure(run, loop):
        state = loop.state
        view = env.view(state)
        while loop.step < stop_at and not interrupt.asked:
            with torch.no_grad():
                action, next_carry, extras = agent.act(env, state, loop.carry, explore=True, rng=streams["policy"])
                after = env.step(state, action)
                after_view, done = env.view(after), env.done(after)
                scored = reward(view, after_view, done)
            agent.observe(
                Transition(state, action, scored.total, scored.settled, after, done, loop.carry, next_carry, extras)
            )
            progress = loop.step / config.total_steps
            loop.metrics |= reward.learn(after_view, done, progress)
            loop.metrics |= session.refine(after_view, done, progress)
            loop.metrics |= agent.update(progress)
            loop.tally.add(scored, done)
            state = select(done, begin(), after)
            view = env.view(state)
            loop.state, loop.carry, loop.step = state, select(done, agent.carry(n), next_carry), loop.step + n
            if due(loop.step, config.log_interval, config):
                run.scalars(loop.step, loop.tally.read() | {name: float(v) for name, v in loop.metrics.items()})
                loop.metrics = {}
            if due(loop.step, config.eval_interval, config):
                judge(session, loop, run)
            if due(loop.step, config.checkpoint_interval, config) or loop.step >= config.total_steps:
                rank(loop)
                save(session, loop, folder)
        status = "finished" if loop.step >= config.total_steps else "preempted"
        if status == "preempted":
            save(session, loop, folder)
        else:
            write_samples(session, "test", medium(env).last, 0, None, folder / "samples" / "final")
        run.status(status, loop.step, best=loop.best)
    run.close()
    return status


class Loop:
    """What the loop itself carries from step to step, and a checkpoint must hold beside the components."""

    def __init__(self, state: State, carry: Carry, tally: "Tally") -> None:
        self.state, self.carry, self.tally = state, carry, tally
        self.metrics: Metrics = {}  # since the last log interval
        self.step, self.latest_total = 0, WORST  # of the newest evaluation
        self.best, self.best_total = "", WORST  # among the checkpoints


class Tally:
    """Returns of finished episodes, summed on the device and read once per log interval."""

    def __init__(self, num_envs: int, device: torch.device, terms: list[str]) -> None:
        self.names = ["return", *(f"term/{name}" for name in terms)]
        self.running = torch.zeros(len(self.names), num_envs, device=device)
        self.finished = torch.zeros(len(self.names), device=device)
        self.count = torch.zeros((), device=device)

    def add(self, scored: Scored, done: Tensor) -> None:
        self.running += torch.stack([scored.total, *scored.terms.values()])
        self.finished += (self.running * done).sum(1)
        self.count += done.sum()
        self.running *= ~done

    def read(self) -> dict[str, float]:
        """Mean return, and mean sum of each raw term, over the episodes finished since the last reading."""
        means = (self.finished / self.count.clamp(min=1)).tolist()
        episodes = float(self.count)
        self.finished.zero_()
        self.count.zero_()
        return dict(zip(self.names, means, strict=True)) if episodes else {}


def due(step: int, interval: int, config: DictConfig) -> bool:
    """True once per `interval` environment steps, though steps come `num_envs` at a time."""
    return step // interval > (step - config.num_envs) // interval


def judge(session: Session, loop: Loop, run: RunLog) -> None:
    """Evaluate on validation data and keep the sample grid."""
    config = session.config
    result = evaluate(session, "valid", config.eval_episodes, config.seed)
    scores = {f"eval/{name}": value for name, value in result.scores.items()}
    spread = {"eval/diversity": result.diversity, "eval/unique": result.unique}
    run.scalars(loop.step, scores | {"eval/total": result.total} | spread)
    made_as = medium(session.envs["valid"])
    picture, audio = made_as.sheet(result.view), made_as.audio(result.view)
    run.picture(loop.step, "samples", picture)
    if audio is not None:
        run.sound(loop.step, "sample", *audio)
    samples = run.folder / "samples"
    samples.mkdir(exist_ok=True)
    write_png(samples / f"{name_of(loop.step)}.png", picture)
    loop.latest_total = result.total


def rank(loop: Loop) -> None:
    """Call the checkpoint of this step the best one if the newest evaluation says so."""
    if loop.latest_total > loop.best_total:
        loop.best_total, loop.best = loop.latest_total, name_of(loop.step)


def save(session: Session, loop: Loop, folder: Path) -> None:
    """A complete checkpoint at this step."""
    tally = loop.tally
    components = {
        **session.state_dict(),
        "env": plain(loop.state),
        "carry": plain(loop.carry),
        "loop": {name: getattr(loop, name) for name in COUNTERS}
        | {"running": tally.running, "finished": tally.finished, "count": tally.count}
        | {"metrics": [[name, float(value)] for name, value in loop.metrics.items()]},
        "streams": {name: generator.get_state() for name, generator in session.streams.items()},
    }
    checkpoint.save(folder / "checkpoints" / name_of(loop.step), components)
    checkpoint.prune(folder, session.config.keep_checkpoints, loop.best)


def restore(session: Session, loop: Loop, folder: Path) -> None:
    """Everything as it was at the newest intact checkpoint."""
    saved = checkpoint.load_newest(folder, session.device)
    session.load(saved)
    for name, generator in session.streams.items():
        generator.set_state(saved["streams"][name].cpu())
    loop.state, loop.carry = typed(saved["env"], loop.state), typed(saved["carry"], loop.carry)
    for name in COUNTERS:
        setattr(loop, name, saved["loop"][name])
    loop.metrics = {name: torch.tensor(value) for name, value in saved["loop"]["metrics"]}
    loop.tally.running, loop.tally.finished, loop.tally.count = (
        saved["loop"][key] for key in ("running", "finished", "count")
    )


def claim(session: Session, folder: Path) -> None:
    """Begin a run's folder with what a reader needs beside the results: the resolved config and the machine.

    Raises:
        UserError: if a run is there already.
    """
    if checkpoint.steps(folder):
        raise UserError(f"hydra.run.dir: {folder} holds a run already; resume={folder} goes on with it.")
    folder.mkdir(parents=True, exist_ok=True)
    text = OmegaConf.to_yaml(session.config, resolve=True)
    checkpoint.write_atomic(folder / "config.yaml", text.encode())
    record = json.dumps(environment(session.device, session.config.seed), indent=1)
    checkpoint.write_atomic(folder / "environment.json", record.encode())


def resume(folder: Path, overrides: dict[str, Any]) -> str:
    """Go on in a run's folder, exactly; `overrides` are new top-level settings such as total_steps."""
    return train(build(config_of(folder, overrides), fresh=False), folder, resuming=True)


def config_of(folder: Path, overrides: dict[str, Any]) -> DictConfig:
    """The config of a run that goes on."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"resume: {folder} is no run's folder (it holds no config.yaml).")
    if not checkpoint.steps(folder):
        raise UserError(f"resume: {folder} holds no checkpoint to go on from.")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    config.stop_at, config.trust = None, []  # whom to trust is not for the run to say
    for key, value in overrides.items():
        OmegaConf.update(config, key, value)
    check_foreign(OmegaConf.to_container(config), list(config.trust))
    return config


class Interrupt:
    """Ctrl-C and SIGTERM ask for a stop between two steps, so that the checkpoint is exact; a second Ctrl-C ends at
    once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; once more to stop at once", flush=True)


class logged_failure:
    """Leaves the reason of a failure in train.log and status.json before it goes on its way."""

    def __init__(self, run: RunLog, loop: Any) -> None:
        self.run, self.loop = run, loop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if kind is None or error is None:
            return
        log.error("failed at step %d", self.loop.step, exc_info=error)
        self.run.status("failed", self.loop.step, error=f"{kind.__name__}: {error}", best=self.loop.best)
        self.run.close()


def name_of(step: int) -> str:
    return f"step_{step:09d}"
