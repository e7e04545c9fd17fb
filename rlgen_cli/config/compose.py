"""Composing a command's config, with errors in one sentence. Imports no torch."""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from rlgen_cli.config import goes_with
from rlgen_cli.config.arguments import prepared
from rlgen_cli.config.locate import choices, config_folder, keys_of, located, takers, text_of
from rlgen_cli.config.renamed import new_choice, new_name
from rlgen_cli.core.errors import UserError, nearest, require

# Groups that other configs choose from, and where they are put.
ENV_GROUPS = ("brush", "start", "steering", "generator", "sampler", "control", "damage", "encoding")
AGENT_GROUPS = ("replay", "backup", "exploration", "target_update", "optimizer", "baseline")
OPTIONAL = (
    "reward",
    "data",
    "task",
    "experiment",
    "damage",
    "network/recurrent",
)  # what a config can be composed without
DEFAULT_ENV = {"train": "pixel", "pretrain": "music", "tune": "pixel"}
DEFAULT_AGENT = "dqn"
COMPONENTS = (
    *ENV_GROUPS, *AGENT_GROUPS, "env", "agent", "generator/network", "network", "network/body", "network/kind",
    "logger",
)  # fmt: skip


def composed(command: str, arguments: list[str], keep_hydra: bool = False) -> DictConfig:
    """The config that a command runs with.

    Args:
        command: train, pretrain, sample or eval. arguments: Hydra's overrides and flags.
        keep_hydra: with Hydra's own node, for whoever makes the run's folder.

    Raises:
        UserError: for a key, a choice or a word that Hydra cannot take.
    """
    from hydra.types import RunMode

    def compose() -> DictConfig:
        with hydra_of(command, arguments) as (hydra, name, overrides):
            config: DictConfig = hydra.compose_config(name, overrides, RunMode.RUN)
            check_optional(config.hydra.runtime.choices, arguments)
            drop_replaced(config, config.hydra.runtime.choices, arguments)
        if not keep_hydra:
            with open_dict(config):
                del config["hydra"]
        OmegaConf.set_struct(config, True)
        return config

    return with_hydra_errors(command, arguments, compose)


@contextlib.contextmanager
def hydra_of(command: str, arguments: list[str]) -> Iterator[tuple[Any, str, list[str]]]:
    """Hydra with the folders that a command line names, the name of the command's config, and its overrides."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path, get_args_parser
    from hydra.core.global_hydra import GlobalHydra

    register_resolvers(config_folders(arguments))
    version.setbase("1.3")
    words = placed(command, arguments)
    parsed = get_args_parser().parse_intermixed_args(words)
    path = create_config_search_path(str(config_folder()))
    if parsed.config_dir:
        if not os.path.isdir(parsed.config_dir):
            raise UserError(f"--config-dir: there is no folder {parsed.config_dir}.")
        path.prepend("command-line", f"file://{os.path.abspath(parsed.config_dir)}")
        import_from([Path(parsed.config_dir)])
    # A program that runs under Hydra itself (and uses our environments) keeps its own.
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        hydra = Hydra.create_main_hydra2("rlgen", path)
        yield hydra, parsed.config_name or config_name(command, words), list(parsed.overrides)
    finally:
        GlobalHydra.instance().hydra = outer


def config_name(command: str, arguments: list[str]) -> str:
    """The config a command begins with; there is one to pretrain for each environment where that makes sense."""
    if command != "pretrain":
        return command
    env, able = value_of("env", arguments) or DEFAULT_ENV[command], choices("pretrain")
    if env not in able:
        raise UserError(f"env={env}: has nothing to pretrain; use env={' or env='.join(able)}.")
    return f"pretrain/{env}"


def with_hydra_errors(command: str, arguments: list[str], action: Callable[[], Any]) -> Any:
    """Run `action`; what Hydra and OmegaConf say about wrong input becomes one sentence."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return action()
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        if error.options:
            said = new_choice(group, name) or f"there is no such choice; {nearest(name, error.options)}"
            raise UserError(f"{group}={name}: {said}") from None
        raise UserError(" ".join(str(error).split())) from None
    except OSError as error:  # Hydra looks for files of names that no file can have
        raise UserError(f"{Path(str(error.filename)).name[:80]}: {error.strerror or error}.") from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error.__cause__ or error)
        twice = re.search(r"(\S+)@(\S+) appears more than once", str(error))
        if twice:
            raise UserError(f"{twice[1]}: {twice[2]} is there already; change its keys instead.") from None
        match = re.search(r"Could not override '([^']+)'", str(error))
        if match and ("not in struct" in text or "No match in the defaults" in str(error)):
            key = match.group(1)
            group, _, place = key.partition("@")
            if place and place == place_of(group):
                raise UserError(f"{group}: {no_such_component(group, place.partition('.')[0], arguments)}") from None
            renamed = new_name(key) or new_choice(key, _choice(key, arguments))
            said = renamed or f"is no key here; {nearest_key(command, arguments, key)}"
            raise UserError(f"{key}: {said}") from None
        raise UserError(resolution(error)) from None


