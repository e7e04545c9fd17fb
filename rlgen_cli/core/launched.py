"""What a launcher of several processes, as torchrun, has set in the environment. Imports no torch, so that whoever runs
in one process need not wait for it."""

import os


def processes() -> int:
    """How many processes one training is to have; 1 without a launcher."""
    size = os.environ.get("WORLD_SIZE", "")
    return max(1, int(size)) if size.isdigit() else 1


def speaks() -> bool:
    """Whether this process is the one that speaks for all; it learns of what the others have met."""
    return processes() == 1 or os.environ.get("RANK") == "0"
