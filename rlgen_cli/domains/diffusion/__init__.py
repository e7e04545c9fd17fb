"""Denoising as an episode."""