def resolution(error: Exception) -> str:
    """Why something could not be composed or resolved, in one sentence."""
    cause, key = error.__cause__ or error.__context__, getattr(error, "full_key", None)
    inner: BaseException | None = cause
    while inner is not None and not isinstance(inner, UserError):
        inner = inner.__cause__ or inner.__context__
    if inner is not None:
        return str(inner)
    if cause is not None and key:
        return f"{key}: cannot be computed from other keys ({cause}); check these."
    return " ".join(str(error).split())


def no_such_component(group: str, owner: str, arguments: list[str]) -> str:
    """Why an environment or agent takes no such component, and which would."""
    if group == "generator/network":
        return "is for generators that are diffusion models trained here; use it with generator=flow or generator=ddpm."
    chosen = value_of(owner, [*added("train", arguments), *arguments])
    able = takers(owner, group.partition("/")[0])  # a part of a network goes where a network does
    here = f"{owner}={chosen}" if chosen else f"the default {owner}"
    return f"{here} has none; use it with {owner}={f' or {owner}='.join(able)}."


def nearest_key(command: str, arguments: list[str], key: str) -> str:
    """Valid names beside an unknown `key`, from the config without it."""
    others = [a for a in arguments if a.startswith("-") or "=" not in a or a.partition("=")[0].lstrip("+~") != key]
    if others == arguments:
        return "a choice's line `# Goes with:` names it, so choose what has it, or set something else."
    config: Any = composed(command, others)
    parent, _, name = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, name = parent.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return nearest(name, [str(k) for k in node if not str(k).startswith("_")])


def placed(command: str, arguments: list[str]) -> list[str]:
    """The arguments prepared for Hydra's parser (arguments.py), with what goes with them, and groups that other configs
    choose from named with their place, as `network=gru` and `+reward/term=ink_cost`."""
    folders = config_folders(arguments)
    words = prepared(arguments, folders)
    words += companions(command, words, folders)
    listed = any(word.startswith(("reward=[", "+reward/term")) for word in words)
    whole = "reward: rlgen pretrain takes one reward by its name, as in reward=symmetry; its terms are for rlgen train."
    require(command != "pretrain" or not listed, whole)
    return [part for word in words for part in placed_word(word, words, folders)]


def added(command: str, arguments: list[str]) -> dict[str, str]:
    """What a command line leaves open and what it chooses brings along: words, each with the choice that it goes
    with."""
    folders = config_folders(arguments)
    return companions(command, prepared(arguments, folders), folders)


def companions(command: str, words: list[str], folders: list[Path]) -> dict[str, str]:
    """The same of prepared words; nothing for a command that trains nothing."""
    if command not in DEFAULT_ENV:
        return {}
    if command == "pretrain":  # its configs choose agents and rewards
        env = value_of("env", words) or DEFAULT_ENV[command]
        chosen = {"env": env, "agent": default_agent("pretrain", env, folders)}
        return goes_with.companions(words, folders, chosen, fixed=["agent", "reward"])
    return goes_with.companions(words, folders, {"env": DEFAULT_ENV[command], "agent": DEFAULT_AGENT}, fixed=[])


