"""Steering a generator: the environment's contract, its moves and damages by hand, its rewards, every agent in it."""

import json
import math

import pytest
import torch

from rlgen_cli.domains.latent.damage import Hole, Noise, Watermark
from rlgen_cli.core.errors import UserError
from rlgen_cli.domains.latent.scores import LatentPrior, LatentWay
from rlgen_cli.rewards.pictures import Colourfulness, JpegSize, Palette, Sharpness, Symmetry
from rlgen_cli.domains.latent.repair_scores import Known, Truth
from rlgen_cli.core.tree import join
from rlgen_cli.core.types import Context, EnvSpec, ObservationSpec, View
from tests.conftest import session, small, write_picture
from tests.test_train import DRAWERS, resumes

SPACES = ["latent", "parameters"]
TASKS = {"generate": ["reward.terms.classifier.steps=2"], "inpaint": [], "denoise": [], "watermark": [], "style": []}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(*words: str, agent: str = "ppo"):
    return session(*small("env=latent_gan", f"agent={agent}"), *words)


def spec(channels: int = 3, size: int = 16) -> EnvSpec:
    return EnvSpec(ObservationSpec((1, 1, 1), (0, 0, 0), 1), None, (channels, size, size), 1, frozenset(), 0)  # type: ignore[arg-type]


def view(sample: torch.Tensor, **context) -> View:
    return View(sample, Context(**context), torch.ones(len(sample), dtype=torch.long))


