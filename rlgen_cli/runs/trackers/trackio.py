"""Trackio, through its client."""

import numpy as np
from torch import Tensor

from rlgen_cli.core.tracking import TrackedRun
from rlgen_cli.runs.trackers.client import client


class Trackio:
    """One run there for each run here. The client finds a run by its project and name, and takes the newest of that
    name; where that is another than the one to go on in, a new one begins.

    Raises:
        UserError: where the client is not installed.
    """

    rewinds = False
    trusted_arguments = ("space_id",)  # where a saved run's records, and the user's token, would go

    def __init__(self, *, project: str, name: str | None, group: str | None, space_id: str | None) -> None:
        self.client = client("trackio")
        self.given = {"project": project, "group": group, "space_id": space_id}
        self.name = name

    def open(self, run: TrackedRun) -> str | None:
        given = {**self.given, "name": self.name or run.name, "config": run.config, "embed": False}
        self.run = self.client.init(**given, resume="allow" if run.run_id else "never")
        if run.run_id is not None and self.run.id != run.run_id:
            self.run = self.client.init(**given, resume="never")
        return str(self.run.id)

    def begin(self, stage: str | None, step: int) -> None:
        pass

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.run.log({name: self.client.Image(image.permute(1, 2, 0).cpu().numpy())}, step=step)

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        samples = np.round(wave.cpu().numpy() * 32767).astype(np.int16)  # floats would be made as loud as can be
        self.run.log({name: self.client.Audio(samples, sample_rate=rate)}, step=step)

    def close(self, status: str) -> None:
        self.client.finish()