def placed_word(word: str, words: list[str], folders: list[Path]) -> list[str]:
    """One of the words as Hydra wants it; one that has its place already stays as it is."""
    group, equals, choice = word.partition("=")
    sign, group = ("+", group[1:]) if group.startswith("+") else ("", group)
    if not equals:
        return [word]
    nothing = choice in ("null", "None") and (group in OPTIONAL or group in COMPONENTS)
    if nothing or (choice == goes_with.NONE and group in OPTIONAL):
        return without(group)
    if sign and group == "reward/term":
        return placed_terms(choice, folders, there=reward_terms(words, folders))
    if group == "reward" and choice.startswith("[") and choice.endswith("]"):
        return ["~reward", *placed_terms(choice, folders, there=[])]
    if group == "network/kind":
        raise UserError(
            "network/kind: follows from the agent; choose a network, as in network=gru, or a part of one, as in "
            "network/body=mlp."
        )
    if group == "experiment":
        return [f"{sign}experiment={tuned(choice, words, folders)}"]
    if sign and group.startswith("network@"):  # a prior's, which is a policy
        return [f"+network/kind@{group.partition('@')[2]}=policy", word]
    place = place_of(group)
    return [word] if place is None else [f"{sign}{group}@{place}={choice}"]


def place_of(group: str) -> str | None:
    """Where the keys of a component lie in the config; None for a group that is no component of others."""
    if group in ENV_GROUPS:
        return f"env.{group}"
    if group in AGENT_GROUPS or group == "network" or (group.startswith("network/") and "@" not in group):
        return f"agent.{group.replace('/', '.')}"
    return "env.generator.network" if group == "generator/network" else None


def without(group: str) -> list[str]:
    """What `group=null` stands for.

    Raises:
        UserError: for a group that there must be something of.
    """
    if group in ("reward", "data"):
        return [f"~{group}"]
    if group == "network/recurrent":
        return ["agent.network.recurrent=null"]
    if group in OPTIONAL:
        return []  # as by default
    raise UserError(f"{group}: cannot be null; valid are: {', '.join(choices(group))}.")


def tuned(choice: str, words: list[str], folders: list[Path]) -> str:
    """An experiment (or several, of a sweep) with what was tuned for the agent that is chosen, if anything was: an
    experiment is a task, and `experiment/tuned/TASK/AGENT.yaml` what its published results were made with.

    Raises:
        UserError: for a sweep over agents, too.
    """
    agent = value_of("agent", words)
    if agent is not None and "," in agent:
        raise UserError("agent: cannot be swept within an experiment, which has settings for each; sweep one by one.")
    found = []
    for name in choice.split(","):
        overlay = f"tuned/{name}/{agent or default_agent('experiment', name, folders)}"
        found.append(f"[{name},{overlay}]" if located("experiment", overlay, folders) else name)
    return ",".join(found)


def default_agent(group: str, name: str, folders: list[Path]) -> str:
    """The agent that an experiment, or what there is to pretrain, takes where none is chosen."""
    match = re.search(r"^  - override /agent: (\S+)", text_of(group, name, folders), re.MULTILINE)
    return match[1] if match else ""


def reward_terms(words: list[str], folders: list[Path]) -> list[str]:
    """The terms that the reward has before any are added, so far as the command line says which reward it is."""
    if value_of("experiment", words) or value_of("task", words):
        return []
    env = value_of("env", words) or DEFAULT_ENV["train"]
    reward = value_of("reward", words) or goes_with.of_environment("reward", env, folders)
    text = text_of("reward", reward, folders)
    return re.findall(r"^  - term@terms\.(\w+):", text, re.MULTILINE)


def placed_terms(choice: str, folders: list[Path], there: list[str]) -> list[str]:
    """Terms that are added to a reward, one or a list, each at `reward.terms.<name>`, but for those that are `there`
    already. A YAML of several terms says in its `@package` line where they belong.

    Raises:
        UserError: for a sweep, since its jobs would have to differ in more than a value.
    """
    listed = choice.startswith("[") and choice.endswith("]")
    names = [name.strip() for name in choice.strip("[]").split(",")]
    if len(names) > 1 and not listed:
        place = f"+reward/term@reward.terms.NAME={choice}"
        raise UserError(f"reward/term: a sweep needs one place for all its terms; use {place}")
    names = [name for name in names if name not in there]
    several = [name for name in names if names_its_place(name, folders)]
    together = [f"+reward/term=[{','.join(several)}]"] if several else []
    return together + [f"+reward/term@reward.terms.{name}={name}" for name in names if name not in several]


