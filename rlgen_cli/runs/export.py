"""`rlgen export`: a run to take with you, in a folder: all that opens it anywhere, its policy as ONNX where that can
be, its generator as a file of its own, and a diffusion model with what its policy has learned, samples, and a card that
says what it is."""

import inspect
import shutil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.instantiate import find, fits
from rlgen_cli.config.saved import plain_config
from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.seeding import stream
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.generators import TrainsGenerator
from rlgen_cli.generators.diffusion import write_model
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.model_card import card
from rlgen_cli.runs.onnx_policy import write_onnx
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.sample import make_samples
from rlgen_cli.runs.stages import places_of

COPIED = ("environment.json", "metrics.jsonl", "results.json", "status.json")
POLICY, TUNED = "policy.onnx", "tuned"
FORMATS = ("png", "midi", "txt")  # of the samples, so far as they have them


def export(config: DictConfig) -> Path:
    """Write the run into the new folder `config.to`; returns it."""
    return export_to(Path(config.to).expanduser(), config)


def export_to(out: Path, config: DictConfig) -> Path:
    """Write the run `config.run` into the new folder `out`; returns it.

    Raises:
        UserError: where there is something already.
    """
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    require(empty, f"to: {out} is there already; name a new folder.")
    asked = config.copy()
    OmegaConf.update(asked, "set", {**(config.get("set") or {}), "precision": "float32"})  # which every runtime has
    run, session, _ = open_run(asked)
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
    (out / "config.yaml").write_text(yaml.safe_dump(portable(plain_config(run / "config.yaml")), sort_keys=False))
    step = checkpoint.newest(run, "policy").name
    learned = {name: term.state_dict() for name, term in session.reward.learners().items()}
    parts = {"policy": session.policy_state()} | ({"training": learned} if learned else {})
    checkpoint.save(out / "checkpoints" / step, parts)
    for stage in session.stages:  # what was fitted before the training, such as a generator
        place = next(filter(checkpoint.intact, places_of(stage, run)))
        shutil.copytree(place, out / "stages" / stage.name / "result")
    if isinstance(session.source, TrainsGenerator):
        session.source.export(out / "generator")
    if (denoiser := getattr(getattr(session.actor, "net", None), "denoiser", None)) is not None:
        (model,) = denoiser.model
        known = bool(model.classes) or denoiser.sees_label
        write_model(out / TUNED, denoiser.tuned(), model.path, model.shape, model.labels, known)
    formats = [name for name in medium(session.envs[config.split]).formats if name in FORMATS]
    made = make_samples(session, config.split, config.n, config.seed, record=False)
    made.save(out / "samples" / "final", formats)
    without_onnx = onnx_or_why(out / POLICY, session)
    text = card(session, out, made.record, without_onnx, config.data_licence)
    (out / "README.md").write_text(text, encoding="utf-8")
    return out


def portable(node: dict[str, Any]) -> dict[str, Any]:
    """A run's config without the folder of published files (`paths.data`) of this machine: what lay in it is named by
    its place there, or left out where it can be, since it is downloaded then."""
    root = (node.get("paths") or {}).get("data")
    return node if root is None else without(Path(root), {**node, "paths": {**node["paths"], "data": None}})


def without(root: Path, node: dict[str, Any]) -> dict[str, Any]:
    """The same for a component's values."""
    made: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            made[key] = without(root, value)
        elif isinstance(value, str) and Path(value).is_relative_to(root):
            given = inspect.signature(find(node["_target_"], key)).parameters
            made[key] = None if fits(None, given[key].annotation) else Path(value).relative_to(root).as_posix()
        else:
            made[key] = value
    return made


def onnx_or_why(path: Path, session: Session) -> str | None:
    """Write the policy as ONNX; where that cannot be, returns why."""
    try:
        write_onnx(path, session.envs["test"], session.actor, stream(0, "export", session.device))
    except UserError as error:
        print(f"there is no {path.name}: {error}")
        return str(error)
    return None