@pytest.mark.parametrize("action", ["step", "move", "place"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("damage", ["hole", None])
def test_contract(space, action, damage):
    if space == "parameters" and action == "place":
        return
    words = [f"env.space={space}", f"env.action={action}", "env.basis=random"]
    words += ["+damage@env.damage=hole", "reward=repair"] if damage else []
    built = make(*words)
    env = built.envs["train"]
    state = env.reset(5, rng())
    spoken = env.spec
    for step in range(spoken.max_steps):
        seen, what = env.observe(state), env.view(state)
        assert seen.image.shape == (5, *spoken.observation.image)
        assert seen.vector.shape == (5, spoken.observation.vector)
        assert what.sample.shape == (5, *spoken.sample)
        assert not bool(env.done(state).any())
        assert {name for name, value in what.context._asdict().items() if value is not None} == spoken.context
        state = env.step(state, spoken.action.sample(5, rng(step)))
    assert bool(env.done(state).all())
    after = env.step(state, spoken.action.sample(5, rng(9)))
    for before, still in zip(state, after, strict=True):
        assert torch.equal(before, still)


def test_the_sample_is_what_the_generator_makes():
    env = make("env.action=move", "env.basis=axes", "env.stride=0.5").envs["train"]
    state = env.reset(3, rng())
    action = torch.rand(3, 4, generator=rng(1))
    after = env.step(state, action)
    expected = state.point.clone()
    expected[:, :4] += 0.5 * (2 * action - 1)
    assert torch.allclose(after.point, expected.clamp(-3, 3))
    assert torch.equal(after.image, (255 * env.gan(after.point)).round().to(torch.uint8))


def test_steps_by_hand():
    """Of 4 directions, action 1 adds to the second coordinate, action 5 takes from it, action 8 rests."""
    env = make("env.action=step", "env.basis=axes", "env.stride=0.5", agent="random").envs["train"]
    state = env.reset(3, rng())
    moved = env.step(state, torch.tensor([1, 5, 8])).point - state.point
    assert torch.allclose(moved[:, 1], torch.tensor([0.5, -0.5, 0.0]), atol=1e-6)
    assert not bool(moved[:, [0, 2, 3, 4, 5]].any())


@pytest.mark.parametrize("basis", ["axes", "random", "principal", "learned"])
def test_directions_are_orthonormal_and_known_once_the_gan_is_trained(basis):
    env = make("env.action=move", f"env.basis={basis}", "env.directions=0").envs["train"]
    assert torch.allclose(env.steering.basis @ env.steering.basis.T, torch.eye(6), atol=1e-4)
    assert torch.equal(env.steering.basis, torch.eye(6)) == (basis == "axes")


def test_learned_directions_change_most_what_the_discriminator_sees():
    gan = make("env.gan.steps=30").gan
    z = torch.randn(64, 6, generator=rng())
    seen = [gan.discriminator.features(gan(z + 0.2 * way)) for way in gan.directions["learned"]]
    change = [float((one - gan.discriminator.features(gan(z))).detach().square().sum()) for one in seen]
    assert change[0] == max(change)
    assert change[-1] == min(change)


def test_uniform_placing_is_the_latent_prior():
    env = make("env.action=place", "env.limit=5").envs["train"]
    state = env.reset(4000, rng())
    point = env.step(state, env.spec.action.sample(4000, rng(1))).point
    assert float(point.mean()) == pytest.approx(0, abs=0.02)
    assert float(point.std()) == pytest.approx(1, abs=0.02)
    assert float((point > 1.6449).float().mean()) == pytest.approx(0.05, abs=0.005)


def test_gradients_reach_the_action():
    env = make("env.action=place").envs["train"]
    action = torch.full((2, 6), 0.4, requires_grad=True)
    env.view(env.step(env.soften(env.reset(2, rng())), action)).sample.sum().backward()
    assert bool((action.grad != 0).all())


def test_holes_by_hand():
    images = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    given, known = Hole(form="centre", side=0.5, strokes=1, width=1)(images, rng())
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    assert torch.equal(known[0, 0], ~hole)
    assert torch.equal(given[0, 0], torch.where(hole, 0, 200).to(torch.uint8))
    _, known = Hole(form="box", side=0.25, strokes=1, width=1)(images.repeat(50, 1, 1, 1), rng())
    assert torch.equal((~known).sum((1, 2, 3)), torch.full((100,), 4))
    assert len({tuple(row.flatten().tolist()) for row in known}) > 20
    _, known = Hole(form="strokes", side=1.0, strokes=2, width=2.0)(images, rng())
    assert 0 < int((~known).sum()) < known.numel()


def test_noise_and_watermark_by_hand():
    images = torch.full((50, 1, 8, 8), 100, dtype=torch.uint8)
    given, known = Noise(std=0.1)(images, rng())
    assert not bool(known.any())
    assert float(given.float().std()) == pytest.approx(25.5, rel=0.05)
    given, known = Watermark(opacity=0.5, period=4, width=1)(images, rng())
    assert float((~known).float().mean()) == pytest.approx(0.25)
    assert set(given[known.expand_as(given)].tolist()) == {100}
    assert set(given[~known.expand_as(given)].tolist()) == {114}


def test_picture_scores_by_hand():
    blank, half = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    half[:, 0, :, 8:] = 1  # the right half red
    scores = Colourfulness(spec=spec())(view(torch.cat([blank, half])))
    spread = 0.25 * 256 / 255
    expected = math.sqrt(spread + spread / 4) + 0.3 * math.sqrt(0.25 + 0.0625)
    assert scores.tolist() == pytest.approx([0, expected], abs=1e-3)
    edge = torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 1  # Laplacians inside: −1 and 1
    assert float(Sharpness()(view(edge))) == pytest.approx(1, abs=1e-4)
    both = torch.cat([edge, edge.transpose(2, 3), torch.zeros_like(edge)])
    assert Symmetry(mirror="left_right")(view(both)).tolist() == pytest.approx([-1, 1, 0], abs=1e-3)


def test_jpeg_size_tells_noise_from_a_blank():
    blank, noise = torch.zeros(1, 1, 28, 28), torch.rand(1, 1, 28, 28, generator=rng())
    small, large = (
        JpegSize(spec=spec(1, 28), aim=aim, quality=75)(view(torch.cat([blank, noise]))) for aim in ("small", "large")
    )
    assert float(small[0]) == 0
    assert float(large[1]) > 0.5
    assert torch.equal(small, -large)


def test_a_palette_is_its_own_whatever_the_place(tmp_path):
    term = Palette(spec=spec(3, 20), device=torch.device("cpu"), reference=str(write_picture(tmp_path / "a.png")))
    from rlgen_cli.rewards.pictures import load_reference

    own = load_reference(str(tmp_path / "a.png"), (3, 20, 20))
    scores = term(view(torch.cat([own, own.flip(2), torch.zeros_like(own)])))
    assert scores[:2].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert float(scores[2]) < -0.3


def test_repair_scores_by_hand():
    target = torch.zeros(2, 1, 2, 2)
    given, known = target.clone(), torch.tensor([[[[True, True], [False, False]]]] * 2)
    sample = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[0.0, 0.0], [1.0, 0.0]]]])
    seen = view(sample, target=target, given=given, known=known)
    assert Known()(seen).tolist() == pytest.approx([-0.5, 0.0])
    assert Truth()(seen).tolist() == pytest.approx([-0.25, -0.5])
    everything = seen._replace(context=seen.context._replace(known=torch.zeros_like(known)))
    assert Known()(everything).tolist() == pytest.approx([-1.5 / 4, -0.25])


