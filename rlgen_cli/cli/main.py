"""The `rlgen` command: subcommands over Hydra, and errors in one sentence. Imports nothing heavy at the top."""

import atexit
import contextlib
import gc
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgen_cli import __version__
from rlgen_cli.core.errors import UserError, nearest, printable, reader_gone
from rlgen_cli.core.launched import processes, speaks

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """rlgen: reinforcement learning that makes things

  rlgen train [KEY=VALUE …]    train an agent, as in  rlgen train env=pixel agent=dqn reward=target
                               -m sweeps: rlgen train -m seed=1,2,3;  resume=FOLDER|latest goes on in a run's folder
  rlgen tune [KEY=VALUE …]     a search for settings, as in  rlgen tune env=pixel agent=ppo tune.trials=20
  rlgen pretrain [KEY=VALUE …] a sequence model, as in  rlgen pretrain data=midi data.path=FOLDER, or a GAN, as in
                               rlgen pretrain env=latent_gan data=mnist
  rlgen sample [KEY=VALUE …]   what a run makes, as in  rlgen sample run=latest n=64 seed=0 format=svg
  rlgen paint FILE… [KEY=VALUE …]  any picture in strokes, as in  rlgen paint cat.jpg strokes=500 width=1024
  rlgen draw [KEY=VALUE …]     a picture of your own, as in  rlgen draw run=latest image=cat.png
  rlgen eval [KEY=VALUE …]     how that compares with real data, as in  rlgen eval run=latest n=2000
  rlgen report [KEY=VALUE …]   a page of what runs left to see, as in  rlgen report runs=outputs/multirun
  rlgen watch [KEY=VALUE …]    that page of a running training, in the browser
  rlgen plot [KEY=VALUE …]     curves for a paper, as in  rlgen plot runs=outputs/multirun y=return out=return.svg
  rlgen export [KEY=VALUE …]   a run to take with you, as in  rlgen export run=latest to=FOLDER
  rlgen push [KEY=VALUE …]     the same, to a hub of models, as in  rlgen push run=latest repo=USER/NAME
  rlgen list [GROUP]           what there is to choose from: env, agent, reward, data, experiment and others
  rlgen list GROUP=CHOICE      the keys of a choice with their defaults, as in  rlgen list agent=ppo
  rlgen list runs [FOLDER]     the runs below outputs/: running, finished, stopped, preempted, failed or stale
  rlgen new KIND NAME          the two files of an environment (env), agent or reward term (term) of your own
  rlgen doctor                 whether this machine is fit, and what is missing

  rlgen train --help           every key with its default, a line each (also: rlgen train agent=ppo --help)
  rlgen train --cfg job        the config a command would run with
  rlgen --version              the version
  eval "$(rlgen -sc install=bash)"   tab completion (zsh: with bashcompinit; fish: -sc install=fish)
"""
TRAINERS = ("train", "pretrain")
READERS = {
    "sample": ("rlgen_cli.runs.sample", "sample"),
    "draw": ("rlgen_cli.runs.sample", "draw"),
    "paint": ("rlgen_cli.runs.paint", "paint"),
    "eval": ("rlgen_cli.runs.evaluate_run", "evaluate_run"),
    "report": ("rlgen_cli.report.page", "report"),
    "watch": ("rlgen_cli.report.watch", "watch"),
    "plot": ("rlgen_cli.report.plot", "plot"),
    "export": ("rlgen_cli.runs.export", "export"),
    "push": ("rlgen_cli.runs.hub", "push"),
}
HYDRA_COMMANDS = (*TRAINERS, *READERS, "tune")
COMMANDS = (*HYDRA_COMMANDS, "list", "new", "doctor")
# What a command's result is called where it is not called after the command.
WRITTEN = {"sample": "samples", "draw": "drawn", "paint": "painted", "eval": "report", "push": "pushed"}
# Flags with which Hydra shows something and runs nothing.
SHOWS = ("--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def main() -> None:
    """The console script. Exit codes: 0 done, 1 a bug or a failing machine, 2 a wrong input, 75 stopped by a signal and
    saved, so that the same run can go on, 130 stopped at once."""
    # The interpreter would search all that torch has made for cycles before it ends, a third of a second.
    atexit.register(gc.freeze)
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        if speaks():
            print(f"rlgen: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("rlgen: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        reader_gone()
        sys.exit(0)
    except OSError as error:
        print(f"rlgen: {printable(str(error.filename or error))}: {error.strerror or 'failed'}.", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("rlgen: this machine has not enough memory for that; smaller sizes would need less.", file=sys.stderr)
        sys.exit(1)


def dispatch(arguments: list[str]) -> None:
    """Run one subcommand."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(HELP, end="")
    elif command == "--version":
        print(f"rlgen {__version__}")
    elif command in ("-sc", "--shell-completion"):
        complete(rest)
    elif command == "list" and rest[:1] == ["runs"]:
        from rlgen_cli.cli.listing import print_runs

        print_runs(Path(rest[1] if len(rest) > 1 else "outputs"))
    elif command == "list":
        from rlgen_cli.cli.listing import print_listing

        print_listing(rest)
    elif command == "new":
        from rlgen_cli.cli.new import write_new

        write_new(rest)
    elif command == "doctor":
        from rlgen_cli.cli.doctor import examine

        examine()
    elif command in HYDRA_COMMANDS:
        run(command, rest)
    else:
        raise UserError(f"{command}: is no subcommand; {nearest(command, COMMANDS)} (rlgen --help shows all)")


def run(command: str, arguments: list[str]) -> None:
    """One of the subcommands that take a config: composed once, and built completely before anything is written."""
    from rlgen_cli.config.arguments import sweeps, with_files
    from rlgen_cli.config.compose import added, composed, value_of

    if command == "paint":
        arguments = with_files(arguments)
    if any(argument.startswith("--experimental-rerun") for argument in arguments):
        raise UserError(
            "--experimental-rerun: reads a pickle, which could run anything; use rlgen train resume=FOLDER."
        )
    if "--version" in arguments:
        print(f"rlgen {__version__}")
        return
    if "--help" in arguments or "-h" in arguments:
        from rlgen_cli.cli.listing import print_help

        print_help(command, arguments)
        return
    if "resume=" in arguments:
        raise UserError("resume: is empty; name a run's folder, or use resume=latest.")
    shows = any(flag in arguments for flag in SHOWS)
    if not shows and not value_of("resume", arguments):
        for word, why in added(command, arguments).items():
            print(f"{word} is taken, since it goes with {why}")
    if command in TRAINERS and not shows and (sweeps(arguments) or value_of("sweep.resume", arguments)):
        sweep(command, arguments)
    elif sweeps(arguments) or shows:
        under_hydra(command, arguments)
    elif command in TRAINERS and (wanted := value_of("resume", arguments)):
        end(resume(command, wanted, arguments))
    elif command in TRAINERS:
        config = composed(command, arguments, keep_hydra=True)
        if not on_devices(config.devices, command, arguments):
            end(begin(command, config, run_folder(config), arguments))
    elif command == "tune":
        from rlgen_cli.tuning.study import tune

        end(tune(composed(command, arguments, keep_hydra=True), arguments))
    else:
        read_task(command)(composed(command, arguments))


def begin(command: str, config: "DictConfig", folder: Path, arguments: list[str]) -> str:
    """Train or pretrain in `folder`, and say where the results lie."""
    from omegaconf import open_dict

    with loading():
        from rlgen_cli.core import ranks
        from rlgen_cli.runs.assemble import assemble
        from rlgen_cli.runs.devices import settle

        train = trainer(command)
    if "hydra" in config:
        with open_dict(config):
            del config["hydra"]
    with ranks.joined():
        folder = settle(config, folder)
        session = assemble(config)
        session.command = shlex.join(["rlgen", command, *arguments])
        with exits_refused():
            status = train(session, folder)
        if ranks.first():
            say(command, status, folder, own_words(config, arguments, training=status != "finished"))
    return status


def on_devices(devices: Any, command: str, arguments: list[str]) -> bool:
    """Where a training asks for several devices, run it in a process for each, and exit as they do where one fails or
    is stopped; false where it is to run here, as one device or as one of those processes."""
    if not isinstance(devices, int) or devices <= 1 or processes() > 1:
        return False
    with loading():
        from rlgen_cli.runs.devices import run_on_devices
    if code := run_on_devices(devices, [command, *arguments]):
        sys.exit(code)
    return True


def sweep(command: str, arguments: list[str]) -> None:
    """Many trainings, each in a process of its own.

    Raises:
        UserError: at the end, where one has not finished.
    """
    from rlgen_cli.sweeps.sweep import sweep as run_all

    if processes() > 1:
        raise UserError("devices: a sweep is begun once, and not by torchrun; its jobs take devices=N.")
    if not run_all(command, arguments):
        raise UserError("not every job of this sweep has finished; the table above says which and why.")


def end(status: str) -> None:
    """Exit with a code of its own where a signal stopped a run, so that `rlgen train … && …` does not go on."""
    if status == "preempted":
        from rlgen_cli.runs.states import PREEMPTED

        sys.exit(PREEMPTED)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within this torch is imported: its modules make half a million objects that stay, and to search them for cycles
    again and again would take a seventh of the time."""
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@contextlib.contextmanager
def exits_refused() -> Iterator[None]:
    """A component of the user's own that calls sys.exit() must not make a failed run look like a finished one."""
    try:
        yield
    except SystemExit as error:
        raise UserError(
            f"sys.exit({error.code!r}) was called in the training; a component may only raise errors."
        ) from error


def own_words(config: "DictConfig", arguments: list[str], training: bool) -> str:
    """What a command that opens the run, or goes on with it (`training`), needs besides, where it is made of the user's
    own components."""
    from omegaconf import OmegaConf

    from rlgen_cli.config.compose import config_folders
    from rlgen_cli.config.saved import modules

    used = {key: node for key, node in config.items() if training or key != "logger"}
    named = modules(OmegaConf.to_container(OmegaConf.create(used)))
    folders = "".join(f" --config-dir {folder}" for folder in config_folders(arguments)[:-1])
    return f'{folders} "trust=[{",".join(named)}]"' if named else ""


def trainer(command: str) -> Callable[..., str]:
    """What trains in a folder."""
    from rlgen_cli.runs.pretrain import pretrain
    from rlgen_cli.runs.trainer import train

    return train if command == "train" else pretrain


def read_task(command: str) -> Callable[["DictConfig"], None]:
    """What reads a run, and says where it has written what came of that."""

    def task(config: "DictConfig") -> None:
        module, name = READERS[command]
        with loading():
            read = getattr(importlib.import_module(module), name)
        written = read(config)
        if written is not None:
            print(f"{WRITTEN.get(command, command)}: {shown(written) if isinstance(written, Path) else written}")

    return task


def run_folder(config: "DictConfig") -> Path:
    """Where a single run goes, as `hydra.run.dir` says; what it logs is shown as Hydra's config says."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log

    HydraConfig.instance().set_config(config)
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    return Path(config.hydra.run.dir)


def under_hydra(command: str, arguments: list[str]) -> None:
    """Flags that show something, and sweeps of what reads runs: Hydra composes, and calls the task for each job."""
    from rlgen_cli.config.compose import config_folders, import_from, placed, register_resolvers, with_hydra_errors

    register_resolvers(config_folders(arguments))
    import_from(config_folders(arguments)[:-1])
    sys.argv = [os.path.basename(sys.argv[0]), *placed(command, arguments)]
    errors: list[Exception] = []
    with_hydra_errors(command, arguments, lambda: start(command, quietly(read_task(command), errors)))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError(f"{len(errors)} jobs of this sweep failed; each said why above.")


def quietly(task: Callable[["DictConfig"], Any], errors: list[Exception]) -> Callable[["DictConfig"], Any]:
    """`task`, whose failures are kept for the end: Hydra would print all overrides, and name the first alone."""

    def job(config: "DictConfig") -> Any:
        try:
            return task(config)
        except Exception as error:
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode

            if HydraConfig.get().mode is RunMode.MULTIRUN:
                said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                print(f"rlgen: job {HydraConfig.get().job.num}: {printable(said)}", file=sys.stderr)
            errors.append(error)
            return None

    return job


def start(command: str, task: Callable[["DictConfig"], Any]) -> None:
    """Hydra's own main, with our configs."""
    import hydra

    from rlgen_cli.config.compose import config_name
    from rlgen_cli.config.locate import config_folder

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `with_hydra_errors` as they are
    name = config_name(command, sys.argv[1:])
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(task)()


def resume(command: str, folder: str, arguments: list[str]) -> str:
    """`rlgen train resume=FOLDER`: the run's own config, but for some of its top-level settings."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from rlgen_cli.config.arguments import parted, prepared
    from rlgen_cli.config.compose import config_folders, import_from
    from rlgen_cli.config.settings import KEPT, Settings

    import_from(config_folders(arguments)[:-1])

    changes, words = {}, parted(prepared(arguments))[1]
    for override in OverridesParser.create().parse_overrides(words):
        key = override.key_or_group
        if key == "resume":
            continue
        able = sorted(Settings.__dataclass_fields__.keys() - KEPT - {"resume"})
        if key not in able:
            raise UserError(f"{key}: cannot change when a run goes on; only {', '.join(able)} can.")
        changes[key] = override.value()
    with loading():
        from rlgen_cli.core import ranks
        from rlgen_cli.runs import pretrain, trainer
        from rlgen_cli.runs.saved_run import continued, latest_run, opening

    def found() -> Path:
        return latest_run("resume") if folder == "latest" else Path(folder).expanduser()

    if processes() == 1:
        with opening(found()):
            devices = continued(found(), changes).devices
        if on_devices(devices, command, arguments):
            return "finished"
    go_on = trainer.resume if command == "train" else pretrain.resume
    with ranks.joined(), exits_refused():
        run = ranks.from_first(found)
        status = go_on(run, changes)
        if ranks.first():
            say(command, status, run, "")
    return status


def say(command: str, status: str, folder: Path, own: str) -> None:
    """Where the results lie, or how to go on; `own` is what opening the run needs besides."""
    if status == "finished":
        here = shown(folder)
        print(f"finished: {here}\n  samples: {shown(folder / 'samples' / 'final')}")
        print(f"  more of them: rlgen sample run={here} n=64{own}\n  beside real data: rlgen eval run={here}{own}")
    else:
        print(f"stopped, checkpoint saved; go on with:\n  rlgen {command} resume={shown(folder)}{own}")


def shown(path: Path) -> str:
    """Relative to here when it lies below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def complete(arguments: list[str]) -> None:
    """Shell completion: subcommands by ourselves, the rest by Hydra with the subcommand's config."""
    from rlgen_cli.config.compose import config_folders, register_resolvers

    register_resolvers(config_folders([]))
    query = any(argument.startswith("query=") for argument in arguments)
    words = os.environ.get("COMP_LINE", "").split(" ")
    if query and len(words) <= 2:
        print(" ".join(name for name in COMMANDS if name.startswith(words[-1] if len(words) == 2 else "")))
        return
    command = words[1] if query else "train"
    if command == "list":
        from rlgen_cli.cli.listing import GROUPS

        print(" ".join(GROUPS))
        return
    if command not in HYDRA_COMMANDS:
        return
    if query:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    sys.argv = [os.path.basename(sys.argv[0]), "-sc", *arguments]
    start(command, read_task("sample"))


if __name__ == "__main__":
    main()
