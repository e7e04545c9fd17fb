"""A reward that a GAN is trained for beside its data."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.protocols import Reward
from rlgen_cli.core.specs import View


class FusedReward:
    """The term − λ E[R(G(z))] of the generator's loss.

    Args:
        weight: λ; 0 trains the generator for its data alone.
        balance: gradient makes the reward's gradient on a picture as long as the adversarial one, and the standard
            deviation of its advantage 1, so that λ has no unit; fixed takes both as they are.
        noise_std: of what is added to z for a reward without a gradient (latent_mapper.py).
    """

    def __init__(self, *, weight: float, balance: Literal["fixed", "gradient"], noise_std: float) -> None:
        require(weight >= 0, f"weight: must be at least 0, got {weight}.")
        require(noise_std > 0, f"noise_std: must be above 0, got {noise_std}.")
        self.weight, self.balance, self.noise_std = float(weight), balance, float(noise_std)
        self.reward: Reward | None = None
        self.has_gradient: bool | None = None  # whether gradients flow from the reward to a sample; not yet known

    @property
    def active(self) -> bool:
        return self.weight > 0

    def attach(self, reward: Reward) -> None:
        """The run's reward."""
        self.reward, self.has_gradient = reward, None

    def differentiable(self, finished: Callable[[Tensor], Tensor], shape: tuple[int, ...], z: Tensor) -> bool:
        """Whether gradients flow from the reward to a raw sample of this shape, found out with a grey one.

        Args:
            finished: turns raw samples into what rewards see.
            shape: of a raw sample.
            z: latents [2, latent].
        """
        if self.has_gradient is None:
            raw = torch.full((2, *shape), 0.5, device=z.device, requires_grad=True)
            label = torch.zeros(2, dtype=torch.long, device=z.device)
            values = self.values(finished(raw), z, label)
            # The values of a reward that learns have a gradient of its weights, which says nothing of the sample.
            reaches = values.requires_grad and torch.autograd.grad(values.sum(), raw, allow_unused=True)[0] is not None
            self.has_gradient = reaches
        return self.has_gradient

    def values(self, sample: Tensor, z: Tensor, label: Tensor) -> Tensor:
        """The reward of finished samples, [N], as an episode of one step would give it.

        Args:
            sample: pictures [N, C, H, W] in [0, 1], or tokens [N, T, 1].
            z: their latents [N, latent].
            label: int64 [N].
        """
        assert self.reward is not None, "attach_reward was not called"
        empty = torch.full_like(sample, 0 if sample.is_floating_point() else -1)
        context = {"label": label, "start_latent": z.detach()}
        before, after = {"latent": z.detach()}, {"latent": z.detach()}
        if not sample.is_floating_point():
            context["prime"] = empty[:, 0]
            before["num_tokens"], after["num_tokens"] = torch.zeros_like(label), torch.full_like(label, sample.shape[1])
        done = torch.ones_like(label, dtype=torch.bool)
        try:
            return self.reward(View(empty, context, before), View(sample, context, after), done).total
        except KeyError as missing:
            raise UserError(
                f"fused_reward.weight: the reward needs {missing.args[0]}, which samples do not have while the "
                "generator is trained; use 0 or another reward."
            ) from None

    def gradient(self, values: Tensor, sample: Tensor, loss_grad: Tensor) -> Tensor:
        """The gradient of the mean of `values` [N] on the samples, [N, C, H, W]; with balance=gradient as long as
        `loss_grad`, the adversarial loss's."""
        (reward_grad,) = torch.autograd.grad(values.mean(), sample)
        if self.balance == "fixed":
            return reward_grad
        wanted, found = (ranks.total(grad.square().sum()).sqrt() for grad in (loss_grad, reward_grad))
        return reward_grad * wanted / (found + 1e-12)

    def advantage(self, values: Tensor) -> Tensor:
        """`values` [N] less their mean; with balance=gradient also divided by their standard deviation."""
        mean, deviation = ranks.moments(values, correction=1)
        return values - mean if self.balance == "fixed" else (values - mean) / (deviation + 1e-6)
