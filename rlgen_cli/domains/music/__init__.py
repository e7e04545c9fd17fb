"""Sequences that are set token by token: the environment, encodings, datasets, scores, MIDI and sound."""
