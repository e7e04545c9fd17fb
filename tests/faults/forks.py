"""Starts the processes of trials, and waits for them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.inject import Fault

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120.0  # seconds after which a process hangs


class Forks:
    """The server that forks; closed by the end of a `with`."""

    def __enter__(self) -> "Forks":
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"], cwd=ROOT, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()

    def ask(self, **request: Any) -> Any:
        """What the server answers."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        return json.loads(self.server.stdout.readline())

    def start(
        self, words: Sequence[str], folder: Path, faults: Sequence[Fault] = (), privileged: bool = True
    ) -> "Child":
        """`rlgen` with these words in a folder, with a cache in it; one that is not `privileged` obeys the modes of files
        even where root runs it."""
        folder.mkdir(parents=True, exist_ok=True)
        home = folder.with_name(f"{folder.name}.trial")  # beside the folder, whose file operations are counted
        home.mkdir(exist_ok=True)
        number = len(list(home.glob("*.out")))
        output, report = home / f"{number}.out", home / f"{number}.json"
        output.touch()
        pid = self.ask(
            words=list(words), folder=str(folder), output=str(output), report=str(report), privileged=privileged,
            faults=[fault.record() for fault in faults], environment={"RLGEN_CACHE": str(folder / "cache")},
        )  # fmt: skip
        return Child(self, pid, words, folder, report, output)

    def run(self, words: Sequence[str], folder: Path, faults: Sequence[Fault] = (), privileged: bool = True) -> "Child":
        """The same, waited for."""
        child = self.start(words, folder, faults, privileged)
        child.wait()
        return child


class Child:
    """A process of a trial."""

    def __init__(
        self, forks: Forks, number: int, words: Sequence[str], folder: Path, report: Path, output: Path
    ) -> None:
        self.forks, self.number, self.words = forks, number, list(words)
        self.folder, self.report, self.output = folder, report, output
        self.code: int | None = None
        self.began = time.monotonic()
        self.seconds = 0.0

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code; −N where signal N ended it. One that hangs is killed.

        Raises:
            AssertionError: for one that hangs.
        """
        if self.code is None:
            self.code = self.forks.ask(wait=self.number, seconds=seconds)
            self.seconds = time.monotonic() - self.began
        if self.code is None:
            self.kill()
            self.code = self.forks.ask(wait=self.number, seconds=PATIENCE)
            raise AssertionError(f"{self.command} hangs after {seconds} seconds:\n{self.said}")
        return self.code

    def ended(self, seconds: float) -> bool:
        """Whether it comes to its end within some seconds."""
        self.code = self.forks.ask(wait=self.number, seconds=seconds)
        return self.code is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a child that has ended but was not waited for takes it, too."""
        os.kill(self.number, number)

    @property
    def command(self) -> str:
        return " ".join(["rlgen", *self.words])

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")

    @property
    def reported(self) -> dict[str, Any]:
        """Counts and traces of its calls, and where it was as a fault came (inject.py)."""
        record: dict[str, Any] = json.loads(self.report.read_text()) if self.report.exists() else {}
        return {"counts": {}, "trace": [], "where": []} | record
