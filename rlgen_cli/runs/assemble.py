"""The only module that turns config into objects.

A config node with `_target_` names a class; its other keys are that class's keyword arguments. Keys are checked
against the signature and values against the annotations before anything runs, and nested nodes are built first (or
bound, with `_partial_: true`, when the class that takes them finishes them). What may be combined is derived from
specs, never listed.
"""

import functools
import importlib
import inspect
import json
import types as python_types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rlgen_cli.core import seeding
from rlgen_cli.core.checkpoint import cached
from rlgen_cli.data.images import Images, Splits, digest
from rlgen_cli.core.errors import UserError, nearest, require
from rlgen_cli.policies.note_rnn import note_rnn
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.anchor import adopt, saved_weights
from rlgen_cli.rewards.reward import Reward, Term
from rlgen_cli.core.types import Agent, Env, Metrics, View

PACKAGE = "rlgen_cli"
SPLITS = ("train", "valid", "test")


def config_folder() -> Path:
    """The YAMLs: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


@dataclass
class Session:
    """Everything a run needs, built from its config."""

    config: DictConfig
    device: torch.device
    data: Splits | None
    envs: dict[str, Env]  # by split
    reward: Reward
    agent: Agent
    streams: dict[str, torch.Generator]
    gan: Any = None  # what an environment steers (gan/)

    def refine(self, after: View, done: Tensor, progress: float) -> Metrics:
        """With joint=true, the GAN learns along with the policy; {} when it is not time to."""
        if not self.config.joint:
            return {}
        metrics = self.gan.learn(after, done, progress, self.reward)
        return {f"gan/{name}": value for name, value in metrics.items()}

    @property
    def parts(self) -> frozenset[str]:
        """The parts of a checkpoint that make samples."""
        return frozenset(["agent", "reward"] if self.gan is None else ["agent", "reward", "gan"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of the components."""
        own = {"agent": self.agent.state_dict(), "reward": self.reward.state_dict()}
        return own if self.gan is None else own | {"gan": self.gan.state_dict()}

    def load(self, saved: dict[str, Any]) -> None:
        """The components as a checkpoint holds them."""
        try:
            if self.gan is not None:
                self.gan.load_state_dict(saved["gan"])
            self.agent.load_state_dict(saved["agent"])
            self.reward.load_state_dict(saved["reward"])
        except (RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"checkpoint: does not fit the run's config ({reason}).") from None


@dataclass(frozen=True)
class Settings:
    """The top-level keys of train.yaml that are no group; `check` raises for a wrong type or range."""

    total_steps: int
    num_envs: int
    seed: int
    device: str
    threads: int
    precision: typing.Literal["auto", "float32", "bfloat16"]
    log_interval: int
    eval_interval: int
    eval_episodes: int
    checkpoint_interval: int
    keep_checkpoints: int
    stop_at: int | None
    resume: str | None
    trust: list[str]
    joint: bool

    def __post_init__(self) -> None:
        for key in ("total_steps", "num_envs", "log_interval", "eval_interval", "eval_episodes"):
            require(getattr(self, key) >= 1, f"{key}: must be at least 1, got {getattr(self, key)}.")
        for key in ("checkpoint_interval", "keep_checkpoints"):
            require(getattr(self, key) >= 1, f"{key}: must be at least 1, got {getattr(self, key)}.")
        require(self.threads >= 0, f"threads: must be at least 1, or 0 for one per core, got {self.threads}.")


GROUPS = ("env", "agent", "reward", "data")
PRETRAINING = ("epochs", "patience", "keep")  # keys of pretrain.yaml that train.yaml has not


def settings(config: DictConfig) -> Settings:
    """The checked top-level keys."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    values = {key: value for key, value in plain.items() if key not in (*GROUPS, *PRETRAINING)}
    return _call(Settings, values, "", {})


def device_of(config: DictConfig) -> torch.device:
    """`auto` is CUDA where there is one."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device: {config.device} cannot be used ({reason}); use auto, cpu or cuda.") from None
    return device


