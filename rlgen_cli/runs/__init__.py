"""A run from its config to its folder: assembly, stages, the training loop, logging, and opening it again."""
