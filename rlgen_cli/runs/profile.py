"""`rlgen train profile=true`: where a training's time goes, as a table and as a trace."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from rlgen_cli.core.compiled import synchronise
from rlgen_cli.core.protocols import Learner, Planner, ReadsStates

if TYPE_CHECKING:
    from rlgen_cli.core.specs import Metrics
    from rlgen_cli.runs.log import Records
    from rlgen_cli.runs.trainer import Loop

WARM_UP = 20  # steps of the loop before any is watched
LEAST, MOST = 50, 400  # steps that are watched
ROWS = 15  # torch operations in the table
OURS = "rlgen/"  # what the names of the loop's parts begin with in the trace


class Profiler:
    """Watches one period of a loop under torch's profiler, once everything that learns has learned.

    The period begins and ends with an update of whatever learns least often, so that every part is in it as often as in
    the training. The loop's parts carry names in that time alone, and compute the same. Leaving the context ends the
    watching, whatever the reason.

    Args:
        loop: whose steps are watched. run: its folder gets the results, below `profile`, and it says them.
        wanted: False for a profiler that does nothing.
    """

    def __init__(self, loop: Loop, run: Records, wanted: bool) -> None:
        self.loop, self.run, self.over = loop, run, not wanted
        self.steps = 0  # of the loop, before the period or in it, as `updates`
        self.updates = Counter(dict.fromkeys(loop.session.learners, 0))
        self.watching = ExitStack()
        self.trace: profile | None = None

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *failure: object) -> None:
        self.watching.close()

    def step(self, metrics: Metrics) -> None:
        """After each step of the loop, with what its learners measured."""
        if self.over:
            return
        self.steps += 1
        learned = {name for name in self.updates if any(key.startswith(f"{name}/") for key in metrics)}
        self.updates.update(learned)
        rarest = min(self.updates, key=self.updates.__getitem__, default=None)
        whole = all(self.updates.values()) and (rarest is None or rarest in learned)
        if self.trace is None:
            if whole and self.steps >= WARM_UP:
                self._begin()
        elif (whole and self.steps >= LEAST) or self.steps >= MOST:
            self.finish()

    def finish(self) -> None:
        """Write and say what was seen, or that it was nothing; later steps are not watched."""
        if self.over:
            return
        self.over = True
        if self.trace is None or self.steps == 0:
            idle = [name for name, count in self.updates.items() if not count]
            why = f"{' and '.join(idle)} had learned" if idle else f"the {WARM_UP} steps of the warm-up were over"
            self.run.announce(f"profile: nothing was watched, since the training ended before {why}.")
            return
        synchronise()
        seconds = time.perf_counter() - self.began
        self.watching.close()
        folder = self.run.folder / "profile"
        folder.mkdir(exist_ok=True)
        path = folder / "trace.json.gz"
        self.trace.export_chrome_trace(str(path))
        num_envs = self.loop.session.settings.num_envs
        heading = f"{self.steps} steps of {num_envs} environments, {seconds / self.steps * 1e3:.3f} ms each under the "
        idle = [f"{name} did not learn in them" for name, count in self.updates.items() if not count]
        text = "\n".join([
            "; ".join([heading + "profiler, which slows small operations down", *idle]),
            *table(self.trace, seconds, self.steps),
            "", f"The trace is {path}; open it at https://ui.perfetto.dev or chrome://tracing.",
        ])  # fmt: skip
        (folder / "table.txt").write_text(f"{text}\n", encoding="utf-8")
        self.run.announce(text)
        self.trace = None  # its events take memory

    def _begin(self) -> None:
        for owner, attribute, name in parts(self.loop, self.run):
            self.watching.enter_context(named(owner, attribute, name))
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.trace = self.watching.enter_context(profile(activities=[ProfilerActivity.CPU, *gpu]))
        self.steps, self.updates = 0, Counter(dict.fromkeys(self.updates, 0))
        synchronise()
        self.began = time.perf_counter()


def parts(loop: Loop, run: Records) -> Iterator[tuple[Any, str, str]]:
    """What a training is made of: objects, and the attributes that are called, with their names in the table."""
    session, env = loop.session, loop.session.envs["train"]
    if isinstance(session.actor, Planner):
        yield session.actor, "plan", "act"
    else:
        yield session.actor, "act", "act"
        yield session.actor if isinstance(session.actor, ReadsStates) else env, "observe", "observe"
    yield env, "action_mask", "action mask"
    yield env, "step", "step"
    yield env, "view", "view"
    yield loop.stepper, "reward", "reward"
    for name, learner in session.learners.items():
        if isinstance(learner, Learner):
            yield learner, "observe", f"{name} observes"
        yield learner, "update", f"{name} updates"
    yield loop.stepper, "renew", "renew"
    yield loop.tally, "add", "tally"
    yield loop, "check_numbers", "check numbers"
    yield loop, "read", "records"
    yield run, "scalars", "records"
    yield run, "progress", "records"
    yield loop, "evaluate", "evaluation"
    yield loop, "check_state", "checkpoint"
    yield loop, "save", "checkpoint"


@contextmanager
def named(owner: Any, attribute: str, name: str) -> Iterator[None]:
    """Let what an object calls by this attribute be a range of the trace."""
    own, function = vars(owner).get(attribute), getattr(owner, attribute)

    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(OURS + name):
            return function(*args, **kwargs)

    setattr(owner, attribute, call)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, attribute)  # its class has it
        else:
            setattr(owner, attribute, own)


def table(trace: profile, seconds: float, steps: int) -> list[str]:
    """Lines with milliseconds a step and shares of `seconds`: of the loop's parts, which with the rest make up the
    whole, and indented what within them is a part as well; of torch's operations, each without those that it calls;
    and of kernels, where there is a GPU."""
    total = seconds * 1e6
    spent = by_part(trace.events() or [])
    outer = {path: each for path, each in spent.items() if len(path) == 1}
    lines = []
    for path in ordered(outer):
        lines.append(row(path[0], spent[path], total, steps))
        inner = {inside: each for inside, each in spent.items() if len(inside) == 2 and inside[:1] == path}
        lines += [row(f"  {inside[1]}", spent[inside], total, steps) for inside in ordered(inner)]
    lines.append(row("the rest", total - sum(outer.values()), total, steps))
    averages = trace.key_averages()
    operations = {each.key: each.self_cpu_time_total for each in averages if each.key.startswith("aten::")}
    kernels = {
        each.key: each.self_device_time_total
        for each in averages
        if each.device_type == DeviceType.CUDA and not each.is_user_annotation
    }
    for what, found in (("operation of torch", operations), ("kernel on the GPU", kernels)):
        if found:
            most = [row(key, found[key], total, steps) for key in ordered(found)[:ROWS]]
            lines += ["", f"{what:<40} ms a step   share", *most]
    return ["", f"{'part':<40} ms a step   share", *lines]


def by_part(events: Iterable[Any]) -> dict[tuple[str, ...], float]:
    """Microseconds of the loop's parts, by the names of those that they are in, the outermost first, and their own."""
    spent: dict[tuple[str, ...], float] = defaultdict(float)
    for event in events:
        if event.name.startswith(OURS) and event.device_type == DeviceType.CPU:
            path, around = [event.name], event.cpu_parent
            while around is not None:
                if around.name.startswith(OURS):
                    path.append(around.name)
                around = around.cpu_parent
            spent[tuple(name.removeprefix(OURS) for name in reversed(path))] += event.cpu_time_total
    return spent


def ordered(microseconds: dict[Any, float]) -> list[Any]:
    """The keys, the most expensive first."""
    return sorted(microseconds, key=lambda key: -microseconds[key])


def row(name: str, microseconds: float, total: float, steps: int) -> str:
    return f"{name[:40]:<40} {microseconds / steps / 1e3:9.3f}  {microseconds / total:6.1%}"
