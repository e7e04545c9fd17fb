"""TensorBoard's event files, those of a stage in a folder of their own."""

import threading

import yaml
from torch import Tensor

from rlgen_cli.core.tracking import TrackedRun


class TensorBoard:
    """Files below `<run>/tensorboard`; what lies beyond the step from which a run goes on is marked as outdated."""

    rewinds = True

    def open(self, run: TrackedRun) -> str | None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.new_writer, self.close_writer = SummaryWriter, lambda: None
        self.folder, self.config = run.folder / "tensorboard", run.config
        self.excepthook, threading.excepthook = threading.excepthook, self._thread_failed
        return None

    def begin(self, stage: str | None, step: int) -> None:
        self.close_writer()
        self.writer = self.new_writer(str(self.folder / (stage or "")), purge_step=step + 1 if step else None)
        self.close_writer = self.writer.close
        self.prefix = f"{stage}/" if stage else ""  # which the folder's name says
        if stage is None and step == 0:
            self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(self.config, sort_keys=False)}\n```", 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name.removeprefix(self.prefix), value, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.writer.add_image(name.removeprefix(self.prefix), image, step)

    def sound(self, step: int, name: str, wave: Tensor, rate: int) -> None:
        self.writer.add_audio(name.removeprefix(self.prefix), wave.unsqueeze(0), step, sample_rate=rate)

    def close(self, status: str) -> None:
        try:
            self.close_writer()
        finally:
            threading.excepthook = self.excepthook

    def _thread_failed(self, arguments: threading.ExceptHookArgs) -> None:
        """The writer's thread gives what the disk refused to whoever records next, and need not print it, too."""
        if not (isinstance(arguments.exc_value, OSError) and type(arguments.thread).__module__.startswith("tensorb")):
            self.excepthook(arguments)
