"""Runs as they lie on the disk, opened for sampling and judging: the part `policy` of a checkpoint, and the results of
the stages."""

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.trust import Trust
from rlgen_cli.rewards.reward import WeightedSum
from rlgen_cli.runs.assemble import Session, assemble, fitting_the_config
from rlgen_cli.runs.saved_run import config_of, find_run, opening
from rlgen_cli.runs.stages import load_stages

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A run's folder, and its objects with the weights of a checkpoint."""

    folder: Path
    session: Session
    name: str  # of what is made: the checkpoint's step, the split, how many, the seed, and a digest of the changes


def open_run(config: DictConfig) -> Opened:
    """The run that `config.run` names, on `config.device`, with the changes of `config.set`.

    Raises:
        UserError: where there is none, or it would import what `config.trust` does not name.
    """
    require(isinstance(config.n, int) and config.n >= 1, f"n: must be a whole number from 1, got {config.n}.")
    require(isinstance(config.seed, int), f"seed: must be a whole number, got {config.seed!r}.")
    run, saved = find_run(str(config.run))
    with opening(run):
        trained = config_of(run, Trust(config.trust))
        trained.device = config.device
        for key, value in (config.get("set") or {}).items():
            OmegaConf.update(trained, key, value)
        session = assemble(trained, fresh=False)
        load_stages(session, run)
        saved = saved or checkpoint.newest(run, "policy")
        session.load_policy(checkpoint.load(saved, "policy", session.device))
        load_learned_terms(session, saved)
    changes = json.dumps(OmegaConf.to_container(config.set), sort_keys=True) if config.get("set") else ""
    changed = f"_set{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else ""
    return Opened(run, session, f"{saved.name}_{config.split}_n{config.n}_seed{config.seed}{changed}")


def load_learned_terms(session: Session, saved: Path) -> None:
    """The reward's learned terms (a discriminator) as a checkpoint's part `training` holds them. Where that part is not
    there, or damaged, the reward is left without them: untrained, they would say nothing of the samples."""
    learners = session.reward.learners()
    if not learners:
        return
    try:
        found = checkpoint.load(saved, "training", session.device, only=learners)
    except UserError as error:
        log.warning("%s Scores of %s are left out.", error, ", ".join(learners))
        terms = {name: term for name, term in session.reward.terms.items() if name not in learners}
        session.reward = WeightedSum(terms, session.reward.skip_nonfinite)
        return
    with fitting_the_config():
        for name, learner in learners.items():
            learner.load_state_dict(found[name])
