"""One seed, many named random streams, so that sampling and evaluation never disturb training."""

import hashlib
import logging
from typing import Any

import torch

from rlgen_cli.core import ranks

STREAMS = ("env", "policy", "agent", "reward", "generator")
log = logging.getLogger(__name__)


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for (`seed`, `name`): streams of different names are unrelated.

    The meta device, which computes shapes only, has no generator; the CPU's stands in for it.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    place = "cpu" if torch.device(device).type == "meta" else device
    return torch.Generator(device=place).manual_seed(int.from_bytes(digest[:7], "big"))


def streams(seed: int, device: torch.device | str) -> dict[str, torch.Generator]:
    """All training streams of this rank by name."""
    return {name: stream(seed, of_rank(name), device) for name in STREAMS}


def of_rank(name: str) -> str:
    """What this rank's stream of that name is called."""
    return name if ranks.first() else f"{name}/rank {ranks.rank()}"


def streams_state(generators: dict[str, torch.Generator]) -> dict[str, Any]:
    """The streams as a checkpoint holds them."""
    return {name: {"device": rng.device.type, "state": rng.get_state()} for name, rng in generators.items()}


def restore_streams(generators: dict[str, torch.Generator], saved: dict[str, Any], seed: int, step: int) -> None:
    """Bring the streams to where `saved` was. A stream that was drawn on another kind of device has no counterpart
    here: it begins anew from the seed and the step, so that the run goes on, though not bit for bit."""
    for name, rng in generators.items():
        if saved[name]["device"] == rng.device.type:
            rng.set_state(saved[name]["state"].cpu())
        else:
            begin_anew({name: rng}, seed, str(step))
            log.warning("the random stream %s was drawn on %s; it begins anew on %s", name, saved[name]["device"],
                        rng.device.type)  # fmt: skip


def begin_anew(generators: dict[str, torch.Generator], seed: int, place: str) -> None:
    """Let the streams begin anew from the seed and a place in the training, which has a name of its own."""
    for name, rng in generators.items():
        rng.set_state(stream(seed, f"{of_rank(name)}/{place}", rng.device).get_state())
