"""`rlgen train profile=true`: where a training's time goes, as a table and as a trace."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from rlgen_cli.core.compiled import synchronise
from rlgen_cli.core.protocols import Learner, Planner, ReadsStates

STEPS = 100  # batched steps that are looked at, at least, and until the agent has learned again
MOST = 1000
ROWS = 15  # torch operations in the table
OURS = "rlgen/"


class Profiler:
    """Watches some steps of a loop, once everything that learns has learned.

    The parts of the loop are named while they are watched, and left as they are before and after; what they compute is
    the same.

    Args:
        loop: a `trainer.Loop`. folder: the run's; the results lie in `profile` within.
    """

    def __init__(self, loop: Any, folder: Path) -> None:
        self.loop, self.folder = loop, folder / "profile"
        self.waiting = {name for name in loop.session.learners if name != "anchor"}
        self.steps = 0  # watched so far
        self.learned = False  # the agent has, in the watched steps
        self.profile: profile | None = None
        self.done = False

    def step(self, metrics: dict[str, Any]) -> str | None:
        """After each step of the loop, with what its learners measured; returns the table when it is made."""
        if self.done:
            return None
        if self.profile is None:
            self.waiting -= {name.partition("/")[0] for name in metrics}
            if not self.waiting:
                self._begin()
            return None
        self.steps += 1
        self.learned |= any(name.startswith("agent/") for name in metrics) or "agent" not in self.loop.session.learners
        return self._end() if (self.learned and self.steps >= STEPS) or self.steps >= MOST else None

    def missed(self) -> str | None:
        """What to say when the training is over before the table was made."""
        return None if self.done else "profile: the training was over before enough of it could be watched."

    def _begin(self) -> None:
        stepper, session = self.loop.stepper, self.loop.session
        parts = [(session.envs["train"], "step"), (session.envs["train"], "view"), (stepper, "renew"),
                 (self.loop.tally, "add"), (self.loop, "check_numbers")]  # fmt: skip
        if isinstance(session.actor, Planner):
            parts.append((session.actor, "plan"))
        else:
            observes = session.actor if isinstance(session.actor, ReadsStates) else session.envs["train"]
            parts += [(session.actor, "act"), (observes, "observe")]
        self.named = [Named(owner, name, name) for owner, name in parts]
        self.named.append(Named(stepper, "reward", "reward"))
        for name, learner in session.learners.items():
            self.named += [Named(learner, "observe", f"{name} observes")] if isinstance(learner, Learner) else []
            self.named.append(Named(learner, "update", f"{name} learns"))
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *gpu])
        self.profile.start()
        synchronise()
        self.began = time.perf_counter()

    def _end(self) -> str:
        assert self.profile is not None
        synchronise()
        seconds = time.perf_counter() - self.began
        self.profile.stop()
        for named in self.named:
            named.undo()
        self.done = True
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / "trace.json.gz"
        self.profile.export_chrome_trace(str(trace))
        text = table(self.profile, seconds, self.steps)
        (self.folder / "table.txt").write_text(text, encoding="utf-8")
        return f"{text}\nThe whole trace is {trace}; open it at ui.perfetto.dev or chrome://tracing."


class Named:
    """A function of an object that carries a name in the trace until `undo`."""

    def __init__(self, owner: Any, attribute: str, name: str) -> None:
        self.owner, self.attribute = owner, attribute
        self.own = vars(owner).get(attribute)  # what the object itself had, beside its class
        setattr(owner, attribute, named(getattr(owner, attribute), name))

    def undo(self) -> None:
        """As it was."""
        if self.own is None:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.own)


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(OURS + name):
            return function(*args, **kwargs)

    return call


def table(watched: profile, seconds: float, steps: int) -> str:
    """Milliseconds a batched step of the loop's parts, a part within another counted in both, and of torch's
    operations."""
    found = watched.key_averages()
    parts = {event.key.removeprefix(OURS): event.cpu_time_total for event in found if event.key.startswith(OURS)}
    operations = {event.key: event.self_cpu_time_total for event in found if event.key.startswith("aten::")}
    per_step = seconds / steps * 1e3
    lines = [f"{steps} steps of all environments, {per_step:.2f} ms each", "", *rows(parts, steps, per_step)]
    most = dict(sorted(operations.items(), key=lambda item: -item[1])[:ROWS])
    return "\n".join([*lines, "", "torch's operations, without those within them", *rows(most, steps, per_step)]) + "\n"


def rows(microseconds: dict[str, float], steps: int, per_step: float) -> list[str]:
    """A line each, the most expensive first."""
    ordered = sorted(((name, total / steps / 1e3) for name, total in microseconds.items()), key=lambda item: -item[1])
    return [f"  {name:<32} {each:9.3f} ms  {each / per_step:6.1%}" for name, each in ordered]
