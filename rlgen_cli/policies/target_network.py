"""How a target network follows the online one."""

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require


class SoftUpdate:
    """A share `tau` of the way at every update."""

    def __init__(self, *, tau: float) -> None:
        require(0.0 < tau <= 1.0, f"tau: must be in (0, 1], got {tau}.")
        self.tau = float(tau)

    @torch.no_grad()
    def follow(self, target: nn.Module, online: nn.Module, updates: int) -> None:
        torch._foreach_lerp_(_weights(target), _weights(online), self.tau)


class HardUpdate:
    """A copy every `interval` updates."""

    def __init__(self, *, interval: int) -> None:
        require(interval >= 1, f"interval: must be at least 1, got {interval}.")
        self.interval = interval

    @torch.no_grad()
    def follow(self, target: nn.Module, online: nn.Module, updates: int) -> None:
        if updates % self.interval == 0:
            torch._foreach_copy_(_weights(target), _weights(online))


def _weights(net: nn.Module) -> list[Tensor]:
    return list(net.parameters())
