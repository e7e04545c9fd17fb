"""One training on several devices: the same as one process with all the data, and safe when a rank ends."""

from pathlib import Path

import pytest
import torch

from tests import ranked

FAST = ("ppo", "gan")


@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in ranked.CASES]
)
def test_ranks_compute_what_one_process_does_on_the_joined_batch(case: str, tmp_path: Path) -> None:
    alone = ranked.CASES[case]()()
    found = ranked.in_ranks(case, tmp_path)
    for name, expected in alone.items():
        assert expected.abs().max() > 0
        for numbers in found:
            error = (numbers[name] - expected).abs().max() / expected.abs().max()
            assert error < 1e-4, f"{name}: {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("case", ranked.LONG)
def test_all_ranks_have_the_same_weights_after_hundreds_of_steps(case: str, tmp_path: Path) -> None:
    one, other = (numbers["weights"] for numbers in ranked.in_ranks(case, tmp_path))
    assert torch.equal(one, other)
