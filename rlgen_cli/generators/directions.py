"""Directions in a latent space, from what changes a picture most to what changes it least."""

from collections.abc import Callable

import torch
from torch import Tensor

NEAR = 0.1  # how far a difference reaches


@torch.no_grad()
def learned(features: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The eigenvectors of the mean JᵀJ, J being the slope of the pictures' features with z (as Wang and Ponce 2021, who
    measure by a perceptual distance), by differences; [D, D], a row each.

    Args:
        features: of the pictures of z, [N, F]. z: latents [N, D] around which it is looked.
    """
    away = NEAR * torch.eye(z.shape[1], device=z.device)
    slope = torch.stack([features(z + step) - features(z - step) for step in away], 1)  # [N, D, F]
    return torch.linalg.eigh(torch.einsum("nif,njf->ij", slope, slope)).eigenvectors.T.flip(0)
