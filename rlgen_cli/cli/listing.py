"""`rlgen list` and `rlgen train --help`: what there is to choose from, and the keys of a choice, one line each, from
the YAMLs themselves, those of `--config-dir` included. Imports no torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from rlgen_cli.config import compose
from rlgen_cli.config.arguments import parted
from rlgen_cli.config.compose import config_folders
from rlgen_cli.config.goes_with import LINE, of_environment, said
from rlgen_cli.config.locate import choices, text_of
from rlgen_cli.core.errors import UserError, nearest, printable

GROUPS = {
    "env": "env", "agent": "agent", "reward": "reward", "term": "reward/term", "data": "data", "network": "network",
    "body": "network/body", "recurrent": "network/recurrent", "brush": "brush", "start": "start",
    "encoding": "encoding", "generator": "generator", "generator/network": "generator/network", "sampler": "sampler",
    "control": "control", "steering": "steering", "damage": "damage", "task": "task",
    "replay": "replay", "backup": "backup", "exploration": "exploration", "target_update": "target_update",
    "optimizer": "optimizer", "baseline": "baseline", "logger": "logger", "experiment": "experiment",
}  # fmt: skip
FLAGS = {
    "-m": "several jobs, one for each value: rlgen train -m seed=1,2,3",
    "--config-dir FOLDER": "YAMLs, and Python files, of your own (rlgen new)",
    "--cfg job": "print the config, and run nothing",
}
CHOSEN_FIRST = ("env", "agent", "reward", "data")


class Key(NamedTuple):
    """A key of a choice, as the command line names it."""

    name: str
    value: str
    comment: str


def print_listing(arguments: list[str]) -> None:
    """All groups, the one that is named (`env`), or the keys of a choice (`env=pixel`)."""
    folders, (_, words) = config_folders(arguments), parted(arguments)
    for word in words or list(GROUPS):
        name, equals, choice = word.lstrip("+").partition("=")
        name = next((short for short, group in GROUPS.items() if group == name), name)
        if name not in GROUPS:
            raise UserError(f"list {name}: there is no such group; {nearest(name, GROUPS)}")
        if equals:
            print_choice(GROUPS[name], choice, folders)
        else:
            print_group(name, folders)


def print_runs(root: Path) -> None:
    """The runs below a folder, a line each, and why failed ones did."""
    from rlgen_cli.runs.states import run_states

    states = run_states(root)
    if not states:
        print(f"no runs below {root}")
    for state in states:
        steps = f"{state.step}/{state.total_steps}"
        reason = f"  {printable(state.error)}" if state.error else ""
        print(f"{state.status:9} {steps:>12}  {ago(state.age):>14}  {printable(str(state.folder))}{reason}")


def ago(seconds: float) -> str:
    """A time span in the largest unit that it has one of."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} seconds ago"


def print_help(command: str, arguments: list[str]) -> None:
    """What a command takes: flags, its own keys, and for a training the keys of what is chosen."""
    folders = config_folders(arguments)
    group, _, name = compose.config_name(command, arguments).rpartition("/")
    print(f"{description(text_of(group, name, folders))}\n")
    files = "FILE… " if command == "paint" else ""
    print(f"usage: rlgen {command} {files}[KEY=VALUE …]")
    for flag, comment in FLAGS.items():
        print(f"  {flag:40} {comment}")
    print("\nkeys, with their defaults")
    own = keys(group, name, "", folders)
    print_keys(own)
    if command == "train":
        words = [*compose.added(command, arguments), *parted(arguments)[1]]
        env = compose.value_of("env", words) or own["env"].value
        for kind in CHOSEN_FIRST:
            by_env = of_environment(kind, env, folders) if kind in ("reward", "data") else own[kind].value
            choice = compose.value_of(kind, words) or by_env
            print(f"\n{kind}={choice}, which rlgen list {kind} shows others of")
            if choice in choices(kind, folders):
                print_keys(keys(kind, choice, place_of(kind, choice, folders), folders))


def print_group(name: str, folders: list[Path]) -> None:
    """A group's choices."""
    group = GROUPS[name]
    print(f"{group}=" if name != "term" else "+reward/term=")
    for choice in choices(group, folders):
        print(f"  {choice:24} {description(text_of(group, choice, folders))}")


def print_choice(group: str, choice: str, folders: list[Path]) -> None:
    """What a choice is, what goes with it, and its keys with their defaults.

    Raises:
        UserError: where there is no such choice.
    """
    known = choices(group, folders)
    if choice not in known:
        raise UserError(f"list {group}={choice}: there is no such choice; {nearest(choice, known)}")
    print(f"{group}={choice}  {description(text_of(group, choice, folders))}")
    if words := said(group, choice, folders):
        print(f"  goes with {' '.join(words)}")
    print_keys(keys(group, choice, place_of(group, choice, folders), folders))


