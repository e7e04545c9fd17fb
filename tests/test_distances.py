"""Distances between sets of samples, against numbers worked by hand."""

import math

import pytest
import torch

from rlgen_cli.evaluation.distances import frechet, kernel_distance, neighbourhoods, vendi


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_frechet_of_gaussians():
    """Corners of a square: mean 0, covariance 4/3 I; moved by (3, 4) and twice as large: 25 + 2 · (2 − 1)² · 4/3."""
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert frechet(square, square) == pytest.approx(0, abs=1e-9)
    assert frechet(square, 2 * square + torch.tensor([3.0, 4.0])) == pytest.approx(25 + 2 * 4 / 3)


def test_kernel_distance_by_hand():
    """In one dimension, (xy + 1)³: pairs of a give (1·2 + 1)³ = 27, pairs of b (0 + 1)³ = 1, across all 1."""
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])
    assert kernel_distance(a, b) == pytest.approx(27 + 1 - 2 * 1)


def test_kernel_distance_of_one_distribution_is_about_zero():
    x = torch.randn(2500, 4, generator=rng())
    assert kernel_distance(x[:1250], x[1250:]) == pytest.approx(0, abs=0.05)
    assert kernel_distance(x[:1250], x[1250:] + 1) > 1


def test_neighbourhoods_by_hand():
    """Real points at 0, 1, 2, 10: with k = 1 their balls reach 1, 1, 1 and 8. Made ones at 0.5, 0.6 and 30: their balls
    reach .1, .1 and 29.4."""
    real, fake = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([[0.5], [0.6], [30.0]])
    found = neighbourhoods(real, fake, k=1)
    assert found["precision"] == pytest.approx(2 / 3)  # 30 is in no real ball
    assert found["density"] == pytest.approx((2 + 2 + 0) / 3)  # .5 and .6 are in the balls of 0 and 1
    assert found["coverage"] == pytest.approx(2 / 4)
    assert found["recall"] == pytest.approx(3 / 4)  # 30's ball begins at .6 and holds 1, 2 and 10


def test_vendi_counts_what_is_different():
    assert vendi(torch.tensor([[2.0, 0.0], [5.0, 0.0]])) == pytest.approx(1, abs=1e-4)
    assert vendi(torch.eye(3)) == pytest.approx(3, abs=1e-4)
    # Three of one kind and one of another: the exponential of the entropy of (3/4, 1/4).
    mixed = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert vendi(mixed) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), abs=1e-4)
