"""Agents: each file whole and readable alone."""