def print_keys(found: dict[str, Key]) -> None:
    """A line each."""
    for key in found.values():
        print(f"  {key.name:40} {key.value:20} {key.comment}".rstrip())


def place_of(group: str, choice: str, folders: list[Path]) -> str:
    """Where a choice's keys lie in the config."""
    if group == "reward/term":
        together = text_of(group, choice, folders).startswith("# @package reward.terms\n")  # several terms
        return "reward.terms" if together else f"reward.terms.{choice}"
    if group == "logger":
        return f"logger.{choice}"
    return compose.place_of(group) or (group if group in CHOSEN_FIRST else "")


def keys(group: str, choice: str, place: str, folders: list[Path]) -> dict[str, Key]:
    """The keys of a choice by name, those of YAMLs that it builds on first, and its components as `group=choice`. A
    value that it sets for a key of another YAML is explained as it is there."""
    found = stated(group, choice, place, folders)
    if any(not key.comment for key in found.values()):
        known = elsewhere(group, choice, folders)
        for word in said(group, choice, folders):
            name, _, other = word.partition("=")
            known = comments_of(name, other, folders) | known
        found = {name: key._replace(comment=key.comment or known.get(name, "")) for name, key in found.items()}
    return found


def stated(group: str, choice: str, place: str, folders: list[Path]) -> dict[str, Key]:
    """The same, as the YAML and those that it builds on have them."""
    text = text_of(group, choice, folders)
    found: dict[str, Key] = {}
    for base in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(base, dict):
            found |= component(*next(iter(base.items())), folders)
        elif base != "_self_":
            name = str(base).partition("@")[0]
            found |= stated("" if name.startswith("/") else group, name.lstrip("/"), place, folders)
    comments = [line.partition("  # ")[2] for line in text.splitlines()]
    for key in leaves(yaml.compose(text), place, comments):
        found = {name: known for name, known in found.items() if not name.startswith(f"{key.name}.")}
        found[key.name] = key._replace(comment=key.comment or found.get(key.name, key).comment)
    return found


def elsewhere(group: str, choice: str, folders: list[Path]) -> dict[str, str]:
    """The comments of the keys that a choice's components have, and for what stands beside all else, of rlgen train."""
    text = text_of(group, choice, folders)
    found: dict[str, str] = {}
    if text.startswith("# @package _global_\n"):
        found |= {key.name: key.comment for key in stated("", "train", "", folders).values()}
    for base in (yaml.safe_load(text) or {}).get("defaults", []):
        for part, chosen in base.items() if isinstance(base, dict) else ():
            found |= comments_of(part_of(group, str(part)), str(chosen), folders)
    return found


def comments_of(group: str, choice: str, folders: list[Path]) -> dict[str, str]:
    """The comments of a choice's keys and of its components'; none where there is no such choice."""
    if choice not in choices(group, folders):
        return {}
    own = stated(group, choice, place_of(group, choice, folders), folders)
    return elsewhere(group, choice, folders) | {key.name: key.comment for key in own.values() if key.comment}


def part_of(group: str, part: str) -> str:
    """The group that an entry of a defaults list chooses from; one without a slash lies below the YAML's own group."""
    part = part.removeprefix("override ").removeprefix("optional ").partition("@")[0]
    return part.lstrip("/") if part.startswith("/") else f"{group}/{part}"


def component(part: str, chosen: object, folders: list[Path]) -> dict[str, Key]:
    """What an entry of a defaults list lets one choose."""
    part = part.removeprefix("override ").removeprefix("optional ").lstrip("/")
    name = part.partition("@")[0]
    if name.startswith("hydra/"):
        return {}
    if name == "network/kind":  # the agent's choice, not the user's
        return stated(name, str(chosen), "agent.network", folders)
    if "goes_with" in str(chosen):
        return {part: Key(f"{name}=", "as env says", f"rlgen list {name}")}
    return {
        part: Key(f"{name}=", str(chosen or "null"), f"rlgen list {name}={chosen}" if chosen else f"rlgen list {name}")
    }


def leaves(node: yaml.Node | None, path: str, comments: list[str], above: str = "") -> Iterator[Key]:
    """The values below a YAML node, with the comments of their lines, or those `above` them."""
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        if name.value in ("defaults", "hydra") or name.value.startswith("_"):
            continue
        inner = path if name.value == "<<" else f"{path}.{name.value}".lstrip(".")
        comment = comments[name.start_mark.line] or above
        if isinstance(value, yaml.MappingNode):
            yield from leaves(value, inner, comments, comment)
        else:
            yield Key(inner, written(value), comment)


def written(node: yaml.Node) -> str:
    """A value as the YAML has it."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(written(item) for item in node.value)}]"
    return str(node.value)


def description(text: str) -> str:
    """The first comment of a YAML that is for readers."""
    lines = (line.strip() for line in text.splitlines())
    comments = (
        line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line and not LINE.match(line)
    )
    return next(comments, "")
