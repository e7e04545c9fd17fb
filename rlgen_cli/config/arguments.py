"""The words of a command line as Hydra wants them: flags in front, paths and free text quoted, choices in lower case.

A shell has taken its own quotes off by the time that words arrive here, and Hydra's grammar has no word for a path with
`~`, a space or a bracket. Every command prepares its words here, once.
"""

import functools
import os
import re
from pathlib import Path
from typing import Any

from rlgen_cli.config.locate import config_folder
from rlgen_cli.core.errors import UserError

# Keys, by their last part, whose values are files or folders (or one of a few plain words).
PATHS = frozenset(
    ["path", "root", "run", "resume", "out", "prior", "guide", "source", "soundfont", "reference", "dir", "data"]
)
VALUED = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p")
NOTHING = ("null", "none")


def prepared(arguments: list[str], folders: list[Path] | None = None) -> list[str]:
    """The words as Hydra's parser takes them; `folders` is where YAMLs are looked for.

    Raises:
        UserError: for a word that is neither a flag nor `key=value`.
    """
    flags, words = parted(arguments)
    groups = _groups(folders or [config_folder()])
    return [*flags, *(_quoted(_chosen(word, groups), sweeps(arguments)) for word in words)]


def with_files(arguments: list[str]) -> list[str]:
    """The words with `files=[…]` in the place of those that are files: without an equals sign, or of that name."""
    flags, words = parted(arguments)
    files = [word for word in words if "=" not in word or os.path.isfile(word)]
    if not files:
        return arguments
    others = [word for word in words if word not in files]
    return [*flags, f"files=[{','.join(_as_text(file) for file in files)}]", *others]


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the other words, each in the order in which they came."""
    flags, words, valued = [], [], False
    for argument in arguments:
        if valued or argument.startswith("-"):
            flags.append(argument)
            valued = not valued and argument in VALUED
        else:
            words.append(argument)
    return flags, words


def sweeps(arguments: list[str]) -> bool:
    """Whether several jobs are asked for."""
    return any(a in ("-m", "--multirun") or a.upper() == "HYDRA.MODE=MULTIRUN" for a in arguments)


def _groups(folders: list[Path]) -> dict[str, dict[str, str]]:
    """Choices by group, and by how they are written in lower case."""
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        for group, name in _shipped() if folder == config_folder() else _yamls(folder):
            found.setdefault(group, {}).setdefault(name.lower(), name)
    return found


@functools.cache
def _shipped() -> list[tuple[str, str]]:
    """Groups and choices of the package, which do not change while it runs."""
    return _yamls(config_folder())


def _yamls(folder: Path) -> list[tuple[str, str]]:
    """Groups and choices of a folder."""
    return [(path.parent.relative_to(folder).as_posix(), path.stem) for path in sorted(folder.rglob("*.yaml"))]


@functools.cache
def _parser() -> Any:
    """Hydra's parser of a word."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _chosen(word: str, groups: dict[str, dict[str, str]]) -> str:
    """A choice from a group without regard to case; other words stay as they are."""
    key, equals, value = word.partition("=")
    group = key.lstrip("+~").partition("@")[0]
    known = groups.get(group, groups.get(group.lower()))
    if not equals or known is None or "." in group:
        return word
    key = key.replace(group, group if group in groups else group.lower(), 1)
    return key + "=" + re.sub(r"[^\[\],\s]+", lambda found: known.get(found[0].lower(), found[0]), value)


def _quoted(word: str, sweeping: bool) -> str:
    """`key=value` with a value that Hydra's grammar takes for one text, where it would not otherwise."""
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals:
        if word.startswith("~"):
            return word
        raise UserError(f"{word}: is no key=value; give one, as in env=pixel.")
    if key.rpartition(".")[2] in PATHS and key != "data" and value:
        parts = value.split(",") if sweeping and not os.path.exists(value) else [value]
        return f"{key}={','.join(_as_path(part) for part in parts)}"
    try:
        _parser().parse_override(word)
    except HydraException:
        return f"{key}={_as_text(value)}"
    return word


def _as_path(value: str) -> str:
    """A path with the home folder in full; what says that there is none stays a plain word, and what is quoted as
    Hydra wants it, or an interpolation, stays as it is."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if value.lower() in NOTHING or value.startswith("${") or (quoted and not value.startswith("~", 1)):
        return value
    return _as_text(os.path.expanduser(value[1:-1] if quoted else value))


def _as_text(value: str) -> str:
    """In single quotes, as Hydra reads them: a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
