"""Everything that ships, as small runs: taken from the YAML folders, so that a new YAML is tested by itself."""

import copy
import functools
import importlib.util
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import EnvSpec
from rlgen_cli.generators.architectures import MLPGenerator
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.misfits import targets
from tests.conftest import compose, write_diffusers, write_note_rnn, write_picture

SHAPES_ACTIONS = ("brush", "steering", "encoding")  # component groups that give an environment its action space
# What makes a run small, wherever there is such a key.
SMALL = {
    "device": "cpu", "precision": os.environ.get("RLGEN_TEST_PRECISION", "auto"),  # CI forces both
    "threads": 1, "num_envs": 4, "data.per_class": 2, "data.count": 12,
    "env.size": 8, "env.max_steps": 2, "env.length": 4, "env.bar": 4, "env.history": 2, "env.cells": 2,
    "env.brush.reach": 1, "env.brush.grid": 3, "env.steering.directions": 2,
    "env.generator.updates": 1, "env.generator.latent": 4, "env.generator.batch_size": 4,
    "env.generator.network.width": 4, "env.generator.network.channels": [4, 4], "env.generator.discriminator.width": 4, "env.generator.ode_steps": 2, "env.solver_steps": 2,
    "agent.group_size": 2, "agent.num_steps": 3, "agent.update_epochs": 1, "agent.num_minibatches": 2, "agent.learning_starts": 8,
    "agent.batch_size": 4, "agent.gradient_steps": 1, "agent.replay.buffer_size": 200, "agent.baseline.group_size": 2,
    "agent.network.body.width": 8, "agent.network.body.layers": 1, "agent.network.maps.channels": 4,
    "agent.network.maps.depth": 1, "agent.buffer_size": 12, "agent.updates": 1, "agent.samples": 2, "agent.rounds": 1, "agent.elite": 2,
}  # fmt: skip
SMALL_TERM = {"updates": 1, "interval": 1, "batch_size": 4, "limit": 8, "buffer.buffer_size": 16, "buffer.recent": 4}
# A reward of every kind at once: terms that rules give, one that a fitted helper gives, and one that learns along.
EVERY_KIND = {
    "pixel": ["reward=target", "+reward/term=[adversarial,classifier]"],
    "music": ["reward=sequence_novelty", "+reward/term=adversarial_sequence"],
    "latent_gan": ["reward=realism", "+reward/term=[sharpness,classifier]"],
    "diffusion": ["reward=[symmetry,adversarial,classifier]"],
}
STATIC = {
    "music": ["reward=sequence_novelty"],
    "latent_gan": ["reward=sharpness"],
    "diffusion": ["reward=[symmetry]"],
    "latent_music": ["reward=pitch_entropy"],
}
MELODY = ["env=music", "encoding=melody"]
# Where a term or a network may be at home, in the order in which it is tried.
HOMES = [
    ["env=pixel", "brush=stroke"], MELODY, ["env=latent_gan", "steering=set_latent"],
    ["env=music", "encoding=chorale"], ["env=latent_gan", "steering=set_latent", "damage=centre_hole"],
    ["env=latent_music", "steering=set_latent"], ["env=diffusion"], ["env=diffusion", "data=captions"],
]  # fmt: skip
BOLTZMANN = ["agent.temperature.start=0.1", "agent.temperature.end=0.1"]
NEEDS = {
    "ppo_tune": ["agent.anchor.prior=start"],
    "grpo": ["agent.network.denoiser=null", "agent.anchor.prior=none"],
    "caption": ["env.size=24", "env.channels=3"],
    "clip": ["reward.terms.clip.model=clip", "reward.terms.clip.prompt=a star"],
    "colourfulness": ["env.channels=3"],
    "guidance": ["env.generator.conditional=true", "env.condition=label"],
    "function": ["reward.terms.function.path=mine:with_torch"],
    "jpeg_size": ["env.size=16"],
    "palette": ["reward.terms.palette.reference=a.png"],
    "style": ["reward.terms.style.reference=a.png"],
    "prior": ["reward.terms.prior.source=note_rnn.npz", "env.history=1"],
    "soft": BOLTZMANN,
    "psi": BOLTZMANN,
    "g": [
        *BOLTZMANN, "env.history=1", "agent.prior.source=note_rnn.npz",
        "agent.prior.network={_target_: rlgen_cli.policies.note_rnn.note_rnn, _partial_: true}",
    ],
    "file": ["env.generator.path=generator"],
    "diffusers": ["env.generator.path=diffusion"],
    "vae": ["agent.network.body.updates=1"],
}  # fmt: skip


@functools.cache
def composed(*words: str) -> DictConfig:
    return compose(*words)


