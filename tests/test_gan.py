"""GANs: losses, penalties and augmentation against numbers worked by hand, networks of every size, training, a reward
fused in, joint training, other devices, the cache."""

import math
import warnings
from functools import partial
from typing import Any

import pytest
import torch

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import Scored, Transition, View
from rlgen_cli.generators import GeneratorSource, TrainsGenerator
from rlgen_cli.generators.augment import augment
from rlgen_cli.generators.fused_reward import FusedReward
from rlgen_cli.generators.gan import GAN
from rlgen_cli.generators.joint import JointGANLearner, JointTraining
from rlgen_cli.generators.latent_mapper import LatentMapper
from rlgen_cli.generators.losses import (
    AdversarialLoss,
    R1Penalty,
    R1R2Penalty,
    WassersteinPenalty,
    distance_from_unit_norm,
    squared_grad_norm,
)
from rlgen_cli.generators.networks import DiscriminatorNetwork, GeneratorNetwork, fold
from rlgen_cli.memory.sample_buffer import SampleBuffer
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.pretrain import pretrain, resume
from tests.conftest import compose, session, small
from tests.resuming import same
from tests.small_gan import LATENT, Brightness, make_gan, pictures, rng

LOSSES = {
    "r1": AdversarialLoss(kind="nonsaturating", penalty=R1Penalty(weight=0.1, interval=1)),
    "dcgan": AdversarialLoss(kind="nonsaturating", penalty=None),
    "wgan_gp": AdversarialLoss(kind="wasserstein", penalty=WassersteinPenalty(weight=10.0, interval=1)),
    "hinge": AdversarialLoss(kind="hinge", penalty=None),
    "r3": AdversarialLoss(kind="relativistic", penalty=R1R2Penalty(weight=0.1, interval=1)),
}
CPU_AND_META = ["cpu", "meta"]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def finished(latent: torch.Tensor, label: torch.Tensor) -> Transition:
    """A step after which every sample is finished."""
    view = View(torch.zeros(len(latent), 1, 16, 16), {"label": label}, {"latent": latent})
    done = torch.ones(len(latent), dtype=torch.bool, device=latent.device)
    zero = torch.zeros(len(latent), device=latent.device)
    return Transition(None, zero, zero, zero, None, done, next_view=view)


def test_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])

    def losses(kind: str) -> tuple[float, float]:
        loss = AdversarialLoss(kind=kind, penalty=None)  # type: ignore[arg-type]
        return float(loss.discriminator(real, fake)), float(loss.generator(real, fake))

    judged, made = losses("nonsaturating")
    assert judged == pytest.approx((softplus(-2) + softplus(0)) / 2 + (softplus(-1) + softplus(1)) / 2)
    assert made == pytest.approx((softplus(1) + softplus(-1)) / 2)
    assert losses("wasserstein") == pytest.approx((0.0 - 1.0, 0.0))
    assert losses("hinge") == pytest.approx(((0 + 1) / 2 + (0 + 2) / 2, 0.0))
    judged, made = losses("relativistic")
    assert judged == pytest.approx((softplus(-3) + softplus(1)) / 2)
    assert made == pytest.approx((softplus(3) + softplus(-1)) / 2)


def test_penalties_of_a_plane():
    """For a logit of 3 x₀ + 4 x₁ the gradient's length is 5 everywhere."""
    x = torch.rand(6, 2, 1, 1).requires_grad_()
    weight = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)

    def logits(x: torch.Tensor) -> torch.Tensor:
        return (weight * x).sum((1, 2, 3))

    assert torch.allclose(squared_grad_norm(logits(x), x), torch.full((6,), 25.0))
    assert torch.allclose(distance_from_unit_norm(logits, x, x + 1, rng()), torch.full((6,), 16.0))


def test_a_penalty_is_due_every_few_updates():
    loss = AdversarialLoss(kind="hinge", penalty=R1Penalty(weight=0.1, interval=3))
    assert [loss.due_penalty(i) is not None for i in range(5)] == [True, False, False, True, False]
    assert AdversarialLoss(kind="hinge", penalty=R1Penalty(weight=0.0, interval=3)).due_penalty(0) is None


@pytest.mark.parametrize("kind", ["colour", "translation", "cutout"])
def test_augmentations_let_gradients_through(kind):
    x = torch.rand(5, 3, 16, 16).requires_grad_()
    changed = augment(x, [kind], rng())
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)
    changed.sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())


