"""Values that change with the progress of a training, from 0 (start) to 1 (end)."""

from rlgen_cli.core.errors import require


class Linear:
    """From `start` to `end` over the first `share` of the training, constant afterwards."""

    def __init__(self, start: float, end: float, share: float) -> None:
        require(0.0 < share <= 1.0, f"share: must be in (0, 1], got {share}.")
        self.start, self.end, self.share = float(start), float(end), float(share)

    @property
    def lowest(self) -> float:
        """The smallest value that it takes."""
        return min(self.start, self.end)

    @classmethod
    def constant(cls, value: float) -> "Linear":
        """The same value throughout."""
        return cls(value, value, 1.0)

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(progress / self.share, 1.0)
