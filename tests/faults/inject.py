"""What a trial's process does to itself at a chosen call: the k-th operation on its files, the k-th backward pass or the
k-th step of training. Counted calls make a trial repeatable to the bit, which a clock does not.

A file operation is what changes the disk: opening a file for writing, making, renaming or removing a file or folder, and
`fsync`. Only those of the main thread below the trial's folder count, so that TensorBoard's writer changes no count.
"""

import contextlib
import errno
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILES, BACKWARD, STEP = "files", "backward", "step"
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
NEEDS_SPACE = ("open", "os.mkdir", "os.rename", "os.fsync", "os.link", "os.symlink")
TORN = "TORN"  # half of the file's content is there, and the process is killed


@dataclass(frozen=True)
class Fault:
    """What happens to a process, and when.

    Args:
        what: is counted: `files`, `backward` or `step`. at: the number of the call, from 1.
        do: the name of a signal that the process sends itself before that call; TORN; or the name of an errno, as
            ENOSPC, with which the call fails. lasting: so do all calls after it.
        below: only operations on files below this folder count, relative to the trial's.
    """

    what: str
    at: int
    do: str = "SIGKILL"
    lasting: bool = False
    below: str = "."

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Injection:
    """Counts the calls of this process, does what `faults` say, and leaves in `report` where they did it, or the counts
    when the process ends."""

    def __init__(self, faults: list[Fault], root: Path, report: Path) -> None:
        self.faults, self.root, self.report = faults, root.resolve(), report
        self.counts: Counter[str] = Counter()
        self.within: Counter[int] = Counter()  # calls that a fault counts, by its place in the list
        self.trace: list[tuple[str, str]] = []  # operations on files, each with its path below the root
        self.busy = False  # what this class does itself is not counted

    def install(self) -> None:
        """From here on."""
        import torch

        from rlgen_cli.runs.stepper import Stepper

        sys.addaudithook(self._audit)
        os.fsync = self._before(os.fsync, "os.fsync")
        torch.autograd.backward = self._before(torch.autograd.backward, BACKWARD)
        torch.autograd.grad = self._before(torch.autograd.grad, BACKWARD)
        Stepper.step = self._before(Stepper.step, STEP)  # type: ignore[method-assign]

    def finish(self) -> None:
        """Leave the counts and the file operations of a process that came to its end."""
        self._write({"counts": self.counts, "trace": self.trace})

    def _before(self, call: Callable[..., Any], name: str) -> Any:
        """`call`, counted."""

        def counted(*arguments: Any, **more: Any) -> Any:
            if name == "os.fsync":
                self._file(name, self.root, arguments[0])
            else:
                self._count(name, name, None, None)
            return call(*arguments, **more)

        return counted

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or self.busy or threading.current_thread() is not threading.main_thread():
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if isinstance(arguments[0], int):  # a descriptor, which was counted as it was opened
            return
        path = Path(os.fsdecode(arguments[0]))
        if not path.is_absolute() and event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            path = Path(os.readlink(f"/proc/self/fd/{arguments[1]}")) / path  # as shutil.rmtree removes
        path = Path(os.path.abspath(path))
        if path.is_relative_to(self.root) and "tensorboard" not in path.parts:
            self._file(event, path, None)

    def _file(self, event: str, path: Path, descriptor: int | None) -> None:
        if descriptor is not None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.trace.append((event, os.path.relpath(path, self.root)))
        self._count(FILES, event, path, descriptor)

    def _count(self, what: str, event: str, path: Path | None, descriptor: int | None) -> None:
        self.counts[what] += 1
        for i, fault in enumerate(self.faults):
            inside = path is None or path.is_relative_to(self.root / fault.below)
            if fault.what != what or not inside:
                continue
            self.within[i] += 1
            if self.within[i] == fault.at or (fault.lasting and self.within[i] > fault.at):
                self._do(fault.do, event, descriptor)

    def _do(self, what: str, event: str, descriptor: int | None) -> None:
        if what.startswith("E"):
            number = getattr(errno, what)
            if number == errno.ENOSPC and event not in NEEDS_SPACE:
                return
            raise OSError(number, os.strerror(number))
        self._write({"counts": self.counts, "where": stack(), "event": event})
        if what == TORN and descriptor is not None and os.path.isfile(f"/proc/self/fd/{descriptor}"):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL if what == TORN else getattr(signal, what))

    def _write(self, record: dict[str, Any]) -> None:
        self.busy = True
        with contextlib.suppress(OSError):  # the disk that is full is the trial's own
            self.report.write_text(json.dumps(record))
        self.busy = False


def stack() -> list[str]:
    """What of the package is being run, innermost first, as `rlgen_cli.core.checkpoint:save`."""
    found, frame = [], sys._getframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("rlgen_cli"):
            found.append(f"{name}:{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return found
