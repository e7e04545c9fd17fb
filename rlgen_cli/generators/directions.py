"""Directions in a latent space, from what changes a sample most to what changes it least."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlgen_cli.core.errors import require

STEP = 0.1  # of the central differences


@torch.no_grad()
def most_visible(features: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Eigenvectors of the mean JᵀJ, J being the Jacobian of a sample's features by z, as Wang and Ponce (2021) find
    them with a perceptual distance; here by central differences.

    Args:
        features: [N, F] of the samples of z.
        z: latents [N, D] around which the differences are taken.

    Returns:
        [D, D], one direction in each row.
    """
    steps = STEP * torch.eye(z.shape[1], device=z.device)
    jacobian = torch.stack([features(z + step) - features(z - step) for step in steps], 1)  # [N, D, F]
    require_finite(jacobian)
    return torch.linalg.eigh(torch.einsum("nif,njf->ij", jacobian, jacobian)).eigenvectors.T.flip(0)


def require_finite(measured: Tensor) -> None:
    """Refuse a generator whose training has left the numbers behind: no directions can be found in it.

    Raises:
        UserError: for a number in `measured` that is not finite.
    """
    finite = measured.device.type == "meta" or bool(measured.isfinite().all())
    require(
        finite, "env.generator: its training diverged (it gives numbers that are not finite); lower its learning_rate."
    )


def draw_latents(count: int, latent: int, device: torch.device) -> Tensor:
    """The same latents [count, latent] on every device, around which directions are looked for."""
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(0)).to(device)
