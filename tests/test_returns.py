import math

import pytest
import torch

from rlgen_cli.core.returns import lambda_returns, soft_value


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


def test_soft_value_by_hand():
    q = torch.tensor([[0.0, math.log(3.0)]])
    assert soft_value(q, 1.0).item() == pytest.approx(math.log(2.0))  # log((1 + 3) / 2)
    assert soft_value(q, 1e-4).item() == pytest.approx(math.log(3.0), abs=1e-3)
    assert soft_value(q, 1e4).item() == pytest.approx(math.log(3.0) / 2, abs=1e-3)
