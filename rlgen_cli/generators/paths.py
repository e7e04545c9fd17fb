"""Ways from a sample to noise (`core.protocols.NoisePath`)."""

import math
from typing import Literal

import torch
from torch import Tensor

from rlgen_cli.core.protocols import NoisePath

NEAREST = 1e-3  # how near to pure noise a path comes whose network predicts the noise, which tells nothing there


class Flow:
    """The straight way, α = 1 − t and σ = t, on which the velocity ε − x_0 is predicted (flow matching, Lipman et al.
    2023; rectified flow, Liu et al. 2023)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return x - t * prediction


class Cosine:
    """The way that keeps the variance, α = cos(πt/2) and σ = sin(πt/2) (Nichol and Dhariwal 2021).

    Args:
        prediction: noise (ε, Ho et al. 2020) or velocity (α ε − σ x_0, Salimans and Ho 2022).
    """

    def __init__(self, *, prediction: Literal["noise", "velocity"]) -> None:
        self.noise = prediction == "noise"

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (1 - NEAREST) * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._angle(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t))

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise if self.noise else self.alpha(t) * noise - self.sigma(t) * x0

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.alpha(t), self.sigma(t)
        return (x - sigma * prediction) / alpha if self.noise else alpha * x - sigma * prediction


class Timesteps:
    """The way that keeps the variance and has a table of its own, as schedulers of the diffusers library do. Timestep k
    of T is the time k / (T − 1), but for the time 0, which is the sample itself; between two of them α and σ lie on
    their chord, scaled so that α² + σ² = 1.

    Args:
        alphas_cumprod: α² of the timesteps, float64 [T], falling, T at least 2.
        prediction: epsilon (the noise), sample (x_0), or v_prediction (α ε − σ x_0).
        clip_range: estimates are cut off at ± this, while gradients pass as if nothing were; None: they are not.
    """

    def __init__(
        self,
        *,
        alphas_cumprod: Tensor,
        prediction: Literal["epsilon", "sample", "v_prediction"],
        clip_range: float | None,
        device: torch.device,
    ) -> None:
        kept = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[1:]])
        self.table = torch.stack([kept, 1 - kept]).sqrt().float().to(device)  # [2, T]
        self.prediction, self.clip_range = prediction, clip_range

    def _shares(self, t: Tensor) -> Tensor:
        """α and σ, [2, …] of times […]."""
        last = self.table.shape[1] - 1
        place = t.to(self.table.dtype) * last
        low = place.floor().clamp(0, last - 1).long().flatten()  # indexing by a tensor of no dimension would sync
        before, after = (self.table.index_select(1, k).view(2, *t.shape) for k in (low, low + 1))
        between = torch.lerp(before, after, place - low.view_as(place))
        return between / between.square().sum(0).sqrt()

    def alpha(self, t: Tensor) -> Tensor:
        return self._shares(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        return self._shares(t)[1]

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self._shares(t)
        return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0}[self.prediction]

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self._shares(t)
        if self.prediction == "epsilon":
            estimate = (x - sigma * prediction) / alpha
        else:
            estimate = prediction if self.prediction == "sample" else alpha * x - sigma * prediction
        if self.clip_range is None:
            return estimate
        return estimate.clamp(-self.clip_range, self.clip_range).detach() + (estimate - estimate.detach())


def change_kept(path: NoisePath, times: Tensor) -> Tensor:
    """Of steps between successive times [K + 1], falling: by how much of the estimate's change since the step before
    each goes on, so that it is of second order (DPM-Solver++(2M), Lu et al. 2022), [K]. That is half of how its length
    in log(α / σ) compares with that of the step before; nothing in the first, and where a length is infinite."""
    log_ratio = (path.alpha(times) / path.sigma(times)).log()
    length = log_ratio[1:] - log_ratio[:-1]
    share = torch.cat([torch.zeros_like(length[:1]), 0.5 * length[1:] / length[:-1]])
    return torch.where(share.isfinite(), share, 0.0)
