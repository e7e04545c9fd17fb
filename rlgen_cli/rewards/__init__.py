"""Rewards: named, weighted terms, each a score of samples turned into a per-step reward."""
