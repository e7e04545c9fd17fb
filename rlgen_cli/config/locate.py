"""Where the YAMLs lie. Imports nothing heavy: help, lists and completion need no torch."""

import os
from pathlib import Path
from typing import Any

import yaml

# libyaml's, where PyYAML was built with it, is ten times as fast: a saved config is compared with every YAML there is.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def config_folder() -> Path:
    """The YAMLs: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def choices(group: str, folders: list[Path] | None = None) -> list[str]:
    """What a config group offers, by name: in the package, or in `folders`."""
    places = [config_folder()] if folders is None else folders
    return sorted({file.stem for folder in places for file in (folder / group).glob("*.yaml")})


def located(group: str, choice: str, folders: list[Path]) -> Path | None:
    """The YAML of a choice in the first folder that has it; None where none has, or no file can have such a name."""
    return next((path for folder in folders if os.path.isfile(path := folder / group / f"{choice}.yaml")), None)


def text_of(group: str, choice: str, folders: list[Path]) -> str:
    """What that YAML says; empty where there is none."""
    path = located(group, choice, folders)
    return "" if path is None else path.read_text(encoding="utf-8")


def parsed(text: str) -> Any:
    """What a YAML holds, as plain values.

    Raises:
        yaml.YAMLError: for what is none.
    """
    return yaml.load(text, LOADER)


def keys_of(group: str, choice: str, folders: list[Path]) -> set[Any]:
    """The keys that a choice's YAML sets, its bases' and components included."""
    node = parsed(text_of(group, choice, folders)) or {}
    found = set(node) - {"defaults"}
    for base in node.get("defaults", []):
        if isinstance(base, dict):
            name = next(iter(base)).removeprefix("override ")
            found.add(name.partition("@")[2] or name.rpartition("/")[2])
        elif base != "_self_":
            found |= keys_of(group, str(base), folders)
    return found


def takers(owner: str, group: str) -> list[str]:
    """The shipped environments (or agents, as `owner` says) that take such a component."""
    return [name for name in choices(owner) if f"/{group}@{group}" in text_of(owner, name, [config_folder()])]


def takes_component(env: str, group: str) -> bool:
    """False for a component that only other environments take; true for whatever is no such component."""
    able = takers("env", group)
    return not able or env in able


def target_of(group: str, choice: str) -> str | None:
    """The class that a shipped choice names, or that the YAML which it builds on does; None where neither does."""
    node = parsed(text_of(group, choice, [config_folder()]))
    if not isinstance(node, dict):
        return None
    if "_target_" in node:
        return str(node["_target_"])
    for base in node.get("defaults", []):
        if isinstance(base, str) and not base.startswith(("_self_", "/")):
            return target_of(group, base)
    return None
