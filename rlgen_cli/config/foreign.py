"""What a config that came with a run's folder may name: this package's components, and what the user trusts."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlgen_cli.core.errors import UserError

PACKAGE = "rlgen_cli"


def check_foreign(node: Any, trust: list[str], path: str = "") -> None:
    """Refuse a saved config that would import anything but this package and the modules the user trusts.

    Raises:
        UserError: naming what it would import, and how to allow it.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None:
            _allowed(str(target), trust, f"{path}._target_")
            if str(target).endswith(".Function"):
                _allowed(str(node.get("path", "")).replace(":", "."), trust, f"{path}.path")
        for key, value in node.items():
            check_foreign(value, trust, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            check_foreign(value, trust, f"{path}[{i}]")


def modules(node: Any) -> list[str]:
    """Modules outside this package that a config names, in order."""
    if isinstance(node, Mapping):
        target = str(node.get("_target_", f"{PACKAGE}."))
        here = [] if target.startswith(f"{PACKAGE}.") else [target.rpartition(".")[0]]
        if target.endswith(".Function"):
            here.append(str(node.get("path", "")).rpartition(":")[0])
        return list(dict.fromkeys([*here, *(name for value in node.values() for name in modules(value))]))
    if isinstance(node, Sequence) and not isinstance(node, str):
        return list(dict.fromkeys(name for value in node for name in modules(value)))
    return []


def _allowed(target: str, trust: list[str], path: str) -> None:
    trusted = any(target == name or target.startswith(f"{name}.") for name in trust)
    if not (target.startswith(f"{PACKAGE}.") or trusted):
        module = target.rpartition(".")[0]
        raise UserError(
            f"{path}: this saved config would import {target}, which is no part of rlgen; "
            f"if you know it, allow it with trust=[{module}]."
        )
