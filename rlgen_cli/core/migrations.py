"""Formats of what a run leaves on the disk, and how what an earlier one wrote is read.

A checkpoint's `manifest.json` and a run's `config.yaml` hold the number of their format. A format that changes gets the
next number and a migration from the one before, below; everything older then goes through all migrations in turn. They
work on what was read, as plain data, and never rewrite a file: a run that goes on writes the newest format beside it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rlgen_cli.core.errors import require

Plain: TypeAlias = dict[str, Any]  # nested dicts and lists of plain values and tensors
FORMAT = 9  # what is written now
UNNAMED = 2  # the format of configs that do not say theirs, which are of rlgen 0.1.0
KEY = "format"  # of a run's config.yaml


def unchanged(saved: Plain) -> Plain:
    """What a format leaves as it was."""
    return saved


@dataclass(frozen=True, kw_only=True)
class Migration:
    """From one format to the next; each function may change and return what it is given, which is a copy.

    Args:
        config: the run's resolved config, as read from config.yaml.
        parts: by the name of a checkpoint's part (policy, training, streams, stage), its components by name, each a
            state dict.
    """

    config: Callable[[Plain], Plain] = unchanged
    parts: Mapping[str, Callable[[Plain], Plain]] = field(default_factory=dict)


def with_new_settings(config: Plain) -> Plain:
    """Format 3 has two settings more; their values do what was done before."""
    return {"deterministic": False, "nonfinite": "stop"} | config


def with_settings_of_speed(config: Plain) -> Plain:
    """Format 4 has two settings more, which change no numbers."""
    return {"compile": "auto", "profile": False} | config


def with_a_logger_and_entropy_in_bits(config: Plain) -> Plain:
    """Format 5 says what records a run beside its own files, which was TensorBoard. The entropy of pitch classes is in
    bits, so that a weight for nats becomes one for bits."""
    for term in (config.get("reward") or {}).get("terms", {}).values():
        if isinstance(term, dict) and term.get("_target_") == "rlgen_cli.domains.music.scores.PitchEntropy":
            term["weight"] = term["weight"] * math.log(2)
    return {"logger": {"tensorboard": {"_target_": "rlgen_cli.runs.trackers.tensorboard.TensorBoard"}}} | config


def with_one_device(config: Plain) -> Plain:
    """Format 6 says on how many devices a run is trained."""
    return {"devices": 1} | config


def with_smoothed_labels(config: Plain) -> Plain:
    """Format 7 says by how much a classifier's labels are smoothed in its fit."""
    for term in (config.get("reward") or {}).get("terms", {}).values():
        if isinstance(term, dict) and term.get("_target_") == "rlgen_cli.rewards.classifier.Classifier":
            term.setdefault("label_smoothing", 0.05)
    return config


MOVED = {
    "rlgen_cli.domains.latent.scores.KnownRegionError": "rlgen_cli.rewards.restoration.KnownRegionError",
    "rlgen_cli.domains.latent.scores.HiddenRegionError": "rlgen_cli.rewards.restoration.HiddenRegionError",
} | {
    f"rlgen_cli.domains.latent.damage.{name}": f"rlgen_cli.data.damage.{name}"
    for name in ("CentreHole", "RandomHole", "Scratches", "GaussianNoise", "Watermark")
}  # fmt: skip


def with_damage_for_all(config: Plain) -> Plain:
    """Format 8 has what damages pictures, and says how well they are restored, outside the latent domain."""
    env = config.get("env") or {}
    if env.get("_target_") == "rlgen_cli.domains.diffusion.environment.Diffusion":
        env.setdefault("damage", None)
    nodes = [env.get("damage"), *(config.get("reward") or {}).get("terms", {}).values()]
    for node in nodes:
        if isinstance(node, dict) and node.get("_target_") in MOVED:
            node["_target_"] = MOVED[node["_target_"]]
    return config


STEERED = {
    "rlgen_cli.domains.latent.environment.LatentPictures",
    "rlgen_cli.domains.latent.sequences.LatentSequences",
}


def with_huber_delta_and_time_encoding(config: Plain) -> Plain:
    """Format 9 says from where on DQN's errors count linearly, and how a policy that steers a generator sees the time;
    the values do what was done before."""
    agent, env = config.get("agent") or {}, config.get("env") or {}
    if agent.get("_target_") == "rlgen_cli.agents.dqn.DQN":
        agent.setdefault("huber_delta", 1.0)
    if env.get("_target_") in STEERED:
        env.setdefault("time_encoding", "fraction")
    return config


# By the format that each begins with; there is none older than 2.
MIGRATIONS: dict[int, Migration] = {
    2: Migration(config=with_new_settings),
    3: Migration(config=with_settings_of_speed),
    4: Migration(config=with_a_logger_and_entropy_in_bits),
    5: Migration(config=with_one_device),
    6: Migration(config=with_smoothed_labels),
    7: Migration(config=with_damage_for_all),
    8: Migration(config=with_huber_delta_and_time_encoding),
}


def oldest() -> int:
    """The oldest format from which migrations lead to the newest without a gap."""
    found = FORMAT
    while found - 1 in MIGRATIONS:
        found -= 1
    return found


def readable(found: Any, where: str) -> int:
    """The format `found` in a file, known to be one that can be read.

    Args:
        where: what was read, with its key, as `checkpoint: FOLDER`.

    Raises:
        UserError: for a newer format, one that is too old, and what is no format.
    """
    number = isinstance(found, int) and not isinstance(found, bool) and found >= 1
    require(number, f"{where} is damaged (it says format {found!r}, which is no number from 1).")
    newer = f"{where} was written by format {found} of rlgen, this version reads up to {FORMAT}; update rlgen."
    require(found <= FORMAT, newer)
    span = f"{oldest()} to {FORMAT}" if oldest() < FORMAT else f"{FORMAT} alone"
    older = f"{where} was written by format {found} of rlgen, this version reads {span}; open it with an earlier one."
    require(found >= oldest(), older)
    return int(found)


def current_config(saved: Plain, found: int) -> Plain:
    """A run's config of the format `found`, as the newest format has it; `saved` stays as it is."""
    for migration in _from(found):
        saved = migration.config(_copied(saved))
    return saved


def current_part(name: str, saved: Plain, found: int) -> Plain:
    """The components of a checkpoint's part of the format `found`, as the newest format has them; `saved` stays as it
    is, and tensors are shared."""
    for migration in _from(found):
        saved = migration.parts.get(name, unchanged)(_copied(saved))
    return saved


def _from(found: int) -> list[Migration]:
    """The migrations from a format to the newest, in order."""
    return [MIGRATIONS[number] for number in range(found, FORMAT)]


def _copied(tree: Any) -> Any:
    """Dicts and lists anew; what they hold is the same."""
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_copied(value) for value in tree]
    return tree
