"""Returns over stretches of time: shapes are [B, L], time along the last dimension."""

import math

import torch
from torch import Tensor


def lambda_returns(
    reward: Tensor, value: Tensor, terminated: Tensor, gamma: float, lam: float, bonus: Tensor | None = None
) -> Tensor:
    """G_t = r_t + γ (1 − end_t) ((1 − λ) V(s_{t+1}) + λ (G_{t+1} + b_{t+1})), with G_L = V(s_L), [B, L].

    Args:
        value: [B, L], V of the state that each step led to.
        lam: λ; 0 gives one-step targets, 1 the return up to the stretch's end (Sutton and Barto 2018, eq. 12.18).
        bonus: [B, L − 1], b_{t+1} of the steps after the first: in entropy-regularised learning what the policy earns
            by the entropy of its own choice, −τ log π(a|s), without which λ > 0 has another fixed point than λ = 0.
    """
    going = gamma * (~terminated).float()
    following = value[:, -1]
    returns = []
    for t in reversed(range(reward.shape[1])):
        if bonus is not None and t + 1 < reward.shape[1]:
            following = following + bonus[:, t]
        mixed = (1 - lam) * value[:, t] + lam * following
        following = reward[:, t] + going[:, t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], 1)


def soft_value(q: Tensor, temperature: float, mean: bool = True) -> Tensor:
    """τ · log mean exp(Q / τ) over the last dimension, [B]: between the mean (τ → ∞) and the maximum (τ → 0). Without
    `mean` the log of the sum, which is larger by τ · log of the number of actions."""
    value = temperature * torch.logsumexp(q / temperature, -1)
    return value - temperature * math.log(q.shape[-1]) if mean else value
