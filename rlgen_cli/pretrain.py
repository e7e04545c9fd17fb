"""`rlgen pretrain`: a sequence model by maximum likelihood, until held-out data says stop."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from rlgen_cli import checkpoint
from rlgen_cli.build import Session
from rlgen_cli.errors import UserError, require
from rlgen_cli.logging import RunLog
from rlgen_cli.media.choice import medium
from rlgen_cli.sample import write_samples
from rlgen_cli.seeding import stream
from rlgen_cli.train import Interrupt, describe, name_of

log = logging.getLogger(__name__)
CHUNK = 500  # held-out sequences at once


def pretrain(session: Session, folder: Path) -> str:
    """Train `session.agent` for at most `epochs`, each a pass over the sequences; `keep` the
    checkpoint with the best held-out likelihood, or the last. Returns the final status."""
    config = session.config
    agent: Any = session.agent
    if not hasattr(agent, "nll") or session.data is None:
        raise UserError("agent: pretraining is by maximum likelihood; use agent=likelihood.")
    require(config.epochs >= 1, f"epochs: must be at least 1, got {config.epochs}.")
    patience = config.epochs if config.patience is None else config.patience
    require(patience >= 1, f"patience: must be at least 1, or null for never, got {patience}.")
    require(config.keep in ("best", "last"), f"keep: must be best or last, got {config.keep}.")
    if checkpoint.steps(folder):
        raise UserError(f"hydra.run.dir: {folder} holds a run already; name another folder.")
    tokens = session.data.train.tokens
    passes = len(tokens) // agent.batch_size
    total = config.epochs * passes
    describe(session, folder)
    run = RunLog(folder, 0, total, OmegaConf.to_yaml(config, resolve=True))
    best, best_epoch, status = math.inf, 0, "finished"
    with Interrupt() as interrupt:
        for epoch in range(1, config.epochs + 1):
            losses = []
            for i in range(passes):
                losses.append(agent.update(((epoch - 1) * passes + i) / total)["nll"])
            heard = {"nll/train": float(torch.stack(losses).mean()), "nll/valid": held_out(agent, session, "valid")}
            step = epoch * passes
            run.scalars(step, heard | {"epoch": epoch})
            if heard["nll/valid"] < best:
                best, best_epoch = heard["nll/valid"], epoch
            if best_epoch == epoch or config.keep == "last":
                checkpoint.save(folder / "checkpoints" / name_of(step), {"agent": agent.state_dict(), "reward": {}})
                checkpoint.prune(folder, 1, None)
            if interrupt.asked:
                status = "preempted"
            if interrupt.asked or epoch - best_epoch >= patience:
                break
    session.agent.load_state_dict(checkpoint.load_newest(folder, session.device)["agent"])
    scores = {f"nll/{split}": held_out(agent, session, split) for split in ("valid", "test")}
    run.scalars(step + 1, scores | {"epoch": best_epoch})
    env = session.envs["train"]
    write_samples(session, "test", medium(env).last, 0, None, folder / "samples" / "final")
    run.status(status, step, best=checkpoint.steps(folder)[-1].name)
    run.close()
    return status


@torch.no_grad()
def held_out(agent: Any, session: Session, split: str) -> float:
    """Mean −log p of a token of `split`, in nats."""
    tokens: Tensor = getattr(session.data, split).tokens
    rng = stream(session.config.seed, "held out", session.device)
    return float(torch.cat([agent.nll(part, rng).mean(0) for part in tokens.split(CHUNK)]).mean())
