"""Scores by hand-worked numbers, how they become rewards, and that what learns learns."""

from functools import partial
from typing import Any, Literal

import pytest
import torch
from PIL import Image

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import LearnedScore, Learner
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Discrete, EnvSpec, PictureSpec, TensorSpec, Transition, View, image
from rlgen_cli.core.stages import Helpers
from rlgen_cli.core.tree import join
from rlgen_cli.data.glyphs import Glyphs
from rlgen_cli.data.images import Images
from rlgen_cli.domains.canvas.scores import Coverage, InkCost, Target
from rlgen_cli.generators.losses import AdversarialLoss, R1R2Penalty, WassersteinPenalty
from rlgen_cli.memory.sample_buffer import SampleBuffer
from rlgen_cli.rewards.adversarial import Adversarial, FakeSamples
from rlgen_cli.rewards.classifier import Classifier
from rlgen_cli.rewards.controller import Controller, Gains
from rlgen_cli.rewards.discriminators import PictureDiscriminator
from rlgen_cli.rewards.features import Diversity, Perceptual, PictureNovelty, Style
from rlgen_cli.rewards.function import Function
from rlgen_cli.rewards.pictures import Colourfulness, Palette, Sharpness, Symmetry
from rlgen_cli.rewards.reward import Term, WeightedSum
from tests.conftest import session, small

CPU, META = torch.device("cpu"), torch.device("meta")
SIDE = 12


def view(sample: list, target: list | None = None, num_marks: int = 0) -> View:
    """One 1 × 2 picture."""
    picture = torch.tensor(sample, dtype=torch.float32).view(1, 1, 1, -1)
    context = {} if target is None else {"target": torch.tensor(target, dtype=torch.float32).view(1, 1, 1, -1)}
    return View(picture, context, {"num_marks": torch.tensor([num_marks])})


def picture_spec(channels: int = 1, classes: int = 0, target: bool = False, max_steps: int = 1) -> EnvSpec:
    """Of an environment that makes pictures of 12 × 12 pixels."""
    context = {"label": TensorSpec("label", (), 0, classes)} if classes else {}
    return EnvSpec(
        observation={"canvas": image(channels, SIDE, SIDE)},
        action=Discrete(2),
        sample=PictureSpec(channels, SIDE, SIDE),
        max_steps=max_steps,
        context=context | ({"target": image(channels, SIDE, SIDE)} if target else {}),
        class_names=tuple("abc"[:classes]),
    )


def letters(per_class: int = 30, characters: str = "01") -> Images:
    """Real pictures of 12 × 12 pixels."""
    return Glyphs(characters=characters, per_class=per_class, distortion=0.5).load(SIDE, 1).train


