"""Policies over every action space: what to draw from, and the heads that make it from features.

A distribution is over N actions at once. Entropies are exact where decisions are independent; an autoregressive policy
gives the sum of its conditional entropies along the evaluated action, whose mean over sampled actions is the entropy.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from rlgen_cli.core.specs import ActionSpec, Continuous, Discrete, Factored, Normal


class Distribution(Protocol):
    """π(· | N states)."""

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions and their log probabilities [N]; differentiable in the parameters where the action is continuous."""
        ...

    def mode(self) -> Tensor:
        """The likeliest actions (of several decisions, each after the ones before; of continuous ones, the centre)."""
        ...

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities of actions, and entropies, [N] each."""
        ...


class Categorical:
    """One choice among A: actions int64 [N]."""

    def __init__(self, logits: Tensor) -> None:
        self.log_p = torch.log_softmax(logits, -1)  # [N, A], −∞ where forbidden

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        # The inverse of the cumulative distribution: one number a row, far faster than a Gumbel variable an action.
        cumulative = self.log_p.detach().exp().cumsum(-1)
        uniform = 1 - torch.rand((*self.log_p.shape[:-1], 1), generator=rng, device=self.log_p.device)  # in (0, 1]
        action = torch.searchsorted(cumulative, uniform * cumulative[..., -1:]).squeeze(-1)
        return action, self._of(action)

    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return self._of(action), -(self.log_p.exp() * self.log_p.clamp(min=-1e4)).sum(-1)

    def _of(self, action: Tensor) -> Tensor:
        return self.log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class Decided(NamedTuple):
    """Decisions taken one after the other."""

    action: list[Tensor]  # F of [N]
    log_prob: Tensor  # [N], of all of them
    entropy: Tensor  # [N], the sum of each decision's, given the ones before
    features: Tensor  # [N, D], knowing all decisions


class Decisions:
    """Several choices, one after the other; actions int64 [N, F].

    Args:
        features: what the first decision knows, [N, D].
        logits: of decision i, from features. absorb: features that know what decision i was, too.
        count: F.
    """

    def __init__(
        self,
        features: Tensor,
        logits: Callable[[int, Tensor], Tensor],
        absorb: Callable[[int, Tensor, Tensor], Tensor],
        count: int,
    ) -> None:
        self.features, self.logits, self.absorb, self.count = features, logits, absorb, count

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        made = self.in_order(lambda i, choice: choice.draw(rng)[0])
        return torch.stack(made.action, 1), made.log_prob

    def mode(self) -> Tensor:
        return torch.stack(self.in_order(lambda i, choice: choice.mode()).action, 1)

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        made = self.in_order(lambda i, choice: action[:, i])
        return made.log_prob, made.entropy

    def in_order(self, pick: Callable[[int, Categorical], Tensor]) -> Decided:
        """All decisions, each picked from its distribution after the ones before."""
        features, action, log_prob, entropy = self.features, [], [], []
        for i in range(self.count):
            choice = Categorical(self.logits(i, features))
            action.append(pick(i, choice))
            evaluated = choice.evaluate_actions(action[i])
            log_prob.append(evaluated[0])
            entropy.append(evaluated[1])
            features = self.absorb(i, features, action[i])
        return Decided(action, torch.stack(log_prob).sum(0), torch.stack(entropy).sum(0), features)


class SquashedGaussian:
    """Sigmoid of a normal variable: float [N, D] in (0, 1). `mean` and `log_std` are those before the sigmoid.

    Farther than `LIMIT` from 0 the sigmoid is flat, and its inverse in float32 no longer tells what was drawn, so that
    densities there would be those of other draws, and their gradients grow without bound: a mean beyond counts as the
    limit.
    """

    LIMIT = 8.0

    # Gauss-Hermite nodes and weights for E[f(ε)], ε standard normal: exact for polynomials up to degree 9.
    NODES = (-2.8569700138728, -1.3556261799743, 0.0, 1.3556261799743, 2.8569700138728)
    WEIGHTS = (0.0112574113277, 0.2220759220056, 0.5333333333333, 0.2220759220056, 0.0112574113277)

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean.clamp(-self.LIMIT, self.LIMIT), log_std

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(self.mean.shape, generator=rng, device=self.mean.device)
        action = torch.sigmoid(self.mean + self.log_std.exp() * noise)
        return action, self._log_prob(action)

    def mode(self) -> Tensor:
        return torch.sigmoid(self.mean)

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The entropy is that of the normal plus the mean log derivative of the sigmoid, the mean by quadrature."""
        normal = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        log_derivative = torch.zeros_like(self.mean)
        for node, weight in zip(self.NODES, self.WEIGHTS, strict=True):
            raw = self.mean + node * self.log_std.exp()
            log_derivative = log_derivative + weight * (logsigmoid(raw) + logsigmoid(-raw))
        return self._log_prob(action), (normal + log_derivative).sum(-1)

    def _log_prob(self, action: Tensor) -> Tensor:
        action = action.clamp(1e-6, 1 - 1e-6)
        away = (torch.logit(action) - self.mean) / self.log_std.exp()
        normal = -0.5 * away.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return (normal - (action * (1 - action)).log()).sum(-1)  # minus the sigmoid's log derivative


