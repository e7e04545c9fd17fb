"""`rlgen report`: everything that runs left to see, as one page that needs no network."""

import html
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.extras import imported
from rlgen_cli.core.files import write_atomic
from rlgen_cli.report.curves import FIRST, last, metric_names, panels
from rlgen_cli.report.made import made_by
from rlgen_cli.report.read import Run, differences, grouped, read_runs
from rlgen_cli.runs.log import say

# A page may run what is in it and show what is in it, and ask nobody for anything.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src {connect}; form-action 'none'; base-uri 'none'"
)


def report(config: DictConfig) -> Path:
    """Write the page of `config.run`, or of all runs at `config.runs`; returns where.

    Raises:
        UserError: where there is no run, or plotly is not installed.
    """
    require(isinstance(config.shown, int) and config.shown >= 0, f"shown: must be at least 0, got {config.shown}.")
    require(
        isinstance(config.nearest, int) and config.nearest >= 0, f"nearest: must be at least 0, got {config.nearest}."
    )
    runs = read_runs(config.run, config.runs)
    data = seen(runs, config.shown)
    for run, shown in zip(runs, data["runs"][: config.shown], strict=False):
        if config.nearest:
            shown["made"]["nearest"] = nearest_pictures(run, config.nearest, list(config.trust))
    text = page(data)
    out = Path(config.out or (runs[0].folder / "report.html" if config.runs is None else "report.html"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, text.encode())
    return out


def nearest_pictures(run: Run, count: int, trust: list[str]) -> str | None:
    """Samples beside the training pictures nearest to them; a run that cannot be opened has a page without them."""
    from rlgen_cli.report.nearest import nearest_sheet  # builds the run, which nothing else here does

    try:
        return nearest_sheet(run.folder, count, trust)
    except UserError as error:
        say(f"without nearest pictures: {error}")
        return None


def seen(runs: list[Run], shown: int) -> dict[str, Any]:
    """All that a page shows, as JSON has it.

    Args:
        shown: of how many runs, the first ones, what they made is shown.
    """
    groups, differing = grouped(runs), differences(runs)
    parent, called = names_of([run.folder for run in runs])
    names = metric_names(runs)
    made = [made_by(run.folder) if i < shown else {} for i, run in enumerate(runs)]
    return {
        "title": parent,
        "groups": {label: len(members) for label, members in groups.items()},
        "panels": panels(groups, names),
        "first": [name for name in FIRST if name in names],
        "differing": differing,
        "runs": [
            described(run, name, names, differing, part) for run, name, part in zip(runs, called, made, strict=True)
        ],
    }


def names_of(folders: list[Path]) -> tuple[str, list[str]]:
    """What all runs share of their paths, as a title, and the rest of each."""
    if len(folders) == 1:
        return str(folders[0]), [str(folders[0])]
    parent = Path(os.path.commonpath(folders))
    return f"{len(folders)} runs in {parent}", [str(folder.relative_to(parent)) for folder in folders]


def described(run: Run, called: str, names: list[str], differing: list[str], made: dict[str, Any]) -> dict[str, Any]:
    """A run."""
    state = run.state
    return {
        "name": called,
        "seed": run.config.get("seed"),
        "status": state.status if state else "unknown",
        "step": state.step if state else 0,
        "total_steps": state.total_steps if state else 0,
        "error": state.error if state else "",
        "facts": run.facts,
        "config": run.config,
        "choices": {key: run.config.get(key, "") for key in differing},
        "last": {name: value for name in names if (value := last(run, name)) is not None},
        "results": run.results,
        "made": made,
    }


def page(data: dict[str, Any], live: bool = False) -> str:
    """The page that shows `data`; a live one asks where it came from for newer data."""
    parts = resources.files("rlgen_cli.report") / "page"
    text = (parts / "page.html").read_text(encoding="utf-8")
    fillings = {
        "policy": POLICY.format(connect="'self'" if live else "'none'"),
        "title": html.escape(data["title"]),
        "style": (parts / "page.css").read_text(encoding="utf-8"),
        "plotly": plotly_script(),
        "script": (parts / "page.js").read_text(encoding="utf-8"),
        "live": "true" if live else "false",
        "data": embedded(data),
    }
    for name, filling in fillings.items():
        text = text.replace(f"<!--{name}-->", filling, 1)
    return text


def embedded(data: Any) -> str:
    """JSON that no HTML parser takes for an end of its script."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def plotly_script() -> str:
    """The library that draws the curves, as it comes with its Python package.

    Raises:
        UserError: where that is not installed.
    """
    script: str = imported("plotly.offline", "report", "report: draws with plotly;").get_plotlyjs()
    return script