def build(config: DictConfig, fresh: bool = True, pretrained: bool = True) -> Session:
    """All objects of a run, one that begins now (`fresh`) or one whose weights a checkpoint will bring. What the
    environment steers is trained first, unless this very training is the run (`pretrained` false).

    Raises:
        UserError: for a key, a value or a combination that cannot work, naming it and what would be right.
    """
    chosen = settings(config)
    torch.set_num_threads(chosen.threads or torch.get_num_threads())
    device = device_of(config)
    streams = seeding.streams(chosen.seed, device)
    data = build_data(config)
    data = data.to(device) if data else None
    condition = resolve_condition(config, data)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeding.stream(chosen.seed, "init").initial_seed())
        gan = build_gan(config, data, streams["gan"], device)
        envs = {split: build_env(config, data, split, device, condition, gan) for split in SPLITS}
        env = envs["train"]
        reward = build_reward(config, env, data, streams["reward"], device, gan)
        if gan is not None and gan.trains and fresh and pretrained:
            train_gan(config, gan, reward)
        agent = build_agent(config, env, reward, data, streams["replay"], device, fresh)
    return Session(config, device, data, envs, reward, agent, streams, gan)


def build_data(config: DictConfig) -> Splits | None:
    """The dataset's splits as the environment asks for them; None for an environment that takes none."""
    kind = find(config.env._target_, "env")
    if "data" not in inspect.signature(kind).parameters:
        return None
    node: Any = OmegaConf.to_container(config.env, resolve=True)
    wanted = _call(kind.request, {key: node.get(key) for key in inspect.signature(kind.request).parameters}, "env", {})
    dataset = component(config.data, "data")
    given = set(inspect.signature(dataset.load).parameters)
    if given != set(wanted):
        raise UserError(
            f"data: {type(dataset).__name__} gives {'pictures' if 'size' in given else 'sequences'}, and "
            f"{kind.__name__} takes {'pictures' if 'size' in wanted else 'sequences'}; rlgen list data shows others."
        )
    return dataset.load(**wanted)


def build_gan(config: DictConfig, data: Splits | None, rng: torch.Generator, device: torch.device) -> Any:
    """What the environment steers, untrained; None where it steers nothing."""
    if "gan" not in config.env:
        require(not config.joint, "joint: trains a generator along, and this environment has none; use env=latent_gan.")
        return None
    gan = component(
        config.env.gan, "env.gan", real=data.train if data else None, rng=rng, device=device, trust=list(config.trust)
    )
    require(gan.trains or not config.joint, "joint: a generator from a file does not learn along; use gan=r1.")
    return gan


def train_gan(config: DictConfig, gan: Any, reward: Reward) -> None:
    """Give the GAN its weights: from the cache, where one of this config and data lies, else by training."""
    cached("gans", gan_key(config, gan.real), gan, lambda: gan.train(reward))


def gan_key(config: DictConfig, real: Images) -> str:
    """What a trained GAN depends on; the reward is a part of it where it is fused in."""
    node: Any = OmegaConf.to_container(config.env.gan, resolve=True)
    fused = OmegaConf.to_container(config.reward, resolve=True) if node.get("fused") else None
    return json.dumps([3, node, fused, config.seed, digest(real.images), digest(real.labels)], sort_keys=True)


def build_env(
    config: DictConfig, data: Splits | None, split: str, device: torch.device, condition: str, gan: Any
) -> Env:
    node: Any = OmegaConf.to_container(config.env, resolve=True)
    node.pop("gan", None)
    if "condition" in node:
        node["condition"] = condition
    if data is not None and "encoding" in node:
        node["encoding"] = data.train.encoding  # with the vocabulary that the data brought
    return component(node, "env", data=data, split=split, device=device, gan=gan)


def resolve_condition(config: DictConfig, data: Splits | None) -> str:
    """What `env.condition=auto` means: the context that the reward's terms need, and labels where they would help."""
    asked = config.env.get("condition", "none")
    if asked != "auto":
        return asked
    wishes: set[str] = set()
    for name, node in config.reward.terms.items():
        score = find(node._target_, f"reward.terms.{name}")
        wishes |= getattr(score, "needs", frozenset())
        if data is not None and data.train.classes:
            wishes |= getattr(score, "wants", frozenset())
    if {"target", "label"} <= wishes:
        return "both"
    return next((wish for wish in ("target", "label") if wish in wishes), "none")


