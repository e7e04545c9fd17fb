"""From a composed config to all objects of a run, and what fits together: derived from specs, never listed."""

import contextlib
import functools
import inspect
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig

from rlgen_cli.config.instantiate import call, component, find, fits, plain, reporting
from rlgen_cli.config.settings import GROUPS, FitSettings, Settings
from rlgen_cli.core import ranks, seeding
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.allocator import keep_freed_memory
from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.compiled import compile_method
from rlgen_cli.core.errors import UserError, faults_as, require
from rlgen_cli.core.protocols import Agent, Env, Planner, ReadsStates, Score, StartsGroups, TeachesSequences, Trainable
from rlgen_cli.core.specs import EnvSpec
from rlgen_cli.core.stages import Helpers, Stage
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.images import Splits, digest
from rlgen_cli.generators import GeneratorSource, LearnsAlong, TrainsGenerator
from rlgen_cli.policies.anchor import HasAnchor
from rlgen_cli.policies.precision import Precision
from rlgen_cli.rewards.reward import Term, WeightedSum
from rlgen_cli.runs import misfits
from rlgen_cli.runs.saved_network import saved_network
from rlgen_cli.runs.tracking import Trackers

SPLITS = ("train", "valid", "test")


@dataclass
class Session:
    """Everything that a run needs, built from its config."""

    config: DictConfig
    settings: Settings
    device: torch.device
    streams: dict[str, torch.Generator]
    data: Splits | None
    envs: dict[str, Env]  # by split
    reward: WeightedSum
    actor: Actor
    agent: Agent | None  # None for a planner, which learns nothing
    source: GeneratorSource | None  # of what an environment steers
    stages: list[Stage]  # what is fitted before the first step
    notes: list[str] = field(default_factory=list)  # what was said while this was built
    command: str | None = None  # the command line, for the record
    learners: dict[str, Trainable] = field(default_factory=dict)  # what improves with every step, in this order
    trackers: Trackers = field(default_factory=Trackers)  # what records it beside its own files, while it is trained

    @property
    def joint(self) -> bool:
        """The generator learns along with the policy."""
        return self.settings.joint

    @property
    def num_envs(self) -> int:
        """This rank's environments."""
        return ranks.share(self.settings.num_envs, "num_envs")

    @property
    def keeps_generator(self) -> bool:
        """A checkpoint holds the generator: it learns along, or its file must be the same one when the run goes on.
        One that a stage has fitted lies in the stage's result."""
        return self.joint or not isinstance(self.source, TrainsGenerator)

    @property
    def group_size(self) -> int:
        """Episodes that begin in the same state."""
        return self.agent.group_size if isinstance(self.agent, StartsGroups) else 1

    def policy_state(self) -> dict[str, Any]:
        """All that making samples needs beyond the stages' results."""
        state = {} if isinstance(self.actor, Planner) else {"policy": self.actor.state_dict()}
        if self.source is not None and self.keeps_generator:
            state["generator"] = self.source.generator.state_dict()
        return state

    def load_policy(self, saved: dict[str, Any]) -> None:
        """The actor (and a generator that learned along) as a checkpoint's part `policy` holds them."""
        with fitting_the_config():
            if self.source is not None and self.keeps_generator:
                self.source.generator.load_state_dict(saved["generator"])
            if not isinstance(self.actor, Planner):
                self.actor.load_state_dict(saved["policy"])

    def training_state(self) -> dict[str, Any]:
        """The learners."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_training(self, saved: dict[str, Any]) -> None:
        """The learners as a checkpoint's part `training` holds them."""
        with fitting_the_config():
            for name, learner in self.learners.items():
                learner.load_state_dict(saved[name])


def fitting_the_config() -> contextlib.AbstractContextManager[None]:
    """What does not fit when a checkpoint is opened is the user's config."""
    return faults_as("checkpoint: does not fit the run's config")


