"""One training on several devices of this machine: a process each (core/ranks.py), begun and watched from here."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from omegaconf import DictConfig

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.runs.process import LOOK, begun, passed_on, reason
from rlgen_cli.runs.states import PREEMPTED, write_failure

FOLDER = "rlgen/folder"  # where the first rank says in which folder it works
GRACE = 20.0  # seconds in which the others may end by themselves, once one has failed
HOST = "127.0.0.1"


def settle(config: DictConfig, folder: Path) -> Path:
    """Let all ranks mean the same folder, the first one's, and the config say how many they are.

    Raises:
        UserError: where the config asks for another number.
    """
    count = ranks.count()
    if count > 1:
        fits = config.devices in (1, count)
        require(fits, f"devices: the launcher has begun {count} processes, got {config.devices}; leave it out.")
        config.devices = count
    folder = ranks.from_first(lambda: folder)
    ranks.leave_word(FOLDER, str(folder))
    return folder


def run_on_devices(count: int, line: Sequence[str]) -> int:
    """Run a command of rlgen as so many ranks; returns its exit code. A signal goes to the first rank, which the others
    follow. Where one fails, so does the command, and the others end soon."""
    require(dist.is_available(), "devices: this build of torch has no torch.distributed; use 1.")
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-m", "rlgen_cli", *line]
    with contextlib.ExitStack() as stack:
        began = [stack.enter_context(rank_process(command, rank, count, store.port)) for rank in range(count)]
        stack.enter_context(passed_on(began[0]))
        hung = wait_for_all(began)
    codes = [process.returncode for process in began]
    wrong = [code for code in codes if code not in (0, PREEMPTED)]
    by_others = [process.returncode < 0 and process not in hung for process in began]
    killed = [f"rank {rank} was {reason(codes[rank], [])}" for rank, so in enumerate(by_others) if so]
    if killed and store.check([FOLDER]):
        write_failure(Path(store.get(FOLDER).decode()), killed[0])
    for why in killed:
        print(f"rlgen: {why}", file=sys.stderr)
    return codes[0] if not wrong else max(wrong[0], 1)


@contextlib.contextmanager
def rank_process(command: list[str], rank: int, count: int, port: int) -> Iterator["subprocess.Popen[str]"]:
    """A rank, which is killed where this process fails."""
    given: dict[str, Any] = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": HOST,
        "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0,
    }  # fmt: skip
    process = begun(command, {name: str(value) for name, value in given.items()})
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()


def wait_for_all(processes: Sequence["subprocess.Popen[str]"]) -> list["subprocess.Popen[str]"]:
    """Until all have ended; those that have not, some seconds after one has failed, are killed, and returned."""
    hung: list[subprocess.Popen[str]] = []
    failed_at: float | None = None
    while waiting := [process for process in processes if process.poll() is None]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            waiting[0].wait(LOOK)
        if failed_at is None and any(process.poll() not in (None, 0, PREEMPTED) for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            hung = waiting
            for process in hung:
                process.kill()
    return hung
