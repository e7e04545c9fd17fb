"""Other processes: run to their end, stopped by the signals that this one gets, and asked why they failed. Imports no
torch."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from rlgen_cli.runs.states import SIGNALS

LOOK = 1.0  # seconds between two looks at a process
PR_SET_PDEATHSIG = 1  # of Linux's prctl
LAST_LINES = 30  # of what a process says on stderr, among which a reason is looked for


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
    with begun(command, variables or {}, stderr=subprocess.PIPE) as process:
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


def begun(command: list[str], variables: Mapping[str, str], stderr: int | None = None) -> "subprocess.Popen[str]":
    """A command at work, in a session of its own, which ends where this process is killed."""
    return subprocess.Popen(
        command, env=os.environ | dict(variables), stderr=stderr, text=True, errors="replace", start_new_session=True,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,  # it only makes a system call
    )  # fmt: skip


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
