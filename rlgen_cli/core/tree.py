"""Maps over trees of tensors with one leading dimension: NamedTuples (states, views) and dicts (observations)."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def map_tensors(fn: Callable[..., Tensor], *trees: Any) -> Any:
    """Apply `fn` field by field; a field that is None in the first tree stays None."""
    first: Any = trees[0]
    if first is None:
        return first
    if isinstance(first, Tensor):
        return fn(*trees)
    if isinstance(first, dict):
        return {name: map_tensors(fn, *(tree[name] for tree in trees)) for name in first}
    every: Any = trees
    return type(first)(*(map_tensors(fn, *fields) for fields in zip(*every, strict=True)))


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a tree, in its order; what is no tree, as an environment among arguments, has none."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | tuple):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)


def select(mask: Tensor, chosen: T, other: T) -> T:
    """Rows of `chosen` where `mask` [N] is true, rows of `other` elsewhere."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return map_tensors(pick, chosen, other)


def join(*trees: T) -> T:
    """All fields concatenated along the leading dimension."""
    return map_tensors(lambda *fields: torch.cat(fields), *trees)


def repeat(tree: T, times: int) -> T:
    """Each row `times` times in a row."""
    return map_tensors(lambda field: field.repeat_interleave(times, 0), tree) if times > 1 else tree


def plain(tree: Any) -> Any:
    """NamedTuples as dicts, nothing where there is None, as checkpoints want it."""
    if isinstance(tree, Tensor):
        return tree
    if tree is None:
        return {}
    fields = tree if isinstance(tree, dict) else tree._asdict()
    return {name: plain(field) for name, field in fields.items() if field is not None}


def typed(fields: Any, like: Any) -> Any:
    """The inverse of `plain`; `like` is a tree of the same types."""
    if like is None or isinstance(like, Tensor):
        return fields if like is not None else None
    if isinstance(like, dict):
        return {name: typed(fields[name], like[name]) for name in like}
    return type(like)(**{name: typed(fields.get(name), getattr(like, name)) for name in like._fields})


def moved(tree: Any, device: torch.device | str) -> Any:
    """Nested dicts and lists with their tensors on the device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {name: moved(part, device) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [moved(part, device) for part in tree]
    return tree


def named_tensors(tree: Any, path: str = "") -> dict[str, Tensor]:
    """The tensors in nested dicts and lists, by their paths."""
    if isinstance(tree, Tensor):
        return {path: tree}
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    found: dict[str, Tensor] = {}
    for key, value in inner:
        found |= named_tensors(value, f"{path}.{key}" if path else str(key))
    return found
