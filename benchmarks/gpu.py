"""A GPU: whether it computes what the CPU does, and how fast it is, whatever GPU is there.

    python -m benchmarks.gpu [device=cuda] [minutes=9] [seconds=1]

First the same states, actions and weights are moved to both devices, and what each makes of them is compared. Then the
environment alone and whole trainings are timed. What fails, or finds no time left, says so in its row. Where there is
no GPU, `quick=true` goes through the same code on the CPU.
"""

import gc
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from benchmarks.harness import Call, run
from benchmarks.parts import prepared
from benchmarks.peers.task import ENVIRONMENT
from benchmarks.report import Row, summary, table, write
from benchmarks.speed import alone, stepping, took
from rlgen_cli.agents.dqn import DQN
from rlgen_cli.config.compose import composed
from rlgen_cli.core.specs import Metrics, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.memory.replay import Replay
from rlgen_cli.policies.actor import no_start
from rlgen_cli.runs.assemble import Session, assemble, collected
from rlgen_cli.runs.trainer import Loop

PLACED = ("device=", "precision=", "threads=")  # words of the task that are given anew here
TASK = [word for word in ENVIRONMENT if not word.startswith(PLACED)]
CANVASES = {"16 × 16, 24 moves": TASK, "28 × 28, 48 moves": ["env=pixel"]}
COMPARED = {"canvas": [*TASK, "network=convolutions"], "music": ["env=music"]}
AGENTS = {
    "dqn": ["agent.learning_starts=0"],
    "ppo": ["agent.num_minibatches=1", "agent.update_epochs=1"],  # so that the order of minibatches is not drawn
}
TRAINED = [*TASK, "network=convolutions", "total_steps=1000000000000"]
COMPILE = ("never", "always")
PRECISION = ("float32", "bfloat16")
RELATIVE = 1e-3  # of the largest number of a kind, how far floats may be apart
NO_GPU = "benchmarks.gpu: no GPU was found, so nothing was measured; quick=true goes through the code on the CPU."
NOTHING = "–"


class Place(NamedTuple):
    """Where is measured, and until when."""

    device: torch.device
    deadline: float  # by time.monotonic

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def words(self) -> list[str]:
        """Those that say where."""
        return [f"device={self.device}", *([] if self.gpu else ["threads=1"])]

    def attempt(self, measured: Callable[[], Row], cells: int) -> Row:
        """The cells of a measurement, or why there are none."""
        if time.monotonic() > self.deadline:
            return ["no time left", *[NOTHING] * (cells - 1)]
        try:
            return measured()
        except Exception as error:  # a GPU may lack memory, an instruction or a compiler; the others are still measured
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace("|", "/")
            return [f"failed ({reason[:100]})", *[NOTHING] * (cells - 1)]
        finally:
            self.tidy()

    def tidy(self) -> None:
        """Leave nothing of a case to the next, neither memory nor what was compiled."""
        torch._dynamo.reset()
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> str:
        """GiB of the device's memory that were in use at once since `tidy`."""
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.2f}" if self.gpu else NOTHING


class Recorder:
    """A learner that takes down the steps of a training."""

    def __init__(self) -> None:
        self.steps: list[Transition] = []

    def observe(self, step: Transition) -> None:
        self.steps.append(step)

    def update(self, progress: float) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""


