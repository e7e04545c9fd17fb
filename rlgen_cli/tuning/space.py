"""What is searched: config keys, each with a range or a list of values, from a YAML file."""

from pathlib import Path
from typing import Any, NamedTuple

from rlgen_cli.config.saved import plain_config
from rlgen_cli.core.errors import UserError, nearest, require

RANGE = {"low", "high", "log", "step"}  # the keys of a range


class Range(NamedTuple):
    """Numbers from `low` to `high`, whole ones where both are."""

    low: float
    high: float
    log: bool
    step: float | None


Space = dict[str, Range | list[Any]]


def shipped() -> dict[str, Path]:
    """The spaces of the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "spaces").glob("*.yaml"))}


def space_of(asked: str | None, agent: str) -> Space:
    """The space of a name, or in a file; by default, that of the agent's name.

    Raises:
        UserError: where there is none, or it is none.
    """
    name = asked or agent
    path = Path(name).expanduser()
    if not path.suffix:
        known = shipped()
        if name not in known:
            said = nearest(name, known) if asked else f"name a file, or one of {', '.join(known)}"
            raise UserError(f"tune.space: there is none for {name}; {said}.")
        path = known[name]
    require(path.is_file(), f"tune.space: there is no file {path}.")
    node = plain_config(path)
    require(bool(node), f"tune.space: {path} names no key.")
    return {str(key): part_of(value, f"tune.space: {path}: {key}") for key, value in node.items()}


def part_of(node: Any, where: str) -> Range | list[Any]:
    """What one key may be.

    Raises:
        UserError: beginning with `where`, for what is neither a list of values nor a range.
    """
    if isinstance(node, list):
        plain = all(isinstance(value, str | int | float | bool) for value in node)
        require(plain and len(node) > 1, f"{where}: must list at least two numbers, words, or true and false.")
        return list(node)
    shaped = isinstance(node, dict) and {"low", "high"} <= node.keys() <= RANGE
    require(shaped, f"{where}: must be a list, or {{low: …, high: …}} with log: true or step: … if you like.")
    low, high, log, step = node["low"], node["high"], node.get("log", False), node.get("step")
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high, step or 0))
    require(numbers and isinstance(log, bool), f"{where}: low, high and step must be numbers, log true or false.")
    require(low < high, f"{where}: low must be below high, got {low} and {high}.")
    require(not log or low > 0, f"{where}: low must be above 0 where log is true, got {low}.")
    return Range(low, high, log, step)


def suggested(trial: Any, space: Space) -> dict[str, Any]:
    """A value for each key, as an Optuna trial suggests it."""
    values: dict[str, Any] = {}
    for key, part in space.items():
        if isinstance(part, list):
            values[key] = trial.suggest_categorical(key, part)
        elif isinstance(part.low, int) and isinstance(part.high, int):
            values[key] = trial.suggest_int(key, part.low, part.high, log=part.log, step=int(part.step or 1))
        else:
            values[key] = trial.suggest_float(key, part.low, part.high, log=part.log, step=part.step)
    return values


def first_values(space: Space) -> dict[str, Any]:
    """A value for each key, by which a command line can be tried out."""
    return {key: part[0] if isinstance(part, list) else part.low for key, part in space.items()}


def words_of(values: dict[str, Any]) -> list[str]:
    """Values as words of a command line."""
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]