def assemble(config: DictConfig, fresh: bool = True) -> Session:
    """All objects of a run, one that begins now (`fresh`) or one whose weights a checkpoint will bring. Nothing is
    trained here: `Session.stages` says what is to be fitted before the first step.

    Raises:
        UserError: for a key, a value or a combination that cannot work, naming it and what would be right.
    """
    with collected() as notes:
        session = _assemble(config, fresh)
    session.notes = notes
    return session


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """What the package logs meanwhile, for the run's own log, which is not there yet."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("rlgen_cli")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        log.removeHandler(handler)


def _assemble(config: DictConfig, fresh: bool) -> Session:
    """The same, without the notes."""
    settings = settings_of(config)
    some = "reward" in config and bool(config.reward.get("terms"))
    require(some, "reward: has no term; add one, as in +reward/term=target.")
    torch.set_num_threads(settings.threads or share_of_cores())
    keep_freed_memory()
    device = device_of(settings.device)
    num_envs = ranks.share(settings.num_envs, "num_envs")
    be_deterministic(settings.deterministic, device)
    streams = seeding.streams(settings.seed, device)
    helpers = Helpers()
    loaded = load_data(config)  # on the CPU, where environments look for palettes and the like
    data = loaded.to(device) if loaded else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeding.stream(settings.seed, "init").initial_seed())
        source = build_source(config, settings, data, streams["generator"], device)
        condition = resolve_condition(config, data)
        envs = {split: build_env(config, loaded, split, device, condition, source) for split in SPLITS}
        env = envs["train"]
        require_memory(num_envs * footprint(env, device), f"num_envs: {num_envs} episodes")
        runtime: dict[str, Any] = {
            "env": env, "spec": env.spec, "device": device, "num_envs": num_envs, "helpers": helpers,
            "real": data.train if data else None, "precision": Precision(settings.precision), "fresh": fresh,
            "nonfinite": settings.nonfinite,
            "generator": source.generator if source else None, "joint": settings.joint,
        }  # fmt: skip
        opened = functools.partial(saved_network, env=env, trust=Trust(settings.trust), runtime=runtime)
        reward = build_reward(config, env, runtime | {"rng": streams["reward"], "saved_network": opened})
        if isinstance(source, LearnsAlong):
            source.attach_reward(reward)
        if isinstance(source, TrainsGenerator):
            helpers.add(source.stage())  # last, since a reward that is fused in needs its own helpers
        built = build_agent(config, env, runtime | {"rng": streams["agent"], "reward": reward, "saved_network": opened})
    agent: Agent | None = None if isinstance(built, Planner) else built
    actor: Actor = built if isinstance(built, Planner) else built.policy
    session = Session(config, settings, device, streams, data, envs, reward, actor, agent, source, helpers.stages)
    session.learners = learners_of(session)
    if settings.compile != "never" and device.type != "meta":
        observes = actor if isinstance(actor, ReadsStates) else env
        for owner, method in ((observes, "observe"), (env, "step"), (env, "view")):
            compile_method(owner, method, settings.compile)
    return session


def settings_of(config: DictConfig) -> Settings:
    """The checked top-level keys."""
    extra = FitSettings.__dataclass_fields__
    values = {key: value for key, value in plain(config).items() if key not in (*GROUPS, *extra)}
    return call(Settings, values, "", {})


def device_of(name: str) -> torch.device:
    """`auto` is CUDA where there is one; several ranks have a GPU each."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count() > 1:
        return gpu_of_rank(ranks.local())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"device: {name} cannot be used here ({reason}); use auto, cpu or cuda.") from None
    return device


def gpu_of_rank(place: ranks.Place) -> torch.device:
    """The GPU of this rank's own.

    Raises:
        UserError: where its machine has too few.
    """
    found = torch.cuda.device_count()
    enough = place.local_rank < found
    require(enough, f"devices: this machine has {found} GPUs for {place.local_size} processes; use device=cpu.")
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)


