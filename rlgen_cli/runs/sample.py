"""`rlgen sample`: what a run's agent makes, as files."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from rlgen_cli.core.errors import require
from rlgen_cli.core.seeding import stream
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.registry import FORMATS, medium
from rlgen_cli.evaluation.rollout import Said, rollout, unsaid
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.open import open_run


def sample(config: DictConfig) -> Path:
    """Load the agent of `config.run` and write `config.n` samples; returns where they lie."""
    formats = [config.format] if isinstance(config.format, str) else config.format and list(config.format)
    for name in formats or []:
        require(name in FORMATS, f"format: must be of {', '.join(sorted(FORMATS))}, got {name}.")
    run, session, name = open_run(config)
    out = Path(config.out) if config.out else run / "samples" / name
    write_samples(session, config.split, config.n, config.seed, formats, out, config.soundfont)
    return out


@torch.no_grad()
def write_samples(
    session: Session,
    split: str,
    n: int,
    seed: int,
    formats: list[str] | None,
    out: Path,
    soundfont: str | None = None,
    said: Said = unsaid,
) -> dict[str, Any]:
    """N samples on the data of `split` in `formats` (null: all that the environment has), and their scores, which are
    returned, too."""
    require(split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {split}.")
    env = session.envs[split]
    made_as = medium(env, Path(soundfont) if soundfont else None)
    formats = list(made_as.formats) if formats is None else formats
    for name in formats:
        require(name in made_as.formats, f"format: must be of {', '.join(made_as.formats)} for this run, got {name}.")
    rng = stream(seed, "sample", session.device)
    made = rollout(env, session.actor, env.reset(n, rng), rng, record="gif" in formats or "svg" in formats, said=said)
    view = env.view(made.final)
    out.mkdir(parents=True, exist_ok=True)
    made_as.write(made, formats, out)
    scores = {name: round(float(score.mean()), 6) for name, score in session.reward.score(view).items()}
    record: dict[str, Any] = {
        "n": n,
        "seed": seed,
        "split": split,
        "scores": scores,
        "diversity": round(made_as.diversity(view.sample), 6),
        "unique": round(unique(view.sample), 6),
        **{name: round(value, 4) for name, value in made_as.numbers(view).items()},
    }
    (out / "scores.json").write_text(json.dumps(record, indent=1) + "\n")
    return record
