"""A config that lies in a run's folder is data: it is read without resolvers, and can name only what this package's own
YAMLs name, and what the user trusts on the command line."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.instantiate import find
from rlgen_cli.config.locate import config_folder, parsed, target_of
from rlgen_cli.core import migrations
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import read_bytes
from rlgen_cli.core.trust import Trust

SIZE, DEPTH, NODES, LENGTH = 256 * 1024, 40, 10_000, 20_000  # bytes, levels, values, and characters of a text, at most


class PlainLoader(yaml.SafeLoader):
    """Mappings, lists, text and numbers: no tags and no references, to a depth that the interpreter can bear."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value.

        Raises:
            yaml.YAMLError: for what is no plain value.
        """
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it holds a reference")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("it holds a tag")
        if len(getattr(event, "value", "")) > LENGTH:
            raise yaml.YAMLError(f"a value is longer than {LENGTH} characters")
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_config(path: Path, trust: Trust, without: str | None = None) -> DictConfig:
    """The config at `path`, whose components are checked.

    Args:
        path: of a `config.yaml` that a run left. trust: modules and files that the command line allows.
        without: a top-level key that the reader has no use for: it may name anything, and is left out.

    Raises:
        UserError: for a file that is none, and for one that names what neither this package's YAMLs nor `trust` name.
    """
    node = plain_config(path)
    found = migrations.readable(node.pop(migrations.KEY, migrations.UNNAMED), f"run: {path}")
    node = migrations.current_config(node, found)
    if without is not None:
        node.pop(without, None)
    check_components(node, trust)
    config = OmegaConf.create(node)
    assert isinstance(config, DictConfig)
    return config


def plain_config(path: Path) -> dict[str, Any]:
    """The values of the config at `path`, of which nothing is built.

    Raises:
        UserError: for a file that is none.
    """
    try:
        node = yaml.load(read_bytes(path, SIZE, "run").decode("utf-8"), PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise UserError(f"run: {path} is no config of a run ({' '.join(reason.split())[:100]}).") from None
    require(isinstance(node, dict), f"run: {path} is no config of a run (it holds no keys).")
    _check_plain(node, path)
    return dict(node)


def check_components(node: Any, trust: Trust, path: str = "") -> None:
    """Refuse a saved config that would build anything but the package's components and what the user trusts, or that
    names other code or other sources for these than their own YAMLs do.

    Raises:
        UserError: naming what it would use, and how to allow it.
    """
    if isinstance(node, Mapping):
        prefix = f"{path}." if path else ""
        for key, name in named_code(node).items():
            if not trust.allows(name):
                module = name.rpartition(".")[0] if key == "_target_" else name.rpartition(":")[0] or name
                raise UserError(
                    f"{prefix}{key}: this saved config names {name[:200]!r}, which is no part of rlgen; if you know "
                    f"it, allow it with trust=[{module[:200]}]."
                )
        for key, value in node.items():
            check_components(value, trust, f"{prefix}{key}")
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            check_components(value, trust, f"{path}[{i}]")


def named_code(node: Mapping[Any, Any]) -> dict[str, str]:
    """What a component's node names that no YAML of the package does and that could run or fetch code, by its key: a
    class, what the class declares as its `trusted_arguments`, or, where it is no folder that is here, what it
    `downloads`."""
    target = node.get("_target_")
    if target is None:
        return {}
    if not isinstance(target, str) or target not in components():
        return {"_target_": str(target)}
    known = components()[target]
    kind = find(target, "")
    fetched = [key for key in getattr(kind, "downloads", ()) if not os.path.isdir(str(node.get(key)))]
    declared = [*getattr(kind, "trusted_arguments", ()), *fetched]
    return {key: str(node.get(key)) for key in declared if node.get(key) not in known.get(key, [])}


def modules(node: Any) -> list[str]:
    """Modules and files outside this package that a config names, in order: what `trust` is to allow."""
    if isinstance(node, Mapping):
        named = named_code(node)
        here = [name.rpartition("." if key == "_target_" else ":")[0] or name for key, name in named.items()]
        return list(dict.fromkeys([*here, *(name for value in node.values() for name in modules(value))]))
    if isinstance(node, Sequence) and not isinstance(node, str):
        return list(dict.fromkeys(name for value in node for name in modules(value)))
    return []


@functools.cache
def components() -> dict[str, dict[str, list[Any]]]:
    """What the package's YAMLs name: by `_target_`, the values that they give to each of its arguments."""
    found: dict[str, dict[str, list[Any]]] = {}
    for file in sorted(config_folder().rglob("*.yaml")):
        group = file.parent.relative_to(config_folder()).as_posix()
        node = parsed(file.read_text(encoding="utf-8"))
        if "_target_" not in node:  # it is that of the YAML which it builds on
            node["_target_"] = target_of(group, file.stem)
        _collect(node, found)
    return found


def _collect(node: Any, found: dict[str, dict[str, list[Any]]]) -> None:
    """Enter the components below a node of a YAML."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            arguments = found.setdefault(node["_target_"], {})
            for key, value in node.items():
                arguments.setdefault(key, []).append(value)
        for value in node.values():
            _collect(value, found)


def _check_plain(node: Any, path: Path) -> None:
    """Refuse what OmegaConf would resolve, and a config of more values than any run has."""
    left, count = [node], 0
    while left:
        value, count = left.pop(), count + 1
        require(count <= NODES, f"run: {path} is no config of a run (it holds more than {NODES} values).")
        if isinstance(value, dict):
            named = all(isinstance(key, str) for key in value)
            require(named, f"run: {path} is no config of a run (it holds a key that is no text).")
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            require(
                "${" not in value, f"run: {path} is no config of a run (it holds an interpolation, {value[:60]!r})."
            )
        else:
            plain = value is None or isinstance(value, bool | int | float)
            require(plain, f"run: {path} is no config of a run (it holds a {type(value).__name__}).")