def adversarial(
    spec: EnvSpec, real: Images, device: torch.device = CPU, pairs: bool = False, **changes: Any
) -> Adversarial:
    chosen: dict[str, Any] = {
        "loss": AdversarialLoss(kind="nonsaturating", penalty=R1R2Penalty(weight=0.1, interval=2)),
        "net": partial(PictureDiscriminator, pairs=pairs, channels=4, width=16, blur=True),
        "buffer": partial(FakeSamples, buffer_size=200, recent=50, old_fraction=0.5),
        "noise_std": 0.05, "learning_rate": Linear(2e-3, 1e-3, 1.0), "batch_size": 16, "interval": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    rng = stream(0, "reward", device)
    return Adversarial(spec=spec, real=real, rng=rng, device=device, **(chosen | changes))


def transition(after: View, done: torch.Tensor) -> Transition:
    """A step that learned scores look at."""
    zero = torch.zeros(len(done), device=done.device)
    return Transition(None, done, zero, zero, None, done, next_view=after)


def test_coverage_by_hand():
    assert Coverage()(view([1.0, 0.5])).item() == 0.75


def test_target_by_hand():
    drawn = view([1.0, 0.5], [1.0, 1.0])
    assert Target(norm="l2", per="target")(drawn).item() == pytest.approx(-0.125)  # .25 / 2
    assert Target(norm="l1", per="target")(drawn).item() == pytest.approx(-0.25)  # .5 / 2
    assert Target(norm="l2", per="pixel")(drawn).item() == pytest.approx(-0.125)
    assert Target(norm="l2", per="target")(view([0.0, 0.0], [1.0, 1.0])).item() == -1.0
    assert torch.isfinite(Target(norm="l2", per="target")(view([0.5, 0.0], [0.0, 0.0]))).all()


def test_ink_cost_counts_marks():
    assert InkCost()(view([0.0, 0.0], num_marks=3)).item() == -3.0


def test_potential_sums_to_the_final_score_and_terminal_waits():
    steps = [view([0.0, 0.0]), view([1.0, 0.0]), view([1.0, 1.0])]
    done = [torch.tensor([False]), torch.tensor([True])]
    expected: dict[Literal["potential", "terminal"], list[float]] = {"potential": [0.5, 0.5], "terminal": [0.0, 1.0]}
    for form, wanted in expected.items():
        term = Term(Coverage(), 1.0, form)
        got = [term(a, b, d).item() for a, b, d in zip(steps[:-1], steps[1:], done, strict=True)]
        assert got == wanted


def test_weights_apply_to_the_total_and_not_to_the_terms():
    reward = WeightedSum({"a": Term(Coverage(), 2.0, "potential"), "b": Term(InkCost(), 0.1, "potential")})
    scored = reward(view([0.0, 0.0]), view([1.0, 0.0], num_marks=1), torch.tensor([False]))
    assert scored.total.item() == pytest.approx(2 * 0.5 - 0.1)
    assert scored.terms["a"].item() == 0.5
    assert scored.terms["b"].item() == -1.0
    assert torch.equal(scored.total, scored.static)
    assert not reward.has_learned_terms
    assert reward.learned_reward(join(view([0.0, 0.0]), view([1.0, 0.0])), torch.tensor([False])).item() == 0.0
    assert reward.learners() == {}


class Learned:
    """A score whose value a test sets."""

    judges, learned, needs = "any", True, frozenset[str]()

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, view: View) -> torch.Tensor:
        return torch.full((len(view.sample),), self.value)


