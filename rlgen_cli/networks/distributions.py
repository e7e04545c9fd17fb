"""Policies over every action space: what to draw from, and the heads that make it from features.

A distribution is over N actions at once. `entropy` is exact where each decision is independent; an autoregressive
policy gives the sum of its conditional entropies along `action`, whose mean over sampled actions is the entropy.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from rlgen_cli.types import ActionSpec, Continuous, Discrete, Factored


class Distribution(Protocol):
    """π(· | N states)."""

    def sample(self, rng: torch.Generator) -> Tensor:
        """Actions; differentiable in the distribution's parameters where the action is continuous."""
        ...

    def mode(self) -> Tensor:
        """The likeliest actions (for several decisions in a row, decision by decision; for continuous ones, the
        centre)."""
        ...

    def log_prob(self, action: Tensor) -> Tensor: ...  # [N]

    def entropy(self, action: Tensor) -> Tensor: ...  # [N]


class Categorical:
    """One choice among A: actions int64 [N]."""

    def __init__(self, logits: Tensor) -> None:
        self.log_p = torch.log_softmax(logits, -1)  # [N, A], −∞ where forbidden

    def sample(self, rng: torch.Generator) -> Tensor:
        uniform = torch.rand(self.log_p.shape, generator=rng, device=self.log_p.device).clamp(1e-9, 1 - 1e-7)
        return (self.log_p - (-uniform.log()).log()).argmax(-1)  # the Gumbel trick

    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, action: Tensor) -> Tensor:
        return -(self.log_p.exp() * self.log_p.clamp(min=-1e4)).sum(-1)


class Decisions:
    """Several choices, one after the other; actions int64 [N, F].

    `step(i, before)` gives the logits [N, sizes[i]] of decision i after the decisions `before` (a list of [N]), so
    that later ones may depend on earlier ones.
    """

    def __init__(self, step: Callable[[int, list[Tensor]], Tensor], count: int) -> None:
        self.step, self.count = step, count

    def sample(self, rng: torch.Generator) -> Tensor:
        return self._decide(lambda choice: choice.sample(rng))

    def mode(self) -> Tensor:
        return self._decide(lambda choice: choice.mode())

    def log_prob(self, action: Tensor) -> Tensor:
        choices = zip(self._choices(action), action.unbind(1), strict=True)
        return torch.stack([choice.log_prob(part) for choice, part in choices]).sum(0)

    def entropy(self, action: Tensor) -> Tensor:
        parts = zip(self._choices(action), action.unbind(1), strict=True)
        return torch.stack([choice.entropy(part) for choice, part in parts]).sum(0)

    def _choices(self, action: Tensor) -> list[Categorical]:
        before = list(action.unbind(1))
        return [Categorical(self.step(i, before[:i])) for i in range(self.count)]

    def _decide(self, pick: Callable[[Categorical], Tensor]) -> Tensor:
        before: list[Tensor] = []
        for i in range(self.count):
            before.append(pick(Categorical(self.step(i, before))))
        return torch.stack(before, 1)


