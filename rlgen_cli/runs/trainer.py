"""`rlgen train`: the whole loop, readable from top to bottom. Every rank runs it; the first one writes."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlgen_cli.config.instantiate import plain as plain_config
from rlgen_cli.core import checkpoint, ranks, seeding
from rlgen_cli.core.acting import decide, initial_carry
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import Decision, Metrics, Scored
from rlgen_cli.core.tree import moved, named_tensors, plain, select, typed
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.compare import compare_results
from rlgen_cli.runs.folder import Interrupt, Position, claim, keep_config, logged_failure, name_of
from rlgen_cli.runs.lock import held
from rlgen_cli.runs.log import Records, run_log
from rlgen_cli.runs.parts import STREAMS, SavedTraining, merged, own_parts, share_weights
from rlgen_cli.runs.profile import Profiler
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.saved_run import continued, opening
from rlgen_cli.runs.stages import run_stages
from rlgen_cli.runs.stepper import Stepped, Stepper
from rlgen_cli.runs.tracking import trackers_of

WORST = -1e30  # below any score, and JSON can say it


def train(session: Session, folder: Path, resuming: bool = False) -> str:
    """Train in `folder`, a new one or (`resuming`) from its newest checkpoint; returns the final status."""
    session.trackers = trackers_of(session.config)
    with held(folder):
        if not resuming:
            claim(session, folder)
        elif not has_checkpoint(folder):
            keep_config(session, folder)
        with session.trackers.recording(folder, plain_config(session.config), resuming):
            return run_stages(session, folder) or reinforce(session, folder)


def reinforce(session: Session, folder: Path) -> str:
    """The reinforcement learning itself; returns the final status."""
    settings, total = session.settings, session.settings.total_steps
    loop = Loop(session)
    if has_checkpoint(folder):
        loop.restore(folder)
        keep_config(session, folder)  # once it is known that the run can go on
    else:
        share_weights(session)
    run = run_log(folder, loop.step, total, session.trackers)
    stop_at = min(total, settings.stop_at or total)
    profiled = settings.profile and ranks.first()
    with Interrupt() as interrupt, logged_failure(run, loop), Profiler(loop, run, profiled) as profiler:
        while loop.step < stop_at and not interrupt.stops():
            decision, stepped = loop.play()
            recording = due(loop.step, settings.log_interval, session)
            saving = due(loop.step, settings.checkpoint_interval, session) or loop.step >= total
            if recording or saving or session.device.type == "cpu":  # where looking costs nothing, at the step itself
                loop.check_numbers(folder, decision, stepped)
            loop.renew(decision, stepped)
            run.progress(loop.step)
            profiler.step(stepped.metrics)
            if recording:
                run.scalars(loop.step, loop.read())
            if due(loop.step, settings.eval_interval, session):
                ranks.by_first(lambda: loop.evaluate(run))
            if saving:
                loop.check_state()
                loop.note_best()
                loop.save(folder)
        profiler.finish()
        if loop.step >= total:
            loop.prune(folder)  # a kill may have come between the last checkpoint and that
        status = "finished" if loop.step >= total else "preempted" if interrupt.stopped else "stopped"
        if status != "finished":
            loop.check_state()
            loop.save(folder)
        else:
            ranks.by_first(lambda: finish(session, run))
        run.status(status, loop.step, best=loop.best)
    run.close()
    return status


def finish(session: Session, run: Records) -> None:
    """Make the last samples, and say how they compare with what a random policy makes."""
    run.announce("making the last samples")
    final, last = run.folder / "samples" / "final", medium(session.envs["train"]).last
    record = write_samples(session, "test", last, 0, None, final, said=run.meanwhile("last samples"))
    run.announce(compare_results(session, record, run.folder))


def has_checkpoint(folder: Path) -> bool:
    """Whether the run has begun its reinforcement learning in an earlier sitting."""
    return ranks.from_first(lambda: bool(checkpoint.steps(folder)))


class Loop(Position):
    """What the loop itself carries from step to step, and a checkpoint holds beside the components."""

    COUNTERS = ("step", "latest_total", "best", "best_total")
    OWN = ("env", "carry", "scores", "tally")  # of a rank

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.stepper = Stepper(
            env=session.envs["train"], reward=session.reward, learners=session.learners, rng=session.streams["env"],
            num_envs=session.num_envs, group_size=session.group_size, together=True,
        )  # fmt: skip
        self.stepper.enter(self.stepper.fresh())
        self.carry = initial_carry(session.actor, session.num_envs)
        self.tally = Tally(session.num_envs, session.device, list(session.reward.terms))
        self.metrics: Metrics = {}  # since the last log interval
        self.latest_total, self.best_total = WORST, WORST  # of the newest evaluation, and of the best checkpoint

    def play(self) -> tuple[Decision, Stepped]:
        """One step of all environments, and what is learned from it; finished episodes stay until `renew`."""
        session, state = self.session, self.stepper.state
        rng, settings = session.streams["policy"], session.settings
        decision = decide(session.actor, session.envs["train"], state, self.carry, explore=True, rng=rng)
        stepped = self.stepper.step(decision, self.carry, self.step / settings.total_steps)
        self.tally.add(stepped.scored, stepped.done)
        self.metrics |= stepped.metrics
        self.step += settings.num_envs
        return decision, stepped

    def renew(self, decision: Decision, stepped: Stepped) -> None:
        """Begin anew the episodes that the step finished, and what is remembered of them."""
        self.carry = decision.carry
        if self.stepper.renew(stepped.done):
            fresh = initial_carry(self.session.actor, self.session.num_envs)
            self.carry = select(stepped.done, fresh, self.carry)

    def read(self) -> dict[str, float]:
        """What to record since the last reading, of all ranks."""
        values = self.tally.read() | ranks.means({name: float(value) for name, value in self.metrics.items()})
        self.metrics = {}
        return values

    def evaluate(self, run: Records) -> None:
        """Score the policy on held-out data, by which the checkpoints are ranked."""
        self.latest_total = show(self.session, self.step, run)

    def check_numbers(self, folder: Path, decision: Decision, stepped: Stepped) -> None:
        """Stop a run whose rewards or losses are nan or infinite, and keep the step's batch in `failed`.

        Raises:
            UserError: naming the term or the loss.
        """
        if self.session.settings.nonfinite == "skip":
            return
        numbers = {name: float(value) for name, value in self.metrics.items()}
        wrong = self.tally.nonfinite() + [name for name, value in numbers.items() if not math.isfinite(value)]
        if wrong:
            batch = {
                "sample": self.stepper.view.sample,
                "action": decision.action,
                "done": stepped.done,
                "rewards": stepped.scored.terms,
                "state": plain(self.stepper.state),
                "metrics": [[name, repr(value)] for name, value in numbers.items()],
            }
            checkpoint.save(folder / "failed", {"batch": {"batch": batch}})
            raise UserError(
                f"{wrong[0]}: gave nan or infinity at step {self.step}, and must be finite; the batch is kept in "
                f"{folder / 'failed'}, the checkpoints before it are whole, and nonfinite=skip would go on."
            )

    def check_state(self) -> None:
        """Keep weights and states that are nan or infinite out of a checkpoint.

        Raises:
            UserError: naming the first.
        """
        advice = {
            "the policy's weights": "a lower agent.optimizer.learning_rate may help",
            "the environment's states": "an environment must keep its numbers finite",
        }
        trees = (self.session.policy_state(), plain(self.stepper.state))
        for (what, right), tree in zip(advice.items(), trees, strict=True):
            for name, tensor in named_tensors(tree).items():
                if not bool(tensor.isfinite().all()):
                    raise UserError(
                        f"{name}: {what} are nan or infinite at step {self.step}, so that they are not saved; {right}."
                    )

    def note_best(self) -> None:
        """Call the checkpoint of this step the best one if the newest evaluation says so."""
        if self.latest_total > self.best_total:
            self.best_total, self.best = self.latest_total, name_of(self.step)

    def save(self, folder: Path) -> None:
        """A complete checkpoint at this step, if it is not there already."""
        if ranks.from_first(lambda: checkpoint.intact(folder / "checkpoints" / name_of(self.step))):
            return
        training = self.session.training_state() | {
            "env": plain(self.stepper.state),
            "carry": plain(self.carry),
            "scores": self.stepper.scores,
            "loop": {name: getattr(self, name) for name in self.COUNTERS}
            | {"ranks": ranks.count(), "metrics": [[name, float(value)] for name, value in self.metrics.items()]},
            "tally": self.tally.state_dict(),
        }
        streams = {"streams": seeding.streams_state(self.session.streams)}
        others = own_parts(self.session, training, self.OWN, streams)
        parts = {"policy": self.session.policy_state(), "training": training, "streams": streams, **others}
        if ranks.first():
            checkpoint.save(folder / "checkpoints" / name_of(self.step), parts)
            self.prune(folder)

    def prune(self, folder: Path) -> None:
        """Delete older checkpoints."""
        if ranks.first():
            checkpoint.prune(folder, self.session.settings.keep_checkpoints, [self.best, name_of(self.step)])

    def restore(self, folder: Path) -> None:
        """Everything as it was at the newest intact checkpoint; on another number of ranks, all but what was a rank's
        own."""
        session = self.session
        saved = SavedTraining.read(session, folder, self.OWN)
        session.load_policy(moved(saved.policy, session.device))
        shared, own = moved(saved.shared, session.device), moved(saved.own, session.device)
        session.load_training(merged(session, shared, own))
        for name in self.COUNTERS:
            setattr(self, name, shared["loop"][name])
        self.metrics = {name: torch.tensor(value) for name, value in shared["loop"]["metrics"]}
        seed = session.settings.seed
        if saved.own is None:
            seeding.begin_anew(session.streams, seed, str(self.step))
            self.stepper.enter(self.stepper.fresh())
            return
        steps = self.step // session.settings.num_envs
        self.stepper.enter(typed(own["env"], self.stepper.state), steps, own.get("scores"))
        self.carry = typed(own["carry"], self.carry)
        self.tally.load_state_dict(own["tally"])
        seeding.restore_streams(session.streams, saved.own[STREAMS], seed, self.step)


class Tally:
    """Returns and final scores of finished episodes, summed on the device and read once per log interval."""

    SUMS = ("running", "finished", "count")

    def __init__(self, num_envs: int, device: torch.device, terms: list[str]) -> None:
        self.names = ["return", *(f"score/{name}" for name in terms)]
        self.running = torch.zeros(len(self.names), num_envs, device=device)
        self.finished = torch.zeros(len(self.names), device=device)
        self.count = torch.zeros((), device=device)

    def add(self, scored: Scored, done: Tensor) -> None:
        """Take in one step."""
        self.running += torch.stack([scored.total, *scored.terms.values()])
        known = [scored.scores.get(name, sums) for name, sums in zip(scored.terms, self.running[1:], strict=True)]
        self.finished += (torch.stack([self.running[0], *known]) * done).sum(1)
        self.count += done.sum()
        self.running *= ~done

    def read(self) -> dict[str, float]:
        """Mean return, and each term's mean score of what was made, over the episodes that all ranks have finished
        since the last reading."""
        finished, count = ranks.total(self.finished), ranks.total(self.count)
        means = (finished / count.clamp(min=1)).tolist()
        episodes = float(count)
        self.finished.zero_()
        self.count.zero_()
        return dict(zip(self.names, means, strict=True)) if episodes else {}

    def nonfinite(self) -> list[str]:
        """The terms whose rewards were nan or infinite, by their config keys; `reward` where only their sum was."""
        finite = (self.running.sum(1) + self.finished).isfinite().tolist()
        wrong = [name for name, right in zip(self.names, finite, strict=True) if not right]
        terms = [f"reward.terms.{name.removeprefix('score/')}" for name in wrong if name != "return"]
        return terms or ["reward" for _ in wrong]

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.SUMS}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in self.SUMS:
            setattr(self, name, state[name])


def due(step: int, interval: int, session: Session) -> bool:
    """True once per `interval` environment steps, though steps come `num_envs` at a time."""
    return step // interval > (step - session.settings.num_envs) // interval


def show(session: Session, step: int, run: Records) -> float:
    """Evaluate on held-out data, record it, and write a sample sheet; returns what checkpoints are ranked by: the
    weighted sum of the terms that do not learn, since an adversarial score is not comparable over time. Where every
    term learns, the newest counts as the best."""
    env, settings = session.envs["valid"], session.settings
    result = evaluate(
        env,
        session.actor,
        session.reward,
        episodes=settings.eval_episodes,
        seed=settings.seed,
        device=session.device,
        said=run.meanwhile("evaluation"),
    )
    scores = {f"eval/score/{name}": score for name, score in result.scores.items()}
    spread = {"eval/diversity": result.diversity, "eval/unique": result.unique}
    run.scalars(step, scores | {"eval/total": result.total} | spread)
    made_as = medium(env)
    picture, audio = made_as.sheet(result.view), made_as.audio(result.view)
    session.trackers.picture(step, "samples", picture)
    if audio is not None:
        session.trackers.sound(step, "sample", *audio)
    samples = run.folder / "samples"
    samples.mkdir(exist_ok=True)
    write_png(samples / f"{name_of(step)}.png", picture)
    return float(step) if result.static_total is None else result.static_total


def resume(folder: Path, overrides: dict[str, Any]) -> str:
    """Go on in a run's folder, exactly; `overrides` are new top-level settings such as total_steps."""
    with opening(folder):
        config = ranks.from_first(lambda: continued(folder, overrides))
        session = assemble(config, fresh=not has_checkpoint(folder))  # killed before its first, it begins anew
    return train(session, folder, resuming=True)
