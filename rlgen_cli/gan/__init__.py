"""Generative adversarial networks: what an agent steers, and how they are trained."""
