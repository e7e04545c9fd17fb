"""What is wrong with pictures that are to be restored, and how well they are restored."""

import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import View
from rlgen_cli.data.damage import CentreHole, Damage, GaussianNoise, RandomHole, Scratches, Watermark, hint_of
from rlgen_cli.rewards.restoration import HiddenRegionError, KnownRegionError

DAMAGES: dict[str, Damage] = {
    "centre_hole": CentreHole(side=0.4),
    "random_hole": RandomHole(side=0.4),
    "scratches": Scratches(count=2, reach=0.5, width=2.0),
    "noise": GaussianNoise(std=0.5),
    "watermark": Watermark(opacity=0.7, period=7, width=3),
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_holes_by_hand():
    images = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    damaged, known = CentreHole(side=0.5)(images, rng())
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    assert torch.equal(known[0, 0], ~hole)
    assert torch.equal(damaged[0, 0], torch.where(hole, 0, 200).to(torch.uint8))
    _, known = RandomHole(side=0.25)(images.repeat(50, 1, 1, 1), rng())
    assert torch.equal((~known).sum((1, 2, 3)), torch.full((100,), 4))
    assert len({tuple(row.flatten().tolist()) for row in known}) > 20
    _, known = Scratches(count=2, reach=1.0, width=2.0)(images, rng())
    assert 0 < int((~known).sum()) < known.numel()


def test_noise_and_watermark_by_hand():
    images = torch.full((50, 1, 8, 8), 100, dtype=torch.uint8)
    damaged, known = GaussianNoise(std=0.1)(images, rng())
    assert not bool(known.any())
    assert float(damaged.float().std()) == pytest.approx(25.5, rel=0.05)
    damaged, known = Watermark(opacity=0.5, period=4, width=1)(images, rng())
    assert float((~known).float().mean()) == pytest.approx(0.25)
    assert set(damaged[known.expand_as(damaged)].tolist()) == {100}
    assert set(damaged[~known.expand_as(damaged)].tolist()) == {114}


@pytest.mark.parametrize("name", DAMAGES)
def test_damages_on_the_meta_device(name):
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8, device="meta")
    damaged, known = DAMAGES[name](images, rng())
    assert damaged.shape == images.shape
    assert damaged.dtype == torch.uint8
    assert known.shape == (len(images), 1, *images.shape[2:])
    assert known.dtype == torch.bool


def test_reconstruction_scores_by_hand():
    target = torch.zeros(2, 1, 2, 2)
    damaged, known = target.clone(), torch.tensor([[[[True, True], [False, False]]]] * 2)
    sample = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[0.0, 0.0], [1.0, 0.0]]]])
    context = {"target": target, "damaged": damaged, "known_mask": known}
    assert KnownRegionError()(View(sample, context, {})).tolist() == pytest.approx([-0.5, 0.0])
    assert HiddenRegionError()(View(sample, context, {})).tolist() == pytest.approx([-0.25, -0.5])
    nothing = context | {"known_mask": torch.zeros_like(known)}  # then all of it is compared
    assert KnownRegionError()(View(sample, nothing, {})).tolist() == pytest.approx([-1.5 / 4, -0.25])


def test_what_a_model_sees_by_hand():
    damaged = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert hint_of(damaged, damaged > 0).tolist() == [[[[-1.0, 1.0]], [[0.0, 1.0]]]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CentreHole(side=0.0), "side: must be above 0 and at most 1, got 0.0"),
        (lambda: RandomHole(side=1.5), "side: must be above 0 and at most 1, got 1.5"),
        (lambda: Scratches(count=0, reach=0.5, width=1.0), "count: must be from 1 to 1000"),
        (lambda: Scratches(count=1, reach=0.0, width=1.0), "reach: must be above 0"),
        (lambda: Scratches(count=1, reach=0.5, width=0.0), "width: must be above 0"),
        (lambda: GaussianNoise(std=0.0), "std: must be above 0"),
        (lambda: Watermark(opacity=0.0, period=4, width=1), "opacity: must be above 0"),
        (lambda: Watermark(opacity=0.5, period=4, width=4), "width: must be from 1 to period - 1 = 3, got 4"),
    ],
)
def test_a_damage_that_cannot_be_is_said(make, message):
    with pytest.raises(UserError, match=message):
        make()
