"""A search for settings, by Optuna; each trial is a training in a process of its own. Imports no torch."""
