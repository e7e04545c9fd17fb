"""From a config node to the object that it describes.

A node with `_target_` names a class; its other keys are that class's keyword arguments. Keys are checked against the
signature and values against the annotations before anything runs, and nested nodes are built first (or bound, with
`_partial_: true`, when the class that takes them finishes them). What a class asks for beyond its YAML (the
environment, a random stream, the device) is given by name.
"""

import functools
import importlib
import inspect
import sys
import types as python_types
import typing
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlgen_cli.config.compose import resolution
from rlgen_cli.config.renamed import new_name
from rlgen_cli.core.capacity import TooLarge, WithinMemory, in_words, memory
from rlgen_cli.core.errors import UserError, nearest, require
from rlgen_cli.core.schedules import Linear

LARGEST = sys.float_info.max


def plain(node: Any) -> dict[str, Any]:
    """A config node as nested dicts and lists, interpolations resolved.

    Raises:
        UserError: for one that cannot be resolved.
    """
    try:
        return typing.cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(resolution(error)) from None


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
    require(isinstance(node, DictConfig | dict), f"{path}: must be a component with a _target_, got {node!r}.")
    values = plain(node) if isinstance(node, DictConfig) else dict(node)
    target, partial = find(values.pop("_target_", None), path), values.pop("_partial_", False)
    return call(target, values, path, runtime, partial)


def call(
    target: Callable[..., Any], values: dict[str, Any], path: str, runtime: dict[str, Any], partial: bool = False
) -> Any:
    """`target(**values, **runtime)` with keys, types and missing values checked against the signature."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    everything = runtime
    runtime = {key: value for key, value in runtime.items() if key in parameters and key not in values}
    valid = [name for name in parameters if name not in runtime]
    prefix = f"{path}." if path else ""
    arguments = {}
    for key, value in values.items():
        if key not in parameters and not open_ended:
            said = new_name(f"{prefix}{key}") or f"is no key here; {nearest(str(key), valid)}"
            raise UserError(f"{prefix}{key}: {said}")
        if key in parameters and key in everything:
            raise UserError(f"{prefix}{key}: is for the program to give; take it out of the config.")
        arguments[key] = _value(value, hints.get(key, Any), f"{prefix}{key}", everything)
    if partial:
        return functools.partial(reporting(target, path), **arguments, **runtime)
    for name, parameter in parameters.items():
        given = name in arguments or name in runtime
        if not given and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            raise UserError(f"{prefix}{name}: is missing.")
    return reporting(target, path)(**arguments, **runtime)


def reporting(target: Callable[..., Any], path: str) -> Callable[..., Any]:
    """`target`, with the config path put before the key that its own errors begin with."""

    def build(**arguments: Any) -> Any:
        try:
            with WithinMemory():
                return target(**arguments)
        except TooLarge as error:
            raise UserError(too_large(error.size, path, arguments)) from None
        except UserError as error:
            message = str(error)
            known = message.startswith(("env.", "agent.", "reward.", "data.", "data:")) or not path
            raise UserError(message if known else f"{path}.{message}") from None

    return build


def too_large(size: int, path: str, arguments: dict[str, Any]) -> str:
    """Which of a component's whole numbers make it larger than the memory."""
    numbers = {key: value for key, value in arguments.items() if fits(value, int)}
    largest = max(numbers, key=lambda key: numbers[key], default="")
    said = ", ".join(f"{key}={value}" for key, value in numbers.items())
    return (
        f"{path}{f'.{largest}' if largest else ''}: a tensor of {in_words(size)} would be needed, and this machine has "
        f"{in_words(memory())} of memory; choose smaller sizes{f' ({said})' if said else ''}."
    )


def _value(value: Any, hint: Any, path: str, runtime: dict[str, Any]) -> Any:
    """`value` as `hint` wants it: nested components built, whole numbers made floats, a number where a schedule may
    stand made a constant one, wrong types refused."""
    if isinstance(value, dict) and "_target_" in value:
        return component(value, path, **runtime)
    if value == "???" or (value is None and type(None) not in (hint, *typing.get_args(hint)) and hint is not Any):
        raise UserError(f"{path}: must be given.")
    if Linear in (hint, *typing.get_args(hint)) and fits(value, float):
        return Linear.constant(value)
    if not fits(value, hint):
        raise UserError(f"{path}: must be {describe(hint)}, got {value!r}.")
    return float(value) if hint is float else value


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value has the annotated type; annotations of objects fit anything."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, python_types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, typing.get_args(hint)[1]) for item in value.values())
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and -LARGEST <= value <= LARGEST  # neither NaN nor infinite
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return hint is Any or not isinstance(value, int | float | str | bool | list | dict | type(None))


def describe(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, python_types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is list:
        return f"a list, each {describe(arguments[0])}"
    if hint is Linear:
        return "a number, or a schedule from start to end"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, f"a component with a _target_ ({getattr(hint, '__name__', hint)})")
