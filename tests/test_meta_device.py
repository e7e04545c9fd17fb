"""A whole iteration of training of everything that ships, on the meta device.

Its tensors have shapes and no data: a host sync (`.item()`, a branch on a tensor) raises there, and so does a tensor
that was left on the CPU. What is run is taken from the YAML folders, so that a new one is covered by itself.
"""

import functools
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlgen_cli.agents.dqn import DQN
from rlgen_cli.config.locate import choices
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Learner
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.stages import load_stages
from rlgen_cli.runs.trainer import Loop, train
from tests.conftest import write_clip, write_diffusers
from tests.shipped import (
    AGENTS,
    ANCHORED,
    CLASSES,
    EVERY_KIND,
    HOMES,
    MELODY,
    NEEDS,
    STATIC,
    build,
    component_cases,
    config,
    env_of,
    first_that_fits,
    spec_of,
    term,
    variants,
    write_files,
)

META = "meta"
LIMIT = 60  # steps within which everything must have learned something
# What leaves the device by nature, as its own documentation says.
IMPOSSIBLE = {
    "jpeg_size": NEEDS["jpeg_size"],  # Pillow encodes on the CPU
    "function": ["reward.terms.function.path=mine:with_numpy"],  # a function of the user's that leaves the device
}


meta = functools.partial(build, device=META)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What some components read."""
    write_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


class NothingOnTheCPU(TorchDispatchMode):
    """Refuses operations on CPU tensors; scalars may lie there, as an optimizer's step count does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in (*args, *(kwargs or {}).values(), out):
            for tensor in value if isinstance(value, list | tuple) else (value,):
                stayed = isinstance(tensor, Tensor) and tensor.device.type != "meta" and tensor.dim() > 0
                assert not stayed, f"{func} has to do with a tensor on the CPU, {list(tensor.shape)}"
        return out


def iterate(session: Session) -> set[str]:
    """Go through whole iterations until everything that learns has made an update; returns the names of what was
    measured."""
    with NothingOnTheCPU():
        return go_on(session, Loop(session))


def go_on(session: Session, loop: Loop) -> set[str]:
    """Whole iterations, as `iterate` says."""
    waiting, measured = set(session.learners), set[str]()
    with NothingOnTheCPU():
        for _ in range(LIMIT):
            decision, stepped = loop.play()
            loop.renew(decision, stepped)
            measured |= set(stepped.metrics)
            waiting -= {name.partition("/")[0] for name in stepped.metrics}
            if not waiting:
                return measured
    raise AssertionError(f"{waiting} made no update in {LIMIT} steps")


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("variant", variants())
@pytest.mark.mostly_slow(5)
def test_every_agent_in_every_environment(variant, agent):
    """With a reward of every kind at once for an agent that learns from it, and of rules alone for others."""
    env, kind = env_of(variant), CLASSES[agent]
    if kind.accepts(spec_of(variant)):  # others are refused: test_cli.py
        reward = (EVERY_KIND if issubclass(kind, Learner) else STATIC).get(env, [])
        iterate(meta(config(variant.split(), [f"agent={agent}"], reward)))


@pytest.mark.parametrize("agent", sorted({*CLASSES} - {*AGENTS}))
def test_every_other_agent(agent):
    iterate(meta(config(["env=tiny"], [f"agent={agent}"], [], NEEDS.get(agent, []))))


@pytest.mark.parametrize("agent", ANCHORED)
def test_kept_near_a_prior(agent):
    needs = ["agent.anchor.prior=start", "agent.anchor.target_kl=0.1"]
    whole = config(["env=pixel", "brush=stroke"], [f"agent={agent}"], ["reward=target"], needs)
    assert "anchor/kl" in iterate(meta(whole))


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("steering", choices("steering"))
@pytest.mark.mostly_slow(5)
def test_a_generator_that_learns_along(steering, agent):
    env = ["env=latent_gan", f"steering={steering}"]
    if CLASSES[agent].accepts(spec_of(" ".join(env))):
        measured = iterate(meta(config(env, [f"agent={agent}"], ["reward=realism"], ["joint=true"])))
        assert "generator/generator_loss" in measured


@pytest.mark.parametrize("agent", ["dqn", "ppo", "pathwise"])
@pytest.mark.parametrize("task", ["inpaint", "denoise", "watermark"])
@pytest.mark.mostly_slow(3)
def test_reconstruction(task, agent):
    steering = "discrete_step" if agent == "dqn" else "set_latent"
    env = ["env=latent_gan", f"steering={steering}", f"task={task}"]
    iterate(meta(config(env, [f"agent={agent}"], ["reward=reconstruction"])))


@pytest.mark.parametrize("name", [name for name in choices("reward/term") if name != "jpeg_size"])
@pytest.mark.mostly_slow(4)
def test_every_term(name, files, tmp_path):
    if name == "clip":
        write_clip(tmp_path / "clip")
    iterate(first_that_fits((term(name, env, NEEDS.get(name, [])) for env in HOMES), META))


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_leaves_the_device_says_so(name, files):
    session = first_that_fits((term(name, env, IMPOSSIBLE[name]) for env in HOMES), META)
    with pytest.raises((NotImplementedError, RuntimeError, TypeError, UserError), match="meta"):
        iterate(session)


