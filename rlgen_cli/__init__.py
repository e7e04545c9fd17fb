"""rlgen: reinforcement learning that makes things. In Python: `rlgen_cli.train`, `open` and `paint` (api.py)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlgen_cli.api import Run, open, paint, train

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "open", "paint", "train"]


def __getattr__(name: str) -> Any:
    """The Python API, loaded when it is asked for, since it brings torch."""
    if name not in ("Run", "open", "paint", "train"):
        raise AttributeError(f"module 'rlgen_cli' has no attribute {name!r}")
    from rlgen_cli import api

    return getattr(api, name)
