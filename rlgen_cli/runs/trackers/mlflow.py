"""MLflow, through its client."""

import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from rlgen_cli.core.tracking import TrackedRun
from rlgen_cli.runs.trackers.client import client
from rlgen_cli.runs.trackers.wav import wav_file

PARAMS, METRICS = 100, 1000  # that a call may hold


class Mlflow:
    """One run there for each run here. Its parameters are the settings with which the run began, since they can never
    change; its artifact config.yaml has those of the newest sitting.

    Raises:
        UserError: where the client is not installed.
    """

    rewinds = False
    trusted_arguments = ("tracking_uri",)  # where a saved run's records, and the user's name and token, would go

    def __init__(
        self, *, tracking_uri: str | None, experiment: str, name: str | None, tags: dict[str, str] | None
    ) -> None:
        self.mlflow = client("mlflow", MLFLOW_DISABLE_TELEMETRY="true")
        self.uri, self.experiment, self.name, self.tags = tracking_uri, experiment, name, tags

    def open(self, run: TrackedRun) -> str | None:
        self.api = self.mlflow.MlflowClient(tracking_uri=self.uri)
        if run.run_id is not None and self._is_there(run.run_id):
            self.run_id = run.run_id
            self.api.update_run(self.run_id, status="RUNNING")
        else:
            begun = self.api.create_run(self._experiment_id(), run_name=self.name or run.name, tags=self.tags)
            self.run_id = str(begun.info.run_id)
            params = [self.mlflow.entities.Param(key, str(value)) for key, value in leaves(run.config)]
            for i in range(0, len(params), PARAMS):
                self.api.log_batch(self.run_id, params=params[i : i + PARAMS])
        self.api.log_dict(self.run_id, run.config, "config.yaml")
        return self.run_id

    def begin(self, stage: str | None, step: int) -> None:
        pass

    def scalars(self, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self.mlflow.entities.Metric(name, value, now, step) for name, value in values.items()]
        for i in range(0, len(metrics), METRICS):
            self.api.log_batch(self.run_id, metrics=metrics[i : i + METRICS])

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.api.log_image(self.run_id, image.permute(1, 2, 0).cpu().numpy(), key=name, step=step)

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        with wav_file(name, step, wave, rate) as path:
            self.api.log_artifact(self.run_id, path, "sounds")

    def close(self, status: str) -> None:
        ended = {"finished": "FINISHED", "failed": "FAILED"}
        self.api.set_terminated(self.run_id, ended.get(status, "KILLED"))

    def _is_there(self, run_id: str) -> bool:
        """Whether the store has that run, and it is not deleted."""
        try:
            return bool(self.api.get_run(run_id).info.lifecycle_stage == "active")
        except self.mlflow.exceptions.MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise

    def _experiment_id(self) -> str:
        """The experiment's id; it is made where there is none of that name."""
        found = self.api.get_experiment_by_name(self.experiment)
        return str(found.experiment_id if found else self.api.create_experiment(self.experiment))


def leaves(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts by dotted key."""
    for key, value in node.items():
        inner = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            yield from leaves(value, inner)
        else:
            yield inner, value
