"""Ways from a sample to noise (`core.protocols.NoisePath`)."""

import math
from typing import Literal

import torch
from torch import Tensor

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