class Beta:
    """Independent Beta variables (Chou et al. 2017): float [N, D] in (0, 1)."""

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        self.alpha, self.beta = alpha, beta
        self.base = torch.distributions.Beta(alpha, beta, validate_args=False)

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        one = torch._standard_gamma(self.alpha, generator=rng)  # torch.distributions takes no generator
        two = torch._standard_gamma(self.beta, generator=rng)
        action = (one / (one + two).clamp(min=1e-30)).clamp(1e-6, 1 - 1e-6)
        return action, self.base.log_prob(action).sum(-1)

    def mode(self) -> Tensor:
        return self.alpha / (self.alpha + self.beta)

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.log_prob(action.clamp(1e-6, 1 - 1e-6)).sum(-1), self.base.entropy().sum(-1)


class UnitNormal:
    """Independent normal variables of deviation 1: float [N, D].

    Args:
        mean: [N, D]. reduction: of the D log densities and entropies, their sum, or their mean, with which clips of
            ratios do not depend on D, but which is no density; the divergence is the sum's in any case.
    """

    def __init__(self, mean: Tensor, reduction: Literal["sum", "mean"] = "sum") -> None:
        self.mean, self.share = mean, 1.0 if reduction == "sum" else 1.0 / mean.shape[1]

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        action = self.mean + torch.randn(self.mean.shape, generator=rng, device=self.mean.device)
        return action, self._log_prob(action)

    def mode(self) -> Tensor:
        return self.mean

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        entropy = 0.5 * math.log(2 * math.pi * math.e) * self.mean.shape[1] * self.share
        return self._log_prob(action), torch.full_like(self.mean[:, 0], entropy)

    def divergence(self, other: "UnitNormal") -> Tensor:
        """KL(self ‖ other), [N]."""
        return 0.5 * (self.mean - other.mean).square().sum(-1)

    def _log_prob(self, action: Tensor) -> Tensor:
        return -0.5 * self.share * ((action - self.mean).square() + math.log(2 * math.pi)).sum(-1)


class Joint:
    """Decisions first, then continuous numbers that may depend on them; actions float [N, F + D]."""

    def __init__(self, first: Decisions, then: Callable[[Tensor], Distribution]) -> None:
        self.first, self.then = first, then

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        made = self.first.in_order(lambda i, choice: choice.draw(rng)[0])
        rest, log_prob = self.then(made.features).draw(rng)
        return torch.cat([torch.stack(made.action, 1).float(), rest], 1), made.log_prob + log_prob

    def mode(self) -> Tensor:
        made = self.first.in_order(lambda i, choice: choice.mode())
        return torch.cat([torch.stack(made.action, 1).float(), self.then(made.features).mode()], 1)

    def evaluate_actions(self, action: Tensor) -> tuple[Tensor, Tensor]:
        decided, rest = action[:, : self.first.count].long(), action[:, self.first.count :]
        made = self.first.in_order(lambda i, choice: decided[:, i])
        log_prob, entropy = self.then(made.features).evaluate_actions(rest)
        return made.log_prob + log_prob, made.entropy + entropy


