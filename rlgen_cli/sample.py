"""`rlgen sample`: pictures from a run, as PNG, GIF and SVG."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from rlgen_cli import checkpoint
from rlgen_cli.build import Session, build, check_foreign
from rlgen_cli.errors import UserError, require
from rlgen_cli.evaluate import diversity, sheet
from rlgen_cli.export.raster import enlarge, grid, write_gif, write_png
from rlgen_cli.export.svg import write_svg, write_svg_grid
from rlgen_cli.rollout import rollout
from rlgen_cli.seeding import stream
from rlgen_cli.types import Stroke

FORMATS = ("png", "gif", "svg")


def sample(config: DictConfig) -> Path:
    """Load the agent of `config.run` and write `config.n` samples; returns where they lie."""
    formats = [config.format] if isinstance(config.format, str) else list(config.format)
    for name in formats:
        require(name in FORMATS, f"format: must be {', '.join(FORMATS)} or a list of these, got {name}.")
    require(isinstance(config.n, int) and config.n >= 1, f"n: must be a whole number from 1, got {config.n}.")
    require(isinstance(config.seed, int), f"seed: must be a whole number, got {config.seed!r}.")
    run, saved = find_run(str(config.run))
    trained = OmegaConf.load(run / "config.yaml")
    assert isinstance(trained, DictConfig)
    check_foreign(OmegaConf.to_container(trained), list(config.trust))
    trained.device = config.device
    for key, value in (config.get("set") or {}).items():
        OmegaConf.update(trained, key, value)
    session = build(trained, fresh=False)
    parts = frozenset(["agent", "reward"])
    state = (
        checkpoint.load(saved, session.device, parts) if saved else checkpoint.load_newest(run, session.device, parts)
    )
    session.load(state)
    out = Path(config.out) if config.out else run / "samples" / f"n{config.n}_seed{config.seed}"
    write_samples(session, config.split, config.n, config.seed, formats, out)
    return out


def find_run(name: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint's when one was named; `latest` is the run that was written last."""
    if name == "latest":
        runs = sorted(Path("outputs").rglob("status.json"), key=lambda path: path.stat().st_mtime)
        require(bool(runs), "run: there is no run below outputs/ yet; train one first.")
        return runs[-1].parent, None
    path = Path(name)
    if (path / "manifest.json").is_file():
        return path.parent.parent, path
    if (path / "config.yaml").is_file():
        return path, None
    raise UserError(f"run: {path} is neither a run's folder nor a checkpoint's; `run=latest` takes the newest run.")


@torch.no_grad()
def write_samples(session: Session, split: str, n: int, seed: int, formats: list[str], out: Path) -> None:
    """N samples on the data of `split`: a grid and one file each, a time-lapse, vectors, and their scores.

    Formats that an environment cannot give (SVG without strokes) are left out when several are asked for.
    """
    require(split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {split}.")
    env: Any = session.envs[split]
    vectors = hasattr(env, "stroke")
    if "svg" in formats and not vectors:
        require(len(formats) > 1, "format: this environment makes no strokes, so it has no svg; use png or gif.")
        formats = [name for name in formats if name != "svg"]
    rng = stream(seed, "sample", session.device)
    result = rollout(env, session.agent, env.reset(n, rng), rng, record="gif" in formats or "svg" in formats)
    view = env.view(result.final)
    out.mkdir(parents=True, exist_ok=True)
    if "png" in formats:
        write_png(out / "grid.png", enlarge(sheet(view, n)))
        for i, image in enumerate(view.sample):
            write_png(out / f"{i:03d}.png", (image.expand(3, -1, -1) * 255).round().to(torch.uint8))
    if "gif" in formats:
        stride = max(1, len(result.states) // 128)
        shown = [*result.states[::stride], result.final]
        write_gif(out / "timelapse.gif", [enlarge(grid(env.view(state).sample), 320) for state in shown])
    if "svg" in formats:
        strokes: list[Stroke] = [env.stroke(s, a) for s, a in zip(result.states, result.actions, strict=True)]
        strokes = [Stroke(*(field.cpu() for field in stroke)) for stroke in strokes]
        background, size = env.palette[0].float().cpu() / 255, env.size
        write_svg_grid(out / "grid.svg", strokes, math.ceil(math.sqrt(n)), size, background)
        for i in range(n):
            write_svg(out / f"{i:03d}.svg", strokes, i, size, background)
    scores = {name: round(float(score.mean()), 6) for name, score in session.reward.score(view).items()}
    record = {
        "n": n,
        "seed": seed,
        "split": split,
        "scores": scores,
        "diversity": round(diversity(view.sample), 6),
    }
    (out / "scores.json").write_text(json.dumps(record, indent=1) + "\n")
