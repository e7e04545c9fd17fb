"""Training a session in a test, and scoring it, without a run's folder."""

import torch

from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.trainer import Loop


def trained(run: Session) -> Session:
    """The run, trained as `rlgen train` does, without its records and samples."""
    loop = Loop(run)
    while loop.step < run.settings.total_steps:
        decision, stepped = loop.play()
        loop.renew(decision, stepped)
        assert all(torch.isfinite(value) for value in stepped.metrics.values()), stepped.metrics
    return run


def target_score(run: Session, episodes: int = 100, seed: int = 0) -> float:
    """Mean score of the term `target` on held-out data."""
    result = evaluate(run.envs["test"], run.actor, run.reward, episodes=episodes, seed=seed, device=run.device)
    return result.scores["target"]
