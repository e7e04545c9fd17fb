"""A function of the user's own as a score."""

import importlib
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.specs import View


class Function:
    """Scores samples with any Python function.

    Args:
        path: names the function, FILE.py:name or module:name on the Python path. It takes finished or unfinished
            samples (float [N, C, H, W] in [0, 1], or tokens, int64 [N, T, F]) and returns a number for each, [N].

    Raises:
        UserError: when there is no such function, when it fails, and when it does not return one number per sample.
    """

    judges = "any"
    needs: frozenset[str] = frozenset()
    trusted_arguments = ("path",)

    def __init__(self, *, path: str) -> None:
        module, _, name = path.rpartition(":")
        require(bool(module) and bool(name), f"path: must read FILE.py:function or module:function, got {path!r}.")
        try:
            self.function: Callable[[Tensor], Any] = getattr(_module(module), name)
        except Exception as error:  # whatever the user's own code raises
            raise UserError(f"path: {path} cannot be imported ({type(error).__name__}: {error}).") from None
        self.path = path

    @torch.no_grad()
    def __call__(self, view: View) -> Tensor:
        try:
            given = self.function(view.sample)
            score = torch.as_tensor(given, dtype=torch.float32, device=view.sample.device).detach()
        except (Exception, SystemExit) as error:  # whatever the user's own code raises; train.log has its traceback
            shape, place = list(view.sample.shape), traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"path: {self.path} failed on samples {view.sample.dtype} {shape}, at {place.filename}:{place.lineno} "
                f"({type(error).__name__}: {error})."
            ) from error
        require(
            score.shape == (len(view.sample),),
            f"path: {self.path} must return one number per sample, [{len(view.sample)}], got {list(score.shape)}.",
        )
        return score


def _module(name: str) -> ModuleType:
    """The module in a file, or one on the Python path."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, Path(name).expanduser())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
