"""One job of a sweep: a training in a process of its own, so that whatever ends it ends nothing else.

A job whose folder holds a finished run is done, and one that was cut off goes on, so that the same job can be launched
again: by `sweep.resume`, or by a scheduler that puts it back into its queue.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.compose import config_folders, import_from, register_resolvers
from rlgen_cli.config.saved import modules
from rlgen_cli.runs.process import reason, run_process
from rlgen_cli.runs.states import PREEMPTED, state_of, write_failure

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Worker:
    """What Hydra's launchers call for each job, here or in a process elsewhere.

    Args:
        command: train or pretrain. flags: of the command line, which each job gets, too. elsewhere: in a process that
            a launcher has made.
    """

    def __init__(self, command: str, flags: Sequence[str], elsewhere: bool = False) -> None:
        self.command, self.flags, self.elsewhere = command, list(flags), elsewhere

    def __reduce__(self) -> tuple[Any, ...]:
        return revived, (self.command, self.flags)

    def __call__(self, config: DictConfig) -> str:
        """Run the job whose config this is; returns its status.

        Raises:
            SystemExit: here, where a signal stopped it, so that no other begins.
        """
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        folder = Path(os.path.relpath(hydra.runtime.output_dir))
        own = modules(OmegaConf.to_container(config))
        status = self.run(folder, list(hydra.overrides.task), own, config.devices)
        if status == "preempted" and not self.elsewhere:
            print("the sweep ends here; the jobs after this one have not begun", file=sys.stderr)
            sys.exit(PREEMPTED)
        return status

    def run(self, folder: Path, words: Sequence[str], own: Sequence[str], devices: int) -> str:
        """Begin the job in its folder, or go on there; `own` are modules of the user's that its config names."""
        if status_of(folder) == "finished":
            return "finished"
        if (folder / "config.yaml").exists():
            trust = [f"trust=[{','.join(own)}]"] if own else []
            line = [self.command, *self.flags, f"resume={folder}", *trust]
        else:
            line = [self.command, *self.flags, *words, f"hydra.run.dir={folder}"]
        with gpus_of_its_own(folder.parent, devices) as variables:
            code, said = run_process([sys.executable, "-m", "rlgen_cli", *line], variables=variables)
        if code == 0:
            return status_of(folder)
        if code == PREEMPTED:
            return "preempted"
        write_failure(folder, reason(code, said))
        return "failed"


def revived(command: str, flags: list[str]) -> Worker:
    """A worker in another process, in which configs can be composed as in the one that it comes from."""
    register_resolvers(config_folders(flags))
    import_from(config_folders(flags)[:-1])
    return Worker(command, flags, elsewhere=True)


@contextlib.contextmanager
def gpus_of_its_own(sweep: Path, wanted: int = 1) -> Iterator[dict[str, str]]:
    """Environment variables by which a job sees as many of this machine's GPUs as it wants, which no other job of the
    sweep sees meanwhile; none where there is one GPU at most, or too few are free."""
    names, taken = gpus(), list[str]()
    with contextlib.ExitStack() as stack:
        for name in names if len(names) > 1 else []:
            lock = FileLock(sweep / f".gpu_{socket.gethostname()}_{name}")
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
            if lock.is_locked:
                stack.callback(lock.release)
                taken.append(name)
            if len(taken) == wanted:
                yield {VISIBLE: ",".join(taken)}
                return
    yield {}


def gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA takes."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def status_of(folder: Path) -> str:
    """How a job's run is doing; "" where that cannot be read."""
    state = state_of(folder)
    return "" if state is None else state.status
