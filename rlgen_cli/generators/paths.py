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


def change_kept(path: NoisePath, times: Tensor) -> Tensor:
    """Of steps between successive times [K + 1], falling: by how much of the estimate's change since the step before
    each goes on, so that it is of second order (DPM-Solver++(2M), Lu et al. 2022), [K]. That is half of how its length
    in log(α / σ) compares with that of the step before; nothing in the first, and where a length is infinite."""
    log_ratio = (path.alpha(times) / path.sigma(times)).log()
    length = log_ratio[1:] - log_ratio[:-1]
    share = torch.cat([torch.zeros_like(length[:1]), 0.5 * length[1:] / length[:-1]])
    return torch.where(share.isfinite(), share, 0.0)
