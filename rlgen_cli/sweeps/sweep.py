"""`rlgen train -m …`: Hydra's sweeper says which jobs there are, one of Hydra's launchers runs them (work.py), and the
sweep's folder keeps the list, so that what is missing can be run later."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, open_dict

from rlgen_cli.config.arguments import parted
from rlgen_cli.config.compose import composed, hydra_of, with_hydra_errors
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import read_json, write_atomic
from rlgen_cli.sweeps.table import print_plan, print_results
from rlgen_cli.sweeps.work import Worker, status_of

LIST = "sweep.json"  # in a sweep's folder
OWN = ("sweep.resume", "sweep.dry_run")
MULTIRUN = ("-m", "--multirun")
LAUNCHER = ("hydra/launcher", "hydra.launcher")  # the words about who runs the jobs, which may change


class Job(NamedTuple):
    """One training of a sweep."""

    number: int
    words: list[str]  # as Hydra's parser takes them
    folder: str  # below the sweep's
    steps: int  # environment steps
    own: dict[str, str]  # what sets it apart from the other jobs, by key


class Sweep:
    """A sweep's jobs, and where they go.

    Args:
        command: train or pretrain. flags, words: of the command line. folder: of the sweep, with a folder for each job.
    """

    def __init__(self, command: str, flags: Sequence[str], words: Sequence[str], folder: Path) -> None:
        self.command, self.flags, self.words, self.folder = command, list(flags), list(words), folder
        self.jobs: list[Job] = []

    def add(self, jobs: list[Job]) -> None:
        """More jobs, which the list in the folder has from now on."""
        self.jobs += jobs
        self.folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"command": self.command, "flags": self.flags, "words": self.words}
        record["jobs"] = [job._asdict() for job in self.jobs]
        write_atomic(self.folder / LIST, json.dumps(record, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> "Sweep":
        """The sweep that was begun in a folder.

        Raises:
            UserError: where there is none.
        """
        there = (folder / LIST).is_file()
        require(there, f"sweep.resume: {folder} is no sweep's folder (it holds no {LIST}).")
        record = read_json(folder / LIST, "sweep.resume")
        try:
            sweep = cls(str(record["command"]), list(record["flags"]), list(record["words"]), folder)
            sweep.jobs = [Job(**job) for job in record["jobs"]]
        except (KeyError, TypeError):
            raise UserError(f"sweep.resume: {folder / LIST} is damaged.") from None
        return sweep

    def missing(self) -> list[Job]:
        """The jobs that have not finished."""
        return [job for job in self.jobs if status_of(self.folder / job.folder) != "finished"]


def sweep(command: str, arguments: list[str]) -> bool:
    """Run a sweep, or what is missing of one; whether all of it has finished.

    Raises:
        UserError: for words that cannot be composed, and at the end where jobs have failed.
    """
    flags, words = parted([argument for argument in arguments if argument not in MULTIRUN])
    asked = {key: value for key, _, value in (word.partition("=") for word in words) if key in OWN}
    words = [word for word in words if word.partition("=")[0] not in OWN]
    dry_run = asked.get("sweep.dry_run", "false").lower()
    require(dry_run in ("true", "false"), f"sweep.dry_run: must be true or false, got {dry_run}.")
    earlier = asked.get("sweep.resume", "null").strip("'\"")
    begun = None if earlier in ("null", "") else Sweep.read(Path(earlier).expanduser())
    if begun is not None:
        other = [word for word in words if not word.lstrip("+").startswith(LAUNCHER)]
        require(not other, f"{' '.join(other[:1])}: cannot change when a sweep goes on; only hydra/launcher can.")
        kept = [word for word in begun.words if not (words and word.lstrip("+").startswith(LAUNCHER))]
        flags, words = [*begun.flags, *flags], [*kept, *words, f"hydra.sweep.dir={begun.folder}"]
    one = [*flags, *map(first_value, words)]  # by which errors are explained
    return bool(with_hydra_errors(command, one, lambda: launch(command, flags, words, begun, dry_run == "true")))


def launch(command: str, flags: list[str], words: list[str], begun: Sweep | None, dry_run: bool) -> bool:
    """Let Hydra's sweeper and launcher do the work."""
    from hydra.core.plugins import Plugins
    from hydra.core.utils import configure_log
    from hydra.types import HydraContext, RunMode

    with hydra_of(command, ["-m", *flags, *words]) as (hydra, name, overrides):
        config = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks(config))
        worker = Worker(command, flags)
        plugins = Plugins.instance()
        sweeper = plugins.instantiate_sweeper(hydra_context=context, task_function=worker, config=config)
        made = begun or Sweep(command, flags, words, Path(config.hydra.sweep.dir))
        launcher = Launcher(sweeper.launcher, context, config, made, dry_run)
        sweeper.launcher = launcher  # type: ignore[assignment]
        try:
            if begun is not None:
                launcher.resume()
            else:
                sweeper.sweep(arguments=list(config.hydra.overrides.task))
        finally:
            launcher.tell()
    return dry_run or not made.missing()


