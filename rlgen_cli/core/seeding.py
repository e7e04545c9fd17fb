"""One seed, many named random streams, so that sampling and evaluation never disturb training."""

import hashlib

import torch

STREAMS = ("env", "policy", "replay", "reward", "gan", "init")


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for (`seed`, `name`): streams of different names are unrelated."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:7], "big"))


def streams(seed: int, device: torch.device | str) -> dict[str, torch.Generator]:
    """All training streams by name."""
    return {name: stream(seed, name, device) for name in STREAMS}
