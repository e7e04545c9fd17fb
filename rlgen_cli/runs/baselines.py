"""Scripted baselines of `rlgen eval`: planners by the defaults of their YAMLs at one budget, and the nearest training
picture. They begin in the same episodes as the run's samples, and see the same reward."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.agents.planners.best_of import BestOf
from rlgen_cli.agents.planners.cem import CEM
from rlgen_cli.agents.planners.greedy import Greedy
from rlgen_cli.config.instantiate import component, find
from rlgen_cli.config.locate import config_folder
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.errors import nearest as nearest_word
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, Planner
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Discrete, State, View
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.novelty import nearest_known
from rlgen_cli.evaluation.real import some
from rlgen_cli.evaluation.report import BATCH, FEWEST, MOST_TRAINING, Column, finished
from rlgen_cli.runs import misfits
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.saved_network import saved_network

NEAREST = "nearest"
BASELINES = ("random", "greedy", "best_of", "cem", NEAREST)
SPENT = 500_000  # steps of the environment that a baseline may take, if that is enough for FEWEST samples
TRIED = 8000  # tries at once, over all episodes


def asked(given: Any) -> tuple[list[str], bool]:
    """The baselines that `baselines=` names, and whether those that are slow here or cannot act are left out unsaid.

    Raises:
        UserError: for one that there is not.
    """
    if given in ("auto", "all"):
        return list(BASELINES), given == "auto"
    names = [given] if isinstance(given, str) else list(given or [])
    for name in names:
        require(
            name in BASELINES, f"baselines: there is no {name}; {nearest_word(str(name), (*BASELINES, 'auto', 'all'))}"
        )
    return [name for name in BASELINES if name in names], False


def baselines(session: Session, env: Env, starts: State, config: DictConfig) -> Iterator[tuple[str, Column | str]]:
    """Each baseline that `config` asks for, by name: its samples, or why it has none.

    Args:
        starts: the episodes of the run's samples; a baseline that is slow takes the first of them.
    """
    names, quietly = asked(config.baselines)
    valid = isinstance(config.budget, int) and 2 <= config.budget <= 1_000_000
    require(valid, f"budget: must be from 2 to 1000000 tries an action, got {config.budget}.")
    for name in names:
        if name == NEAREST:
            found: Column | str = nearest_pictures(session, env, starts, config.seed)
        else:
            found = planned(name, session, env, starts, config, quietly)
        if isinstance(found, Column) or not quietly:
            yield name, found


def planned(name: str, session: Session, env: Env, starts: State, config: DictConfig, only_cheap: bool) -> Column | str:
    """A planner's samples, or why there are none."""
    node = settings(name, config.budget)
    if not misfits.accepts(find(node["_target_"], f"baselines.{name}"), env.spec):
        return f"cannot act here, where an action is {env.spec.action}"
    at_once = max(1, min(BATCH, TRIED // node.get("samples", 1)))
    opened = functools.partial(saved_network, env=env, trust=Trust(), runtime={}, where=f"baselines.{name}")
    planner: Planner = component(
        node, f"baselines.{name}", env=env, num_envs=at_once, device=session.device, reward=session.reward,
        saved_network=opened,
    )  # fmt: skip
    cost = env_steps(planner, env)
    n = min(len(env.done(starts)), max(FEWEST, SPENT // cost))
    if only_cheap and SPENT // cost < FEWEST:
        return f"takes {cost} steps of the environment a sample"
    first = map_tensors(lambda field: field[:n], starts)
    view = finished(env, planner, first, stream(config.seed, f"report/{name}", session.device), at_once)
    return Column(view, cost, 0)


def settings(name: str, budget: int) -> dict[str, Any]:
    """A planner's YAML, with as many tries an action as the budget has where it searches."""
    node: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "agent" / f"{name}.yaml"))
    if "rounds" in node:
        node["samples"] = min(node["samples"], budget)
        node["rounds"] = budget // node["samples"]
    if "elite" in node:
        node["elite"] = min(node["elite"], node["samples"])
    return dict(node)


def env_steps(actor: Actor, env: Env) -> int:
    """Steps of the environment for a sample, at most: those that are tried, and those that are taken."""
    tries = 0
    if isinstance(actor, Greedy) and isinstance(env.spec.action, Discrete):
        tries = env.spec.action.n
    if isinstance(actor, BestOf | CEM):
        tries = actor.samples * actor.rounds
    return (tries + 1) * env.spec.max_steps


@torch.no_grad()
def nearest_pictures(session: Session, env: Env, starts: State, seed: int) -> Column | str:
    """For each episode the training picture that fits best to what the episode shows of its target, or why there is
    none."""
    if "target" not in env.spec.context or session.data is None or not isinstance(session.data.train, Images):
        return "answers with training pictures, and this run has no target picture"
    train, begun = session.data.train.images, env.view(starts)
    searched = train[some(len(train), MOST_TRAINING, torch.Generator().manual_seed(seed))].float() / 255
    context = begun.context
    index = nearest_known(context.get("damaged", context["target"]), context.get("known_mask"), searched)
    return Column(View(searched[index], context, {}), 0, 0)
