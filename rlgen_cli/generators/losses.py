"""GAN losses on logits of real and generated samples, [N] each, and the gradient penalties that go with them."""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rlgen_cli.core.errors import require


class Penalty(Protocol):
    """What is added to the discriminator's loss every `interval` updates, `interval` times as heavy, so that it costs
    less time (lazy regularisation, Karras et al. 2020)."""

    weight: float
    interval: int
    on_real: bool  # needs gradients on the real samples
    on_fake: bool  # needs gradients on the generated samples

    def __call__(self, batch: "JudgedBatch") -> Tensor:
        """A scalar, not weighted."""
        ...


class JudgedBatch:
    """Real and generated samples [N, C, H, W] with their logits [N], and the function that gives logits of others.

    Args:
        real, fake: the samples.
        real_logit, fake_logit: their logits.
        logits: of other samples, each under the label that the generated sample in its place was asked for.
        rng: for the places between samples.
    """

    def __init__(
        self,
        *,
        real: Tensor,
        fake: Tensor,
        real_logit: Tensor,
        fake_logit: Tensor,
        logits: Callable[[Tensor], Tensor],
        rng: torch.Generator,
    ) -> None:
        self.real, self.fake, self.real_logit, self.fake_logit = real, fake, real_logit, fake_logit
        self.logits, self.rng = logits, rng


class R1Penalty:
    """‖∇D‖² on real samples (Mescheder et al. 2018).

    Args:
        weight: γ / 2 of the paper.
        interval: updates between two penalties.
    """

    on_real, on_fake = True, False

    def __init__(self, *, weight: float, interval: int) -> None:
        _check(weight, interval)
        self.weight, self.interval = float(weight), interval

    def __call__(self, batch: JudgedBatch) -> Tensor:
        return squared_grad_norm(batch.real_logit, batch.real).mean()


class R1R2Penalty:
    """‖∇D‖² on real samples plus ‖∇D‖² on generated ones (Mescheder et al. 2018; R3GAN, Huang et al. 2024).

    Args:
        weight: γ / 2 of the paper.
        interval: updates between two penalties.
    """

    on_real, on_fake = True, True

    def __init__(self, *, weight: float, interval: int) -> None:
        _check(weight, interval)
        self.weight, self.interval = float(weight), interval

    def __call__(self, batch: JudgedBatch) -> Tensor:
        real = squared_grad_norm(batch.real_logit, batch.real)
        return (real + squared_grad_norm(batch.fake_logit, batch.fake)).mean()


class WassersteinPenalty:
    """(‖∇D‖ − 1)² at random places between real and generated samples (WGAN-GP, Gulrajani et al. 2017).

    Args:
        weight: λ of the paper.
        interval: updates between two penalties.
    """

    on_real, on_fake = False, False

    def __init__(self, *, weight: float, interval: int) -> None:
        _check(weight, interval)
        self.weight, self.interval = float(weight), interval

    def __call__(self, batch: JudgedBatch) -> Tensor:
        return distance_from_unit_norm(batch.logits, batch.real, batch.fake, batch.rng).mean()


class AdversarialLoss:
    """What discriminator and generator descend, and the penalty.

    Args:
        kind: nonsaturating (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017), hinge (Lim and Ye 2017) or
            relativistic: real and generated samples in pairs (Jolicoeur-Martineau 2019, as in R3GAN, Huang et al.
            2024).
        penalty: on the discriminator's gradient, or null.
    """

    def __init__(
        self, *, kind: Literal["nonsaturating", "wasserstein", "hinge", "relativistic"], penalty: Penalty | None
    ) -> None:
        self.kind, self.penalty = kind, penalty

    @property
    def relativistic(self) -> bool:
        """Whether the generator's loss needs the logits of real samples."""
        return self.kind == "relativistic"

    def due_penalty(self, num_updates: int) -> Penalty | None:
        """The penalty, in the updates that take one."""
        penalty = self.penalty
        return penalty if penalty is not None and penalty.weight and num_updates % penalty.interval == 0 else None

    def discriminator(self, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
        """The discriminator's loss without the penalty, a scalar."""
        if self.kind == "nonsaturating":
            return softplus(-real_logit).mean() + softplus(fake_logit).mean()
        if self.kind == "wasserstein":
            return fake_logit.mean() - real_logit.mean()
        if self.kind == "hinge":
            return (1 - real_logit).relu().mean() + (1 + fake_logit).relu().mean()
        return softplus(fake_logit - real_logit).mean()

    def generator(self, real_logit: Tensor | None, fake_logit: Tensor) -> Tensor:
        """The generator's loss, a scalar; `real_logit` is given where the loss is relativistic."""
        if self.kind == "nonsaturating":
            return softplus(-fake_logit).mean()
        if self.kind == "relativistic":
            assert real_logit is not None
            return softplus(real_logit - fake_logit).mean()
        return -fake_logit.mean()


def squared_grad_norm(logit: Tensor, x: Tensor) -> Tensor:
    """‖∂ logit / ∂ x‖² of each sample, [N], differentiable."""
    (grad,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    return grad.square().flatten(1).sum(1)


def distance_from_unit_norm(
    logits: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: torch.Generator
) -> Tensor:
    """(‖∇ logit‖ − 1)² of each pair, [N], at a random place between `real` and `fake`."""
    fraction = torch.rand(len(real), *[1] * (real.dim() - 1), generator=rng, device=real.device)
    between = (fraction * real + (1 - fraction) * fake).detach().requires_grad_()
    return ((squared_grad_norm(logits(between), between) + 1e-12).sqrt() - 1).square()


def _check(weight: float, interval: int) -> None:
    require(weight >= 0, f"weight: must be at least 0, got {weight}.")
    require(interval >= 1, f"interval: must be at least 1, got {interval}.")
