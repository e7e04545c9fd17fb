"""How a sampler goes from one time to the next: x_s = c_x x_t + c_0 x̂_0 + std · ε, where x̂_0 is the sample that the
model estimates at x_t, or, in a step of second order, what that comes to if it goes on changing as it did."""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import NoisePath
from rlgen_cli.generators.paths import change_kept

FIRST = 0.99  # where the first of steps that are even in the logarithm of α / σ ends, which begins at −∞
GRID = 1 << 16  # parts of [0, 1] in which a time of a given α / σ is looked up


class Coefficients(NamedTuple):
    """Of K steps, [K] each."""

    state: Tensor  # c_x
    estimate: Tensor  # c_0
    std: Tensor
    change: Tensor  # of the estimate since the step before, how much is added to it


class Sampler(Protocol):
    """What a YAML below configs/sampler builds."""

    def std(self, path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
        """Deviation of the noise that steps from times t to s [K] add."""
        ...


class DDIM:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

    Args:
        eta: share of the noise that the way itself has between two times: 1 is ancestral sampling (Ho et al. 2020).
    """

    def __init__(self, *, eta: float) -> None:
        require(0.0 < eta <= 1.0, f"eta: must be above 0, for actions to have an effect, and at most 1, got {eta}.")
        self.eta = float(eta)

    def std(self, path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
        kept = path.alpha(t) * path.sigma(s) / (path.alpha(s) * path.sigma(t))
        return self.eta * path.sigma(s) * (1 - kept.square()).sqrt()


class FlowSDE:
    """The noise of Flow-GRPO (Liu et al. 2025, eq. 9), σ_t = a √(t / (1 − t)), over the time that a step takes; no step
    adds more noise than its end has.

    Args:
        scale: a.
    """

    def __init__(self, *, scale: float) -> None:
        require(scale > 0, f"scale: must be above 0, got {scale}.")
        self.scale = float(scale)

    def std(self, path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
        noise = self.scale * (t * (t - s) / (1 - t).clamp(min=1e-6)).sqrt()
        return noise.minimum(path.sigma(s))


class ODE:
    """No noise: the ordinary differential equation."""

    def std(self, path: NoisePath, t: Tensor, s: Tensor) -> Tensor:
        return torch.zeros_like(t)


def step_times(
    path: NoisePath, steps: int, last: float, spacing: Literal["time", "log_snr"], device: torch.device
) -> Tensor:
    """The times [steps + 1] between which steps go, from 1 to `last`: even in time, or in log(α / σ), by which most
    steps are where a sample is decided."""
    if spacing == "time":
        return torch.linspace(1, last, steps + 1, device=device)
    grid = torch.linspace(0, 1, GRID + 1, device=device)[1:-1].flip(0)  # falling, so that log(α / σ) rises
    log_ratio = (path.alpha(grid) / path.sigma(grid)).log()
    ends = torch.tensor([max(FIRST, last), last], device=device)
    first, final = (path.alpha(ends) / path.sigma(ends)).log()
    share = torch.linspace(0, 1, steps, device=device) if steps > 1 else torch.ones(1, device=device)
    place = torch.searchsorted(log_ratio, first + share * (final - first)).clamp(max=len(grid) - 1)
    return torch.cat([torch.ones(1, device=device), grid[place]])


def coefficients(sampler: Sampler, path: NoisePath, times: Tensor, order: Literal[1, 2]) -> Coefficients:
    """Of the steps between successive times [K + 1], falling from 1: what of the noise in x_t a step does not add anew
    stays (Song et al. 2021, eq. 12). Those of second order go on with the estimate's change in proportion to
    log(α / σ) (SDE-DPM-Solver++(2M), Lu et al. 2022)."""
    t, s = times[:-1], times[1:]
    std = sampler.std(path, t, s)
    kept = (path.sigma(s).square() - std.square()).clamp(min=0).sqrt() / path.sigma(t)
    return Coefficients(
        kept,
        path.alpha(s) - kept * path.alpha(t),
        std,
        change_kept(path, times) if order == 2 else torch.zeros_like(std),
    )
