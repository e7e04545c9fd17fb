"""The trackers of a run (`logger=`): opened in the run's folder, given what it records, and closed. One that fails is
done without, since the run's own files have everything."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from rlgen_cli.config.instantiate import component, plain
from rlgen_cli.core import ranks
from rlgen_cli.core.errors import UserError, described, require
from rlgen_cli.core.files import read_json, write_atomic
from rlgen_cli.core.tracking import TrackedRun, Tracker
from rlgen_cli.runs.log import say


class Given:
    """What a tracker was given in all sittings: the id of its run, and the last step of each name. It lies in the run's
    folder, as `trackers/<tracker>.json`."""

    def __init__(self, path: Path) -> None:
        self.path, self.run_id = path, None
        self.steps: dict[str, int] = {}
        with contextlib.suppress(UserError):  # one that cannot be read is as none
            found = read_json(path, "run")
            if isinstance(found.get("id"), str | None) and isinstance(found.get("steps"), dict):
                self.run_id = found.get("id")
                self.steps = {name: step for name, step in found["steps"].items() if type(step) is int}

    def begin(self, run_id: str | None) -> None:
        """What is given now goes to this run."""
        if run_id != self.run_id:
            self.run_id, self.steps = run_id, {}
        self.path.parent.mkdir(exist_ok=True)
        self.keep()

    def missing(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """What the tracker has not been given at this step, or beyond."""
        return {name: value for name, value in values.items() if self.steps.get(name, -1) < step}

    def add(self, step: int, values: dict[str, Any]) -> None:
        """These were given."""
        self.steps |= dict.fromkeys(values, step)
        self.keep()

    def keep(self) -> None:
        write_atomic(self.path, json.dumps({"id": self.run_id, "steps": self.steps}).encode())


class Trackers:
    """All trackers of a run, by name."""

    def __init__(self, members: dict[str, Tracker] | None = None) -> None:
        self.members = dict(members or {})
        self.opened: dict[str, Tracker] = {}  # those that have not failed
        self.given: dict[str, Given] = {}  # of those that cannot take back anything
        self.folder = Path()
        self.stage: str | None = None
        self.status = "running"  # of the run, as its log says

    @contextlib.contextmanager
    def recording(self, folder: Path, config: dict[str, Any], resuming: bool) -> Iterator[None]:
        """Within this, what a run records goes to its trackers.

        Args:
            folder: the run's. config: all settings. resuming: the run goes on, and does so without what cannot be
                opened.

        Raises:
            UserError: where a tracker of a new run cannot be opened.
        """
        self.folder, self.status = folder, "running"
        try:
            for name, tracker in self.members.items():
                self._open(name, tracker, config, resuming)
            yield
        except BaseException:
            self.status = "failed" if self.status == "running" else self.status
            raise
        finally:
            self._each(lambda name, tracker: tracker.close(self.status))
            self.opened.clear()

    def begin(self, stage: str | None, step: int) -> None:
        """What follows is of this stage, beyond `step`."""
        self.stage = stage
        self._each(lambda name, tracker: tracker.begin(stage, step))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name."""
        self._give(step, values, lambda tracker, new: tracker.scalars(step, new))

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A uint8 picture [3, H, W]."""
        self._give(step, {name: image}, lambda tracker, new: tracker.picture(step, next(iter(new)), image))

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        """A wave [S] in [−1, 1] of `rate` samples a second."""
        self._give(step, {name: wave}, lambda tracker, new: tracker.sound(step, next(iter(new)), wave, rate))

    def _open(self, name: str, tracker: Tracker, config: dict[str, Any], resuming: bool) -> None:
        given = Given(self.folder / "trackers" / f"{name}.json")
        try:
            run_id = tracker.open(TrackedRun(self.folder, name_of(self.folder), config, given.run_id))
            if not tracker.rewinds:
                given.begin(run_id)
                self.given[name] = given
            self.opened[name] = tracker
        except Exception as error:
            if not resuming:
                raise UserError(
                    f"logger.{name}: cannot begin ({described(error)}); mend that, or choose another logger."
                ) from error
            self._do_without(name, error)

    def _give(self, step: int, values: dict[str, Any], give: Callable[[Tracker, dict[str, Any]], None]) -> None:
        """Give each tracker those of the values, under their full names, that it is to have."""
        full = {f"{self.stage}/{name}" if self.stage else name: value for name, value in values.items()}

        def one(name: str, tracker: Tracker) -> None:
            if tracker.rewinds:
                give(tracker, full)
            elif new := self.given[name].missing(step, full):
                give(tracker, new)
                self.given[name].add(step, new)

        self._each(one)

    def _each(self, action: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self.opened.items()):
            try:
                action(name, tracker)
            except Exception as error:
                self._do_without(name, error)

    def _do_without(self, name: str, error: Exception) -> None:
        """Say once, on the screen and in train.log, that a tracker has failed."""
        self.opened.pop(name, None)
        text = f"logger.{name} has failed ({described(error)}); the run goes on without it, and its own files have all."
        say(text)
        with contextlib.suppress(OSError), (self.folder / "train.log").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} WARNING {text}\n")


def trackers_of(config: DictConfig) -> Trackers:
    """The trackers that a config names, none of which writes or sends anything yet. Of several ranks, the first has
    them.

    Raises:
        UserError: for one whose client is not installed, and for a key or value that it cannot have.
    """
    members: dict[str, Tracker] = {}
    if not ranks.first():
        return Trackers()
    for name, node in plain(config.logger).items():
        own = isinstance(node, dict) and "_target_" in node
        require(own, f"logger.{name}: is no logger; the YAML of one begins with `# @package logger.NAME`.")
        members[str(name)] = component(node, f"logger.{name}")
    return Trackers(members)


def name_of(folder: Path) -> str:
    """What a run is called elsewhere: as its folder, or a sweep's job by the sweep's folder and its number."""
    folder = folder.resolve()
    return f"{folder.parent.name}_{folder.name}" if folder.name.isdecimal() else folder.name
