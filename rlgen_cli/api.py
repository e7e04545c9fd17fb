"""rlgen in Python: train, open a run, and make things with it.

    import rlgen_cli

    run = rlgen_cli.train("env=pixel", "data=glyphs", "total_steps=20000", folder="outputs/glyphs")
    run = rlgen_cli.open("latest")
    run.metrics["return"].values                   # what metrics.jsonl has recorded
    made = run.sample(16, seed=1)                  # finished samples, and their scores
    made.save("pictures", formats=["png", "svg"])
    run.draw("photo.png").save("drawn")            # where a run copies or repairs pictures
    rlgen_cli.paint("photo.png", "strokes=500")    # any picture in strokes, without a run

The command line does the same by the same functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.config.arguments import with_files
from rlgen_cli.config.compose import composed
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.paint import paint as paint_files
from rlgen_cli.runs.records import Curve, curves_of
from rlgen_cli.runs.sample import Samples, draw_picture, make_samples
from rlgen_cli.runs.trainer import train as train_in


@dataclass(frozen=True)
class Run:
    """A run, opened.

    Attributes:
        folder: where it lies.
        session: its objects, with the weights of a checkpoint.
    """

    folder: Path
    session: Session

    @property
    def config(self) -> DictConfig:
        """Its settings, all of them."""
        return self.session.config

    @property
    def env(self) -> Env:
        """The environment, on test data."""
        return self.session.envs["test"]

    @property
    def policy(self) -> Actor:
        """What acts: a policy, or a planner, which tries things out in the environment."""
        return self.session.actor

    @property
    def metrics(self) -> dict[str, Curve]:
        """What it has recorded, by name: each metric's `steps` and `values`."""
        return curves_of(self.folder)

    def sample(self, n: int = 64, seed: int = 0, label: str | int | None = None, split: str = "test") -> Samples:
        """N finished samples.

        Args:
            n: how many.
            seed: of the episodes and the actions.
            label: of all samples, by name or number; None: any.
            split: train, valid or test: whose data gives targets and labels.

        Raises:
            UserError: for a split or a label that there is not.
        """
        return make_samples(self.session, split, n, seed, label=label)

    def draw(self, image: Path | str, n: int = 1, seed: int = 0) -> Samples:
        """What it makes of a picture of your own, N times.

        Raises:
            UserError: for a file that is no picture, or a run that sees none.
        """
        return draw_picture(self.session, image, n, seed)


def open(
    run: Path | str = "latest", *, device: str = "auto", changes: Mapping[str, Any] | None = None,
    trust: Sequence[str] = (),
) -> Run:  # fmt: skip
    """The run in a folder, with the weights of its newest checkpoint, or of the checkpoint whose folder is named.

    Args:
        run: a folder, `latest` (below outputs/), `best` (the latest run's best checkpoint), or `hf://USER/NAME` (on the
            hub; `…@REVISION` names a version).
        device: auto, cpu or cuda.
        changes: to the run's own config, by key, as in {"data.path": "pictures"}.
        trust: modules outside rlgen that the run's config may import.

    Raises:
        UserError: where there is none, or it would import what is not trusted.
    """
    asked = composed("sample", [f"device={device}"])
    asked.run, asked.set, asked.trust = str(run), dict(changes or {}), list(trust)
    opened = open_run(asked)
    return Run(opened.folder, opened.session)


def paint(*words: str) -> Path:
    """Paint pictures in strokes, as `rlgen paint` does, by the painter that comes with rlgen or a run's.

    Args:
        words: files, folders, and settings as on the command line, such as "strokes=500".

    Returns:
        The folder where the paintings and their scores lie.

    Raises:
        UserError: for what is no picture, and a setting that there is not.
    """
    return paint_files(composed("paint", with_files(list(words))))


def train(*overrides: str, folder: Path | str) -> Run:
    """Train as `rlgen train OVERRIDES` does, in a new folder, and open the run.

    Args:
        overrides: words of the command line.
        folder: a new one, of the run.

    Raises:
        UserError: for words that the command line would refuse.
    """
    session = assemble(composed("train", list(overrides)))
    train_in(session, Path(folder))
    return open(folder, device=session.settings.device, trust=session.settings.trust)
