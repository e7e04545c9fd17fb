"""The `rlgen` command: subcommands over Hydra, and errors in one sentence. Imports nothing heavy at the top."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgen_cli import __version__
from rlgen_cli.core.errors import UserError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """rlgen: reinforcement learning that makes things

  rlgen train [KEY=VALUE …]    train an agent, as in  rlgen train env=pixel agent=dqn reward=target
                               -m sweeps: rlgen train -m seed=1,2,3;  resume=FOLDER goes on in a run's folder
  rlgen pretrain [KEY=VALUE …] a sequence model, as in  rlgen pretrain data=midi data.path=FOLDER, or a GAN, as in
                               rlgen pretrain env=latent_gan data=mnist
  rlgen sample [KEY=VALUE …]   what a run makes, as in  rlgen sample run=latest n=64 seed=0 format=svg
  rlgen eval [KEY=VALUE …]     how that compares with real data, as in  rlgen eval run=latest n=2000
  rlgen list [GROUP]           what there is to choose from: env, agent, reward, data, experiment
  rlgen doctor                 whether this machine is fit, and what is missing

  rlgen train --help           every key with its default (also: rlgen sample --help)
  rlgen train --cfg job        the config a command would run with
  rlgen --version              the version
  eval "$(rlgen -sc install=bash)"   tab completion (zsh: with bashcompinit; fish: -sc install=fish)
"""
TRAINERS = ("train", "pretrain")
HYDRA_COMMANDS = (*TRAINERS, "sample", "eval")
COMMANDS = (*HYDRA_COMMANDS, "list", "doctor")
NO_RUN = (
    "--help",
    "-h",
    "--hydra-help",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
    "--version",
)


def main() -> None:
    """The console script. Exit codes: 0 done, 1 a bug, 2 a wrong input, 130 interrupted."""
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        print(f"rlgen: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("rlgen: interrupted", file=sys.stderr)
        sys.exit(130)


def dispatch(arguments: list[str]) -> None:
    """Run one subcommand."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(HELP, end="")
    elif command == "--version":
        print(f"rlgen {__version__}")
    elif command in ("-sc", "--shell-completion"):
        complete(rest)
    elif command == "list":
        from rlgen_cli.cli.listing import print_listing

        print_listing(rest)
    elif command == "doctor":
        from rlgen_cli.cli.doctor import examine

        examine()
    elif command in HYDRA_COMMANDS:
        run_hydra(command, rest)
    else:
        raise UserError(f"{command}: is no subcommand; {nearest(command, COMMANDS)} (rlgen --help shows all)")


def run_hydra(command: str, arguments: list[str]) -> None:
    """Hand a subcommand to Hydra; a single run is built completely before Hydra writes anything."""
    register_resolvers()
    if any(argument.startswith("--experimental-rerun") for argument in arguments):
        raise UserError(
            "--experimental-rerun: reads a pickle, which could run anything; use rlgen train resume=FOLDER."
        )
    arguments = [placed(argument) for argument in arguments]
    program = os.path.basename(sys.argv[0])
    sys.argv = [program, *arguments]
    if command in TRAINERS and (wanted := value_of("resume", arguments)):
        return resume(command, wanted, arguments)
    session = None
    if command in TRAINERS and not sweeps(arguments) and not any(flag in arguments for flag in NO_RUN):
        from rlgen_cli.runs.assemble import build

        session = build(composed(command, arguments), pretrained=command == "train")
    errors: list[UserError] = []
    readers = {"sample": sample_task, "eval": eval_task}
    task = quietly(readers.get(command) or run_task(command, session), errors)
    with_hydra_errors(command, arguments, lambda: start(command, task))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError(f"{len(errors)} jobs of this sweep failed; each said why above.")


