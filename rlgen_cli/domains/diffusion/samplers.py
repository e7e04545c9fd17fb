"""How a sampler goes from one time to the next: x_s = c_x x_t + c_0 x̂_0 + std · ε, where x̂_0 is the sample that the
model estimates at x_t."""

from typing import NamedTuple, Protocol

from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import NoisePath


class Coefficients(NamedTuple):
    """Of K steps, [K] each."""

    state: Tensor  # c_x
    estimate: Tensor  # c_0
    std: Tensor


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


def coefficients(sampler: Sampler, path: NoisePath, times: Tensor) -> Coefficients:
    """Of the steps between successive times [K + 1], falling from 1: what of the noise in x_t a step does not add anew
    stays (Song et al. 2021, eq. 12)."""
    t, s = times[:-1], times[1:]
    std = sampler.std(path, t, s)
    kept = (path.sigma(s).square() - std.square()).clamp(min=0).sqrt() / path.sigma(t)
    return Coefficients(kept, path.alpha(s) - kept * path.alpha(t), std)