def test_brightness_is_changed_by_up_to_a_quarter():
    """±½ on pictures in [−1, 1], as in the paper, is ±¼ on pictures in [0, 1]."""
    grey = torch.full((4000, 1, 4, 4), 0.5)  # one plane, one value: saturation and contrast change nothing
    change = augment(grey, ["colour"], rng())[:, 0, 0, 0] - 0.5
    assert float(change.max()) == pytest.approx(0.25, abs=1e-3)
    assert float(change.min()) == pytest.approx(-0.25, abs=1e-3)


def test_colours_change_as_the_paper_changes_pictures_in_another_range():
    """Its brightness, saturation and contrast, by the same random numbers, on 2 x − 1."""
    x = torch.rand(5, 3, 8, 8, generator=rng(1))
    same = rng(2)
    brightness, saturation, contrast = (torch.rand(5, 1, 1, 1, generator=same) for _ in range(3))
    paper = 2 * x - 1 + (brightness - 0.5)
    mean = paper.mean(1, keepdim=True)
    paper = (paper - mean) * (2 * saturation) + mean
    mean = paper.mean((1, 2, 3), keepdim=True)
    paper = (paper - mean) * (contrast + 0.5) + mean
    assert torch.allclose(2 * augment(x, ["colour"], rng(2)) - 1, paper, atol=1e-5)


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
    net = GeneratorNetwork(sample=(3, size, size), latent=5, classes=classes, width=8).eval()
    label = torch.tensor([0, 1]) if classes else None
    z = torch.randn(2, 5, generator=rng())
    made = net(z, label)
    assert made.shape == (2, 3, size, size)
    assert made.min() >= 0
    assert made.max() <= 1
    none = torch.zeros(2, net.coordinates)
    assert torch.equal(net(z, label, none), made)
    assert not torch.equal(net(z, label, none + 0.5), made)
    judge = DiscriminatorNetwork(sample=(3, size, size), classes=classes, width=4, hidden=6, spectral_norm=True)
    assert judge(made, label).shape == (2,)


def test_a_shift_is_a_generator_of_its_own():
    """A batch of differently shifted generators gives what each gives alone."""
    net = GeneratorNetwork(sample=(1, 16, 16), latent=5, classes=0, width=8).eval()
    z, shift = torch.randn(3, 5, generator=rng()), torch.randn(3, net.coordinates, generator=rng(1))
    alone = torch.cat([net(z[i : i + 1], None, shift[i : i + 1]) for i in range(3)])
    assert torch.allclose(net(z, None, shift), alone, atol=1e-6)


def test_the_latent_mapper_changes_nothing_at_first_and_knows_its_density():
    mapper = LatentMapper(4, 2)
    z, label = torch.randn(3, 4, generator=rng()), torch.tensor([0, 1, 1])
    assert torch.equal(mapper(z, label), z)
    drawn, log_prob = mapper.sample(z, label, 0.5, rng(1))
    expected = torch.distributions.Normal(z, 0.5).log_prob(drawn).sum(1)
    assert torch.allclose(log_prob, expected, atol=1e-5)


def test_the_sample_buffer_keeps_the_newest_finished_samples():
    buffer = SampleBuffer(3, (1,), torch.float, torch.device("cpu"))
    done = torch.tensor([True, False, True, True, True])
    buffer.add(torch.arange(5.0).unsqueeze(1), torch.arange(5), done)
    drawn, labels = buffer.draw(buffer.count.expand(50), rng())
    assert int(buffer.count) == 3
    assert set(drawn[:, 0].tolist()) == {2.0, 3.0, 4.0}  # of 0, 2, 3, 4 the first was written over
    assert torch.equal(drawn[:, 0].long(), labels)
    assert set(buffer.draw(torch.ones(20, dtype=torch.long), rng())[1].tolist()) == {4}
    other = SampleBuffer(3, (1,), torch.float, torch.device("meta"))
    other.load_state_dict(buffer.state_dict())
    other.add(torch.zeros(5, 1, device="meta"), None, done.to("meta"))
    assert other.draw(other.count.expand(50), rng())[0].device.type == "meta"


def test_what_a_config_builds():
    assert isinstance(make_gan(), GeneratorSource)
    assert isinstance(make_gan(), TrainsGenerator)