class Losses:
    """In an optimizer's place, keeps the losses and changes no weight."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def step(self, loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
        self.losses.append(loss)


class FirstRows:
    """A sampling of the first windows that there are, in turn."""

    nbytes = 0

    def draw(self, replay: Replay, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        every = torch.arange(replay.rows, device=replay.device)
        rows = replay.allowed(every, length).nonzero().squeeze(1)
        chosen = rows[torch.arange(batch, device=rows.device) % len(rows)]
        return chosen, torch.ones(batch, device=rows.device)

    def written(self, replay: Replay, rows: Tensor) -> None:
        """It keeps nothing."""


class Apart(NamedTuple):
    """How far two devices are apart in one kind of results."""

    most: float  # the largest difference
    agrees: bool

    def __str__(self) -> str:
        return f"{self.most:.1e}" if self.agrees else f"**{self.most:.1e}**"


def compared(words: list[str], steps: int, device: torch.device) -> dict[str, Apart]:
    """How far the device is from the CPU, for everything that a training does."""
    cpu, other = (assemble(composed("train", [*words, f"device={where}"])) for where in ("cpu", device))
    agents: list[Any] = [cpu.agent, other.agent]
    for parameter in agents[0].policy.net.parameters():  # a head that starts at zero would pass no gradient to its body
        nn.init.normal_(parameter, std=0.05)
    for agent in agents:
        agent.policy.load_state_dict(agents[0].policy.state_dict())
        agent.optimizer = Losses()
        if isinstance(agent, DQN):
            agent.target.load_state_dict(agent.policy.net.state_dict())
            agent.replay.sampling = FirstRows()
    made_here = recorded(cpu, steps)
    made_there = [map_tensors(lambda field: field.to(device), step) for step in made_here]
    here, there = computed(cpu, agents[0], made_here), computed(other, agents[1], made_there)
    return {name: apart(one, there[name]) for name, one in here.items()}


def recorded(session: Session, count: int) -> list[Transition]:
    """The first steps of a training."""
    recorder = Recorder()
    learners, session.learners = session.learners, {"recorder": recorder}
    loop = Loop(session)
    for _ in range(count):
        loop.renew(*loop.play())
    session.learners = learners
    return recorder.steps


def computed(session: Session, agent: Any, steps: list[Transition]) -> dict[str, Any]:
    """What a device makes of steps that lie on it; of the last of them, but for the update, which sees all."""
    env, last = session.envs["train"], steps[-1]
    with torch.no_grad():
        before, after = env.view(last.state), env.view(last.next_state)
        made = {
            "step": env.step(last.state, last.action),
            "observe": env.observe(last.state),
            "view": after,
            "reward": session.reward(before, after, last.terminated),
            "network": network_pass(session, agent, last),
        }
    for step in steps:
        agent.observe(step)
    agent.update(0.0)
    (loss,) = agent.optimizer.losses
    weights = list(agent.policy.net.parameters())
    return made | {"loss": loss, "gradients": torch.autograd.grad(loss, weights, allow_unused=True)}


def network_pass(session: Session, agent: Any, step: Transition) -> Any:
    """Q-values, or the action's log-probability and the state's value."""
    env, policy = session.envs["train"], agent.policy
    seen, mask = policy.observe(env, step.state), env.action_mask(step.state)
    carry, start = policy.initial_carry(len(step.action)), no_start(seen)
    if isinstance(agent, DQN):
        return policy.values(policy.net, seen, mask, carry, start)[0]
    out = policy.forward(seen, mask, carry, start)
    return out.policy.evaluate_actions(step.action)[0], out.value


def apart(here: Any, there: Any) -> Apart:
    """The largest difference of two trees. A byte may be one apart, since halves round either way; other whole numbers
    are equal; floats differ by a share of the largest of them."""
    pairs = [
        (one.detach(), other.detach().cpu())
        for one, other in zip(tree_leaves(here), tree_leaves(there), strict=True)
        if isinstance(one, Tensor) and one.numel()
    ]
    floats = [one for one, _ in pairs if one.is_floating_point()]
    largest = max((float(one.abs().masked_fill(one.isinf(), 0.0).max()) for one in floats), default=0.0)
    most, agrees = 0.0, True
    for one, other in pairs:
        equal = one == other  # infinities are
        difference = float((one.double() - other.double()).abs().masked_fill(equal, 0.0).max())
        allowed = RELATIVE * largest if one.is_floating_point() else float(one.dtype == torch.uint8)
        most, agrees = max(most, difference), agrees and difference <= allowed
    return Apart(most, agrees)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions with all digits of float32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def correctness(call: Call, place: Place) -> list[str]:
    """Every environment and agent on both devices."""
    kinds = ["step", "observe", "view", "reward", "network", "loss", "gradients"]
    rows: list[Row] = [["environment", "agent", *kinds, "agree"]]
    steps = call.pick(16, 4)
    num_envs = call.pick(256, 4)
    for env, words in COMPARED.items():
        for agent, more in AGENTS.items():
            own = [f"agent.num_steps={steps}"] if agent == "ppo" else call.pick([], ["agent.batch_size=8"])
            whole = [*words, f"agent={agent}", *more, *own, f"num_envs={num_envs}", "compile=never"]

            def measured(whole: list[str] = whole) -> Row:
                with without_tf32():
                    found = compared(whole, steps, place.device)
                return [*found.values(), "yes" if all(one.agrees for one in found.values()) else "**no**"]

            rows.append([env, agent, *place.attempt(measured, len(kinds) + 1)])
            print(*rows[-1], flush=True)
    wrong = [f"{row[0]} with {row[1]}" for row in rows[1:] if row[-1] != "yes"]
    verdict = (
        f"**The CPU and this device do not agree, or could not be compared: {', '.join(wrong)}.**"
        if wrong
        else "The CPU and this device agree."
    )
    how = (
        f"{verdict} Largest differences after {steps} steps of {num_envs} environments that the CPU made; bytes may "
        f"differ by one, other whole numbers not, floats by {RELATIVE} of the largest of their kind. Convolutions "
        "without TF32, which trainings have as torch sets it."
    )
    return ["## The same numbers", how, table(rows)]


def environments(call: Call, place: Place) -> list[str]:
    """A random action, step, view, reward, observation and reset."""
    rows: list[Row] = [["canvas", "environments", "compile", "steps/s", "memory, GiB"]]
    seconds = call.pick(float(call.settings["seconds"]), 0.02)
    with collected() as notes:
        for canvas, words in list(CANVASES.items())[: call.pick(None, 1)]:
            for num_envs in call.pick((1024, 8192, 65536), (4,)):
                for mode in COMPILE:
                    whole = [*words, *place.words(), f"num_envs={num_envs}", f"compile={mode}"]

                    def measured(whole: list[str] = whole) -> Row:
                        return [f"{1e6 / alone(whole, call.parts / 'alone', seconds):,.0f}", place.peak()]

                    rows.append([canvas, num_envs, mode, *place.attempt(measured, 2)])
                    print(*rows[-1], flush=True)
    how = "A random action, step, view, reward, observation and reset, without any network."
    return ["## The environment alone", how, table(rows), *not_compiled(notes)]


def trainings(call: Call, place: Place) -> list[str]:
    """PPO and DQN with a small convolutional policy."""
    rows: list[Row] = [[
        "agent", "environments", "compile", "precision", "steps/s", "launches a step", "GPU busy", "waits a step",
        "memory, GiB",
    ]]  # fmt: skip
    seconds = call.pick(float(call.settings["seconds"]), 0.02)
    small = call.pick([], ["agent.batch_size=8", "agent.learning_starts=8"])
    choices = call.pick(list(itertools.product(COMPILE, PRECISION)), list(zip(COMPILE, PRECISION, strict=True)))
    waits: set[str] = set()
    with collected() as notes:
        for num_envs in call.pick((8192, 1024), (4,)):
            for agent in ("ppo", "dqn"):
                for mode, precision in choices:
                    own = small if agent == "dqn" else []
                    chosen = [f"compile={mode}", f"precision={precision}", f"num_envs={num_envs}"]
                    whole = [*TRAINED, f"agent={agent}", *own, *chosen, *place.words()]

                    def measured(whole: list[str] = whole) -> Row:
                        return training(whole, call.parts / "trained", seconds, place, waits)

                    rows.append([agent, num_envs, mode, precision, *place.attempt(measured, 5)])
                    print(*rows[-1], flush=True)
    how = (
        "Batched steps with the updates that fall into them, at the agents' defaults. A launch is that of a kernel; "
        "busy is the time of all kernels over the time of the same steps without a profiler; a wait is an operation "
        "for which the host stands still until the GPU has done everything."
    )
    where = [f"The host waits in {', '.join(sorted(waits))}."] if waits else []
    return ["## Trainings", how, table(rows), *where, *not_compiled(notes)]


def training(words: list[str], folder: Path, seconds: float, place: Place, waits: set[str]) -> Row:
    """One training, after its first updates; where the host waits is added to `waits`."""
    loop = Loop(prepared(folder, words))
    until_it_learns(loop)
    until_it_learns(loop)
    steps = until_it_learns(loop)  # of a stretch that ends with an update

    def stretch() -> None:
        for _ in range(steps):
            stepping(loop)

    milliseconds = took(stretch, seconds) / steps
    rate = f"{loop.session.settings.num_envs / milliseconds * 1e3:,.0f}"
    memory = place.peak()
    if not place.gpu:
        return [rate, NOTHING, NOTHING, NOTHING, memory]
    launches, busy = profiled(stretch)
    places = waited(stretch)
    waits.update(places)
    share = f"{busy / (milliseconds * steps):.0%}"
    return [rate, f"{launches / steps:.0f}", share, f"{len(places) / steps:.2f}", memory]


def until_it_learns(loop: Loop) -> int:
    """Step until the agent learned; returns how many steps that took."""
    count = 1
    while not stepping(loop):
        count += 1
    return count


def profiled(action: Callable[[], None]) -> tuple[int, float]:
    """Kernels that an action launches, and the milliseconds that they take."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        action()
        torch.cuda.synchronize()
    events = trace.key_averages()
    kernels = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    return launches, sum(event.self_device_time_total for event in kernels) / 1e3


def waited(action: Callable[[], None]) -> list[str]:
    """Where the host waits for the GPU within an action, as file and line, once for every time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            action()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]


def not_compiled(notes: list[str]) -> list[str]:
    """What compile=always could not compile."""
    lines = sorted({note for note in notes if note.startswith("compile:")})
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def device_of(call: Call) -> torch.device:
    """The device that is asked for; in a quick run the CPU, where there is no GPU.

    Raises:
        SystemExit: with one sentence, and no failure, where a full run finds no GPU.
    """
    device = torch.device(call.settings["device"])
    if device.type == "cuda" and torch.cuda.is_available():
        return device
    if call.quick:
        return torch.device("cpu")
    print(NO_GPU)
    raise SystemExit(0)  # nothing is noted as complete, so that the next call looks again


def measure(call: Call) -> None:
    place = Place(device_of(call), time.monotonic() + 60 * float(call.settings["minutes"]))
    place.tidy()
    parts = [line for part in (correctness, environments, trainings) for line in part(call, place)]
    write(call, "A GPU", [summary(__doc__), *parts])


def main(arguments: list[str]) -> None:
    run("gpu", measure, arguments, device="cuda", minutes="9", seconds="1")


if __name__ == "__main__":
    main(sys.argv[1:])
