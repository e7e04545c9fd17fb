"""Planners: they try actions out in the environment, with the true reward, and learn nothing."""
