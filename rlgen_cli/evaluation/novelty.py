"""How far samples are from the nearest training sample: what only repeats its data is near to it."""

import torch
from torch import Tensor

AT_ONCE = 4096  # training samples that are compared at a time


def nearest(made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance to the nearest of `real` [M, …] for each of `made` [N, …], float [N], and which that is, int64
    [N]; numbers of one kind, as uint8 pictures or features."""
    flat = made.flatten(1).float()
    parts = [torch.cdist(flat, part.flatten(1).float()) for part in real.split(AT_ONCE)]
    index = torch.cat(parts, 1).argmin(1)
    return (flat - real[index].flatten(1).float()).norm(dim=1), index  # cdist is not exact near 0


def nearest_known(seen: Tensor, known: Tensor | None, real: Tensor) -> Tensor:
    """Index of the picture of `real` [M, C, H, W] that fits best to what is `seen` [N, C, H, W] where that is `known`,
    bool [N, 1, H, W], or all over, int64 [N]; a picture of which nothing is known counts as known."""
    compared = torch.ones_like(seen)
    if known is not None:
        compared = compared * (known | ~known.flatten(1).any(1).view(-1, 1, 1, 1))
    weight, wanted = compared.flatten(1), (compared * seen).flatten(1)
    parts = []
    for part in real.split(AT_ONCE):
        flat = part.flatten(1)
        parts.append(weight @ flat.square().T - 2 * wanted @ flat.T)
    return torch.cat(parts, 1).argmin(1)
