"""An exponential moving average of a network's weights."""

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float, updates_done: int) -> None:
    """Move the average's weights towards those of a network built alike. Their own share grows to `decay`, so that the
    first weights are soon forgotten."""
    decay = min(decay, (1 + updates_done) / (10 + updates_done))
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