def callbacks(config: DictConfig) -> Any:
    """Hydra's."""
    from hydra._internal.callbacks import Callbacks

    return Callbacks(config)


class Launcher:
    """Stands between Hydra's sweeper and one of its launchers: keeps the list of jobs, says which cannot work before
    the first begins, and gives each a folder that it has again when it goes on.

    Args:
        launcher: which runs them. config: of the sweep. dry_run: list the jobs, and run none.
    """

    def __init__(self, launcher: Any, context: Any, config: DictConfig, sweep: Sweep, dry_run: bool) -> None:
        self.launcher, self.context, self.config, self.sweep, self.dry_run = launcher, context, config, sweep, dry_run
        ray = getattr(launcher, "ray_cfg", None)
        if ray is not None and ray.init.get("address"):
            # Hydra's launcher would ask for this much where it asks for nothing, and Ray takes no wish of a cluster.
            ray.init.setdefault("object_store_memory", None)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run a batch of jobs, as Hydra's sweepers ask for."""
        jobs = self.planned([list(words) for words in job_overrides], initial_job_idx)
        if self.dry_run:
            self.sweep.jobs += jobs
            return []
        self.sweep.add(jobs)
        for job, why in unworkable(self.sweep, jobs):
            print(f"job {job.number} cannot work: {why}", flush=True)
        return self.run(jobs, initial_job_idx)

    def resume(self) -> None:
        """Run what is missing."""
        missing = self.sweep.missing()
        print(f"{len(self.sweep.jobs) - len(missing)} of {len(self.sweep.jobs)} jobs have finished")
        if missing and not self.dry_run:
            self.run(missing, missing[0].number)

    def run(self, jobs: list[Job], first: int) -> Sequence[Any]:
        """Run jobs in their folders."""
        pinned = [[*job.words, f"hydra.sweep.subdir='{job.folder}'"] for job in jobs]
        returned: Sequence[Any] = self.launcher.launch(pinned, initial_job_idx=first)
        return returned

    def tell(self) -> None:
        """What there is to do, or what came of it."""
        if self.sweep.jobs:  # none where a word is wrong
            (print_plan if self.dry_run else print_results)(self.sweep.folder, self.sweep.jobs)

    def planned(self, batch: list[list[str]], first: int) -> list[Job]:
        """The jobs of a batch, each with the folder that `hydra.sweep.subdir` gives it."""
        jobs, varied = [], varying(batch)
        for number, words in enumerate(batch, start=first):
            config = self.context.config_loader.load_sweep_config(self.config, words)
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            own = {key: value for key, value in map(parts, words) if key in varied}
            jobs.append(Job(number, words, str(config.hydra.sweep.subdir), config.total_steps, own))
        return jobs


def first_value(word: str) -> str:
    """A word with the first of the values that it sweeps over."""
    return re.sub(r"(=[^,\[({'\"]*),.*", r"\1", word)


def parts(word: str) -> tuple[str, str]:
    """Key and value of an override."""
    key, _, value = word.partition("=")
    return key, value


def varying(batch: list[list[str]]) -> set[str]:
    """The keys in which the jobs of a batch differ."""
    values: dict[str, set[str]] = {}
    for key, value in (parts(word) for words in batch for word in words):
        values.setdefault(key, set()).add(value)
    return {key for key, found in values.items() if len(found) > 1}


def unworkable(sweep: Sweep, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
    """Jobs that cannot be built, and why. Those that differ in their seeds alone are tried once, on the meta device,
    which needs no memory."""
    from rlgen_cli.runs.assemble import assemble  # here, since it imports torch

    said: dict[str, str] = {}
    for job in jobs:
        words = [word for word in job.words if not word.startswith("seed=")]
        kind = shlex.join(words)
        if kind not in said:
            said[kind] = ""
            try:
                assemble(composed(sweep.command, [*sweep.flags, *words, "device=meta"]))
            except UserError as error:
                said[kind] = str(error)
        if said[kind]:
            yield job, said[kind]