def test_checkpoints_are_ranked_by_what_does_not_learn():
    drawn = view([1.0, 0.5], num_marks=3)
    static = {"a": Term(Coverage(), 2.0, "potential"), "b": Term(InkCost(), 0.1, "terminal")}
    learned = {"c": Term(Learned(7.0), 5.0, "terminal")}
    both = WeightedSum(static | learned)
    static_score = both.static_score(drawn)
    assert static_score is not None
    assert static_score.item() == pytest.approx(2 * 0.75 - 0.1 * 3)
    assert both.score(drawn)["c"].item() == 7.0
    assert both.has_learned_terms
    assert WeightedSum(learned).static_score(drawn) is None
    scored = both(view([0.0, 0.0]), drawn, torch.tensor([True]))
    assert scored.static.item() == pytest.approx(2 * 0.75 - 0.3)
    assert scored.total.item() == pytest.approx(2 * 0.75 - 0.3 + 35)
    assert both.learned_reward(join(view([0.0, 0.0]), drawn), torch.tensor([True])).item() == 35.0


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(
        "def redness(x):\n    return x.mean((1, 2, 3))\ndef wrong(x):\n    return x.mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Function(path="my_scores:redness")(view([1.0, 0.0])).item() == 0.5
    with pytest.raises(UserError, match="one number per sample"):
        Function(path="my_scores:wrong")(view([1.0, 0.0]))
    for path in ("my_scores", "my_scores:nothing", "nowhere:redness"):
        with pytest.raises(UserError, match="path"):
            Function(path=path)


def test_a_batch_of_fakes_has_old_and_new_ones():
    fakes = FakeSamples(
        buffer_size=100, recent=2, old_fraction=0.5, shape=(1,), dtype=torch.uint8, device=CPU
    )  # fmt: skip
    for i in range(10):
        fakes.add(torch.tensor([[i]], dtype=torch.uint8), torch.tensor([i % 3]), torch.tensor([i != 4]))
    rows, labels = fakes.draw(4000, stream(0, "x"))
    old, recent = rows[:2000, 0].tolist(), rows[2000:, 0].tolist()
    assert set(recent) == {8, 9}
    assert set(old) == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert torch.equal(labels, rows[:, 0].long() % 3)
    with pytest.raises(UserError, match="recent: must be from 1 to buffer_size = 100, got 101"):
        FakeSamples(buffer_size=100, recent=101, old_fraction=0.5, shape=(1,), dtype=torch.uint8, device=CPU)


LOSSES = {
    "r1r2": AdversarialLoss(kind="nonsaturating", penalty=R1R2Penalty(weight=0.1, interval=2)),
    "wgan_gp": AdversarialLoss(kind="wasserstein", penalty=WassersteinPenalty(weight=1.0, interval=1)),
    "none": AdversarialLoss(kind="nonsaturating", penalty=None),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_learns_to_tell_real_from_noise(loss):
    real = letters()
    term = adversarial(picture_spec(classes=2), real, loss=LOSSES[loss])
    rng = stream(0, "noise")
    for _ in range(60):
        label = torch.randint(2, (16,), generator=rng)
        after = View(torch.rand(16, 1, SIDE, SIDE, generator=rng), {"label": label}, {})
        term.observe(transition(after, torch.rand(16, generator=rng) < 0.5))
        metrics = term.update(0.0)
    assert metrics["real_logit"] > metrics["fake_logit"] + 0.2
    known = View(real.images[:16] / 255, {"label": real.labels[:16]}, {})
    with torch.no_grad():
        assert term(known).shape == (16,)
        assert term(known).mean() > term(after).mean()


def test_the_discriminator_waits_and_keeps_its_interval():
    term = adversarial(picture_spec(max_steps=3), letters(), interval=2)
    after = View(torch.rand(4, 1, SIDE, SIDE, generator=stream(0, "x")), {}, {})
    trained = []
    for step in range(1, 9):
        term.observe(transition(after, torch.tensor([step % 3 == 0] * 4)))
        trained.append(bool(term.update(0.5)))
    assert trained == [False, False, False, True, False, True, False, True]
    assert term.optimizer.learning_rate == pytest.approx(1.5e-3)


def test_the_first_discriminator_loss_by_hand():
    """With weights at zero every logit is 0, and without a gradient the penalty is 0: the loss is 2 log 2."""
    term = adversarial(picture_spec(), letters())
    with torch.no_grad():
        for parameter in term.net.parameters():
            parameter.zero_()
    after = View(torch.rand(4, 1, SIDE, SIDE, generator=stream(0, "x")), {}, {})
    for _ in range(2):
        term.observe(transition(after, torch.tensor([True] * 4)))
        metrics = term.update(0.0)
    assert float(metrics["loss"]) == pytest.approx(2 * 0.6931, abs=1e-4)
    assert float(metrics["real_logit"]) == float(metrics["fake_logit"]) == 0.0


def test_the_penalty_by_hand():
    """A linear discriminator of w · x with ‖w‖² = 144 · .01 has that gradient everywhere, on both sides."""

    class Linear144(torch.nn.Module):
        shape, dtype = (1, SIDE, SIDE), torch.uint8

        def __init__(self, spec: EnvSpec) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((144,), 0.1))

        stored = PictureDiscriminator.stored
        pairs = False
        judged, real = PictureDiscriminator.judged, PictureDiscriminator.real
        crop, embed = PictureDiscriminator.crop, PictureDiscriminator.embed

        def forward(self, x, label):
            return x.flatten(1) @ self.weight

    loss = AdversarialLoss(kind="wasserstein", penalty=R1R2Penalty(weight=0.25, interval=2))
    term = adversarial(picture_spec(), letters(), loss=loss, net=Linear144, noise_std=0.0)
    after = View(torch.zeros(4, 1, SIDE, SIDE), {}, {})
    for _ in range(2):
        term.observe(transition(after, torch.tensor([True] * 4)))
        metrics = term.update(0.0)
    plain = float(metrics["fake_logit"] - metrics["real_logit"])
    assert float(metrics["loss"]) == pytest.approx(plain + 2 * 0.25 * (1.44 + 1.44), abs=1e-4)


def test_pairs_stand_beside_their_target():
    real = letters()
    term = adversarial(picture_spec(target=True), real, pairs=True)
    sample, target = torch.rand(2, 3, 1, SIDE, SIDE, generator=stream(0, "x"))
    assert isinstance(term.net, PictureDiscriminator)
    both = term.net.judged(View(sample, {"target": target}, {}))
    assert torch.equal(both[:, :1], sample)
    assert torch.equal(both[:, 1:], target)
    rows = term.net.real(real, torch.tensor([0, 1]))
    assert torch.equal(rows[:, :1], rows[:, 1:])
    with pytest.raises(UserError, match="pairs: a sample is judged beside its target"):
        adversarial(picture_spec(), real, pairs=True)


def test_a_learned_score_goes_on_bit_for_bit():
    real, rng = letters(), stream(0, "x")
    views = [View(torch.rand(4, 1, SIDE, SIDE, generator=rng), {}, {}) for _ in range(8)]
    done = torch.tensor([True] * 4)

    def learn(term: Adversarial, some: list[View]) -> None:
        for after in some:
            term.observe(transition(after, done))
            term.update(0.0)

    whole, first, second = (adversarial(picture_spec(), real) for _ in range(3))
    learn(whole, views)
    learn(first, views[:4])
    second.load_state_dict(first.state_dict())
    second.rng.set_state(first.rng.get_state())
    learn(second, views[4:])
    for a, b in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)