def test_latent_prior_by_hand():
    what = view(torch.zeros(2, 1, 2, 2))._replace(latent=torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    assert LatentPrior()(what).tolist() == [0.0, -2.5]
    there = what._replace(context=Context(origin=torch.tensor([[0.0, 2.0], [1.0, 3.0]])))
    assert LatentWay()(there).tolist() == [-1.0, 0.0]


def test_style_and_likeness_are_best_for_the_picture_itself(tmp_path):
    picture = write_picture(tmp_path / "a.png", 16)
    built = make("+reward/term=[style,perceptual]", f"reward.terms.style.reference={picture}", "env.channels=3",
                 "reward.terms.style.steps=20", "reward.terms.perceptual.steps=20", agent="random")  # fmt: skip
    from rlgen_cli.rewards.pictures import load_reference

    own = load_reference(str(picture), (3, 16, 16))
    scores = built.reward.score(
        view(torch.cat([own, torch.zeros_like(own)]), target=own.repeat(2, 1, 1, 1), origin=torch.zeros(2, 6))._replace(
            latent=torch.zeros(2, 6)
        )
    )
    for name in ("style", "perceptual"):
        assert float(scores[name][0]) == pytest.approx(0, abs=1e-4)
        assert float(scores[name][1]) < -0.05


def test_novelty_and_diversity():
    built = make("+reward/term=[picture_novelty,diversity]", "reward.terms.picture_novelty.steps=20",
                 "reward.terms.diversity.steps=20", agent="random")  # fmt: skip
    env = built.envs["train"]
    known = env.images[:3].float() / 255
    seen = view(known, origin=torch.zeros(3, 6))._replace(latent=torch.zeros(3, 6))
    assert built.reward.score(seen)["picture_novelty"].tolist() == pytest.approx([0, 0, 0], abs=2e-3)
    apart = seen._replace(context=seen.context._replace(label=torch.tensor([0, 1, 0])))
    far = built.reward.terms["diversity"].score.net.features(known[[0, 2]])
    wanted = float((far[0] - far[1]).norm())  # the first and the third have each other alone, the second has none
    assert built.reward.score(apart)["diversity"].tolist() == pytest.approx([wanted, 0, wanted], abs=1e-3)
    alike = join(seen, seen)
    assert float(built.reward.score(alike)["diversity"].mean()) < float(built.reward.score(seen)["diversity"].mean())


def test_search_finds_what_it_is_asked_for():
    """At equal calls of the generator: the best of many beats one try, going by the best beats blind tries, and
    gradients see the way."""
    from rlgen_cli.evaluation.evaluate import evaluate

    words = ["env.action=place", "env.max_steps=1", "reward=coverage", "env.gan.steps=30"]
    budget = ["agent.samples=8", "agent.rounds=12"]
    found = {"random": evaluate(make(*words, agent="random"), "test", 16, 0).scores["coverage"]}
    for name in ("best_of", "cem", "gradient"):
        found[name] = evaluate(make(*words, *budget, agent=name), "test", 16, 0).scores["coverage"]
    assert found["random"] < found["best_of"] < found["cem"]
    assert found["best_of"] < found["gradient"]


def test_search_begins_where_its_guide_says(tmp_path):
    from rlgen_cli.runs.trainer import train

    words = ["env.action=place", "env.max_steps=1", "reward=coverage"]
    assert train(make(*words), tmp_path / "guide") == "finished"
    polish = make(*words, f"agent.guide={tmp_path / 'guide'}", "agent.samples=1", "agent.rounds=1", agent="best_of")
    env = polish.envs["test"]
    state = env.reset(3, rng())
    action = polish.agent.act(env, state, None, explore=False, rng=rng()).action
    said = polish.agent.guide(env.observe(state), None, None, torch.zeros(1, 3, dtype=torch.bool))
    assert torch.allclose(action, said.policy.mode(), atol=1e-3)


# Every agent has every reward; the damages, which share one, are gone through by one agent.
EPISODES = [(agent, space, task) for task in ("generate", "inpaint", "style") for space in SPACES for agent in DRAWERS]
EPISODES += [("ppo", space, task) for task in ("denoise", "watermark") for space in SPACES]


@pytest.mark.parametrize(("agent", "space", "task"), EPISODES)
def test_every_agent_steers_and_resumes_bit_for_bit(agent, space, task, tmp_path):
    act = "step" if agent in ("dqn", "greedy") else "move"
    words = [*small("env=latent_gan", f"agent={agent}"), f"task={task}", f"env.space={space}", f"env.action={act}"]
    words += ["env.basis=random", *TASKS[task]]
    if task == "style":
        words += [f"reward.terms.style.reference={write_picture(tmp_path / 'a.png')}", "reward.terms.style.steps=2"]
    total = 160
    if agent == "greedy":
        words, total = [*words, "total_steps=24", "eval_interval=24", "eval_episodes=2"], 24
    resumes(words, total, tmp_path)
    made = {path.name for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert {"grid.png", "strip.png", "timelapse.gif", "scores.json"} <= made
    scores = json.loads((tmp_path / "parts" / "samples" / "final" / "scores.json").read_text())
    assert ("psnr" in scores) == (task in ("inpaint", "denoise", "watermark"))


@pytest.mark.parametrize("agent", ["dqn", "ppo", "policy_gradient"])
def test_policy_generator_and_discriminator_learn_together(agent, tmp_path):
    act = "step" if agent == "dqn" else "move"
    words = [*small("env=latent_gan", f"agent={agent}"), "joint=true", f"env.action={act}", "env.gan.memory=20"]
    resumes(words, 160, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("gan/generator_loss" in record for record in records)


def test_a_policy_beats_chance():
    """PPO moves brightness up in a latent space."""
    from pathlib import Path

    from rlgen_cli.evaluation.evaluate import evaluate
    from rlgen_cli.runs.trainer import train

    words = [*small("env=latent_gan", "agent=ppo", "reward=coverage"), "env.gan.steps=800", "total_steps=12000"]
    words += ["env.action=move", "env.directions=0", "env.basis=axes", "env.stride=0.6", "num_envs=32"]
    words += ["eval_interval=12000", "env.gan.batch_size=16", "agent.entropy.start=0.01", "agent.rollout=3"]
    built = session(*words)
    before = evaluate(built, "valid", 64, 0).scores["coverage"]
    assert train(built, Path("run")) == "finished"
    assert evaluate(built, "valid", 64, 0).scores["coverage"] > before + 0.03


def test_gradient_through_the_generator_needs_a_move():
    with pytest.raises(UserError, match=r"pathwise needs an environment that is differentiable"):
        session(
            *small("env=latent_gan", "agent=policy_gradient"), "agent.estimator=pathwise", "env.action=step",
            "reward=coverage",
        )  # fmt: skip
