"""Steering a generator: the environment's contract, its moves and damages by hand, its rewards, every agent in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Differentiable, HasCritic
from rlgen_cli.core.specs import View
from rlgen_cli.data.damage import CentreHole
from rlgen_cli.data.images import Images
from rlgen_cli.domains.latent.scores import LatentDistance, LatentPrior, Realism
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.testing import check_env
from tests.conftest import compose, session, small, write_picture
from tests.resuming import resumes
from tests.small_gan import LATENT, make_env, make_gan, pictures, rng

STEERINGS = ["discrete_step", "continuous_step", "set_coordinate", "set_latent"]
SEEN = [
    ({}, {"canvas", "time", "latent"}, {"start_latent"}),
    ({"condition": "target"}, {"canvas", "target", "time", "latent"}, {"start_latent", "target"}),
    ({"condition": "label"}, {"canvas", "time", "latent", "label"}, {"start_latent", "label"}),
    (
        {"condition": "both", "damage": CentreHole(side=0.4)},
        {"canvas", "damaged", "known_mask", "time", "latent", "label"},
        {"start_latent", "target", "label", "damaged", "known_mask"},
    ),
]

AGENTS = ["dqn", "ppo", "actor_critic", "policy_gradient", "pathwise", "cem", "best_of", "gradient", "greedy", "random"]
REWARDS = {"generate": ["reward.terms.classifier.updates=2"], "inpaint": [], "style": []}
# Every agent has every reward; the damages, which share one, are gone through by one agent.
EPISODES = [(agent, space, task) for task in REWARDS for space in ("latent", "parameters") for agent in AGENTS]
EPISODES += [("ppo", space, task) for task in ("denoise", "watermark") for space in ("latent", "parameters")]
SEARCHES = [(agent, "style") for agent in ("cem", "best_of", "gradient", "greedy", "random")]
RARELY = [("parameters", task) for task in ("inpaint", "style", "denoise", "watermark")]


def steering_of(agent: str) -> str:
    """A steering in which the agent can act."""
    return "steering=discrete_step" if agent in ("dqn", "greedy") else "steering=continuous_step"


def make(*words: str, agent: str = "ppo") -> Any:
    """A session; `words` win over what is small."""
    return session(*small("env=latent_gan", f"agent={agent}", *[w for w in words if "steering=" in w]), *words)


def view(sample: torch.Tensor, context: dict | None = None, info: dict | None = None) -> View:
    return View(sample, context or {}, info or {})


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("steering", STEERINGS)
@pytest.mark.parametrize("space", ["latent", "parameters"])
@pytest.mark.parametrize(("changes", "observed", "known"), SEEN)
def test_contract(steering, space, changes, observed, known, device):
    if space == "parameters":
        if steering == "set_latent":
            return
        changes, observed = changes | {"space": space}, observed - {"latent"} | {"parameters"}
    env = make_env(make_gan(device), steering, **changes)
    assert isinstance(env, Differentiable)
    assert set(env.spec.observation) == observed
    assert set(env.spec.context) == known
    assert set(env.spec.info) == {"latent"}
    if device == "meta":
        check_env(env, device=torch.device("meta"))
    else:
        check_env(env, device=env.device)


CONFIGS = Path(__file__).parent.parent / "configs"
CHOICES = [f"steering={path.stem}" for path in sorted((CONFIGS / "steering").glob("*.yaml"))]
CHOICES += [f"generator={path.stem}" for path in sorted((CONFIGS / "generator").glob("*.yaml"))]
CHOICES += [f"task={path.stem}" for path in sorted((CONFIGS / "task").glob("*.yaml"))]
CHOICES += [f"damage={path.stem}" for path in sorted((CONFIGS / "damage").glob("*.yaml"))]
ELSEWHERE = ("generator=file", "generator=diffusers", "generator=melody", "task=style")  # they need files, or sequences


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice not in ELSEWHERE])
@pytest.mark.mostly_slow(4)
def test_every_choice_runs_with_its_defaults(choice):
    words = ["env=latent_gan", "agent=random", "reward=coverage", "data.per_class=4", "threads=1", "env.max_steps=2"]
    words += ["env.generator.updates=1", "env.generator.batch_size=4"]
    words = [word for word in words if not (word.startswith("reward") and choice.startswith(("task", "damage")))]
    words += ["task=inpaint"] if choice.startswith("damage") else []
    env = assemble(compose(*words, choice)).envs["train"]
    check_env(env, device=torch.device("cpu"))


def test_the_sample_is_what_the_generator_makes():
    source = make_gan()
    env = make_env(source, "continuous_step", basis="axes", stride=0.5)
    state = env.reset(3, rng())
    action = torch.rand(3, 4, generator=rng(1))
    after = env.step(state, action)
    expected = state.point.clone()
    expected[:, :4] += 0.5 * (2 * action - 1)
    assert torch.allclose(after.point, expected.clamp(-3, 3))
    made = source.generator(after.point)
    assert torch.equal(after.picture, (255 * made).round().to(torch.uint8))


def test_the_parameters_of_each_sample_are_its_own():
    source = make_gan()
    env = make_env(source, "continuous_step", space="parameters", basis="axes", stride=0.5)
    state = env.reset(3, rng())
    assert not bool(state.point.any())
    action = torch.rand(3, 4, generator=rng(1))
    after = env.step(state, action)
    made = source.generator(state.start_latent, None, after.point)
    assert torch.equal(after.picture, (255 * made).round().to(torch.uint8))
    assert torch.equal(env.view(after).info["latent"], state.start_latent)


def test_steps_by_hand():
    """Of 4 directions, action 1 adds to the second coordinate, action 5 takes from it, action 8 rests."""
    env = make_env(make_gan(), basis="axes", stride=0.5)
    state = env.reset(3, rng())
    moved = env.step(state, torch.tensor([1, 5, 8])).point - state.point
    assert torch.allclose(moved[:, 1], torch.tensor([0.5, -0.5, 0.0]), atol=1e-6)
    assert not bool(moved[:, [0, 2, 3, 4, 5]].any())


def test_coordinates_by_hand():
    """Of 4 directions and 5 levels, the normal quantiles of .1, .3, .5, .7 and .9: step t sets coordinate t mod 4."""
    env = make_env(make_gan(), "set_coordinate", basis="axes", max_steps=5, time_encoding="one_hot")
    start = env.reset(3, rng())
    state, levels = start, [-1.28155, -0.52440, 0.0, 0.52440, 1.28155]
    for actions in ([0, 1, 2], [3, 3, 3], [4, 0, 4], [1, 1, 1], [4, 3, 2]):
        assert torch.equal(env.observe(state)["time"].argmax(1), state.step.long())
        state = env.step(state, torch.tensor(actions))
    columns = [[4, 3, 2], [3, 3, 3], [4, 0, 4], [1, 1, 1]]  # the last step set the first coordinate again
    expected = torch.tensor([[levels[row[i]] for row in columns] for i in range(3)])
    assert torch.allclose(state.point[:, :4], expected, atol=1e-4)
    assert torch.equal(state.point[:, 4:], start.point[:, 4:])
    assert not bool(env.observe(state)["time"].any())


def test_a_coordinate_is_set_along_a_direction_and_leaves_the_others():
    env = make_env(make_gan(), "set_coordinate", basis="random", directions=None, limit=9.0)
    rows = env.steering.directions.matrix  # type: ignore[attr-defined]
    state = env.reset(3, rng())
    moved = env.step(state, torch.tensor([0, 2, 4])).point @ rows.T - state.point @ rows.T
    along = env.step(state, torch.tensor([0, 2, 4])).point @ rows[0]
    assert torch.allclose(along, torch.tensor([-1.28155, 0.0, 1.28155]), atol=1e-4)
    assert torch.allclose(moved[:, 1:], torch.zeros(3, LATENT - 1), atol=1e-5)


def test_uniform_coordinates_are_about_the_latent_prior():
    env = make_env(make_gan(), "set_coordinate", basis="axes", levels=1000)
    values = env.steering.values  # type: ignore[attr-defined]
    assert float(values.mean()) == pytest.approx(0, abs=1e-6)
    assert float(values.std()) == pytest.approx(1, abs=0.005)
    assert float((values > 1.6449).float().mean()) == pytest.approx(0.05, abs=0.001)


def test_episodes_begin_at_the_mean_or_anywhere():
    source = make_gan()
    assert not bool(make_env(source, start="mean").reset(4, rng()).point.any())
    assert bool(make_env(source, limit=0.5).reset(4, rng()).point.abs().max() == 0.5)


@pytest.mark.parametrize("basis", ["axes", "random", "principal", "learned"])
def test_directions_are_orthonormal(basis):
    source = make_gan()
    env = make_env(source, "continuous_step", basis=basis, directions=None)
    source.update(0.0)
    source.stage().finish()
    rows = env.steering.directions.matrix  # type: ignore[attr-defined]
    assert torch.allclose(rows @ rows.T, torch.eye(LATENT), atol=1e-4)
    assert torch.equal(rows, torch.eye(LATENT)) == (basis == "axes")


def test_the_basis_is_learned_where_it_can_be():
    source = make_gan()
    names = {space: make_env(source, space=space).steering.directions.name for space in ("latent", "parameters")}  # type: ignore[attr-defined]
    assert names == {"latent": "learned", "parameters": "random"}


def test_a_uniform_policy_that_sets_latents_is_the_latent_prior():
    env = make_env(make_gan(), "set_latent", limit=5)
    state = env.reset(4000, rng())
    point = env.step(state, env.spec.action.sample(4000, rng(1))).point
    assert float(point.mean()) == pytest.approx(0, abs=0.02)
    assert float(point.std()) == pytest.approx(1, abs=0.02)
    assert float((point > 1.6449).float().mean()) == pytest.approx(0.05, abs=0.005)


def test_gradients_reach_the_action_and_nothing_else():
    source = make_gan()
    env = make_env(source, "set_latent")
    action = torch.full((2, LATENT), 0.4, requires_grad=True)
    seen = env.view(env.step(env.differentiable_state(env.reset(2, rng())), action))
    (seen.sample.sum() + source.generator.realism(seen.sample, None).sum()).backward()
    assert action.grad is not None
    assert bool((action.grad != 0).all())
    assert all(weight.grad is None for weight in source.generator.parameters())


def test_a_differentiable_state_gives_the_same_numbers():
    env = make_env(make_gan(), "continuous_step")
    state, action = env.reset(3, rng()), torch.rand(3, 4, generator=rng(1))
    soft = env.step(env.differentiable_state(state), action)
    assert torch.equal(soft.picture.to(torch.uint8), env.step(state, action).picture)


def test_latent_scores_by_hand():
    latent = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    start = torch.tensor([[0.0, 2.0], [1.0, 3.0]])
    seen = view(torch.zeros(2, 1, 2, 2), {"start_latent": start}, {"latent": latent})
    assert LatentPrior()(seen).tolist() == [0.0, -2.5]
    assert LatentDistance()(seen).tolist() == [-1.0, 0.0]


def test_realism_is_the_discriminators_logit():
    source = make_gan(conditional=True)
    assert isinstance(source.generator, HasCritic)
    images, label = pictures().images[:3].float() / 255, torch.tensor([0, 1, 2])
    score = Realism(generator=source.generator, joint=True)
    assert score.learned
    assert torch.equal(score(view(images, {"label": label})), source.generator.discriminator(images, label))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 15}, "size: must be even"),
        ({"size": 20}, "size: the generator makes 16 × 16 pictures with 1 channels.*use env.size=16 env.channels=1"),
        ({"max_steps": 0}, "max_steps: must be from 1"),
        ({"stride": 0.0}, "stride: must be above 0"),
        ({"limit": 0.0}, "limit: must be above 0"),
        ({"directions": 7}, "directions: must be from 1 to 6, or null for all, got 7"),
        ({"basis": "principal", "space": "parameters"}, "basis: principal directions are not known here; use auto or"),
        (
            {"condition": "label", "images": Images(pictures().images, pictures().labels)},
            "condition: label needs data with labels",
        ),
    ],
)
def test_what_an_environment_refuses(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        make_env(make_gan(), **changes)


def test_a_conditional_generator_needs_labels():
    with pytest.raises(UserError, match="condition: a conditional generator needs labels"):
        make_env(make_gan(conditional=True))


@pytest.mark.parametrize(
    ("agent", "space", "task"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case[1:] in RARELY or case[::2] in SEARCHES else [])
        for case in EPISODES
    ],
)
@pytest.mark.mostly_slow(6)
def test_every_agent_steers_and_resumes_bit_for_bit(agent, space, task, tmp_path):
    words = small("env=latent_gan", f"agent={agent}", steering_of(agent))
    words += [f"task={task}", f"env.steering.space={space}", *REWARDS.get(task, [])]
    if task == "style":
        words += [f"reward.terms.style.reference={write_picture(tmp_path / 'a.png')}", "reward.terms.style.updates=2"]
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
    words = small("env=latent_gan", f"agent={agent}", steering_of(agent))
    resumes([*words, "joint=true", "env.generator.joint_training.buffer_size=20"], 160, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("generator/generator_loss" in record for record in records)


def test_search_finds_what_it_is_asked_for():
    """At equal calls of the generator: the best of many beats one try, going by the best beats blind tries, and
    gradients see the way."""
    from rlgen_cli.evaluation.evaluate import evaluate

    words = ["steering=set_latent", "env.max_steps=1", "reward=coverage", "env.generator.updates=30"]
    found = {}
    for name in ("random", "best_of", "cem", "gradient"):
        budget = [] if name == "random" else ["agent.samples=8", "agent.rounds=12"]
        built = make(*words, *budget, agent=name)
        result = evaluate(
            built.envs["test"], built.actor, built.reward, episodes=16, seed=0, device=torch.device("cpu")
        )
        found[name] = result.scores["coverage"]
    assert found["random"] < found["best_of"] < found["cem"]
    assert found["best_of"] < found["gradient"]


def test_search_begins_where_its_guide_says(tmp_path):
    from rlgen_cli.core.acting import decide, initial_carry
    from rlgen_cli.runs.trainer import train

    words = ["steering=set_latent", "env.max_steps=1", "reward=coverage"]
    guide = make(*words, "agent.evaluate=mode")
    assert train(guide, tmp_path / "guide") == "finished"
    one_try = ["agent.samples=1", "agent.rounds=1", f"agent.start.guide={tmp_path / 'guide'}"]
    polish = make(*words, *one_try, agent="best_of")
    env = polish.envs["test"]
    state = env.reset(3, rng())
    action = decide(polish.actor, env, state, None, explore=False, rng=rng()).action
    carry = initial_carry(guide.actor, 3)
    guided = decide(guide.actor, guide.envs["test"], state, carry, explore=False, rng=rng()).action
    assert torch.allclose(action, guided, atol=1e-3)


@pytest.mark.slow
def test_a_policy_beats_chance():
    """PPO moves brightness up in a latent space: by .043 to .079 with three seeds."""
    from rlgen_cli.evaluation.evaluate import evaluate
    from rlgen_cli.runs.trainer import train

    words = ["reward=coverage", "env.generator.updates=1600", "env.generator.batch_size=16", "total_steps=12000"]
    words += ["steering=continuous_step", "env.steering.directions=null", "env.steering.basis=axes"]
    words += ["env.steering.stride=1.0", "num_envs=32", "eval_interval=12000", "agent.num_steps=3"]
    words += ["env.generator.optimizer.learning_rate.end=2e-3"]  # too few updates for a rate that falls
    built = make(*words, "agent.objective.entropy_coef.start=0.01")

    def coverage() -> float:
        device = torch.device("cpu")
        found = evaluate(built.envs["valid"], built.actor, built.reward, episodes=64, seed=0, device=device)
        return found.scores["coverage"]

    before = coverage()
    assert train(built, Path("run")) == "finished"
    assert coverage() > before + 0.03


def test_a_gradient_through_the_generator_needs_a_continuous_steering():
    with pytest.raises(UserError, match=r"Pathwise|differentiable"):
        make("steering=discrete_step", "reward=coverage", agent="pathwise")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env.generator.batch_size=1"], r"env\.generator\.batch_size: must be at least 2"),
        (["env.generator.loss.penalty.interval=0"], r"env\.generator\.loss\.penalty\.interval: must be at least 1"),
        (["env.generator.augment=[blur]"], r"env\.generator\.augment: must be of colour"),
        (["env.generator.conditional=true"], r"env\.condition: a conditional generator needs labels"),
        (["env.size=15"], r"env\.size: must be even"),
        (["env.steering.directions=7"], r"env\.steering\.directions: must be from 1 to 6"),
        (["steering=set_coordinate", "env.steering.levels=1"], r"env\.steering\.levels: must be from 2 to 1000, got 1"),
        (["steering=set_latent", "env.steering.space=parameters"], r"env\.steering\.space: is no key here"),
        (["env.steering.basis=principal", "env.steering.space=parameters"], "principal directions are not known here"),
        (["reward=reconstruction", "damage=null"], "needs a known_mask|known_mask"),
        (["env.gan.latent=5"], r"env\.generator\.latent"),
    ],
)
def test_wrong_input_says_what_is_right(words, message):
    with pytest.raises(UserError, match=message):
        make(*words, agent="random")
