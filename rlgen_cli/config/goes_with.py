"""What goes with a choice: a YAML's line `# Goes with: env=music encoding=chorale` says what is taken where the user
leaves it open, so that every choice runs by itself. Imports no torch.

An environment's line names its reward and data, too. Hydra reads these for each job of a sweep (`${goes_with:…}` in
train.yaml); the others become words of the command line, before Hydra sees it.
"""

import re
from pathlib import Path

from rlgen_cli.config.locate import keys_of, takes_component, text_of

LINE = re.compile(r"^# Goes with: (.+)$", re.MULTILINE)
NONE = "none"  # the reward or data of an environment that names none


def said(group: str, choice: str, folders: list[Path]) -> list[str]:
    """The words that a choice's YAML says go with it."""
    found = LINE.search(text_of(group, choice, folders))
    return found[1].split() if found else []


def of_environment(group: str, env: str, folders: list[Path]) -> str:
    """The reward or data that an environment names as its default, or `none`."""
    values = dict(word.split("=", 1) for word in said("env", env, folders))
    return values.get(group, NONE)


def companions(
    words: list[str], folders: list[Path], defaults: dict[str, str], fixed: list[str]
) -> dict[str, str]:  # fmt: skip
    """What goes with the choices of a command line and is not chosen there, each with the choice that it goes with.

    Args:
        words: the command line. folders: where YAMLs are looked for, in this order.
        defaults: the environment, and the agent, where none is chosen. fixed: groups that are not to be chosen here.
    """
    if any(word.startswith("experiment=") and not word.endswith("=null") for word in words):
        return {}  # says everything itself
    found: dict[str, str] = {}
    # An environment comes last, since its components know more about what goes with them; one that is found brings
    # what goes with it, too.
    open_words = sorted(words, key=lambda word: word.lstrip("+").startswith("env="))
    for word in open_words:
        group, _, value = word.lstrip("+").partition("=")
        for choice in value.strip("[]").split(","):
            for other in said(group, choice.strip(), folders):
                key = other.partition("=")[0]
                by_hydra = group == "env" and key in ("reward", "data")
                if key not in fixed and not by_hydra and not any(_settles(known, key) for known in (*words, *found)):
                    found[other] = f"{group}={choice}"
                    open_words += [other] if key == "env" else []
    chosen = defaults | {
        group: choice for group, _, choice in (word.partition("=") for word in (*words, *found)) if group in defaults
    }
    return {word: why for word, why in found.items() if _fits(word.partition("=")[0], chosen, folders)}


def _fits(key: str, chosen: dict[str, str], folders: list[Path]) -> bool:
    """False for a component that the chosen environment does not take, and for a key that the environment (or agent)
    does not have: there is nothing then that could go with the choice, and what judges the choice says why."""
    if key == "network":
        return all(key in keys_of("agent", choice, folders) for choice in chosen.get("agent", "").split(","))
    owner, _, rest = key.partition(".")
    if rest and owner in chosen:
        name = rest.partition(".")[0]
        return all(name in keys_of(owner, choice, folders) for choice in chosen[owner].split(","))
    return bool(rest) or takes_component(chosen["env"], key)


def _settles(word: str, key: str) -> bool:
    """Whether a word chooses a group, or sets a key or something within it."""
    name = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return name == key or ("." in key and name.startswith(f"{key}."))