def controller(max_steps: int = 1, fixed_length: bool = True, device: torch.device = CPU, **changes: Any) -> Controller:
    class Score:
        judges, needs = "any", frozenset(["num_marks"])

        def __init__(self, values: list[float]) -> None:
            self.values = torch.tensor(values, device=device)

        def __call__(self, view: View) -> torch.Tensor:
            return self.values

    spec = picture_spec(max_steps=max_steps)
    spec = EnvSpec(**{**vars(spec), "fixed_length": fixed_length})
    chosen: dict[str, Any] = {"target": 0.1, "scale": 0.2, "ema_decay": 0.0} | changes
    gains = Gains(integral=2.0, proportional=3.0, initial_price=1.0, min_price=0.0)
    return Controller(
        spec=spec, device=device, statistic=Score([0.5, 0.1]), reward=Score([1.0, 2.0]), gains=gains, **chosen
    )


def test_a_price_follows_its_statistic():
    term = controller()
    empty = View(torch.zeros(2, 1, SIDE, SIDE), {}, {})

    def finish(*done: bool) -> float:
        term.observe(transition(empty, torch.tensor(done)))
        term.update(0.0)
        return float(term.price)

    assert isinstance(term, Learner)
    assert term.needs == {"num_marks"}
    assert term(empty).tolist() == [1.0, 2.0]
    assert finish(False, False) == 1.0  # nothing is finished: nothing moves
    assert finish(False, True) == pytest.approx(1.0)  # the mean is .1, as wanted
    assert finish(True, True) == 0.0  # .3: e = −1; the sum falls to 0 (not −1), and 3 e lies below
    assert finish(False, True) == pytest.approx(0.0, abs=1e-5)
    again = controller()
    again.load_state_dict(term.state_dict())
    assert float(again.price) == float(term.price)


def test_a_controller_measures_when_episodes_end():
    empty, done = View(torch.zeros(2, 1, SIDE, SIDE), {}, {}), torch.tensor([True, True])
    for fixed_length, expected in ((True, [False, False, True]), (False, [True, True, True])):
        term, moved = controller(max_steps=3, fixed_length=fixed_length), []
        for _ in range(3):
            term.observe(transition(empty, done))
            moved.append(bool(term.update(0.0)))
        assert moved == expected
    half = controller(ema_decay=0.5)
    half.observe(transition(empty, torch.tensor([True, False])))
    assert float(half.update(0.0)["mean"]) == pytest.approx(0.25)


def fit(helpers: Helpers) -> None:
    """What the stages of a run do."""
    for stage in helpers.stages:
        for _ in range(stage.updates):
            stage.trainable.update(0.0)
        stage.finish()


