"""The small runs that faults are done to, one for each environment and family of agents; and whether two runs came to
the same end."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from tests.conftest import small
from tests.faults.forks import Child
from tests.resuming import PARTS, same

PATHS = r"\S*/\S+"
LOCK = ".lock"
RUN = "run"  # the folder of a trial's run, in the trial's
TIMES = ("seconds", "steps_per_second")  # what a clock says in metrics.jsonl
MADE = ("samples", "results.json", "generator")  # what a run makes, in its folder
SHORT = ["total_steps=48", "log_interval=8", "eval_interval=24", "eval_episodes=2", "checkpoint_interval=16"]
CLASSIFIER = ["reward=classifier", "reward.terms.classifier.updates=8"]
ADVERSARIAL = ["reward=adversarial", "reward.terms.adversarial.batch_size=4", "reward.terms.adversarial.interval=2",
               "reward.terms.adversarial.net.channels=4", "reward.terms.adversarial.net.width=8"]  # fmt: skip
SEQUENCES = ["reward=adversarial_sequence", "reward.terms.adversarial_sequence.batch_size=4",
             "reward.terms.adversarial_sequence.interval=2"]  # fmt: skip
JOINT = ["joint=true", "env.generator.joint_training.buffer_size=20"]
SONG = ["env.length=8", "env.bar=4", "env.history=2"]
TUNE = ["env.length=8", "env.bar=4"]
ROLLOUT = ["agent.num_steps=4", "agent.num_minibatches=2", "agent.update_epochs=2"]
GAN = ["env.generator.updates=8"]
MODEL = [*SONG, "data.count=12", "epochs=4", "agent.batch_size=128", "eval_episodes=4",
         "agent.network.recurrent.width=8", "agent.network.body.embed=4"]  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A run that takes a second."""

    env: str
    family: str  # of agents, and what is special
    words: tuple[str, ...]
    command: str = "train"

    @property
    def name(self) -> str:
        return self.title.replace(" ", "_").replace(",", "")

    @property
    def title(self) -> str:
        return f"{self.env}, {self.family}"

    @property
    def line(self) -> list[str]:
        """The command line that begins it."""
        return [self.command, *self.words, f"hydra.run.dir={RUN}"]

    @property
    def on(self) -> list[str]:
        """The command line that goes on with it."""
        return [self.command, f"resume={RUN}"]


def trial(env: str, family: str, agent: str, *words: str) -> Trial:
    """`rlgen train` with few steps; what the words choose comes first, so that `small` sees it."""
    chosen = [word for word in words if "." not in word.partition("=")[0]]
    given = small(f"env={env}", f"agent={agent}", *chosen)
    if "network=lstm" in chosen:
        given = [word for word in given if not word.startswith("agent.network.body.width")]
    return Trial(env, family, (*given, *SHORT, *(word for word in words if word not in chosen), "device=cpu"))


def pretraining(env: str, family: str, *words: str) -> Trial:
    """`rlgen pretrain` with few updates."""
    return Trial(env, family, (f"env={env}", *words, "threads=1", "device=cpu"), "pretrain")


def pretraining_a_gan(env: str, *words: str) -> Trial:
    """Of a GAN, whose samples random latents make."""
    given = small(f"env={env}", "agent=random")
    return pretraining(env, "pretrain, GAN", *(word for word in given if word.startswith(("env.", "data."))), *words)


def next_line(trial: Trial, folder: Path) -> list[str]:
    """The command that a user, or whatever starts a training anew after a kill, gives next."""
    return trial.on if (folder / RUN / "config.yaml").exists() else trial.line


def status_of(run: Path) -> dict[str, Any]:
    """status.json; empty where there is none."""
    path = run / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def sentence(child: Child) -> str:
    """The one sentence with which a command refused, without its beginning; empty where it said more, or nothing."""
    found = re.fullmatch(r"rlgen: (.+)\n", child.said[child.said.rfind("\nrlgen: ") + 1 :])
    return found[1] if found and child.code == 2 and "Traceback" not in child.said else ""


def failed(child: Child) -> str:
    """How a command failed: its exit code and its last line, without paths, so that failures of a kind read alike."""
    lines = child.said.strip().splitlines() or [""]
    how = "a traceback that ends in " if "Traceback" in child.said else ""
    return f"rlgen {child.words[0]} exited with {child.code}, {how}«{re.sub(PATHS, '…', lines[-1][:300])}»"


def ending(run: Path) -> dict[str, Any]:
    """The status, without its clock."""
    return {name: status_of(run).get(name) for name in ("status", "step", "best", "error")}