@pytest.mark.parametrize("device", CPU_AND_META)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("conditional", [False, True])
def test_every_loss_trains_all_networks(name, conditional, device):
    judge = partial(DiscriminatorNetwork, width=4, hidden=0, spectral_norm=name == "hinge")
    gan = make_gan(device, loss=LOSSES[name], conditional=conditional, discriminator=judge)
    nets = {"network": gan.network, "average": gan.generator.network, "discriminator": gan.generator.discriminator}
    before = {key: [weight.clone() for weight in net.parameters()] for key, net in nets.items()}
    metrics = gan.update(0.5)
    assert set(metrics) == {"discriminator_loss", "generator_loss", "real_logit", "fake_logit"}
    assert all(value.shape == () and value.device.type == device for value in metrics.values())
    if device == "meta":
        return
    assert all(math.isfinite(float(value)) for value in metrics.values())
    for key, net in nets.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[key], net.parameters(), strict=True)), key


def test_scoring_changes_no_spectral_norm():
    judge = partial(DiscriminatorNetwork, width=4, hidden=0, spectral_norm=True)
    gan = make_gan(loss=LOSSES["hinge"], discriminator=judge)
    gan.update(0.0)
    before = {
        key: value.clone() for key, value in gan.generator.state_dict().items() if isinstance(value, torch.Tensor)
    }
    gan.generator.realism(pictures().images[:3].float() / 255, None)
    after = gan.generator.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def labels_as_logits(gan: GAN, monkeypatch: pytest.MonkeyPatch) -> None:
    """A discriminator that says nothing but the label under which it is asked."""

    def logits(sample: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return label.float() + 0 * gan.generator.discriminator(sample, label)

    monkeypatch.setattr(gan.generator, "realism", logits)


def test_real_pictures_are_judged_under_their_own_labels(monkeypatch):
    """Real labels 0, 1, 2, 0, and 2, 2 asked for in the first two rows: by hand, with logits that are the labels."""
    gan = make_gan(conditional=True, loss=AdversarialLoss(kind="relativistic", penalty=None))
    labels_as_logits(gan, monkeypatch)
    real_label, asked = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 2, 0])
    real = pictures().images[:4].float() / 255
    metrics = gan.update_on(0.0, real, real_label, torch.randn(4, LATENT, generator=rng()), asked)
    assert float(metrics["real_logit"]) == pytest.approx(3 / 4)
    assert float(metrics["fake_logit"]) == pytest.approx(6 / 4)
    judged = (softplus(2) + softplus(1) + 2 * softplus(0)) / 4  # fake − real: 2, 1, 0, 0
    made = (softplus(-2) + softplus(-1) + 2 * softplus(0)) / 4
    assert float(metrics["discriminator_loss"]) == pytest.approx(judged)
    assert float(metrics["generator_loss"]) == pytest.approx(made)