def names_its_place(term: str, folders: list[Path]) -> bool:
    """Whether a term's YAML has a `@package` line."""
    lines = text_of("reward/term", term, folders).splitlines()
    return any(line.startswith("#") and "@package" in line for line in lines)


def check_optional(choices_made: Any, arguments: list[str]) -> None:
    """Refuse a reward or data that is chosen and not there; an environment may have none by default."""
    for group in ("reward", "data"):
        name, known = choices_made.get(group), choices(group, config_folders(arguments))
        if name not in (None, goes_with.NONE, *known):
            said = new_choice(group, name) or f"there is no such choice; {nearest(name, known)}"
            raise UserError(f"{group}={name}: {said}")


def drop_replaced(config: DictConfig, choices_made: Any, arguments: list[str]) -> None:
    """Forget what an experiment sets of a component or data that the command line replaces, and that the new choice
    does not have: `experiment=resketch data=folder` has no `data.threshold`. What the user sets is checked as ever."""
    folders = config_folders(arguments)
    words = prepared(arguments, folders)
    if value_of("experiment", words) is None:
        return
    typed = tuple(f"{word.lstrip('+').partition('=')[0]}." for word in words)
    for group in (*ENV_GROUPS, *AGENT_GROUPS, "data"):
        place = place_of(group) or group
        choice, node = choices_made.get(f"{group}@{place}", choices_made.get(group)), OmegaConf.select(config, place)
        if not isinstance(node, DictConfig) or not any(word.startswith(f"{group}=") for word in words):
            continue
        with open_dict(config):
            for key in set(node) - keys_of(group, choice, folders):
                if not any(name.startswith(f"{place}.{key}.") for name in typed):
                    del node[key]


def config_folders(arguments: list[str]) -> list[Path]:
    """Where YAMLs are looked for: first in the folder of `--config-dir`, if there is one."""
    from hydra._internal.utils import get_args_parser

    own = get_args_parser().parse_known_intermixed_args(arguments)[0].config_dir
    return [*([Path(own)] if own else []), config_folder()]


def import_from(folders: list[Path]) -> None:
    """Let Python find modules that lie in the user's own folders, after all others."""
    for folder in map(os.path.abspath, folders):
        if folder not in sys.path:
            sys.path.append(folder)


def value_of(key: str, arguments: list[str]) -> str | None:
    """The value of `key=value` on the command line; null counts as none."""
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return values[-1].strip("'\"") if values and values[-1] not in ("null", "") else None


def register_resolvers(folders: list[Path]) -> None:
    """What config values may refer to.

    - `${data_path:NAME}`: a published file or folder below `paths.data`; with `,optional` after the name: null where
      it is not there.
    - `${goes_with:GROUP,ENV}`: an environment's default reward or data.
    - `${run_id:}`: six hex digits of no seed, so that runs that start in the same second have their own folders.
    - `${rest:X}`: 1 − X, and `${times:X,Y}`, for weights that hang together.
    """
    OmegaConf.register_new_resolver("data_path", data_path, replace=True)
    default = functools.partial(goes_with.of_environment, folders=folders)
    OmegaConf.register_new_resolver("goes_with", default, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda: os.urandom(3).hex(), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("rest", lambda share: 1.0 - share, replace=True)
    OmegaConf.register_new_resolver("times", lambda one, two: one * two, replace=True)


def data_path(name: str, kind: str = "required", *, _root_: Any) -> str | None:
    """Where a published file or folder lies.

    Raises:
        UserError: where it is required and not there, saying what would do.
    """
    base = _root_.get("paths", {}).get("data")
    path = Path(base).expanduser() / name if base else None
    if path is not None and os.path.exists(path):
        return str(path)
    if kind == "optional":
        return None
    seen = f"{base} holds no {name}" if base else f"names no folder, so {name} was not found"
    raise UserError(f"paths.data: {seen}; give paths.data=FOLDER with {name} in it, or set RLGEN_DATA to that folder.")


def _choice(key: str, arguments: list[str]) -> str:
    """What the command line chooses for a group."""
    return value_of(key, placed("train", arguments)) or value_of(key, arguments) or ""
