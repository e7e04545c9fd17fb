"""Training a session in a test, and scoring it, without a run's folder."""

import torch

from rlgen_cli.core.acting import decide, initial_carry
from rlgen_cli.core.tree import select
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stepper import Stepper


def trained(run: Session) -> Session:
    """The run, trained as `rlgen train` does, without its records and samples."""
    env, actor, n, total = run.envs["train"], run.actor, run.settings.num_envs, run.settings.total_steps
    stepper = Stepper(
        env=env,
        reward=run.reward,
        learners=run.learners,
        rng=run.streams["env"],
        num_envs=n,
        group_size=run.group_size,
        together=True,
    )
    stepper.enter(stepper.fresh())
    carry = initial_carry(actor, n)
    for step in range(0, total, n):
        decision = decide(actor, env, stepper.state, carry, explore=True, rng=run.streams["policy"])
        stepped = stepper.step(decision, carry, step / total)
        stepper.renew(stepped.done)
        carry = select(stepped.done, initial_carry(actor, n), decision.carry)
        assert all(torch.isfinite(value) for value in stepped.metrics.values()), stepped.metrics
    return run


def target_score(run: Session, episodes: int = 100, seed: int = 0) -> float:
    """Mean score of the term `target` on held-out data."""
    result = evaluate(run.envs["test"], run.actor, run.reward, episodes=episodes, seed=seed, device=run.device)
    return result.scores["target"]
