"""Runs as a report sees them: plain data of their folders, which may be a stranger's."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlgen_cli.config.saved import plain_config
from rlgen_cli.core import migrations
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import read_json
from rlgen_cli.runs.records import Curve, curves_of
from rlgen_cli.runs.saved_run import find_run, require_plain
from rlgen_cli.runs.states import RunState, state_of

# Settings that say where and how far a run went, not what it was; runs that differ in nothing else are one group.
SEED = "seed"
UNTOLD = ("resume", "stop_at", "trust", "paths.cache", "paths.data", "profile", migrations.KEY)


class Run(NamedTuple):
    """A run's folder, read."""

    folder: Path
    config: dict[str, str]  # by key path, as YAML says the values
    curves: dict[str, Curve]
    state: RunState | None
    facts: dict[str, str]  # the machine, and the command
    results: dict[str, Any]  # scores of the last samples beside those of random actions and of real data


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: where there is none, or it holds what no run leaves.
    """
    require((folder / "config.yaml").is_file(), f"run: {folder} is no run's folder (it holds no config.yaml).")
    require_plain(folder)
    config = {key: value for key, value in flat(plain_config(folder / "config.yaml")).items() if key not in UNTOLD}
    return Run(
        folder, config, curves_of(folder), state_of(folder), facts(optional(folder / "environment.json")),
        optional(folder / "results.json"),
    )  # fmt: skip


def read_runs(run: str | None, runs: str | list[str] | None) -> list[Run]:
    """The run that `run` names, as for `rlgen sample`, or all that match the patterns of `runs`, below which folders
    are looked for, too.

    Raises:
        UserError: where there is none.
    """
    if runs is None:
        return [read_run(find_run(str(run))[0])]
    patterns = [runs] if isinstance(runs, str) else list(runs)
    found = {path.resolve(): path for pattern in patterns for path in run_folders(pattern)}
    require(bool(found), f"runs: there is no run's folder at {', '.join(patterns)}.")
    return [read_run(found[path]) for path in sorted(found)]


def run_folders(pattern: str) -> Iterable[Path]:
    """The runs at a pattern, or below what it names."""
    for name in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True)):
        path = Path(name)
        if (path / "config.yaml").is_file():
            yield path
        elif path.is_dir():
            yield from (status.parent for status in path.rglob("status.json"))


def flat(node: Any, path: str = "") -> dict[str, str]:
    """A config's values by key path."""
    if isinstance(node, dict) and node:
        found: dict[str, str] = {}
        for name, part in node.items():
            found |= flat(part, f"{path}.{name}".lstrip("."))
        return found
    return {path: yaml.safe_dump(node, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()}


def facts(environment: dict[str, Any]) -> dict[str, str]:
    """What environment.json says, a line each."""
    versions = environment.get("versions")
    said = {f"{name} (version)": value for name, value in versions.items()} if isinstance(versions, dict) else {}
    said |= {name: value for name, value in environment.items() if name != "versions"}
    return {name: str(value) for name, value in said.items() if value is not None}


def optional(path: Path) -> dict[str, Any]:
    """A small JSON file; nothing where it is not there or damaged."""
    try:
        return read_json(path, "run") if path.exists() else {}
    except UserError:
        return {}


def differences(runs: list[Run]) -> list[str]:
    """The keys in which runs differ, the seed left out."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if key != SEED and len({run.config.get(key) for run in runs}) > 1]


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seeds alone, by what tells their group from the others: as few keys as do."""
    keys = differences(runs)
    groups: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.config.get(key) for key in keys), []).append(run)
    telling: list[int] = []
    for i in sorted(range(len(keys)), key=lambda i: keys[i].count(".")):
        parts = len({tuple(values[j] for j in telling) for values in groups})
        if parts == len(groups):
            break
        if len({tuple(values[j] for j in (*telling, i)) for values in groups}) > parts:
            telling.append(i)
    return {label({keys[i]: values[i] for i in telling}) or "all": members for values, members in groups.items()}


def label(values: dict[str, str | None]) -> str:
    """Keys and values in few words: of a class its name."""
    said = []
    for key, value in values.items():
        kind = key.endswith("_target_")
        name = key.removesuffix("._target_").rpartition(".")[2]
        said.append(f"{name}={(value or 'none').rpartition('.')[2] if kind else value or 'none'}")
    return ", ".join(said)
