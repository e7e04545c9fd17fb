"""GANs: losses and penalties against numbers worked by hand, networks of every size, training, cache and fused reward."""

import math

import pytest
import torch

from rlgen_cli.runs.assemble import build
from rlgen_cli.core.errors import UserError
from rlgen_cli.generators.augment import augment
from rlgen_cli.generators.losses import discriminator_loss, generator_loss, slope_between, squared_slope
from rlgen_cli.generators.networks import Discriminator, Generator, fold
from rlgen_cli.generators.latent_mapper import Shaper
from rlgen_cli.runs.pretrain import pretrain
from tests.conftest import compose, small

GANS = ["r1", "dcgan", "wgan_gp", "hinge", "r3"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    soft = [math.log1p(math.exp(x)) for x in (-2.0, 0.0, -1.0, 1.0)]
    assert float(discriminator_loss("nonsaturating", real, fake)) == pytest.approx(
        sum(soft[:2]) / 2 + sum(soft[2:]) / 2
    )
    assert float(discriminator_loss("wasserstein", real, fake)) == pytest.approx(0.0 - 1.0)
    assert float(discriminator_loss("hinge", real, fake)) == pytest.approx((0 + 1) / 2 + (0 + 2) / 2)
    pairs = [math.log1p(math.exp(-3.0)), math.log1p(math.exp(1.0))]
    assert float(discriminator_loss("relativistic", real, fake)) == pytest.approx(sum(pairs) / 2)
    assert float(generator_loss("nonsaturating", None, fake)) == pytest.approx((soft[3] + soft[2]) / 2)
    assert float(generator_loss("hinge", None, fake)) == pytest.approx(0.0)
    pairs = [math.log1p(math.exp(3.0)), math.log1p(math.exp(-1.0))]
    assert float(generator_loss("relativistic", real, fake)) == pytest.approx(sum(pairs) / 2)


def test_penalties_of_a_plane():
    """For score = 3 x₀ + 4 x₁ the slope is 5 everywhere."""
    x = torch.rand(6, 2, 1, 1).requires_grad_()
    weight = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)

    def score(x: torch.Tensor) -> torch.Tensor:
        return (weight * x).sum((1, 2, 3))

    assert torch.allclose(squared_slope(score(x), x), torch.full((6,), 25.0))
    assert torch.allclose(slope_between(score, x, x + 1, rng()), torch.full((6,), 16.0))


@pytest.mark.parametrize("kind", ["colour", "translation", "cutout"])
def test_augmentations_let_gradients_through(kind):
    x = torch.rand(5, 3, 16, 16).requires_grad_()
    changed = augment(x, [kind], rng())
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)
    changed.sum().backward()
    assert bool(x.grad.any())


def test_translation_moves_whole_pictures():
    x = torch.zeros(200, 1, 16, 16)
    x[:, :, 8, 8] = 1
    moved = augment(x, ["translation"], rng())
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(200))
    rows = moved.flatten(1).argmax(1) // 16
    assert set(rows.tolist()) == {6, 7, 8, 9, 10}


@pytest.mark.parametrize("size", [8, 10, 12, 16, 28, 32, 48, 64])
@pytest.mark.parametrize("classes", [0, 3])
def test_networks_of_every_size(size, classes):
    patch, grid, doublings = fold(size)
    assert patch * grid * 2**doublings == size
    net = Generator(sample=(3, size, size), latent=5, classes=classes, width=8).eval()
    label = torch.tensor([0, 1]) if classes else None
    z = torch.randn(2, 5, generator=rng())
    made = net(z, label)
    assert made.shape == (2, 3, size, size)
    assert made.min() >= 0
    assert made.max() <= 1
    none = torch.zeros(2, net.coordinates)
    assert torch.equal(net(z, label, none), made)
    assert not torch.equal(net(z, label, none + 0.5), made)
    judge = Discriminator(sample=(3, size, size), classes=classes, width=4, hidden=6, spectral=True)
    assert judge(made, label).shape == (2,)


def test_a_shift_is_a_generator_of_its_own():
    """A batch of differently shifted generators gives what each gives alone."""
    net = Generator(sample=(1, 16, 16), latent=5, classes=0, width=8).eval()
    z, shift = torch.randn(3, 5, generator=rng()), torch.randn(3, net.coordinates, generator=rng(1))
    alone = torch.cat([net(z[i : i + 1], None, shift[i : i + 1]) for i in range(3)])
    assert torch.allclose(net(z, None, shift), alone, atol=1e-6)


