"""`rlgen list`: what there is to choose from, one line each, from the YAMLs themselves. Imports no torch."""

from pathlib import Path

from rlgen_cli.config.locate import config_folder
from rlgen_cli.core.errors import UserError, nearest

GROUPS = {
    "env": "env", "agent": "agent", "reward": "reward", "term": "reward/term", "data": "data", "network": "network",
    "body": "network/body", "recurrent": "network/recurrent", "brush": "brush", "start": "start",
    "encoding": "encoding", "generator": "generator", "steering": "steering", "damage": "damage", "task": "task",
    "replay": "replay", "backup": "backup", "exploration": "exploration", "target_update": "target_update",
    "optimizer": "optimizer", "baseline": "baseline", "experiment": "experiment",
}  # fmt: skip


def print_listing(arguments: list[str]) -> None:
    """All groups, or the one that is named."""
    wanted = arguments or list(GROUPS)
    for name in wanted:
        if name not in GROUPS:
            raise UserError(f"list {name}: there is no such group; {nearest(name, GROUPS)}")
    for name in wanted:
        group = GROUPS[name]
        print(f"{group}=" if name != "term" else "+reward/term=")
        for file in sorted((config_folder() / group).glob("*.yaml")):
            print(f"  {file.stem:24} {description(file)}")


def description(file: Path) -> str:
    """The first comment of a YAML that is no directive."""
    lines = (line.strip() for line in file.read_text().splitlines())
    comments = (line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line)
    return next(comments, "")
