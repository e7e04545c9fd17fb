"""rlgen: reinforcement learning that makes things."""

__version__ = "0.1.0"