class Head(nn.Module):
    """Features [N, width] to a distribution over the actions of `spec`.

    Args:
        order: independent (all decisions from the features alone) or autoregressive (each sees the earlier ones, as
            SPIRAL's).
        continuous: gaussian (squashed) or beta. std: of the Gaussian before the sigmoid, at the start.
        init_scale: of the first weights, times √width.
        cells: parts of the features, each of which alone decides its part of a continuous action, all by the same
            weights; 1: all features decide all.
    """

    def __init__(
        self,
        spec: ActionSpec,
        width: int,
        order: Literal["independent", "autoregressive"],
        continuous: Literal["gaussian", "beta"],
        std: float,
        init_scale: float,
        cells: int = 1,
    ) -> None:
        super().__init__()
        self.spec, self.beta, self.cells = spec, continuous == "beta", cells
        self.sizes, dim = parts(spec)
        width, dim = width // cells, dim // cells
        self.logits = nn.ModuleList(small(nn.Linear(width, n), init_scale) for n in self.sizes)
        chained = order == "autoregressive" and not isinstance(spec, Discrete)
        self.decided = nn.ModuleList(nn.Embedding(n, width) for n in self.sizes) if chained else None
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in self.sizes) if chained else None
        self.numbers = small(nn.Linear(width, 2 * dim), init_scale) if dim else None
        self.means = small(nn.Linear(width, spec.dim), init_scale) if isinstance(spec, Normal) else None
        if self.numbers is not None and not self.beta:
            nn.init.zeros_(self.numbers.weight.data[dim:])  # the same deviation in every state
        self.start = math.log(std)

    def forward(self, features: Tensor) -> Distribution:
        if isinstance(self.spec, Discrete):
            return Categorical(self.logits[0](features))
        if isinstance(self.spec, Continuous):
            return self._continuous(features)
        if self.means is not None:
            return UnitNormal(self.means(features))
        decisions = Decisions(features, lambda i, seen: self.logits[i](seen), self._absorb, len(self.sizes))
        return decisions if self.numbers is None else Joint(decisions, self._continuous)

    def _absorb(self, i: int, features: Tensor, choice: Tensor) -> Tensor:
        """Features that know what decision i was, in an autoregressive policy."""
        if self.decided is None or self.mix is None:
            return features
        return features + torch.relu(self.mix[i](features + self.decided[i](choice)))

    def _continuous(self, features: Tensor) -> Distribution:
        assert self.numbers is not None
        one, two = self.numbers(features.unflatten(1, (self.cells, -1))).chunk(2, 2)  # [N, cells, dim / cells] each
        one, two = one.flatten(1), two.flatten(1)
        if self.beta:
            # Above 1, so that the density has one peak and no infinite ends; 1 + softplus(.54) = 2 at the start.
            return Beta(1 + softplus(one + 0.54), 1 + softplus(two + 0.54))
        return SquashedGaussian(one, (self.start + two).clamp(-5.0, 1.5))


def parts(spec: ActionSpec) -> tuple[list[int], int]:
    """The sizes of an action's decisions, and how many numbers in [0, 1] follow."""
    if isinstance(spec, Normal):
        return [], 0
    if isinstance(spec, Discrete):
        return [spec.n], 0
    if isinstance(spec, Factored):
        return list(spec.sizes), 0
    if isinstance(spec, Continuous):
        return [], spec.dim
    return list(spec.discrete.sizes), spec.continuous.dim


def small(linear: nn.Linear, init_scale: float) -> nn.Linear:
    """Start near the uniform policy: small weights, no bias."""
    nn.init.normal_(linear.weight, std=init_scale / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)
    return linear