def share_of_cores() -> int:
    """Threads for torch where none are asked for: the ranks of a machine divide its cores among them."""
    threads = torch.get_num_threads()
    return threads if ranks.count() == 1 else min(threads, max(1, (os.cpu_count() or 1) // ranks.local().local_size))


def be_deterministic(asked: bool, device: torch.device) -> None:
    """Let torch take the deterministic one of its algorithms where it has one, and warn, naming the operation, where it
    has none; on a CPU those that are used here are deterministic as they are."""
    if asked and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, before it begins
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def learners_of(session: Session) -> dict[str, Trainable]:
    """What improves with every step: learned terms of the reward, a generator that learns along, the agent, and the
    price that keeps it near a prior (after the agent, which measures the KL)."""
    learners: dict[str, Trainable] = dict(session.reward.learners())
    if session.joint and isinstance(session.source, LearnsAlong):
        learners["generator"] = session.source.joint_learner()
    if session.agent is not None:
        learners["agent"] = session.agent
    if isinstance(session.agent, HasAnchor) and session.agent.anchor.active:
        learners["anchor"] = session.agent.anchor
    return learners


def load_data(config: DictConfig) -> Splits | None:
    """The dataset's splits as the environment asks for them; None for an environment that takes none."""
    kind = find(config.env._target_, "env")
    if "data" not in inspect.signature(kind).parameters:
        return None
    node = plain(config.env)
    asked = {key: node.get(key) for key in inspect.signature(kind.request).parameters}
    wanted = call(kind.request, asked, "env", {})
    require("data" in config, f"data: {kind.__name__} takes data; choose some, as in data=glyphs.")
    dataset = component(config.data, "data")
    given = set(inspect.signature(dataset.load).parameters)
    if given != set(wanted):
        raise UserError(misfits.data(type(dataset).__name__, "size" in given, kind.__name__, "size" in wanted))
    splits: Splits = reporting(dataset.load, "data")(**wanted)
    return splits


def build_source(
    config: DictConfig, settings: Settings, data: Splits | None, rng: torch.Generator, device: torch.device
) -> GeneratorSource | None:
    """Where what the environment steers comes from, untrained; None where it steers nothing."""
    if "generator" not in config.env:
        none = "joint: trains a generator along, and this environment has none; use env=latent_gan."
        require(not settings.joint, none)
        return None
    damage = seen_damage(config)
    source: GeneratorSource = component(
        config.env.generator, "env.generator", real=data.train if data else None, rng=rng, device=device,
        trust=Trust(settings.trust), cache_key=source_key(config, settings, data),
        precision=Precision(settings.precision),
        damage=None if damage is None else component(damage, "env.damage"),
    )  # fmt: skip
    learns = isinstance(source, LearnsAlong)
    require(learns or not settings.joint, "joint: this generator does not learn along; use generator=r1.")
    return source


def seen_damage(config: DictConfig) -> dict[str, Any] | None:
    """The config of what the data's pictures are damaged by, of an environment whose generator sees them; else None."""
    sees = getattr(find(config.env._target_, "env"), "generator_sees_damage", False)
    return plain(config.env).get("damage") if sees else None


def source_key(config: DictConfig, settings: Settings, data: Splits | None) -> str:
    """What a trained generator depends on; the reward is a part of it where it is fused in."""
    node = plain(config.env.generator)
    fused = plain(config.reward) if node.get("fused_reward", {}).get("weight") else None
    known = [] if data is None else [digest(part) for part in data.train if isinstance(part, torch.Tensor)]
    if data is not None and node.get("label_encoding") == "words":
        known += getattr(data.train, "classes", ())
    own, damage = node.pop("seed", None), seen_damage(config)
    more = [] if damage is None else [damage]
    return json.dumps([4, node, fused, settings.seed if own is None else own, *known, *more], sort_keys=True)


def build_env(
    config: DictConfig, data: Splits | None, split: str, device: torch.device, condition: str,
    source: GeneratorSource | None,
) -> Env:  # fmt: skip
    """The environment on the data of a split."""
    node = plain(config.env)
    node.pop("generator", None)
    if "condition" in node:
        node["condition"] = condition
    if data is not None and "encoding" in node:
        node.pop("encoding")  # the data brought it, with its vocabulary
        more = {"encoding": data.train.encoding}
    else:
        more = {}
    env: Env = component(
        node, "env", data=data, split=split, device=device, generator=source.generator if source else None, **more
    )
    return env


def resolve_condition(config: DictConfig, data: Splits | None) -> str:
    """What `env.condition=auto` means: the context that the reward's terms need, and labels where they would help."""
    asked = config.env.get("condition", "none")
    if asked != "auto":
        return str(asked)
    wishes: set[str] = set()
    for name, node in config.reward.terms.items():
        score = find(node.get("_target_"), f"reward.terms.{name}")
        wishes |= getattr(score, "needs", frozenset())
        if data is not None and data.train.classes:
            wishes |= getattr(score, "prefers", frozenset())
    if {"target", "label"} <= wishes:
        return "both"
    return next((wish for wish in ("target", "label") if wish in wishes), "none")


def build_reward(config: DictConfig, env: Env, runtime: dict[str, Any]) -> WeightedSum:
    """The weighted sum of the config's terms."""
    terms = {}
    for name, node in config.reward.terms.items():
        path = f"reward.terms.{name}"
        values = plain(node)
        weight, form = values.pop("weight", None), values.pop("form", None)
        require(fits(weight, float), f"{path}.weight: must be a number, got {weight!r}.")
        require(form in ("potential", "terminal"), f"{path}.form: must be potential or terminal, got {form!r}.")
        where = functools.partial(runtime["saved_network"], where=f"{path}.source")
        condition = config.env.get("condition")
        score = build_score(values, path, env.spec, condition, {**runtime, "saved_network": where})
        terms[name] = Term(score, float(weight), form, stepwise=isinstance(env, TeachesSequences))
    return WeightedSum(terms, runtime["nonfinite"] == "skip")


def build_score(
    values: dict[str, Any], path: str, spec: EnvSpec, condition: str | None, runtime: dict[str, Any]
) -> Score:  # fmt: skip
    """One score of what an environment with this spec makes.

    Raises:
        UserError: for one that does not suit it.
    """
    kind = find(values.get("_target_"), path)
    misfits.check_score(kind, spec, path, condition)
    if runtime["real"] is None and "real" in inspect.signature(kind).parameters:
        raise UserError(f"{path}: needs data, and this environment takes none; use env=pixel or env=music.")
    score: Score = component(values, path, **runtime)
    misfits.check_score(score, spec, path, condition)  # one that is made of others knows now
    return score


def build_agent(config: DictConfig, env: Env, runtime: dict[str, Any]) -> Agent | Planner:
    """The agent or planner, which must be able to act in the environment."""
    kind = find(config.agent.get("_target_"), "agent")
    if not misfits.accepts(kind, env.spec):
        raise UserError(misfits.agent(config, env.spec))
    opened = functools.partial(runtime["saved_network"], where="agent.start.guide")
    built: Agent | Planner = component(config.agent, "agent", **{**runtime, "saved_network": opened})
    return built