def build_reward(
    config: DictConfig, env: Env, data: Splits | None, rng: torch.Generator, device: torch.device, gan: Any
) -> Reward:
    require(bool(config.reward.get("terms")), "reward: has no term; add one, as in +reward/term=target.")
    terms = {}
    for name, node in config.reward.terms.items():
        path = f"reward.terms.{name}"
        plain: Any = OmegaConf.to_container(node, resolve=True)
        weight, form = plain.pop("weight", None), plain.pop("form", None)
        require(_fits(weight, float), f"{path}.weight: must be a number, got {weight!r}.")
        require(form in ("potential", "terminal"), f"{path}.form: must be potential or terminal, got {form!r}.")
        kind = find(plain.get("_target_"), path)
        _check_kind(kind, env, path)
        missing = set(kind.needs) - env.spec.context
        if missing:
            raise UserError(
                f"{path}: needs a {' and a '.join(sorted(missing))}, which env.condition={config.env.get('condition')} "
                f"does not give; use env.condition=auto."
            )
        real = data.train if data else None
        if real is None and "real" in inspect.signature(kind).parameters:
            raise UserError(f"{path}: needs data, and this environment takes none; use env=pixel or env=music.")
        saved = functools.partial(
            saved_network, env=env, trust=list(config.trust), device=device, where=f"{path}.source"
        )
        score = component(
            plain, path, spec=env.spec, env=env, real=real, rng=rng, device=device, saved_network=saved, gan=gan,
            joint=config.joint,
        )  # fmt: skip
        terms[name] = Term(score, float(weight), form)
    return Reward(terms)


def _check_kind(score: Any, env: Env, path: str) -> None:
    """Refuse a score of something else than what the environment makes."""
    judges = getattr(score, "judges", "picture")
    if judges == "any" or judges in env.spec.kinds:
        return
    others = [
        file.stem
        for file in sorted((config_folder() / "reward" / "term").glob("*.yaml"))
        for target in [yaml.safe_load(file.read_text()).get("_target_")]
        if target and getattr(find(target, path), "judges", "picture") in {"any", *env.spec.kinds}
    ]
    made = "/".join(sorted(env.spec.kinds))
    raise UserError(f"{path}: judges a {judges}, and this environment makes a {made}; it can have {', '.join(others)}.")


def saved_network(source: str, *, env: Env, trust: list[str], device: torch.device, where: str) -> torch.nn.Module:
    """The frozen policy network of a run's or a checkpoint's folder (built as its config says), or of an `.npz` with
    a Note RNN."""
    folder = Path(source)
    if folder.suffix == ".npz":
        build_network: Any = note_rnn
    else:
        home = folder.parent.parent if (folder / "manifest.json").is_file() else folder
        require((home / "config.yaml").is_file(), f"{where}: there is no run in {source}.")
        node: Any = OmegaConf.to_container(OmegaConf.load(home / "config.yaml"), resolve=True)
        check_foreign(node["agent"], trust)
        build_network = component(node["agent"].get("network"), where)
    net = build_network(observation=env.spec.observation, action=env.spec.action).to(device)
    adopt(net, saved_weights(source, where, device), f"{where}: {source}")
    return net.requires_grad_(False)


def build_agent(
    config: DictConfig,
    env: Env,
    reward: Reward,
    data: Splits | None,
    rng: torch.Generator,
    device: torch.device,
    fresh: bool,
) -> Agent:
    kind = find(config.agent.get("_target_"), "agent")
    if not kind.accepts(env.spec):
        raise UserError(_misfit(config, env))
    if "network" in config.agent:
        network = config.agent.network._target_
        given = getattr(find(network, "agent.network"), "gives", None)
        name = network.rpartition(".")[2]
        require(given == kind.wants, f"agent.network: {name} is no {kind.wants} network; use network={kind.wants}.")
    saved = functools.partial(saved_network, env=env, trust=list(config.trust), device=device, where="agent.guide")
    runtime = {
        "env": env, "reward": reward, "rng": rng, "num_envs": config.num_envs, "device": device, "fresh": fresh,
        "real": data.train if data else None, "precision": Precision(config.precision, device), "saved_network": saved,
    }  # fmt: skip
    return component(config.agent, "agent", **runtime)