def records(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, without its clock, stage by stage: one that is fitted anew has its records last."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    timeless = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return sorted(timeless, key=lambda line: str(line.get("stage", "")))


def made(run: Path) -> dict[str, bytes]:
    """Samples, results, and a generator's file."""
    files = [path for name in MADE for path in [run / name, *(run / name).rglob("*")] if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(files)}


def stages(run: Path) -> dict[str, Any]:
    """The results of stages."""
    return {
        path.parent.name: contents(path, ("stage", "streams")) for path in sorted((run / "stages").glob("*/result"))
    }


def last(run: Path) -> dict[str, Any] | str:
    """The checkpoint of the step that the status names."""
    return contents(run / "checkpoints" / f"step_{status_of(run).get('step', 0):09d}", PARTS)


def contents(folder: Path, parts: tuple[str, ...]) -> dict[str, Any] | str:
    """The parts of a checkpoint, or why they cannot be read."""
    try:
        return {part: checkpoint.load(folder, part, "cpu") for part in parts}
    except UserError as error:
        return str(error)


# All that two runs of a config must agree in, to the bit.
OUTCOME: dict[str, Callable[[Path], Any]] = {
    "status": ending, "metrics": records, "made": made, "stages": stages, "checkpoint": last,
}  # fmt: skip


def outcome(run: Path) -> dict[str, Any]:
    """What a run has come to."""
    return {name: read(run) for name, read in OUTCOME.items()}


def differences(expected: dict[str, Any], run: Path) -> list[str]:
    """Where a run's outcome is not what is expected, in all that is: the first difference of each kind."""
    found = []
    for name, value in expected.items():
        there = OUTCOME[name](run)
        try:
            same(value, there, name)
        except AssertionError as error:
            shown = f" is {there}, not {value}" if name == "status" else ""
            found.append(f"differs: {str(error).splitlines()[0]}{shown}")
    return found


def leftovers(run: Path) -> list[str]:
    """What a killed process left half-written or half-deleted, and nobody needs."""
    hidden = [path for path in run.rglob(".*") if path.name != LOCK]
    damaged = [path for path in checkpoint.steps(run) if isinstance(contents(path, PARTS), str)]
    return [str(path.relative_to(run)) for path in [*hidden, *damaged]]


TRIALS = [
    trial("tiny", "dqn", "dqn"),
    trial("tiny", "dqn, prioritized replay", "dqn", "replay=prioritized", "agent.n_step=3"),
    trial("tiny", "ppo", "ppo", *ROLLOUT),
    trial("tiny", "reinforce", "policy_gradient"),
    trial("tiny", "random", "random"),
    trial("pixel", "dqn", "dqn"),
    trial("pixel", "dqn, adversarial", "dqn", *ADVERSARIAL),
    trial("pixel", "actor-critic", "actor_critic"),
    trial("pixel", "ppo, adversarial and classifier", "ppo", "reward=adversarial_classifier",
          "reward.terms.classifier.updates=8", *ADVERSARIAL[1:], *ROLLOUT),
    trial("pixel", "reinforce, classifier", "policy_gradient", *CLASSIFIER),
    trial("pixel", "pathwise", "pathwise", "brush=stroke"),
    trial("music", "dqn", "dqn", *SONG),
    trial("music", "ppo, adversarial", "ppo", *SEQUENCES, *SONG, *ROLLOUT),
    trial("music", "reinforce, lstm", "policy_gradient", "network=lstm", *SONG),
    trial("music", "maximum likelihood", "maximum_likelihood", *SONG),
    trial("latent_gan", "dqn", "dqn", "steering=discrete_step", *GAN),
    trial("latent_gan", "dqn, joint", "dqn", "steering=discrete_step", *GAN, *JOINT),
    trial("latent_gan", "ppo, classifier", "ppo", "steering=continuous_step", *GAN, *CLASSIFIER, *ROLLOUT),
    trial("latent_gan", "reinforce", "policy_gradient", "steering=discrete_step", *GAN),
    trial("latent_gan", "pathwise", "pathwise", "steering=continuous_step", *GAN),
    trial("latent_music", "dqn, joint", "dqn", "steering=discrete_step", *GAN, *TUNE, *JOINT),
    trial("latent_music", "actor-critic", "actor_critic", "steering=continuous_step", *GAN, *TUNE),
    pretraining("music", "pretrain, maximum likelihood", *MODEL),
    pretraining_a_gan("latent_gan", *GAN),
    pretraining_a_gan("latent_music", *GAN, *TUNE),
]  # fmt: skip


def named(name: str) -> Trial:
    """One of the trials."""
    return next(trial for trial in TRIALS if trial.name == name)
