"""What records a run for others to look at: TensorBoard, and services with clients of their own (`logger=`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class TrackedRun(NamedTuple):
    """The run that a tracker is to record."""

    folder: Path  # the run's
    name: str  # what to call it where the user gives no other name
    config: dict[str, Any]  # all settings, as plain values
    run_id: str | None  # what the tracker called it in an earlier sitting; None: it has not recorded this run yet


class Tracker(Protocol):
    """Records a run while it is trained. Where one of its methods raises, its records end, and the training goes on."""

    rewinds: bool  # it takes back what is beyond the step of `begin`, and gets it again; else nothing comes twice

    def open(self, run: TrackedRun) -> str | None:
        """Begin to record, or go on in `run.run_id`; returns the id to go on in later, if there is such a thing."""
        ...

    def begin(self, stage: str | None, step: int) -> None:
        """What follows is of this stage, after its update `step`, and all its names begin with `stage/`; None: of the
        reinforcement learning itself, after the environment step `step`."""
        ...

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name."""
        ...

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A uint8 picture [3, H, W]."""
        ...

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        """A wave [S] in [−1, 1] of `rate` samples a second."""
        ...

    def close(self, status: str) -> None:
        """Bring everything to its place; `status` as in status.json: finished, stopped, preempted or failed."""
        ...