def test_the_classifier_learns_the_data_and_is_shared():
    data = Glyphs(characters="01X", per_class=40, distortion=0.5).load(SIDE, 1)
    helpers, spec = Helpers(), picture_spec(classes=3)
    make = partial(
        Classifier,
        spec=spec,
        real=data.train,
        device=CPU,
        helpers=helpers,
        noise_std=0.15,
        label_smoothing=0.05,
        temperature=2.0,
        labels=None,
    )
    term, linear = make(updates=60, scale="log"), make(updates=60, scale="linear")
    assert term.net is linear.net
    assert [stage.name for stage in helpers.stages] == ["classifier"]
    make(updates=61, scale="log")
    assert len(helpers.stages) == 2
    fit(helpers)
    assert not any(parameter.requires_grad for parameter in term.net.parameters())
    images, labels = data.valid.images.float() / 255, data.valid.labels
    asked = [View(images, {"label": torch.full_like(labels, i)}, {}) for i in range(3)]
    log_p = torch.stack([term(one) for one in asked])
    either = make(updates=60, scale="linear", labels=["0", "X"])(View(images, {}, {}))
    assert torch.allclose(either, log_p[[0, 2]].exp().sum(0))
    assert (log_p.argmax(0) == labels).float().mean() > 0.9
    p = torch.stack([linear(one) for one in asked])
    torch.testing.assert_close(p.log(), log_p)
    torch.testing.assert_close(p.sum(0), torch.ones(len(labels)))


@pytest.mark.parametrize("characters", ["01X", "0"])
def test_feature_scores_know_what_is_alike(characters, tmp_path):
    """With labels and without, where the net is fitted to tell how far a picture was turned."""
    data, helpers = letters(40, characters), Helpers()
    data = data if len(characters) > 1 else Images(data.images, data.labels)
    spec = picture_spec(target=True)
    path = tmp_path / "picture.png"
    Image.fromarray(data.images[0, 0].numpy()).save(path)
    make: dict[str, Any] = {"real": data, "device": CPU, "helpers": helpers, "updates": 20}
    style, perceptual = Style(spec=spec, reference=str(path), **make), Perceptual(**make)
    novelty, diversity = PictureNovelty(limit=20, **make), Diversity(**make)
    assert len(helpers.stages) == 1  # all four share one net
    fit(helpers)
    known, noise = data.images[:4].float() / 255, torch.rand(4, 1, SIDE, SIDE, generator=stream(0, "x"))
    with torch.no_grad():
        assert style(View(known[:1], {}, {})).item() == pytest.approx(0.0, abs=1e-4)
        assert style(View(noise[:1], {}, {})).item() < -0.05
        assert perceptual(View(known, {"target": known}, {})).abs().max() < 1e-4
        assert perceptual(View(noise, {"target": known}, {})).max() < -0.05
        assert novelty(View(known, {}, {})).max() < 2e-3
        assert novelty(View(noise, {}, {})).min() > 0.01
        same = known[:1].expand(4, -1, -1, -1)
        assert diversity(View(same, {}, {})).max() < 2e-3
        assert diversity(View(known, {}, {})).max() <= 2.0
        pairs = torch.cat([known[:1], noise[:1], known[:1], noise[:1]])
        label = torch.tensor([0, 1, 0, 1])
        assert diversity(View(pairs, {"label": label}, {})).max() < 2e-3  # compared with its own label's alone
        assert diversity(View(pairs, {}, {})).min() > 2e-3


def test_novelty_of_unknown_features_is_found_at_the_first_call_only():
    data, helpers = letters(), Helpers()
    novelty = PictureNovelty(real=data, device=CPU, helpers=helpers, limit=5, updates=2)
    assert "real_features" not in vars(novelty)
    fit(helpers)
    novelty(View(data.images[:2].float() / 255, {}, {}))
    first = novelty.real_features
    assert not first.requires_grad
    novelty(View(data.images[:2].float() / 255, {}, {}))
    assert novelty.real_features is first