def test_shaper_begins_as_nothing_and_knows_its_density():
    shaper = Shaper(4, 2, 0.5)
    z, label = torch.randn(3, 4, generator=rng()), torch.tensor([0, 1, 1])
    assert torch.equal(shaper(z, label), z)
    drawn, log_prob = shaper.draw(z, label, rng(1))
    expected = torch.distributions.Normal(z, 0.5).log_prob(drawn).sum(1)
    assert torch.allclose(log_prob, expected, atol=1e-5)


def gan(*words: str):
    """`words` win over what `small` says."""
    return build(compose(*small("env=latent_gan", "agent=ppo"), *words))


@pytest.mark.parametrize("name", GANS)
def test_every_loss_trains_both_networks(name):
    built = gan(f"gan@env.gan={name}", "env.gan.penalty_interval=1")
    before = [weight.clone() for weight in built.gan.average.parameters()]
    metrics = built.gan.update(0.5, built.reward)
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, built.gan.average.parameters(), strict=True))


def test_a_trained_gan_is_taken_from_the_cache(monkeypatch):
    one = gan()
    monkeypatch.setattr("rlgen_cli.generators.gan.GAN.train", lambda *_: pytest.fail("trained again"))
    two = gan()
    z = torch.randn(2, one.gan.latent)
    assert torch.equal(one.gan(z), two.gan(z))


def test_a_fused_reward_with_a_gradient_rises():
    words = ["reward=sharpness", "env.gan.batch_size=32", "env.gan.steps=300"]
    worth = []
    for weight in (0, 5):
        built = gan(*words, f"env.gan.fused={weight}")
        assert built.gan.smooth is not False
        view = built.envs["train"].view(built.envs["train"].reset(64, rng()))
        worth.append(float(built.reward.score(view)["sharpness"].mean()))
    assert worth[1] > worth[0] + 0.02


def test_a_fused_reward_without_a_gradient_is_followed_through_z(tmp_path, monkeypatch):
    """What is shaped has more ink than what the same generator makes of unshaped latents."""
    (tmp_path / "mine.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["reward=function", "reward.terms.function.path=mine:ink", "env.gan.batch_size=32", "env.gan.steps=800"]
    made = gan(*words, "env.gan.fused=5", "env.gan.spread=0.5").gan
    assert made.smooth is False
    z = torch.randn(256, 6, generator=rng())
    with torch.no_grad():
        assert float(made(z).mean()) > 1.3 * float(made.average(z).mean())


def test_pretraining_stops_and_goes_on_bit_for_bit(tmp_path):
    from rlgen_cli.runs.pretrain import resume

    words = [*small("env=latent_gan", "agent=random"), "env.gan.steps=20"]
    pretrain(build(compose(*words), pretrained=False), tmp_path / "whole")
    status = pretrain(build(compose(*words, "stop_at=7"), pretrained=False), tmp_path / "half")
    assert status == "preempted"
    assert resume(tmp_path / "half", {}) == "finished"
    states = [next((tmp_path / run / "checkpoints").iterdir()) / "gan.safetensors" for run in ("whole", "half")]
    assert states[0].read_bytes() == states[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env.gan.batch_size=1"], "env.gan.batch_size: must be at least 2"),
        (["env.gan.augment=[blur]"], "env.gan.augment: must be of colour"),
        (["env.gan.conditional=true"], "env.condition: a conditional generator needs labels"),
        (["env.size=15"], "env.size: must be even"),
        (["env.space=parameters", "env.action=place"], "place sets latents"),
        (
            ["env.basis=principal", "env.space=parameters", "env.action=move"],
            "principal directions are not known here; use axes or random",
        ),
        (["env.directions=7"], "env.directions: must be from 1 to 6"),
        (["reward=repair"], "needs a known, which"),
        (["reward=colourfulness"], "use env.channels=3"),
        (["reward=jpeg_size", "env.size=12"], "nearly all header"),
        (["reward=palette", "reward.terms.palette.reference=no.png"], "no picture that can be read"),
    ],
)
def test_wrong_input_says_what_is_right(words, said):
    with pytest.raises(UserError, match=said):
        gan(*words)


def test_joint_needs_a_generator():
    with pytest.raises(UserError, match=r"use env=latent_gan\."):
        build(compose(*small("joint=true")))