def config(env: list[str], agent: list[str], reward: list[str], needs: Sequence[str] = ()) -> DictConfig:
    """The config of a small run; `reward` [] is the environment's default, and `needs` are further words, which win
    over what makes it small. Each part is composed once, since composing takes longer than an iteration."""
    whole = copy.deepcopy(composed(*env))
    OmegaConf.set_struct(whole, False)
    whole.agent = composed(*agent).agent
    whole.reward = composed(*reward).reward if reward else whole.reward
    return small(whole, needs)


def term(name: str, env: list[str], needs: Sequence[str]) -> DictConfig:
    """A small run whose reward is what one YAML of `reward/term` holds, and which nobody learns from."""
    node: Any = OmegaConf.load(config_folder() / "reward" / "term" / f"{name}.yaml")
    whole = config(env, ["agent=random"], [])
    whole.reward = {"terms": {name: node} if "_target_" in node else node}
    return small(whole, needs)


def small(whole: DictConfig, needs: Sequence[str]) -> DictConfig:
    """`whole`, made small, and with the words of `needs` where there is such a key."""
    terms = {f"reward.terms.{name}.{key}": value for name in whole.reward.terms for key, value in SMALL_TERM.items()}
    for key, value in (SMALL | terms).items():
        if OmegaConf.select(whole, key) is not None:
            OmegaConf.update(whole, key, value)
    for key, _, value in (word.partition("=") for word in needs):
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(whole, parent) if parent else whole
        if isinstance(node, DictConfig) and name in list(node.keys()):
            node[name] = yaml.safe_load(value)
    return whole


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


def builds_on_another(group: str, name: str) -> bool:
    """Whether a YAML changes another of its group."""
    node = yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text())
    return any(entry in choices(group) for entry in node.get("defaults", []) if isinstance(entry, str))


def component_cases(group: str) -> list[str]:
    """Every component that some environment (or agent) can be built from, with those that can, as in `backup=soft
    dqn`; but for networks and what gives an environment its action space, which have tests of their own."""
    owners: dict[str, list[str]] = {}
    for name in sorted(choices(group), key=functools.partial(builds_on_another, group)):
        for component in set(components(group, name)) - {*SHAPES_ACTIONS, "network", "network/kind"}:
            for choice in choices(component):
                owners.setdefault(f"{component}={choice}", []).append(name)
    return sorted(f"{component} {' '.join(names)}" for component, names in owners.items())


@functools.cache
def spec_of(variant: str) -> EnvSpec:
    env = env_of(variant)
    return assemble(config(variant.split(), ["agent=random"], STATIC.get(env, []))).envs["train"].spec


def env_of(variant: str) -> str:
    return variant.split()[0].partition("=")[2]


CLASSES = targets("agent")
# One YAML for each class, which the others of its class build on.
AGENTS = list(
    {
        CLASSES[name]: name for name in sorted(CLASSES, key=functools.partial(builds_on_another, "agent"), reverse=True)
    }.values()
)
ANCHORED = [name for name in AGENTS if "anchor" in inspect.signature(CLASSES[name]).parameters]


def build(whole: DictConfig, device: str = "cpu") -> Session:
    """The session, on a device, its stages fitted by a single update."""
    whole.device = device
    session = assemble(whole)
    for stage in session.stages:
        stage.trainable.update(0.0)
        stage.finish()
    return session


def first_that_fits(configs: Iterator[DictConfig], device: str = "cpu") -> Session:
    """The first that can be built.

    Raises:
        UserError: of the last, where none can.
    """
    refused: UserError | None = None
    for whole in configs:
        try:
            return build(whole, device)
        except UserError as error:
            refused = error
    assert refused is not None
    raise refused


def write_files(folder: Path) -> None:
    """What some components read."""
    write_picture(folder / "a.png")
    write_note_rnn(folder / "note_rnn.npz")
    if importlib.util.find_spec("diffusers"):
        write_diffusers(folder / "diffusion", size=8)
    functions = {"with_torch": "x.mean((1, 2, 3))", "with_numpy": "x.numpy().mean((1, 2, 3))"}
    text = "\n".join(f"def {name}(x):\n    return {body}" for name, body in functions.items())
    (folder / "mine.py").write_text(text)
    net = MLPGenerator(sample=[1, 8, 8], latent=4, widths=[6])
    (folder / "generator").mkdir()
    save_file(net.state_dict(), folder / "generator" / "model.safetensors")
    described = {"class": "MLPGenerator", "arguments": {"sample": [1, 8, 8], "latent": 4, "widths": [6]}}
    (folder / "generator" / "config.json").write_text(json.dumps(described))