def quietly(task: Callable[["DictConfig"], Any], errors: list[UserError]) -> Callable[["DictConfig"], Any]:
    """`task`, whose wrong inputs are kept for the end: Hydra would print all overrides, and stop at the first."""

    def run(config: "DictConfig") -> Any:
        try:
            return task(config)
        except UserError as error:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            if HydraConfig.get().mode is RunMode.MULTIRUN:
                print(f"rlgen: job {HydraConfig.get().job.num}: {error}", file=sys.stderr)
            errors.append(error)
            return None

    return run


def start(command: str, task: Callable[["DictConfig"], Any]) -> None:
    """Hydra's own main, with our configs."""
    import hydra

    from rlgen_cli.runs.assemble import config_folder

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `with_hydra_errors` as they are
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name(command, sys.argv[1:]))(
        task
    )()


def config_name(command: str, arguments: list[str]) -> str:
    """The config a command begins with; there is one to pretrain for each environment where that makes sense."""
    if command != "pretrain":
        return command
    from rlgen_cli.runs.assemble import config_folder

    env = value_of("env", arguments) or "music"
    able = sorted(file.stem for file in (config_folder() / "pretrain").glob("*.yaml"))
    if env not in able:
        raise UserError(f"env={env}: has nothing to pretrain; use env={' or env='.join(able)}.")
    return f"pretrain/{env}"


def run_task(command: str, session: Any) -> Callable[["DictConfig"], str]:
    """One training (or pretraining): of the session that was built already, or (in a sweep) of a new one."""

    def task(config: "DictConfig") -> str:
        from hydra.core.hydra_config import HydraConfig

        from rlgen_cli.runs.assemble import build
        from rlgen_cli.runs.pretrain import pretrain
        from rlgen_cli.runs.trainer import train

        folder = Path(HydraConfig.get().runtime.output_dir)
        start = train if command == "train" else pretrain
        status = start(session or build(config, pretrained=command == "train"), folder)
        report(command, status, folder)
        return status

    return task


def sample_task(config: "DictConfig") -> None:
    from rlgen_cli.runs.sample import sample

    print(f"samples: {shown(sample(config))}")


def eval_task(config: "DictConfig") -> None:
    from rlgen_cli.evaluation.report import report

    print(f"report: {shown(report(config))}")


def resume(command: str, folder: str, arguments: list[str]) -> None:
    """`rlgen train resume=FOLDER`: the run's own config, with new top-level settings only."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from rlgen_cli.runs.assemble import Settings
    from rlgen_cli.runs.pretrain import resume as pretrain_on
    from rlgen_cli.runs.trainer import resume as train_on

    changes = {}
    for override in OverridesParser.create().parse_overrides(arguments):
        key = override.key_or_group
        if key == "resume":
            continue
        if key not in Settings.__dataclass_fields__:
            raise UserError(f"{key}: cannot change when a run goes on; its config is kept but for top-level settings.")
        changes[key] = override.value()
    go_on = train_on if command == "train" else pretrain_on
    report(command, go_on(Path(folder), changes), Path(folder))


def report(command: str, status: str, folder: Path) -> None:
    """Where the results lie, or how to go on."""
    if status == "finished":
        print(f"finished: {shown(folder)}\n  samples: {shown(folder / 'samples' / 'final')}")
    else:
        print(f"stopped, checkpoint saved; go on with:\n  rlgen {command} resume={shown(folder)}")


def shown(path: Path) -> str:
    """Relative to here when it lies below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def composed(command: str, arguments: list[str]) -> "DictConfig":
    """The config that Hydra will run with, errors in one sentence."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path, get_args_parser
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    from rlgen_cli.runs.assemble import config_folder

    def compose() -> "DictConfig":
        from hydra import version

        version.setbase("1.3")
        parsed = get_args_parser().parse_args([placed(argument) for argument in arguments])
        path = create_config_search_path(str(config_folder()))
        if parsed.config_dir:
            if not os.path.isdir(parsed.config_dir):
                raise UserError(f"--config-dir: there is no folder {parsed.config_dir}.")
            path.prepend("command-line", f"file://{os.path.abspath(parsed.config_dir)}")
        # A program that runs under Hydra itself (and uses our environments) keeps its own.
        outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
        try:
            hydra = Hydra.create_main_hydra2("rlgen", path)
            config = hydra.compose_config(
                parsed.config_name or config_name(command, arguments), list(parsed.overrides), RunMode.RUN
            )
        finally:
            GlobalHydra.instance().hydra = outer
        with open_dict(config):
            del config["hydra"]
        OmegaConf.set_struct(config, True)
        return config

    return with_hydra_errors(command, arguments, compose)


def with_hydra_errors(command: str, arguments: list[str], action: Callable[[], Any]) -> Any:
    """Run `action`; what Hydra and OmegaConf say about wrong input becomes one sentence."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return action()
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").rpartition("/")
        if error.options:
            raise UserError(f"{group}={name}: there is no such choice; {nearest(name, error.options)}") from None
        raise UserError(" ".join(str(error).split())) from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error.__cause__ or error)
        match = re.search(r"Could not override '([^']+)'", str(error))
        if match and ("not in struct" in text or "No match in the defaults" in str(error)):
            key = match.group(1)
            raise UserError(f"{key}: is no key here; {nearest_key(command, arguments, key)}") from None
        raise UserError(" ".join(str(error).split())) from None