def test_joint_training_takes_half_of_its_latents_from_the_policy(monkeypatch):
    gan = make_gan(conditional=True)
    learner = gan.joint_learner()
    assert isinstance(learner, JointGANLearner)
    seen = []

    def note(*arguments: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(arguments)
        return {}

    monkeypatch.setattr(gan, "update_on", note)
    learner.update(0.0)  # before any sample is finished
    latent = torch.full((3, LATENT), 7.0)
    learner.observe(finished(latent, torch.tensor([2, 2, 2])))
    learner.update(0.0)
    (_, _, real, z, asked), (_, _, real_later, z_later, asked_later) = seen
    assert torch.equal(real, asked)
    assert not bool((z == 7).any())
    assert torch.equal(z_later == 7, torch.tensor([True, True, False, False]).unsqueeze(1).expand(4, LATENT))
    assert asked_later[:2].tolist() == [2, 2]
    assert torch.equal(asked_later[2:], real_later[2:])


def test_joint_training_makes_an_update_every_few_calls():
    gan = make_gan(joint_training=JointTraining(policy_latent_fraction=0.5, interval=3, buffer_size=20))
    learner = gan.joint_learner()
    assert [bool(learner.update(0.0)) for _ in range(7)] == [False, False, True, False, False, True, False]


@pytest.mark.parametrize("device", CPU_AND_META)
def test_the_latents_of_unfinished_samples_are_not_kept(device):
    learner = make_gan(device).joint_learner()
    step = finished(
        torch.randn(4, LATENT, generator=rng(), device=device), torch.zeros(4, dtype=torch.long, device=device)
    )
    learner.observe(step._replace(terminated=torch.tensor([True, False, False, True], device=device)))
    learner.update(0.0)
    if device == "cpu":
        assert int(learner.policy_latents.count) == 2


@pytest.mark.parametrize("device", CPU_AND_META)
@pytest.mark.parametrize("gradient", [True, False])
def test_a_reward_is_fused_in(device, gradient):
    """By its gradient on the pictures; or else by the score function, through the latent mapper."""
    gan = make_gan(device, reward=Brightness(gradient), batch_size=32)
    before = gan.generator.mapper.last.bias.clone()
    assert "reward" in gan.update(0.0)
    assert gan.fused_reward.has_gradient is gradient
    if device == "cpu":
        assert torch.equal(before, gan.generator.mapper.last.bias) == gradient


@pytest.mark.parametrize(("gradient", "updates"), [(True, 100), pytest.param(False, 400, marks=pytest.mark.slow)])
def test_a_fused_reward_rises(gradient, updates):
    worth = []
    for weight in (0.0, 5.0):
        fused = FusedReward(weight=weight, balance="gradient", noise_std=0.5)
        gan = make_gan(reward=Brightness(gradient), fused_reward=fused, batch_size=32)
        for i in range(updates):
            gan.update(i / updates)
        with torch.no_grad():
            worth.append(float(gan.generator(torch.randn(256, LATENT, generator=rng())).mean()))
    assert worth[1] > worth[0] + 0.02


def test_a_reward_is_told_how_many_tokens_there_are():
    """None before, all afterwards: what is fused in is the whole sequence's reward."""
    views = []

    class Reward:
        def __call__(self, before: View, after: View, done: torch.Tensor) -> Scored:
            views.extend([before, after])
            return Scored(torch.zeros(2), torch.zeros(2), {}, {})

    fused: Any = FusedReward(weight=1.0, balance="fixed", noise_std=0.3)
    fused.attach(Reward())
    fused.values(torch.ones(2, 5, 1, dtype=torch.long), torch.zeros(2, LATENT), torch.zeros(2, dtype=torch.long))
    assert [view.info["num_tokens"].tolist() for view in views] == [[0, 0], [5, 5]]
    assert [int(view.sample.max()) for view in views] == [-1, 1]


def test_a_fused_reward_that_needs_more_than_a_sample_says_so():
    class NeedsTarget:
        def __call__(self, before: View, after: View, done: torch.Tensor) -> Scored:
            raise KeyError("target")

    with pytest.raises(UserError, match=r"fused_reward\.weight: the reward needs target"):
        make_gan(reward=NeedsTarget()).update(0.0)


def test_directions_are_orthonormal_and_found_once():
    gan = make_gan()
    for _ in range(30):
        gan.update(0.0)
    assert torch.equal(gan.generator.directions("learned"), torch.eye(LATENT))
    gan.stage().finish()
    found = {name: gan.generator.directions(name).clone() for name in gan.generator.direction_names}
    for rows in found.values():
        assert torch.allclose(rows @ rows.T, torch.eye(LATENT), atol=1e-4)
    gan.update(0.0)
    gan.stage().finish()  # an agent may have been trained with those that there are
    assert all(torch.equal(rows, gan.generator.directions(name)) for name, rows in found.items())


def test_learned_directions_change_most_what_the_discriminator_sees():
    gan = make_gan()
    for _ in range(30):
        gan.update(0.0)
    gan.generator.find_directions()
    made, features = gan.generator, gan.generator.discriminator.features
    z = torch.randn(64, LATENT, generator=rng())
    with torch.no_grad():
        moved = [features(made(z + 0.2 * direction)) for direction in made.directions("learned")]
        change = [float((one - features(made(z))).square().sum()) for one in moved]
    assert change[0] == max(change)
    assert change[-1] == min(change)


def test_a_state_opens_on_another_device():
    """From the CPU to the meta device, directions included; and the shapes of a state from there are those of the
    CPU's."""
    there, here = make_gan("meta").joint_learner(), make_gan().joint_learner()
    for learner, device in ((here, "cpu"), (there, "meta")):
        learner.observe(finished(torch.ones(3, LATENT, device=device), torch.zeros(3, dtype=torch.long, device=device)))
        learner.update(0.0)
        learner.gan.generator.find_directions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that copying to the meta device copies nothing
        there.load_state_dict(here.state_dict())
    shapes = [shapes_of(learner.state_dict()) for learner in (here, there)]
    assert shapes[0] == shapes[1]
    assert {"principal", "learned"} <= set(here.state_dict()["gan"]["generator"])
    there.update(0.0)
    made = there.gan.generator
    assert made.directions_found
    assert made(torch.zeros(2, LATENT, device="meta")).device.type == "meta"


def shapes_of(tree: object) -> object:
    """The tree with shapes and types in the tensors' places."""
    if isinstance(tree, torch.Tensor):
        return tuple(tree.shape), tree.dtype
    if isinstance(tree, dict):
        return {key: shapes_of(value) for key, value in tree.items()}
    return [shapes_of(value) for value in tree] if isinstance(tree, list | tuple) else tree


def test_training_goes_on_from_a_state_bit_for_bit():
    whole, half, rest = make_gan(), make_gan(), make_gan()
    for _ in range(6):
        whole.update(0.0)
    for _ in range(3):
        half.update(0.0)
    rest.load_state_dict(half.state_dict())
    rest.rng.set_state(half.rng.get_state())
    for _ in range(3):
        rest.update(0.0)
    one, two = whole.state_dict(), rest.state_dict()
    assert shapes_of(one) == shapes_of(two)
    assert all(torch.equal(value, two["network"][key]) for key, value in one["network"].items())
    tensors = {key: value for key, value in one["generator"].items() if isinstance(value, torch.Tensor)}
    assert all(torch.equal(value, two["generator"][key]) for key, value in tensors.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size: must be at least 2"),
        ({"updates": 0}, "updates: must be at least 1"),
        ({"ema_decay": 1.0}, r"ema_decay: must be in \[0, 1\)"),
        ({"augment": ["blur"]}, "augment: must be of colour"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        make_gan(**changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(R1Penalty, weight=-1, interval=1), "weight: must be at least 0"),
        (partial(R1Penalty, weight=1, interval=0), "interval: must be at least 1"),
        (partial(FusedReward, weight=-1, balance="fixed", noise_std=1), "weight: must be at least 0"),
        (partial(FusedReward, weight=1, balance="fixed", noise_std=0), "noise_std: must be above 0"),
        (partial(JointTraining, policy_latent_fraction=2, interval=1, buffer_size=1), "policy_latent_fraction: must"),
        (partial(JointTraining, policy_latent_fraction=1, interval=1, buffer_size=0), "buffer_size: must be"),
    ],
)
def test_components_out_of_range_are_refused(build, message):
    with pytest.raises(UserError, match=f"^{message}"):
        build()


def build(*words: str, agent: str = "random") -> Any:
    """A session that steers a GAN; `words` win over what is small."""
    return session(*small("env=latent_gan", f"agent={agent}"), *words)


@pytest.mark.parametrize("name", ["r1", "dcgan", "wgan_gp", "hinge", "r3"])
def test_every_recipe_trains(name):
    built = build(f"generator={name}")
    metrics = built.source.update(0.5)
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_a_trained_gan_is_taken_from_the_cache(monkeypatch):
    one = build()
    monkeypatch.setattr(GAN, "update", lambda *_: pytest.fail("trained again"))
    two = build()
    z = torch.randn(2, LATENT)
    assert torch.equal(one.source.generator(z), two.source.generator(z))
    for name in one.source.generator.direction_names:
        assert torch.equal(one.source.generator.directions(name), two.source.generator.directions(name))


def test_a_reward_of_the_users_own_is_followed_through_z(tmp_path, monkeypatch):
    """Mapped latents give brighter pictures than the same generator makes of latents that are not mapped."""
    (tmp_path / "mine.py").write_text("def ink(x):\n    return x.detach().mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["reward=function", "reward.terms.function.path=mine:ink", "env.generator.batch_size=32"]
    words += ["env.generator.updates=400", "env.generator.fused_reward.weight=5"]
    words += ["env.generator.optimizer.learning_rate.end=2e-3"]  # so few updates are too few at a rate that falls
    source = build(*words, "env.generator.fused_reward.noise_std=0.5").source
    assert source.fused_reward.has_gradient is False
    z = torch.randn(256, LATENT, generator=rng())
    with torch.no_grad():
        assert float(source.generator(z).mean()) > 1.1 * float(source.generator.network(z).mean())


def test_pretraining_stops_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    words = [*small("env=latent_gan", "agent=random"), "env.generator.updates=20"]
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "one"))
    assert pretrain(assemble(compose(*words)), tmp_path / "whole") == "finished"
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "other"))
    assert pretrain(assemble(compose(*words, "stop_at=7")), tmp_path / "half") == "stopped"
    assert resume(tmp_path / "half", {"stop_at": None}) == "finished"
    results = [tmp_path / run / "stages" / "generator" / "result" for run in ("whole", "half")]
    one, two = (checkpoint.load(result, "stage", "cpu") for result in results)
    same(one, two, "stage")
    assert one["trainable"]["generator"]["_extra_state"] == {"directions_found": True}
    assert (tmp_path / "whole" / "generator" / "model.safetensors").is_file()


def test_joint_training_needs_a_generator():
    with pytest.raises(UserError, match=r"use env=latent_gan\."):
        session(*small("joint=true"))
