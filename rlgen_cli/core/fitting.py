"""The training that a small helper network gets once: what rewards, policies and judges see pictures with."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlgen_cli.core.checkpoint import begin

log = logging.getLogger(__name__)


def teach(
    net: nn.Module, what: str, loss: Callable[[torch.Generator], Tensor], steps: int, learning_rate: float
) -> None:
    """`steps` of Adam on `loss`, which draws its own batch; the same weights whatever was drawn before."""
    log.info("training %s once (%d batches)", what, steps)
    rng = torch.Generator().manual_seed(0)
    begin(net, rng)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss(rng).backward()
        optimizer.step()
