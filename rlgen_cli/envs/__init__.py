"""Environments: batches of unfinished samples, as pure functions over a state."""