def _misfit(config: DictConfig, env: Env) -> str:
    """Why this agent cannot act here, and which could."""
    able = []
    for file in sorted((config_folder() / "agent").glob("*.yaml")):
        target = yaml.safe_load(file.read_text()).get("_target_")
        if target and find(target, "agent").accepts(env.spec):
            able.append(file.stem)
    name = config.agent._target_.rpartition(".")[2]
    if "encoding" in config.env:
        where = f"env.encoding={config.env.encoding._target_.rpartition('.')[2]}"
        other = f"another encoding ({', '.join(sorted(f.stem for f in (config_folder() / 'encoding').glob('*.yaml')))})"
    else:
        where = f"env.action={config.env.get('action')}"
        kinds = typing.get_type_hints(type(env).__init__).get("action")
        other = f"another env.action ({', '.join(typing.get_args(kinds))})"
    return (
        f"agent: {name} cannot act in {where}, which has {env.spec.action}; use {other} "
        f"or an agent that can ({', '.join(able)})."
    )


def check_foreign(node: Any, trust: list[str], path: str = "") -> None:
    """Refuse a stranger's config that would import anything but this package and the modules the user trusts."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None:
            _allowed(str(target), trust, f"{path}._target_")
            if str(target).endswith(".Function"):
                _allowed(str(node.get("path", "")).replace(":", "."), trust, f"{path}.path")
        for key, value in node.items():
            check_foreign(value, trust, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            check_foreign(value, trust, f"{path}[{i}]")


def _allowed(target: str, trust: list[str], path: str) -> None:
    trusted = any(target == name or target.startswith(f"{name}.") for name in trust)
    if not (target.startswith(f"{PACKAGE}.") or trusted):
        module = target.rpartition(".")[0]
        raise UserError(
            f"{path}: this saved config would import {target}, which is no part of rlgen; "
            f"if you know it, allow it with trust=[{module}]."
        )


def find(target: Any, path: str) -> Any:
    """The class or function that a `_target_` names."""
    require(isinstance(target, str), f"{path}._target_: must name a class, got {target!r}.")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path}._target_: {target} cannot be imported ({error}).") from None


def component(node: Any, path: str, **runtime: Any) -> Any:
    """The object that `node` describes; of `runtime`, it gets what its signature asks for."""
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    target, partial = find(plain.pop("_target_", None), path), plain.pop("_partial_", False)
    return _call(target, plain, path, runtime, partial)


def _call(target: Callable[..., Any], values: dict[str, Any], path: str, runtime: dict, partial: bool = False) -> Any:
    """`target(**values, **runtime)` with keys, types and missing values checked against the signature."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    everything = runtime
    runtime = {key: value for key, value in runtime.items() if key in parameters}
    valid = [name for name in parameters if name not in runtime]
    prefix = f"{path}." if path else ""
    arguments = {}
    for key, value in values.items():
        if key not in parameters and not open_ended:
            raise UserError(f"{prefix}{key}: is no key here; {nearest(str(key), valid)}")
        arguments[key] = _value(value, hints.get(key, Any), f"{prefix}{key}", everything)
    if partial:
        return functools.partial(_reporting(target, path), **arguments, **runtime)
    for name, parameter in parameters.items():
        given = name in arguments or name in runtime
        if not given and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            raise UserError(f"{prefix}{name}: is missing.")
    return _reporting(target, path)(**arguments, **runtime)


def _reporting(target: Callable[..., Any], path: str) -> Callable[..., Any]:
    """`target`, with the config path put before the key that its own errors begin with."""

    def call(**arguments: Any) -> Any:
        try:
            return target(**arguments)
        except UserError as error:
            message = str(error)
            known = message.startswith(("env.", "agent.", "reward.", "data.", "data:")) or not path
            raise UserError(message if known else f"{path}.{message}") from None

    return call


def _value(value: Any, hint: Any, path: str, runtime: dict) -> Any:
    """`value` as `hint` wants it: nested components built, whole numbers made floats, wrong types refused."""
    if isinstance(value, dict) and "_target_" in value:
        return component(value, path, **runtime)
    if value == "???":
        raise UserError(f"{path}: must be given.")
    if not _fits(value, hint):
        raise UserError(f"{path}: must be {_describe(hint)}, got {value!r}.")
    return float(value) if hint is float else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value has the annotated type; annotations of objects fit anything."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, python_types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, typing.get_args(hint)[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return hint is Any or not isinstance(value, int | float | str | bool | list | type(None))


def _describe(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, python_types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is list:
        return f"a list, each {_describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, f"a component with a _target_ ({getattr(hint, '__name__', hint)})")
