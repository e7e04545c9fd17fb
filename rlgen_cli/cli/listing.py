"""`rlgen list`: what there is to choose from, one line each, and the keys of a choice, from the YAMLs themselves.

Imports no torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from rlgen_cli.config import compose
from rlgen_cli.config.goes_with import LINE
from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.core.errors import UserError, nearest

GROUPS = {
    "env": "env", "agent": "agent", "reward": "reward", "term": "reward/term", "data": "data", "network": "network",
    "body": "network/body", "recurrent": "network/recurrent", "brush": "brush", "start": "start",
    "encoding": "encoding", "generator": "generator", "steering": "steering", "damage": "damage", "task": "task",
    "replay": "replay", "backup": "backup", "exploration": "exploration", "target_update": "target_update",
    "optimizer": "optimizer", "baseline": "baseline", "experiment": "experiment",
}  # fmt: skip


class Key(NamedTuple):
    """A key of a choice, as the command line names it."""

    name: str
    value: str
    comment: str


def print_listing(arguments: list[str]) -> None:
    """All groups, the one that is named (`env`), or the keys of a choice (`env=pixel`)."""
    for word in arguments or list(GROUPS):
        name, equals, choice = word.partition("=")
        name = next((short for short, group in GROUPS.items() if group == name), name)
        if name not in GROUPS:
            raise UserError(f"list {name}: there is no such group; {nearest(name, GROUPS)}")
        if equals:
            print_choice(GROUPS[name], choice)
        else:
            print_group(name)


def print_group(name: str) -> None:
    """A group's choices."""
    group = GROUPS[name]
    print(f"{group}=" if name != "term" else "+reward/term=")
    for file in sorted((config_folder() / group).glob("*.yaml")):
        print(f"  {file.stem:24} {description(file)}")


def print_choice(group: str, choice: str) -> None:
    """What a choice is, and its keys with their defaults.

    Raises:
        UserError: where there is no such choice.
    """
    if choice not in choices(group):
        raise UserError(f"list {group}={choice}: there is no such choice; {nearest(choice, choices(group))}")
    print(f"{group}={choice}  {description(config_folder() / group / f'{choice}.yaml')}")
    for key in keys(group, choice, place_of(group, choice)).values():
        print(f"  {key.name:40} {key.value:20} {key.comment}".rstrip())


def place_of(group: str, choice: str) -> str:
    """Where a group's keys lie in the config."""
    if group == "reward/term":
        return f"reward.terms.{choice}"
    return compose.place_of(group) or (group if group in ("env", "agent", "reward", "data") else "")


def keys(group: str, choice: str, place: str) -> dict[str, Key]:
    """The keys of a choice by name, those of YAMLs that it builds on first, and its components as `group=choice`."""
    path = config_folder() / group / f"{choice}.yaml"
    text = path.read_text(encoding="utf-8")
    found: dict[str, Key] = {}
    for base in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(base, dict):
            ((part, chosen),) = base.items()
            part = part.removeprefix("override ").lstrip("/")
            name = part.partition("@")[0]
            if name == "network/kind":  # the agent's choice, not the user's
                found |= keys(name, str(chosen), "agent.network")
                continue
            found[part] = Key(f"{name}=", str(chosen), f"rlgen list {name}={chosen}" if chosen else "")
        elif base != "_self_":
            found |= keys(group, str(base).partition("@")[0].lstrip("/"), place)
    comments = [line.partition("  # ")[2] for line in text.splitlines()]
    for key in leaves(yaml.compose(text), place, comments):
        found = {name: known for name, known in found.items() if not name.startswith(f"{key.name}.")}
        found[key.name] = key._replace(comment=key.comment or found.get(key.name, key).comment)
    return found


def leaves(node: yaml.Node | None, path: str, comments: list[str]) -> Iterator[Key]:
    """The values below a YAML node, with the comments of their lines."""
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        if name.value == "defaults" or name.value.startswith("_"):
            continue
        inner = path if name.value == "<<" else f"{path}.{name.value}".lstrip(".")
        if isinstance(value, yaml.MappingNode):
            yield from leaves(value, inner, comments)
        else:
            yield Key(inner, written(value), comments[name.start_mark.line])


def written(node: yaml.Node) -> str:
    """A value as the YAML has it."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(written(item) for item in node.value)}]"
    return str(node.value)


def description(file: Path) -> str:
    """The first comment of a YAML that is for readers."""
    lines = (line.strip() for line in file.read_text().splitlines())
    comments = (
        line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line and not LINE.match(line)
    )
    return next(comments, "")
