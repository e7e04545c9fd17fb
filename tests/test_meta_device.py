"""A whole iteration of training of everything that ships, on the meta device.

Its tensors have shapes and no data: a host sync (`.item()`, a branch on a tensor) raises there, and so does a tensor
that was left on the CPU. What is run is taken from the YAML folders, so that a new one is covered by itself.
"""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlgen_cli.config.compose import AGENT_GROUPS, ENV_GROUPS
from rlgen_cli.config.instantiate import find
from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.core import checkpoint
from rlgen_cli.core.acting import decide, initial_carry
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import EnvSpec
from rlgen_cli.core.tree import select
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.stages import load_stages
from rlgen_cli.runs.stepper import Stepper
from rlgen_cli.runs.trainer import Tally, train
from tests.conftest import compose, small, write_note_rnn, write_picture

LIMIT = 60  # steps within which everything must have learned something
SHAPES_ACTIONS = ("brush", "steering", "encoding")  # component groups that give an environment its action space
# Operations on this device take longer than elsewhere (their shapes are found in Python), so there are few of them.
SMALLER = {
    "agent=actor_critic": ["agent.num_steps=2"],
    "agent=ppo": ["agent.num_steps=3", "agent.update_epochs=1", "agent.num_minibatches=2"],
    "agent=dqn": ["agent.learning_starts=8"],
    "env=pixel": ["env.size=8", "env.max_steps=2"],
    "env=music": ["env.length=4", "env.bar=4", "env.history=2"],
    "env=latent_gan": ["env.size=8", "env.max_steps=2"],
    "env=latent_music": ["env.length=4", "env.bar=4", "env.max_steps=2"],
    "env=tiny": ["env.cells=2", "env.size=3"],
}
# A reward of every kind at once: terms that rules give, one that a fitted helper gives, and one that learns along.
CLASSIFIED = ["+reward/term=classifier", "reward.terms.classifier.updates=1"]
DISCRIMINATED = [
    f"{word}.{key}" for word in ("reward.terms.adversarial",) for key in ("interval=1", "batch_size=4", "buffer.buffer_size=64", "buffer.recent=8")
]  # fmt: skip
EVERY_KIND = {
    "pixel": ["reward=target", "+reward/term=adversarial", *DISCRIMINATED, *CLASSIFIED],
    "music": ["reward=sequence_novelty", "+reward/term=adversarial_sequence", *(word.replace("adversarial", "adversarial_sequence") for word in DISCRIMINATED)],
    "latent_gan": ["reward=latent_gan", "+reward/term=sharpness", *CLASSIFIED],
}
STATIC = {"music": ["reward=sequence_novelty"], "latent_gan": ["reward=sharpness"], "latent_music": ["reward=pitch_entropy"]}


class NothingOnTheCPU(TorchDispatchMode):
    """Refuses operations on CPU tensors; scalars may lie there, as an optimizer's step count does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            stayed = isinstance(tensor, Tensor) and tensor.device.type != "meta" and tensor.dim() > 0
            assert not stayed, f"{func} has to do with a tensor on the CPU, {list(tensor.shape)}"
        return out


@functools.cache
def composed(*words: str) -> DictConfig:
    smaller = [word for choice in words for word in SMALLER.get(choice, [])]
    return compose(*small(*words), *smaller, "device=meta")


def config(env: list[str], agent: list[str], reward: list[str]) -> DictConfig:
    """The config of a combination. Each part is composed once, since composing takes longer than an iteration."""
    whole = copy.deepcopy(composed(*env))
    whole.agent = composed(*agent).agent
    whole.reward = composed(*(reward or [env[0].replace("env", "reward")])).reward
    return whole


def iterate(session: Session) -> set[str]:
    """Fit the stages a little, then go through whole iterations until everything that learns has made an update;
    returns the names of what was measured."""
    for stage in session.stages:
        stage.trainable.update(0.0)
        stage.finish()
    env, settings, streams = session.envs["train"], session.settings, session.streams
    stepper = Stepper(
        env=env, reward=session.reward, learners=session.learners, rng=streams["env"], num_envs=settings.num_envs,
        group_size=session.group_size,
    )  # fmt: skip
    tally = Tally(settings.num_envs, session.device, list(session.reward.terms))
    waiting, measured = set(session.learners), set[str]()
    with NothingOnTheCPU():
        stepper.enter(stepper.fresh())
        carry = initial_carry(session.actor, settings.num_envs)
        for step in range(LIMIT):
            decision = decide(session.actor, env, stepper.state, carry, explore=True, rng=streams["policy"])
            stepped = stepper.step(decision, carry, step / LIMIT)
            tally.add(stepped.scored, stepped.done)
            stepper.renew(stepped.done)
            carry = select(stepped.done, initial_carry(session.actor, settings.num_envs), decision.carry)
            measured |= set(stepped.metrics)
            waiting -= {name.partition("/")[0] for name in stepped.metrics}
            if not waiting:
                break
    assert not waiting, f"{waiting} made no update in {LIMIT} steps"
    return measured


def variants() -> list[str]:
    """Every environment, with every component that gives it another action space."""
    found = []
    for env in choices("env"):
        groups = [group for group in SHAPES_ACTIONS if group in components("env", env)]
        found += [f"env={env} {groups[0]}={choice}" for choice in choices(groups[0])] if groups else [f"env={env}"]
    return found


def components(group: str, name: str) -> dict[str, str]:
    """The components that a YAML builds on, with their defaults, as in `- /brush@brush: pen`."""
    node = yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text())
    entries = [entry for entry in node.get("defaults", []) if isinstance(entry, dict)]
    own = {key.partition("@")[0].strip("/"): choice for entry in entries for key, choice in entry.items()}
    for base in (entry for entry in node.get("defaults", []) if isinstance(entry, str) and entry != "_self_"):
        own = components(group, base) | own
    return own


@functools.cache
def spec_of(variant: str) -> EnvSpec:
    return assemble(config(variant.split(), ["agent=random"], STATIC.get(env_of(variant), []))).envs["train"].spec


def env_of(variant: str) -> str:
    return variant.split()[0].partition("=")[2]


def accepted(agent: str, variant: str) -> bool:
    return find(composed(f"agent={agent}").agent._target_, "agent").accepts(spec_of(variant))


@pytest.mark.parametrize("agent", choices("agent"))
@pytest.mark.parametrize("variant", variants())
def test_every_agent_in_every_environment(variant, agent):
    """With a reward of rules alone; an agent that learns, also with a reward of every kind at once. An agent that
    cannot act there is refused."""
    env, words = env_of(variant), variant.split()
    if not accepted(agent, variant):
        with pytest.raises(UserError, match=r"^agent: .* cannot act in"):
            assemble(config(words, [f"agent={agent}"], STATIC.get(env, [])))
        return
    session = assemble(config(words, [f"agent={agent}"], STATIC.get(env, [])))
    measured = iterate(session)
    if session.agent is not None:
        measured &= iterate(assemble(config(words, [f"agent={agent}"], EVERY_KIND.get(env, []))))
        assert any(name.startswith("agent/") for name in measured)