class SquashedGaussian:
    """Sigmoid of a normal variable: float [N, D] in (0, 1). `mean` and `log_std` are those before the sigmoid."""

    # Gauss-Hermite nodes and weights for E[f(ε)], ε standard normal: exact for polynomials up to degree 9.
    NODES = (-2.8569700138728, -1.3556261799743, 0.0, 1.3556261799743, 2.8569700138728)
    WEIGHTS = (0.0112574113277, 0.2220759220056, 0.5333333333333, 0.2220759220056, 0.0112574113277)

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, rng: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=rng, device=self.mean.device)
        return torch.sigmoid(self.mean + self.log_std.exp() * noise)

    def mode(self) -> Tensor:
        return torch.sigmoid(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        action = action.clamp(1e-6, 1 - 1e-6)
        raw = torch.logit(action)
        normal = -0.5 * ((raw - self.mean) / self.log_std.exp()).square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return (normal - (action * (1 - action)).log()).sum(-1)  # minus the sigmoid's log slope

    def entropy(self, action: Tensor) -> Tensor:
        """H of the normal plus the mean log slope of the sigmoid, the mean by quadrature."""
        normal = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        slope = torch.zeros_like(self.mean)
        for node, weight in zip(self.NODES, self.WEIGHTS, strict=True):
            raw = self.mean + node * self.log_std.exp()
            slope = slope + weight * (logsigmoid(raw) + logsigmoid(-raw))
        return (normal + slope).sum(-1)


class Beta:
    """Independent Beta variables (Chou et al. 2017): float [N, D] in (0, 1)."""

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        self.alpha, self.beta = alpha, beta
        self.base = torch.distributions.Beta(alpha, beta, validate_args=False)

    def sample(self, rng: torch.Generator) -> Tensor:
        one = torch._standard_gamma(self.alpha, generator=rng)  # torch.distributions takes no generator
        two = torch._standard_gamma(self.beta, generator=rng)
        return (one / (one + two).clamp(min=1e-30)).clamp(1e-6, 1 - 1e-6)

    def mode(self) -> Tensor:
        return self.alpha / (self.alpha + self.beta)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.base.log_prob(action.clamp(1e-6, 1 - 1e-6)).sum(-1)

    def entropy(self, action: Tensor) -> Tensor:
        return self.base.entropy().sum(-1)


class Joint:
    """Decisions first, then continuous numbers that may depend on them; actions float [N, F + D]."""

    def __init__(self, first: Decisions, then: Callable[[list[Tensor]], Distribution]) -> None:
        self.first, self.then = first, then

    def sample(self, rng: torch.Generator) -> Tensor:
        decided = self.first.sample(rng)
        return torch.cat([decided.float(), self.then(list(decided.unbind(1))).sample(rng)], 1)

    def mode(self) -> Tensor:
        decided = self.first.mode()
        return torch.cat([decided.float(), self.then(list(decided.unbind(1))).mode()], 1)

    def log_prob(self, action: Tensor) -> Tensor:
        decided, rest = self._split(action)
        return self.first.log_prob(decided) + self.then(list(decided.unbind(1))).log_prob(rest)

    def entropy(self, action: Tensor) -> Tensor:
        decided, rest = self._split(action)
        return self.first.entropy(decided) + self.then(list(decided.unbind(1))).entropy(rest)

    def _split(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return action[:, : self.first.count].long(), action[:, self.first.count :]


class Head(nn.Module):
    """Features [N, width] to a distribution over the actions of `spec`.

    Args:
        order: independent (all decisions from the features alone) or autoregressive (each sees the earlier ones, as
            SPIRAL's).
        continuous: gaussian (squashed) or beta. std: of the Gaussian before the sigmoid, at the start.
    """

    def __init__(
        self,
        spec: ActionSpec,
        width: int,
        order: Literal["independent", "autoregressive"],
        continuous: Literal["gaussian", "beta"],
        std: float,
    ) -> None:
        super().__init__()
        self.spec, self.beta = spec, continuous == "beta"
        self.sizes, dim = parts(spec)
        self.logits = nn.ModuleList(small(nn.Linear(width, n)) for n in self.sizes)
        chained = order == "autoregressive" and not isinstance(spec, Discrete)
        self.decided = nn.ModuleList(nn.Embedding(n, width) for n in self.sizes) if chained else None
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in self.sizes) if chained else None
        self.numbers = small(nn.Linear(width, 2 * dim)) if dim else None
        self.start = math.log(std)

    def forward(self, features: Tensor) -> Distribution:
        if isinstance(self.spec, Discrete):
            return Categorical(self.logits[0](features))
        decisions = Decisions(lambda i, before: self.logits[i](self._aware(features, before)), len(self.sizes))
        if self.numbers is None:
            return decisions
        if isinstance(self.spec, Continuous):
            return self._continuous(features)
        return Joint(decisions, lambda before: self._continuous(self._aware(features, before)))

    def _aware(self, features: Tensor, before: list[Tensor]) -> Tensor:
        """Features that know the decisions taken so far."""
        if self.decided is None or self.mix is None:
            return features
        for i, choice in enumerate(before):
            features = features + torch.relu(self.mix[i](features + self.decided[i](choice)))
        return features

    def _continuous(self, features: Tensor) -> Distribution:
        assert self.numbers is not None
        one, two = self.numbers(features).chunk(2, 1)
        if self.beta:
            # Above 1, so that the density has one peak and no infinite ends; 1 + softplus(.54) = 2 at the start.
            return Beta(1 + softplus(one + 0.54), 1 + softplus(two + 0.54))
        return SquashedGaussian(one, (self.start + two).clamp(-5.0, 1.5))


def parts(spec: ActionSpec) -> tuple[list[int], int]:
    """The sizes of an action's decisions, and how many continuous numbers follow."""
    if isinstance(spec, Discrete):
        return [spec.n], 0
    if isinstance(spec, Factored):
        return list(spec.sizes), 0
    if isinstance(spec, Continuous):
        return [], spec.dim
    return list(spec.discrete.sizes), spec.continuous.dim


def small(linear: nn.Linear) -> nn.Linear:
    """Start near the uniform policy: small weights, no bias."""
    nn.init.normal_(linear.weight, std=0.01 / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
    return linear
