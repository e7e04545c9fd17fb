"""The card of an exported run: what it is, how good it is and how it is used, as Markdown with the head that hubs of
models read."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from rlgen_cli.config.instantiate import component
from rlgen_cli.config.saved import modules
from rlgen_cli.core.files import read_json
from rlgen_cli.runs.assemble import Session

MACHINE = ("platform", "cpus", "device", "cuda", "threads", "seed", "git")


def card(session: Session, folder: Path, record: dict[str, Any], without_onnx: str | None, licence: str | None) -> str:
    """The text of README.md.

    Args:
        folder: of the export, whose files it tells of. record: of the samples that come along. without_onnx: why there
            is no ONNX file, or None. licence: of the data; None: what is known of it.
    """
    environment, status = facts(folder / "environment.json"), facts(folder / "status.json")
    env, agent = (kind_of(session.config[name]) for name in ("env", "agent"))
    head = yaml.safe_dump({"library_name": "rlgen", "tags": ["rlgen", "reinforcement-learning", env, agent]})
    terms = ", ".join(f"{name} × {term.weight:g}" for name, term in session.reward.terms.items())
    paragraphs = [
        f"---\n{head}---", f"# {agent} in {env}", "![Samples](samples/final/grid.png)",
        f"Trained by rlgen for {status.get('step', 0):,} environment steps ({status.get('seconds', 0):,.0f} seconds). "
        f"Its reward was {terms}. The command:",
        fenced("text", environment.get("command") or "(from Python)"),
        "## Numbers", scores(facts(folder / "results.json").get("scores") or {"samples": record["scores"]}),
        f"Of {record['n']} new samples ({record['split']} data, seed {record['seed']}) {record['unique']:.0%} are "
        f"different ones; their diversity is {record['diversity']:g}.",
        "## Use", *use(session), onnx_lines(session, without_onnx),
        "## Data", f"{kind_of(session.config.get('data'))}: {licence or known_licence(session)}.",
        "## Machine", "\n".join(f"- {name}: {value}" for name, value in machine(environment).items()),
    ]  # fmt: skip
    return "\n\n".join(paragraphs) + "\n"


def use(session: Session) -> list[str]:
    """How the run is opened, and what that needs besides this folder."""
    data = session.config.get("data") or {}
    place = next((key for key in ("path", "root") if data.get(key)), None)
    changes = f', changes={{"data.{place}": "WHERE YOUR COPY OF THE DATA LIES"}}' if place else ""
    own = modules(OmegaConf.to_container(session.config))
    trust = f", trust={own}" if own else ""
    opened = f'import rlgen_cli\n\nrun = rlgen_cli.open("."{changes}{trust})\nrun.sample(16).save("pictures")'
    needs = [f"It needs the modules {', '.join(own)}, which are not part of this folder."] if own else []
    return ["In the folder of this card:", fenced("python", opened), *needs]


def fenced(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```"


def onnx_lines(session: Session, without_onnx: str | None) -> str:
    """How the ONNX file is used, or why there is none."""
    if without_onnx is not None:
        return f"There is no `policy.onnx`: {without_onnx}."
    spec = session.envs["test"].spec
    shapes = ", ".join(f"`{name}` {[*part.shape]}" for name, part in spec.observation.items())
    return (
        "`policy.onnx` gives the best action without rlgen and torch, for N states at a time. Its inputs are the "
        f"observations ({shapes}, each with N before it; pictures are floats from 0 to 1). It gives `action`, of "
        f"`{spec.action}`, and, where a step is one decision, what the policy makes of each action (`q_values` or "
        "`log_probs`), so that you can draw one instead."
    )


def scores(columns: dict[str, dict[str, float]]) -> str:
    """A table with a row for each score, of which higher is better."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [["score", *columns], ["---"] * (1 + len(columns))]
    for name in names:
        rows.append([name, *(f"{column[name]:.4g}" if name in column else "" for column in columns.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine(environment: dict[str, Any]) -> dict[str, Any]:
    """What the run was trained with and on."""
    told = {name: environment.get(name) for name in MACHINE}
    return {**environment.get("versions", {}), **{name: value for name, value in told.items() if value is not None}}


def known_licence(session: Session) -> str:
    """Under what terms the data may be used."""
    if "data" not in session.config:
        return "the run took none"
    known = getattr(component(session.config.data, "data"), "licence", None)
    return known or "its terms are those of whoever made it, and rlgen does not know them"


def kind_of(node: Any) -> str:
    """The name of a component's class."""
    return str(node["_target_"]).rpartition(".")[2] if node else "None"


def facts(path: Path) -> dict[str, Any]:
    """A small JSON file of the run, if it is there."""
    return read_json(path, "run") if path.exists() else {}
