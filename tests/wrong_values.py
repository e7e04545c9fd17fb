"""Every number, text and switch of the shipped YAMLs with values that nobody means: each is refused in one sentence, or
can be built and stepped.
"""

import copy
from collections.abc import Iterable, Iterator

from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.compose import composed
from tests import shipped
from tests.combinations import fault_of, given, unlocked

VALUES = ["text", float("nan"), float("inf"), -1, 0, 10**12, 1.5]
# What has meaning on this machine or for this process alone, or asks the network for a model.
LEFT_OUT = ("device", "trust", "resume", "threads", "precision", "paths.data", "reward.terms.clip.model")


def scalars(node: DictConfig, path: str = "") -> Iterator[str]:
    """The dotted keys of all values that are neither nodes nor lists nor references to others."""
    for key in map(str, node):
        name = f"{path}.{key}" if path else key
        if key.startswith("_") or OmegaConf.is_interpolation(node, key) or OmegaConf.is_list(node[key]):
            continue
        if isinstance(node[key], DictConfig):
            yield from scalars(node[key], name)
        elif name not in LEFT_OUT:
            yield name


def faults(choices: Iterable[str], below: str) -> tuple[int, list[str]]:
    """How many values were tried in the configs of these choices, of the keys that begin with `below`, and what is wrong.
    A key of a class is tried once."""
    tried, seen, found = 0, set(), []
    for choice in choices:
        whole = shipped.small(unlocked(composed("train", given((choice,)))), [])
        for key in [key for key in scalars(whole) if key.startswith(below)]:
            owner, _, name = key.rpartition(".")
            kind = OmegaConf.select(whole, owner).get("_target_", owner) if owner else ""
            if (kind, name) in seen:
                continue
            seen.add((kind, name))
            for value in VALUES:
                changed = copy.deepcopy(whole)
                OmegaConf.update(changed, key, value)
                tried += 1
                wrong = fault_of(changed)
                if wrong is not None:
                    found.append(f"{choice} {key}={value}: {wrong}")
    return tried, found