@pytest.mark.parametrize("case", component_cases("env"))
@pytest.mark.mostly_slow(4)
def test_every_component_of_environments(case, files, tmp_path):
    """In the first environment that takes it, whose generator, if there is one, learns along."""
    component, *owners = case.split()
    name = component.partition("=")[2]
    if name == "diffusers":
        write_diffusers(tmp_path / "diffusion", size=8)
    alone = not component.startswith("generator") or name in ("file", "flow", "ddpm", "diffusers")
    needs = [*NEEDS.get(name, []), f"joint={str(not alone).lower()}"]
    homes = (config([f"env={env}", component], ["agent=random"], STATIC.get(env, []), needs) for env in owners)
    iterate(first_that_fits(homes, META))


@pytest.mark.parametrize("case", component_cases("agent"))
@pytest.mark.mostly_slow(3)
def test_every_component_of_agents(case, files):
    component, owner, *_ = case.split()
    name = component.partition("=")[2]
    agent = [f"agent={owner}", component, *(["network=note_rnn"] if name == "g" else [])]
    needs = NEEDS.get(name, [])
    homes = (config(env, agent, STATIC.get(env_of(env[0]), []), needs) for env in (["env=tiny"], MELODY))
    iterate(first_that_fits(homes, META))


@pytest.mark.parametrize("learner", ["ppo", "dqn"])
@pytest.mark.parametrize("name", choices("network"))
@pytest.mark.mostly_slow(4)
def test_every_network(name, learner, files):
    """Where tokens are seen, if it reads tokens, else on a canvas whose actions lie on no grid."""
    agent = [f"agent={learner}", f"network={name}"]
    if (name, learner) == ("denoiser", "dqn"):  # its Q-network has no such part
        return
    homes = (["env=pixel", "brush=pen"], MELODY, ["env=diffusion"])
    configs = (config(env, agent, STATIC.get(env_of(env[0]), []), NEEDS.get(name, [])) for env in homes)
    iterate(first_that_fits(configs, META))


TRAINED = {
    "dqn": (["env=pixel", "brush=pen"], ["agent=dqn", "replay=prioritized"], ["reward=target", "+reward/term=adversarial"], []),
    "ppo": (["env=music", "encoding=melody"], ["agent=ppo", "network=gru"], ["reward=sequence_novelty"], ["agent.anchor.prior=start"]),
    "policy_gradient": (["env=pixel", "brush=pixel"], ["agent=policy_gradient", "baseline=mean"], ["reward=classifier"], ["env.stop=true"]),
    "joint": (["env=latent_gan", "steering=discrete_step"], ["agent=dqn"], ["reward=realism"], ["joint=true"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_a_checkpoint_opens_on_another_device(name, tmp_path):
    """All of a run that was trained on the CPU: the stages' results, policy, learners, replay, states of the
    environment, and the generator's directions; training goes on from there."""
    env, agent, reward, needs = TRAINED[name]
    whole = config(env, agent, reward, needs)
    whole.merge_with({"total_steps": 48, "eval_episodes": 2})
    here = assemble(whole)
    assert train(here, tmp_path / "run") == "finished"
    whole.device = META
    there = assemble(whole, fresh=False)
    load_stages(there, tmp_path / "run")
    loop = Loop(there)
    loop.restore(tmp_path / "run")
    assert loop.step == 48
    check_moved(here.policy_state(), there.policy_state())
    check_moved(learned(here), learned(there))
    go_on(there, loop)


def learned(session: Session) -> dict[str, Any]:
    """What the learners hold; of a replay memory the frames themselves, which a checkpoint compresses."""
    held: dict[str, Any] = {}
    for name, learner in session.learners.items():
        if isinstance(learner, DQN):
            store = learner.replay.store
            assert store is not None
            networks = {"target": learner.target.state_dict(), "optimizer": learner.optimizer.state_dict()}
            held[name] = networks | {"store": store.bytes}
        else:
            held[name] = learner.state_dict()
    return held


def check_moved(here: Any, there: Any) -> None:
    """The same tensors, without their data; an optimizer's counts of steps stay on the CPU."""
    for one, two in zip(tree_leaves(here), tree_leaves(there), strict=True):
        assert isinstance(one, Tensor) == isinstance(two, Tensor)
        if isinstance(one, Tensor):
            assert (two.shape, two.dtype) == (one.shape, one.dtype)
            assert two.device.type == "meta" or two.dim() == 0


def test_what_stays_behind_or_waits_is_noticed():
    shapes = torch.zeros(3, device="meta")
    with NothingOnTheCPU():
        with pytest.raises(AssertionError, match="on the CPU"):
            torch.zeros(3)
        with pytest.raises(RuntimeError, match="meta"):
            shapes.sum().item()
        with pytest.raises(RuntimeError, match="meta"):
            bool(shapes.sum() > 0)
