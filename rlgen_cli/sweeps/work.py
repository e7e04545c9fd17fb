"""One job of a sweep: a training in a process of its own, so that whatever ends it ends nothing else.

A job whose folder holds a finished run is done, and one that was cut off goes on, so that the same job can be launched
again: by `sweep.resume`, or by a scheduler that puts it back into its queue.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.compose import config_folders, import_from, register_resolvers
from rlgen_cli.config.saved import modules
from rlgen_cli.runs.states import PREEMPTED, SIGNALS, state_of, write_failure

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOOK = 1.0  # seconds between two looks at a job
PR_SET_PDEATHSIG = 1  # of Linux's prctl
LAST_LINES = 30  # of what a job says on stderr, among which a reason is looked for


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
        status = self.run(folder, list(hydra.overrides.task), modules(OmegaConf.to_container(config)))
        if status == "preempted" and not self.elsewhere:
            print("the sweep ends here; the jobs after this one have not begun", file=sys.stderr)
            sys.exit(PREEMPTED)
        return status

    def run(self, folder: Path, words: Sequence[str], own: Sequence[str]) -> str:
        """Begin the job in its folder, or go on there; `own` are modules of the user's that its config names."""
        if status_of(folder) == "finished":
            return "finished"
        if (folder / "config.yaml").exists():
            trust = [f"trust=[{','.join(own)}]"] if own else []
            line = [self.command, *self.flags, f"resume={folder}", *trust]
        else:
            line = [self.command, *self.flags, *words, f"hydra.run.dir={folder}"]
        with gpu_of_its_own(folder.parent) as variables:
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
def gpu_of_its_own(sweep: Path) -> Iterator[dict[str, str]]:
    """Environment variables by which a job sees one of this machine's GPUs, which no other job of the sweep sees
    meanwhile; none where there is one GPU at most, or no free one."""
    names = gpus()
    for name in names if len(names) > 1 else []:
        lock = FileLock(sweep / f".gpu_{socket.gethostname()}_{name}")
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
        if lock.is_locked:
            try:
                yield {VISIBLE: name}
            finally:
                lock.release()
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


def never() -> bool:
    """Nothing asks a process to stop."""
    return False


def run_process(
    command: list[str], stop: Callable[[], bool] = never, variables: Mapping[str, str] | None = None
) -> tuple[int, list[str]]:
    """Run a command to its end; its exit code and the last lines of its stderr, which is shown, too. Signals that ask
    this process to stop go to the command, and are waited for; so does `stop`, which is asked every second.

    Args:
        variables: of its environment, beside this process's.
    """
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,  # it only makes a system call
    ) as process:  # fmt: skip
        said: list[str] = []
        reader = threading.Thread(target=show, args=(process, said))
        reader.start()
        try:
            with passed_on(process):
                while process.poll() is None and not stop():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(LOOK)
                if process.poll() is None:  # once, since a second signal would end it without a checkpoint
                    process.terminate()
                code = process.wait()
        except BaseException:  # with which a launcher ends its job, as submitit's does when it is preempted
            process.terminate()
            process.wait()
            raise
        finally:
            reader.join()
    return code, said


def show(process: "subprocess.Popen[str]", said: list[str]) -> None:
    """Pass a process's stderr on, and keep its last lines."""
    assert process.stderr is not None
    for line in process.stderr:
        with contextlib.suppress(OSError):
            sys.stderr.write(line)
        said.append(line.rstrip("\n"))
        del said[:-LAST_LINES]


def end_with_parent() -> None:
    """Let the system stop this process, with its checkpoint, where its parent is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def passed_on(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Signals that this process gets meanwhile go to the other."""

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, forward) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reason(code: int, said: list[str]) -> str:
    """Why a process failed, in a sentence."""
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; the system may have been out of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    own = [line.removeprefix("rlgen: ") for line in said if line.startswith("rlgen: ")]
    return (own or [line for line in said if line.strip()] or [f"it ended with exit code {code}"])[-1]


def status_of(folder: Path) -> str:
    """How a job's run is doing; "" where that cannot be read."""
    state = state_of(folder)
    return "" if state is None else state.status
