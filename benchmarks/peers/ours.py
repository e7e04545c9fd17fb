"""rlgen itself: `rlgen train` with all that it writes, stopped and resumed."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.parts import STOPPED, records
from benchmarks.peers.task import Task, size
from rlgen_cli.runs.trainer import train


class Ours:
    """A run in a temporary folder. Its time is what its log says, without the writing of the checkpoints in which it
    rests while the others train."""

    def __init__(self, task: Task) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.folder, self.session, self.steps = Path(self.home.name) / "run", task.session(), 0
        assert self.session.agent is not None
        network: Any = self.session.agent.policy
        self.actor, self.parameters = self.session.actor, size(network.net)

    def train(self, steps: int) -> float:
        begun, self.steps = self.steps > 0, self.steps + steps
        self.session.settings = dataclasses.replace(self.session.settings, stop_at=self.steps)
        if train(self.session, self.folder, resuming=begun) == "preempted":
            raise SystemExit(STOPPED)
        return steps / float(records(self.folder)[-1]["steps_per_second"])
