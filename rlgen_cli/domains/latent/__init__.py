"""Samples of a generator that is steered: the environments, ways of steering, damages and scores."""
