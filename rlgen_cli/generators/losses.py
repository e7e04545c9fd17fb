"""GAN losses on logits of real and made samples, [N] each, and the gradient penalties that go with them."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

Loss: TypeAlias = Literal["nonsaturating", "wasserstein", "hinge", "relativistic"]


def discriminator_loss(kind: Loss, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """What the discriminator descends, a scalar.

    nonsaturating: Goodfellow et al. 2014; wasserstein: Arjovsky et al. 2017; hinge: Lim and Ye 2017; relativistic:
    real and made samples in pairs (Jolicoeur-Martineau 2019, as in R3GAN, Huang et al. 2024).
    """
    if kind == "nonsaturating":
        return softplus(-on_real).mean() + softplus(on_fake).mean()
    if kind == "wasserstein":
        return on_fake.mean() - on_real.mean()
    if kind == "hinge":
        return (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()
    return softplus(on_fake - on_real).mean()


def generator_loss(kind: Loss, on_real: Tensor | None, on_fake: Tensor) -> Tensor:
    """What the generator descends, a scalar; only relativistic looks at real samples."""
    if kind == "nonsaturating":
        return softplus(-on_fake).mean()
    if kind == "relativistic":
        assert on_real is not None
        return softplus(on_real - on_fake).mean()
    return -on_fake.mean()


def squared_slope(score: Tensor, x: Tensor) -> Tensor:
    """‖∂ score / ∂ x‖² per sample, [N], differentiable: R1 on real and R2 on made samples (Mescheder et al. 2018)."""
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


def slope_between(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """(‖∇ score‖ − 1)² per pair, [N], at a random place between `real` and `fake` (Gulrajani et al. 2017)."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), generator=rng, device=real.device)
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    return ((squared_slope(score(between), between) + 1e-12).sqrt() - 1).square()
