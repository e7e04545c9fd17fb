"""Packages of others that are extras of ours: imported where they are used, and asked for in one line."""

import importlib
from typing import Any

from rlgen_cli.core.errors import UserError


def imported(package: str, extra: str, need: str) -> Any:
    """The module of a package.

    Args:
        extra: which installs it. need: what it is for, with which the error begins.

    Raises:
        UserError: where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{need} pip install 'rlgen[{extra}]'.") from None
