"""`rlgen sample`: what a run's agent makes, as files."""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from rlgen_cli import checkpoint
from rlgen_cli.build import Session, build, check_foreign
from rlgen_cli.errors import UserError, require
from rlgen_cli.evaluate import unique
from rlgen_cli.media.choice import FORMATS, medium
from rlgen_cli.rollout import rollout
from rlgen_cli.seeding import stream


def sample(config: DictConfig) -> Path:
    """Load the agent of `config.run` and write `config.n` samples; returns where they lie."""
    formats = [config.format] if isinstance(config.format, str) else config.format and list(config.format)
    for name in formats or []:
        require(name in FORMATS, f"format: must be of {', '.join(sorted(FORMATS))}, got {name}.")
    require(isinstance(config.n, int) and config.n >= 1, f"n: must be a whole number from 1, got {config.n}.")
    require(isinstance(config.seed, int), f"seed: must be a whole number, got {config.seed!r}.")
    run, saved = find_run(str(config.run))
    trained = OmegaConf.load(run / "config.yaml")
    assert isinstance(trained, DictConfig)
    check_foreign(OmegaConf.to_container(trained), list(config.trust))
    trained.device, trained.trust = config.device, config.trust  # whom to trust is not for the run to say
    for key, value in (config.get("set") or {}).items():
        OmegaConf.update(trained, key, value)
    session = build(trained, fresh=False)
    state = (
        checkpoint.load(saved, session.device, session.parts)
        if saved
        else checkpoint.load_newest(run, session.device, session.parts)
    )
    session.load(state)
    out = Path(config.out) if config.out else run / "samples" / f"n{config.n}_seed{config.seed}"
    write_samples(session, config.split, config.n, config.seed, formats, out, config.soundfont)
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
def write_samples(
    session: Session, split: str, n: int, seed: int, formats: list[str] | None, out: Path, soundfont: str | None = None
) -> None:
    """N samples on the data of `split` in `formats` (null: all that the environment has), and their scores."""
    require(split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {split}.")
    env = session.envs[split]
    made_as = medium(env, Path(soundfont) if soundfont else None)
    formats = list(made_as.formats) if formats is None else formats
    for name in formats:
        require(name in made_as.formats, f"format: must be of {', '.join(made_as.formats)} for this run, got {name}.")
    rng = stream(seed, "sample", session.device)
    made = rollout(env, session.agent, env.reset(n, rng), rng, record="gif" in formats or "svg" in formats)
    view = env.view(made.final)
    out.mkdir(parents=True, exist_ok=True)
    made_as.write(made, formats, out)
    scores = {name: round(float(score.mean()), 6) for name, score in session.reward.score(view).items()}
    record = {
        "n": n,
        "seed": seed,
        "split": split,
        "scores": scores,
        "diversity": round(made_as.diversity(view.sample), 6),
        "unique": round(unique(view.sample), 6),
        **{name: round(value, 4) for name, value in made_as.numbers(view).items()},
    }
    (out / "scores.json").write_text(json.dumps(record, indent=1) + "\n")
