"""Returns and backups against numbers worked by hand."""

import math

import pytest
import torch

from rlgen_cli.agents.backups import Backup, MaxBackup, NextValues, PriorBackup, SoftBackup
from rlgen_cli.core.returns import lambda_returns, soft_value

TAU, GAMMA = 0.5, 0.9
REWARD = torch.tensor([1.0, 0.0])  # of the two actions of an episode that never ends
PRIOR = torch.tensor([0.25, 0.75])


def test_one_step_is_the_td_target():
    reward, value = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    assert lambda_returns(reward, value, torch.tensor([[False]]), 0.9, 1.0).item() == pytest.approx(10.0)  # 1 + .9·10
    assert lambda_returns(reward, value, torch.tensor([[True]]), 0.9, 1.0).item() == 1.0


def test_n_step_by_hand():
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.tensor([[10.0, 20.0, 30.0]])
    going = torch.zeros(1, 3, dtype=torch.bool)
    # G2 = 3 + .5·30 = 18; G1 = 2 + .5·18 = 11; G0 = 1 + .5·11 = 6.5
    assert lambda_returns(reward, value, going, 0.5, 1.0).tolist() == [[6.5, 11.0, 18.0]]
    # λ = 0: 1 + .5·10, 2 + .5·20, 3 + .5·30
    assert lambda_returns(reward, value, going, 0.5, 0.0).tolist() == [[6.0, 12.0, 18.0]]
    # λ = .5: G2 = 18; G1 = 2 + .5(.5·20 + .5·18) = 11.5; G0 = 1 + .5(.5·10 + .5·11.5) = 6.375
    assert lambda_returns(reward, value, going, 0.5, 0.5).tolist() == [[6.375, 11.5, 18.0]]


def test_nothing_flows_over_an_end():
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.full((1, 3), 100.0)
    ended = torch.tensor([[False, True, False]])
    # G1 = 2 (the episode ends there); G0 = 1 + .5·2
    assert lambda_returns(reward, value, ended, 0.5, 1.0).tolist() == [[2.0, 2.0, 53.0]]


def test_a_bonus_by_hand():
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    bonus, going = torch.tensor([[4.0, 8.0]]), torch.zeros(1, 3, dtype=torch.bool)
    # G2 = 18; G1 = 2 + .5(.5·20 + .5·(18 + 8)) = 13.5; G0 = 1 + .5(.5·10 + .5·(13.5 + 4)) = 7.875
    assert lambda_returns(reward, value, going, 0.5, 0.5, bonus).tolist() == [[7.875, 13.5, 18.0]]
    # With λ = 0 nothing of the later steps is looked at, nor is their bonus.
    assert lambda_returns(reward, value, going, 0.5, 0.0, bonus).tolist() == [[6.0, 12.0, 18.0]]
    # Nor does a bonus flow over an end.
    ended = torch.tensor([[False, True, False]])
    assert lambda_returns(reward, value, ended, 0.5, 1.0, bonus).tolist() == [[1 + 0.5 * (2 + 4), 2.0, 18.0]]


def test_soft_value_by_hand():
    q = torch.tensor([[0.0, math.log(3.0)]])
    assert soft_value(q, 1.0).item() == pytest.approx(math.log(2.0))  # log((1 + 3) / 2)
    assert soft_value(q, 1.0, mean=False).item() == pytest.approx(math.log(4.0))
    assert soft_value(q, 1e-4).item() == pytest.approx(math.log(3.0), abs=1e-3)
    assert soft_value(q, 1e4).item() == pytest.approx(math.log(3.0) / 2, abs=1e-3)


def test_backups_by_hand():
    q = torch.tensor([[0.0, math.log(3.0), 5.0, 1.0]])  # two decisions, of two values each
    online = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    known = NextValues(q, None, None, [2, 2], 1.0)
    assert MaxBackup(double=False).value(known).item() == pytest.approx((math.log(3) + 5) / 2)
    # The online network takes the first value of one decision and the second of the other: 0 and 1.
    assert MaxBackup(double=True).value(known._replace(online_q=online)).item() == pytest.approx(0.5)
    soft = (math.log(4) + math.log(math.exp(5) + math.exp(1))) / 2
    assert SoftBackup(mean=False).value(known).item() == pytest.approx(soft)
    assert SoftBackup(mean=True).value(known).item() == pytest.approx(soft - math.log(2))
    one = NextValues(q[:, :2], None, PRIOR.log().unsqueeze(0), [2], 1.0)
    assert PriorBackup().value(one).item() == pytest.approx(math.log(0.25 * 1 + 0.75 * 3))


# c with V = c / (1 − γ) and Q(a) = r(a) + γ V: τ log mean, sum, or mean by the prior, of exp(r / τ) = e² and 1.
FIXED_POINTS: dict[str, tuple[Backup, float]] = {
    "soft": (SoftBackup(mean=True), TAU * math.log((math.exp(2) + 1) / 2)),
    "psi": (SoftBackup(mean=False), TAU * math.log(math.exp(2) + 1)),
    "g": (PriorBackup(), TAU * math.log(0.25 * math.exp(2) + 0.75)),
}


@pytest.mark.parametrize("name", FIXED_POINTS)
def test_soft_lambda_returns_have_the_fixed_point_of_one_step_targets(name):
    """At the fixed point a step's λ-return is Q of its action, for every λ and whatever is done afterwards."""
    backup, constant = FIXED_POINTS[name]
    v = constant / (1 - GAMMA)
    q = REWARD + GAMMA * v
    actions = torch.cartesian_prod(*[torch.arange(2)] * 4)  # all sequences of four actions, [16, 4]
    shape = actions.shape
    known = NextValues(q.expand(actions.numel(), 2), None, PRIOR.log().expand(actions.numel(), 2), [2], TAU)
    value = backup.value(known).view(shape)
    torch.testing.assert_close(value, torch.full(shape, v))
    going, bonus = torch.zeros(shape, dtype=torch.bool), value[:, :-1] - q[actions[:, 1:]]
    for lam in (0.0, 0.3, 1.0):
        returns = lambda_returns(REWARD[actions], value, going, GAMMA, lam, bonus)
        torch.testing.assert_close(returns, q[actions])
    # Without the bonus the step before the last is off by γ λ (Q(a) − V), a being the last action.
    plain = lambda_returns(REWARD[actions], value, going, GAMMA, 0.3)
    gap = GAMMA * 0.3 * (q[actions[:, 3]] - v)
    torch.testing.assert_close(plain[:, 2] - q[actions[:, 2]], gap)
    assert gap.abs().max() > 0.07


def test_the_bonus_is_the_entropy_of_the_boltzmann_policy():
    """Its mean over the policy's actions is τ times the entropy (psi), and minus τ times the KL from the prior (g)."""
    q = torch.tensor([1.0, 0.25])
    policy = torch.softmax(q / TAU, 0)
    bonus = soft_value(q, TAU, mean=False) - q
    assert (policy * bonus).sum().item() == pytest.approx(-TAU * (policy * policy.log()).sum().item())
    tilted = torch.softmax(q / TAU + PRIOR.log(), 0)
    known = NextValues(q.unsqueeze(0), None, PRIOR.log().unsqueeze(0), [2], TAU)
    bonus = PriorBackup().value(known) - q
    kl = (tilted * (tilted / PRIOR).log()).sum().item()
    assert (tilted * bonus).sum().item() == pytest.approx(-TAU * kl)
