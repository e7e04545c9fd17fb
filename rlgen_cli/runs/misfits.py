"""What cannot be combined: why, and what would fit. Derived from specs and from what the shipped YAMLs name."""

import inspect
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.config.instantiate import find
from rlgen_cli.config.locate import choices, target_of
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import SelectsEnvs
from rlgen_cli.core.specs import EnvSpec

# What scores may ask for, in words.
NAMES = {
    "picture": "pictures", "latent": "latents of a generator", "sequence": "sequences", "music": "music",
    "melody": "melodies", "chorale": "chorales", "text": "text",
}  # fmt: skip


def targets(group: str) -> dict[str, Any]:
    """The classes that a config group's YAMLs name, those of the YAMLs that they build on included."""
    found = {}
    for name in choices(group):
        target = target_of(group, name)
        if target is not None:
            found[name] = find(target, group)
    return found


def accepts(kind: Any, spec: EnvSpec) -> bool:
    """Whether an agent's class can act in such an environment; one that does not say can act in all."""
    return not isinstance(kind, SelectsEnvs) or kind.accepts(spec)


def agent(config: DictConfig, spec: EnvSpec) -> str:
    """Why an agent cannot act in an environment, and which could."""
    able = ", ".join(name for name, kind in targets("agent").items() if accepts(kind, spec))
    name = config.agent._target_.rpartition(".")[2]
    for key in ("brush", "steering", "encoding"):
        if key in config.env:
            others = ", ".join(choices(key))
            here = config.env[key]._target_.rpartition(".")[2]
            return (
                f"agent: {name} cannot act in env.{key}={here}, which has {spec.action}; use another {key} ({others}) "
                f"or an agent that can ({able})."
            )
    return f"agent: {name} cannot act in this environment, which has {spec.action}; use an agent that can ({able})."


def check_score(score: Any, spec: EnvSpec, path: str, condition: str | None) -> None:
    """Refuse a score of something else than what the environment makes, or one that needs what it does not give."""
    judges = getattr(score, "judges", "picture")
    if judges != "any" and judges not in spec.kinds:
        fitting = [
            name for name, kind in targets("reward/term").items() if getattr(kind, "judges", "") in {"any", *spec.kinds}
        ]
        made = "picture" if "picture" in spec.kinds else "sequence"
        raise UserError(
            f"{path}: scores {NAMES.get(judges, judges)}, and this environment makes {NAMES[made]}; here there are "
            f"{', '.join(fitting)}."
        )
    missing = set(getattr(score, "needs", frozenset())) - spec.readable
    if missing:
        what = " and ".join(sorted(missing))
        given = "" if condition is None else f" with env.condition={condition}"
        advice = "use env.condition=auto" if condition not in (None, "auto") else "choose another reward or task"
        raise UserError(f"{path}: needs {what}, which this environment does not give{given}; {advice}.")


def data(dataset: str, gives_pictures: bool, env: str, wants_pictures: bool) -> str:
    """Why a dataset does not serve an environment."""
    kinds = {True: "pictures", False: "sequences"}
    able = [
        name
        for name, kind in targets("env").items()
        if hasattr(kind, "request") and ("size" in inspect.signature(kind.request).parameters) is gives_pictures
    ]
    return (
        f"data: {dataset} gives {kinds[gives_pictures]}, and {env} takes {kinds[wants_pictures]}; use other data "
        f"(rlgen list data) or env={' or env='.join(able)}."
    )