def nearest_key(command: str, arguments: list[str], key: str) -> str:
    """Valid names beside an unknown `key`, from the config without it."""
    from omegaconf import DictConfig, OmegaConf

    others = [a for a in arguments if a.startswith("-") or "=" not in a or a.partition("=")[0].lstrip("+~") != key]
    parent, _, name = key.rpartition(".")
    config: Any = composed(command, others)
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return nearest_key(command, others, parent) if parent else ""
    return nearest(name, [str(k) for k in node if not str(k).startswith("_")])


def complete(arguments: list[str]) -> None:
    """Shell completion: subcommands by ourselves, the rest by Hydra with the subcommand's config."""
    register_resolvers()
    query = any(argument.startswith("query=") for argument in arguments)
    words = os.environ.get("COMP_LINE", "").split(" ")
    if query and len(words) <= 2:
        print(" ".join(name for name in COMMANDS if name.startswith(words[-1] if len(words) == 2 else "")))
        return
    command = words[1] if query else "train"
    if command == "list":
        print("env agent reward data experiment")
        return
    if command not in HYDRA_COMMANDS:
        return
    if query:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    sys.argv = [os.path.basename(sys.argv[0]), "-sc", *arguments]
    start(command, sample_task)


def placed(argument: str) -> str:
    """`network=gru` as Hydra wants it: a group that other configs choose from is named with its place."""
    group, equals, choice = argument.partition("=")
    if equals and group in ("encoding", "gan", "damage"):
        return f"{group}@env.{group}={choice}"
    if equals and (group == "network" or group.startswith("network/")):
        return f"{group}@agent.{group.replace('/', '.')}={choice}"
    return argument


def sweeps(arguments: list[str]) -> bool:
    return any(a in ("-m", "--multirun") or a.upper() == "HYDRA.MODE=MULTIRUN" for a in arguments)


def value_of(key: str, arguments: list[str]) -> str | None:
    """The value of `key=value` on the command line; null counts as none."""
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return values[-1].strip("'\"") if values and values[-1] not in ("null", "") else None


def register_resolvers() -> None:
    """`${run_id:}`: six hex digits of no seed, so that runs started in the same second have their own folders.
    `${rest:X}`: 1 − X, and `${times:X,Y}`, for weights that hang together."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("run_id", lambda: os.urandom(3).hex(), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("rest", lambda share: 1.0 - share, replace=True)
    OmegaConf.register_new_resolver("times", lambda one, two: one * two, replace=True)


if __name__ == "__main__":
    main()
