"""Weights & Biases, through its client."""

from typing import Any, Literal

from torch import Tensor

from rlgen_cli.core.tracking import TrackedRun
from rlgen_cli.runs.trackers.client import client
from rlgen_cli.runs.trackers.wav import wav_file


class Wandb:
    """One run there for each run here. Its own step only counts rows, since it never goes back and every stage begins
    at 0: curves are drawn over the metric `step`, those of a stage over `<stage>/step`.

    Raises:
        UserError: where the client is not installed.
    """

    rewinds = False

    def __init__(
        self, *, project: str, name: str | None, entity: str | None, group: str | None, tags: list[str],
        mode: Literal["online", "offline"] | None,
    ) -> None:  # fmt: skip
        self.client = client("wandb", WANDB_ERROR_REPORTING="false")
        self.given = {"project": project, "entity": entity, "group": group, "tags": tags, "mode": mode}
        self.name = name
        self.axes: dict[str, str] = {}  # by metric, as far as the client knows them

    def open(self, run: TrackedRun) -> str | None:
        # Its own files stay where it puts them: they hold links, which a run's folder never does.
        self.run = self.client.init(
            **self.given, name=self.name or run.name, id=run.run_id, resume="allow" if run.run_id else None,
            settings=self.client.Settings(console="off"),  # what is printed is in train.log
        )  # fmt: skip
        self.run.config.update(run.config, allow_val_change=True)
        return str(self.run.id)

    def begin(self, stage: str | None, step: int) -> None:
        self.axis = f"{stage}/step" if stage else "step"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._log(step, values)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self._log(step, {name: self.client.Image(image.permute(1, 2, 0).cpu().numpy())})

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        with wav_file(name, step, wave, rate) as path:  # of an array, it would need one more package
            self._log(step, {name: self.client.Audio(path)})

    def close(self, status: str) -> None:
        if status == "preempted":
            self.run.mark_preempting()
        self.run.finish(exit_code=int(status in ("preempted", "failed")))

    def _log(self, step: int, values: dict[str, Any]) -> None:
        """A row, after the axis of what is new in it."""
        for name in values.keys() - self.axes.keys():
            self.axes[name] = self.axis
            self.run.define_metric(name, step_metric=self.axis)
        self.run.log({self.axis: step, **values})
