"""The top-level keys of train.yaml and pretrain's, which belong to no component."""

from dataclasses import dataclass
from typing import Literal

from rlgen_cli.core.errors import require

GROUPS = ("env", "agent", "reward", "data", "logger", "paths", "sweep")
KEPT = frozenset(["num_envs", "seed", "joint"])  # of the top-level keys, those that a run that goes on cannot change

MAX_THREADS = 1024  # beyond some thousands, torch's pool brings the process down


@dataclass(frozen=True)
class Settings:
    """Checked values.

    Raises:
        UserError: for a wrong type or range.
    """

    total_steps: int
    num_envs: int
    seed: int
    device: str
    devices: int
    threads: int
    deterministic: bool
    precision: Literal["auto", "float32", "bfloat16"]
    compile: Literal["auto", "always", "never"]
    profile: bool
    log_interval: int
    eval_interval: int
    eval_episodes: int
    checkpoint_interval: int
    keep_checkpoints: int
    stop_at: int | None
    resume: str | None
    trust: list[str]
    nonfinite: Literal["stop", "skip"]
    joint: bool

    def __post_init__(self) -> None:
        intervals = ("log_interval", "eval_interval", "eval_episodes", "checkpoint_interval", "keep_checkpoints")
        for key in ("total_steps", "num_envs", "devices", *intervals):
            require(getattr(self, key) >= 1, f"{key}: must be at least 1, got {getattr(self, key)}.")
        known = 0 <= self.threads <= MAX_THREADS
        require(known, f"threads: must be 1 to {MAX_THREADS}, or 0 for one per core, got {self.threads}.")


@dataclass(frozen=True)
class FitSettings:
    """The keys of `rlgen pretrain` beyond these: how a sequence model is fitted.

    Raises:
        UserError: for a wrong type or range.
    """

    epochs: int
    patience: int | None
    keep: Literal["best", "last"]

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs: must be at least 1, got {self.epochs}.")
        some = self.patience is None or self.patience >= 1
        require(some, f"patience: must be at least 1, or null for never, got {self.patience}.")