@pytest.mark.parametrize("classes", [0, 3])
def test_scores_of_pictures_run_on_the_meta_device(classes, tmp_path):
    """All but the JPEG's size, which Pillow finds on the CPU, and functions of the user's own."""
    real = Images(torch.zeros(40, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(40, dtype=torch.long),
                  tuple("abc"[:classes])).to(META)  # fmt: skip
    spec, helpers = picture_spec(3, classes, target=True), Helpers()
    path = tmp_path / "picture.png"
    Image.effect_noise((20, 20), 50).convert("RGB").save(path)
    make: dict[str, Any] = {"real": real, "device": META, "helpers": helpers, "updates": 2}
    scores: dict[str, Any] = {
        "style": Style(spec=spec, reference=str(path), **make), "perceptual": Perceptual(**make),
        "novelty": PictureNovelty(limit=20, **make), "diversity": Diversity(**make),
        "colourfulness": Colourfulness(spec=spec), "sharpness": Sharpness(), "symmetry": Symmetry(mirror="up_down"),
        "palette": Palette(spec=spec, device=META, reference=str(path)), "target": Target(norm="l2", per="target"),
        "coverage": Coverage(),
        "adversarial": adversarial(spec, real, META), "pairs": adversarial(spec, real, META, pairs=True),
        "wgan_gp": adversarial(spec, real, META, loss=LOSSES["wgan_gp"]),
    }  # fmt: skip
    if classes:
        scores["classifier"] = Classifier(
            spec=spec, noise_std=0.1, label_smoothing=0.0, temperature=2.0, scale="log", labels=None, **make
        )
    fit(helpers)
    reward = WeightedSum({name: Term(score, 1.0, "potential") for name, score in scores.items()})

    def somewhere() -> View:
        context = {"target": torch.empty(2, 3, SIDE, SIDE, device=META)}
        context |= {"label": torch.empty(2, dtype=torch.long, device=META)} if classes else {}
        return View(torch.empty(2, 3, SIDE, SIDE, device=META), context, {})

    done, updates = torch.empty(2, dtype=torch.bool, device=META), 0
    for _ in range(3):
        scored = reward(somewhere(), somewhere(), done)
        for learner in reward.learners().values():
            learner.observe(transition(somewhere(), done))
            updates += bool(learner.update(0.5))
    assert updates
    assert all(value.shape == (2,) and value.is_meta for value in scored.terms.values())
    static_score = reward.static_score(somewhere())
    assert static_score is not None
    assert static_score.shape == reward.learned_reward(join(somewhere(), somewhere()), done).shape == (2,)
    price = controller(device=META)
    price.observe(transition(somewhere(), done))
    assert price.update(0.5)["price"].is_meta


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_discriminator_opens_on_another_device():
    real = letters()
    term, other = adversarial(picture_spec(), real), adversarial(picture_spec(), real.to(META), META)
    after = View(torch.rand(4, 1, SIDE, SIDE, generator=stream(0, "x")), {}, {})
    for _ in range(3):
        term.observe(transition(after, torch.tensor([True] * 4)))
        term.update(0.0)
    other.load_state_dict(term.state_dict())
    state = other.state_dict()
    assert all(value.is_meta for value in [*state["net"].values(), state["buffer"]["rows"]])
    assert isinstance(term, LearnedScore)
    assert isinstance(other.buffer.samples, SampleBuffer)


def test_a_learned_term_is_recomputed_and_a_static_one_is_not():
    run = session(*small("env=pixel", "agent=random", "reward=adversarial", "+reward/term=ink_cost"))
    env = run.envs["train"]
    before = env.reset(4, stream(0, "env"))
    after = env.step(before, env.spec.action.sample(4, stream(0, "action"), run.device))
    views, done = (env.view(before), env.view(after)), env.done(after)
    scored, learned = run.reward(*views, done), run.reward.learned_reward(join(*views), done)
    torch.testing.assert_close(scored.static + learned, scored.total)
    torch.testing.assert_close(scored.static, 0.01 * scored.terms["ink_cost"])
    assert list(run.reward.learners()) == ["adversarial"]
    score: Any = run.reward.terms["adversarial"].score
    with torch.no_grad():
        score.net.out.bias += 1.0
        score.net.out.weight *= 3.0
    assert not torch.allclose(run.reward.learned_reward(join(*views), done), learned)
