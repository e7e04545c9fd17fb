"""Denoising as an episode: samplers and steps by hand, a model whose answer is known, every agent in it."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import rlgen_cli
from rlgen_cli.agents.nft import NFT
from rlgen_cli.agents.planners.particles import Particles, selected
from rlgen_cli.agents.reward_weighted import RewardWeighted
from rlgen_cli.core.acting import decide
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import KnowsWays
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Discrete, Normal, Scored, View
from rlgen_cli.data.damage import CentreHole, hint_of
from rlgen_cli.data.images import Images, Splits
from rlgen_cli.domains.diffusion.controls import Guidance, Noise, PickNoise, Stop
from rlgen_cli.domains.diffusion.environment import Diffusion
from rlgen_cli.domains.diffusion.samplers import DDIM, FlowSDE, coefficients, step_times
from rlgen_cli.domains.diffusion.scores import StepCost
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.generators.diffusion import DiffusionModel, DiffusionTraining
from rlgen_cli.generators.paths import Cosine, Flow, change_kept
from rlgen_cli.generators.unet import DenoisingMLP, DenoisingUNet
from rlgen_cli.policies.actor import NetworkPolicy
from rlgen_cli.policies.denoiser import Denoiser
from rlgen_cli.policies.distributions import UnitNormal
from rlgen_cli.policies.encoders import MLP
from rlgen_cli.policies.policy_network import PolicyNetwork
from rlgen_cli.policies.precision import Precision
from rlgen_cli.rewards.reward import Term, WeightedSum
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.stepper import Stepper
from rlgen_cli.runs.trainer import train
from tests.conftest import compose, session, small, write_picture
from tests.resuming import resumes

CPU = torch.device("cpu")
AGENTS = [
    "actor_critic", "ppo", "policy_gradient", "pathwise", "reward_weighted", "trajectory_balance", "nft", "grpo", "best_of", "cem", "gradient",
    "particles", "random",
]  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Modes:
    """The exact model of a mixture of equal isotropic normal variables on 1 × 2 pictures, on a straight way to noise."""

    shape, labels, classes, hints = (1, 1, 2), 0, 0, 0

    def __init__(self, centres: list[list[float]], std: float) -> None:
        self.path, self.centres, self.std = Flow(), torch.tensor(centres), std

    def denoising_network(self) -> nn.Module:
        return nn.Identity()

    def solve(
        self, x: torch.Tensor, times: torch.Tensor, label: torch.Tensor | None, hint: torch.Tensor | None = None
    ) -> torch.Tensor:
        return DiffusionModel.solve(self, x, times, label, hint)  # type: ignore[arg-type]

    def estimate(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None, hint: torch.Tensor | None = None
    ) -> torch.Tensor:
        alpha, sigma = (part.view(-1, 1) for part in (1 - t, t))
        variance = alpha.square() * self.std**2 + sigma.square()
        away = x.flatten(1).unsqueeze(1) - alpha.unsqueeze(2) * self.centres  # [N, M, 2]
        share = (-0.5 * away.square().sum(2) / variance).softmax(1)
        gain = alpha * self.std**2 / variance
        each = self.centres + gain.unsqueeze(2) * away
        return (share.unsqueeze(2) * each).sum(1).view_as(x)


def make_env(model: Any, steps: int = 10, sampler: Any = None, **changes: Any) -> Diffusion:
    """The environment of a model, on pictures that nobody looks at."""
    images = Images(torch.zeros(4, *model.shape, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    settings: dict[str, Any] = {
        "data": Splits(images, images, images), "split": "train", "device": CPU, "generator": model,
        "sampler": sampler or DDIM(eta=1.0), "control": Noise(), "size": 8, "channels": 1, "max_steps": steps, "eval_max_steps": None,
        "spacing": "time", "order": 1, "last_time": 0.02, "solver_steps": 0, "damage": None, "condition": "none",
    }  # fmt: skip
    return Diffusion(**settings | changes)


def played(env: Diffusion, n: int) -> Any:
    """Finished states of standard normal actions."""
    state, source = env.reset(n, rng()), rng(1)
    for _ in range(env.spec.max_steps):
        state = env.step(state, env.spec.action.sample(n, source))
    return state


def test_steps_by_hand():
    times = torch.tensor([1.0, 0.5, 0.25])
    kept, gain, std, change = coefficients(DDIM(eta=1.0), Flow(), times, 2)
    # From pure noise nothing is kept. Then α and σ go from .5, .5 to .75, .25, which is the posterior of ancestral
    # sampling: c_x = ⅔ · .25² / .5², c_0 = .75 · (.25 − 4/9 · .0625) / .25, std = .25 √(1 − 1/9).
    assert torch.allclose(kept, torch.tensor([0.0, 1 / 6]), atol=1e-6)
    assert torch.allclose(gain, torch.tensor([0.5, 2 / 3]), atol=1e-6)
    assert torch.allclose(std, torch.tensor([0.5, 0.25 * math.sqrt(8 / 9)]), atol=1e-6)
    # log(α / σ) is −∞, 0 and log 3: of second order is no step whose length, or the one before, is infinite.
    assert change.tolist() == [0.0, 0.0]
    half = coefficients(DDIM(eta=0.5), Flow(), times, 1)
    assert torch.allclose(half.std, 0.5 * std)
    assert torch.allclose(half.state, (torch.tensor([0.25, 0.0625]) - half.std**2).sqrt() / torch.tensor([1.0, 0.5]))


def test_steps_of_second_order_by_hand():
    """At .75, .5 and .25, log(α / σ) is −log 3, 0 and log 3; at .1 it is log 9."""
    shares = change_kept(Flow(), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.1]))
    assert torch.allclose(shares, torch.tensor([0.0, 0.0, 0.5, 0.5]), atol=1e-6)
    assert torch.equal(coefficients(DDIM(eta=1.0), Flow(), torch.tensor([0.75, 0.5, 0.25]), 1).change, torch.zeros(2))


def test_where_steps_lie():
    assert torch.equal(step_times(Flow(), 2, 0.5, "time", CPU), torch.tensor([1.0, 0.75, 0.5]))
    # log(α / σ) of .99, .5 and .01 are even.
    assert torch.allclose(step_times(Flow(), 3, 0.01, "log_snr", CPU), torch.tensor([1.0, 0.99, 0.5, 0.01]), atol=1e-4)
    assert torch.allclose(step_times(Flow(), 1, 0.4, "log_snr", CPU), torch.tensor([1.0, 0.4]), atol=1e-4)


@pytest.mark.parametrize(("order", "low", "high"), [(1, 0.1, 1.0), (2, 0.0, 0.04)])
def test_second_order_makes_every_mode_as_often_in_ten_steps(order, low, high):
    """Total variation from equal shares of 25 modes of a model that is known exactly."""
    centres = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)
    env = make_env(Modes(centres.tolist(), 0.045), order=order, spacing="log_snr", last_time=0.1, solver_steps=4)
    nearest = torch.cdist(played(env, 10000).estimate.flatten(1), centres).argmin(1)
    share = torch.bincount(nearest, minlength=25) / 10000
    assert low < float((share - 1 / 25).abs().sum() / 2) < high


def test_the_noise_of_flow_grpo_by_hand():
    flow = coefficients(FlowSDE(scale=0.7), Flow(), torch.tensor([0.5, 0.4]), 1)
    assert flow.std.item() == pytest.approx(0.7 * math.sqrt(0.5 / 0.5 * 0.1))
    wide = coefficients(FlowSDE(scale=0.7), Flow(), torch.tensor([1.0, 0.5]), 1)  # as much as there is at its end
    assert wide.std.item() == 0.5
    assert wide.state.item() == 0.0


@pytest.mark.parametrize("path", [Flow(), Cosine(prediction="noise"), Cosine(prediction="velocity")])
def test_what_is_predicted_tells_the_sample(path):
    x0, noise, t = (torch.randn(5, 1, 2, 2, generator=rng(i)) for i in range(3))
    t = t.sigmoid()[:, :, :1, :1]
    x = path.alpha(t) * x0 + path.sigma(t) * noise
    assert torch.allclose(path.estimate(x, path.target(x0, noise, t), t), x0, atol=1e-4)
    ends = torch.tensor([0.0, 1.0])
    assert torch.allclose(path.alpha(ends), torch.tensor([1.0, 0.0]), atol=2e-3)
    assert torch.allclose(path.sigma(ends), torch.tensor([0.0, 1.0]), atol=2e-3)


@pytest.mark.parametrize("sampler", [DDIM(eta=1.0), DDIM(eta=0.5), FlowSDE(scale=0.7)])
def test_standard_normal_actions_sample_from_the_model(sampler):
    env = make_env(Modes([[0.5, -0.5]], 0.2), steps=60, sampler=sampler)
    made = played(env, 4000).estimate.flatten(1)
    assert torch.allclose(made.mean(0), torch.tensor([0.5, -0.5]), atol=0.02)
    assert torch.allclose(made.std(0), torch.full((2,), 0.2), atol=0.02)


def test_an_action_moves_the_noisy_sample_and_what_leads_to_a_sample_leads_there():
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.2))
    assert isinstance(env, KnowsWays)
    final = played(env, 6)
    way = env.on_the_way(final, rng(3))
    place = way.state.step.long()
    assert place.max() < 10
    kept, gain, *_ = (part[place].view(-1, 1, 1, 1) for part in env.coefficients)
    after = env.step(way.state, way.action)
    assert torch.allclose(after.noisy, kept * way.state.noisy + gain * final.estimate, atol=1e-4)
    assert torch.allclose(env.action_between(way.state, after), way.action, atol=1e-3)
    # The weight makes a squared error of the action that of the velocity, (x̂ − x) / t.
    velocity = (final.estimate - way.state.estimate).flatten(1) / env.times[place].unsqueeze(1)
    assert torch.allclose(way.weight * way.action.square().sum(1), velocity.square().sum(1), rtol=1e-3)


def test_noises_to_pick_from_are_the_same_in_every_episode_and_sample_from_the_model():
    env = make_env(Modes([[0.5, -0.5]], 0.2), steps=60, control=PickNoise(count=1024, seed=1))
    assert isinstance(env.spec.action, Discrete)
    assert env.spec.action.n == 1024
    assert not env.spec.differentiable
    state = env.reset(3, rng())
    after = env.step(state, torch.tensor([5, 5, 6])).noisy.flatten(1)
    std = env.coefficients.std[0]
    noises: Any = env.control
    assert torch.allclose((after[0] - after[2]) / std, (noises.noises[0, 5] - noises.noises[0, 6]).flatten(), atol=1e-4)
    made = played(env, 4000).estimate.flatten(1)
    assert torch.allclose(made.mean(0), torch.tensor([0.5, -0.5]), atol=0.05)
    assert torch.allclose(made.std(0), torch.full((2,), 0.2), atol=0.05)


class Told:
    """A model that sees .5 where it knows a label and .25 where it does not."""

    path = Flow()
    shape, labels, classes, hints = (1, 1, 2), 2, 2, 0

    def denoising_network(self) -> nn.Module:
        return nn.Identity()

    def solve(
        self, x: torch.Tensor, times: torch.Tensor, label: torch.Tensor | None, hint: torch.Tensor | None = None
    ) -> torch.Tensor:
        return x

    def estimate(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None, hint: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert label is not None
        return (0.25 + 0.25 * label.sum(1)).view(-1, 1, 1, 1).expand_as(x)


def test_guidance_by_hand():
    """From pure noise to t = .5 without noise, x = .5 x_1 + .5 x̂, where x̂ is .25 + w · .25."""
    guidance = Guidance(scales=[0.0, 1.0, 3.0])
    env = make_env(Told(), steps=1, control=guidance, condition="label", last_time=0.5)
    state = env.reset(3, rng())
    after = env.step(state, torch.tensor([0, 1, 2])).noisy.flatten(1)
    expected = 0.5 * state.noisy.flatten(1) + 0.5 * torch.tensor([[0.25], [0.5], [1.0]])
    assert torch.allclose(after, expected, atol=1e-6)


def test_who_stops_keeps_what_the_model_sees():
    """And the others go on, to their own ends."""
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.2), steps=3, control=Stop(), last_time=0.5, solver_steps=2)
    assert not env.spec.fixed_length
    first = env.step(env.reset(3, rng()), torch.tensor([0, 0, 0]))
    second = env.step(first, torch.tensor([1, 0, 0]))
    assert env.done(second).tolist() == [True, False, False]
    assert torch.equal(second.estimate[0], first.estimate[0])
    assert not torch.equal(second.estimate[1], first.estimate[1])
    third = env.step(second, torch.tensor([0, 0, 1]))
    assert env.done(third).tolist() == [True, True, True]
    assert torch.equal(third.estimate[[0, 2]], second.estimate[[0, 2]])
    solved = env.generator.solve(third.noisy, torch.tensor([0.5, 0.25, 0.0]), None)
    assert torch.equal(third.estimate[1], solved[1])
    assert env.view(third).info["num_steps"].tolist() == [1, 3, 2]
    assert StepCost()(env.view(third)).tolist() == [-1.0, -3.0, -2.0]


def test_the_model_sees_more_after_more_steps():
    """How far its estimate is from the middle of two modes, for whoever stops then."""
    env = make_env(Modes([[0.8, 0.8], [-0.8, -0.8]], 0.05), steps=6, control=Stop(), spacing="log_snr", last_time=0.1)
    seen = []
    for steps in range(4):
        state = env.reset(500, rng())
        for i in range(steps + 1):
            state = env.step(state, torch.full((500,), int(i == steps)))
        assert env.view(state).info["num_steps"].tolist() == [steps] * 500
        seen.append(float(state.estimate.abs().mean()))
    assert seen == sorted(seen)
    assert seen[3] > seen[0] + 0.1


@pytest.mark.parametrize("control", ["pick_noise", "guidance", "stop"])
@pytest.mark.mostly_slow(3)
def test_choices_on_the_way_train_and_resume_bit_for_bit(control, tmp_path):
    words = ["env.generator.conditional=true"] if control == "guidance" else []
    reward = "reward=[classifier,step_cost]" if control == "stop" else "reward=classifier"
    resumes(
        [*small("env=diffusion", "agent=dqn", reward, f"control={control}", "network=mlp"), *words],
        160,
        tmp_path,
    )


def test_the_model_ends_what_the_steps_have_begun():
    """Without noise after the last step, in as few steps as are asked for; the sample of one Gaussian is known then."""
    model = Modes([[0.5, -0.5]], 0.2)
    env = make_env(model, steps=4, last_time=0.5, solver_steps=40)
    state, source = env.reset(3000, rng()), rng(1)
    for _ in range(4):
        state = env.step(state, env.spec.action.sample(3000, source))
    assert torch.equal(state.estimate, model.solve(state.noisy, torch.linspace(0.5, 0, 41), None))
    assert torch.equal(env.step(state, env.spec.action.sample(3000, source)).estimate, state.estimate)
    # x_t has the variance (1 − t)² · .04 + t², which the equation takes to .04 in proportion.
    spread = state.noisy.flatten(1) - 0.5 * model.centres
    expected = model.centres + spread * 0.2 / math.sqrt(0.25 * 0.04 + 0.25)
    assert torch.allclose(state.estimate.flatten(1), expected, atol=0.03)


def test_divergence_by_hand():
    one, two = UnitNormal(torch.tensor([[1.0, 2.0]])), UnitNormal(torch.zeros(1, 2))
    assert one.divergence(two).item() == 2.5
    action = torch.tensor([[0.0, 1.0]])
    log_prob, entropy = one.evaluate_actions(action)
    expected = torch.distributions.Normal(one.mean, 1.0)
    assert log_prob.item() == pytest.approx(expected.log_prob(action).sum().item())
    assert entropy.item() == pytest.approx(expected.entropy().sum().item())


def test_the_mean_over_an_actions_numbers_by_hand():
    mean, action = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0, 2.0]])
    for whole, share in zip(
        UnitNormal(mean).evaluate_actions(action), UnitNormal(mean, "mean").evaluate_actions(action), strict=True
    ):
        assert torch.allclose(share, whole / 4)
    assert UnitNormal(mean, "mean").divergence(UnitNormal(torch.zeros(1, 4))).item() == 2.5


def make_training(updates: int, **changes: Any) -> DiffusionTraining:
    """A model of two pictures, a bright square at the left or at the right."""
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[0, :, 2:6, :4], images[1, :, 2:6, 4:] = 255, 255
    settings: dict[str, Any] = {
        "real": Images(images, torch.tensor([0, 1]), ("left", "right")), "rng": stream(1, "generator", CPU),
        "device": CPU, "cache_key": "small", "precision": Precision("float32"), "damage": None, "seed": None, "network": partial(DenoisingUNet, width=8), "path": Flow(),
        "conditional": False, "label_dropout": 0.1, "label_encoding": "index", "learning_rate": Linear(5e-3, 1e-3, 1.0), "batch_size": 32,
        "updates": updates, "ema_decay": 0.9, "ode_steps": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionTraining(**settings | changes)


def learned(training: DiffusionTraining) -> DiffusionTraining:
    for i in range(training.num_updates):
        training.update(i / training.num_updates)
    return training


@pytest.mark.parametrize("path", [Flow(), Cosine(prediction="velocity")], ids=["flow", "cosine"])
def test_a_model_learns_its_data(path):
    model = learned(make_training(400, path=path)).generator
    made = model.finished(model(torch.randn(40, 64, generator=rng())))
    left = made[:, :, 2:6, :4].mean((1, 2, 3)), made[:, :, 2:6, 4:].mean((1, 2, 3))
    assert float((left[0] - left[1]).abs().mean()) > 0.7  # bright on one side only
    assert 0.1 < float((left[0] > left[1]).float().mean()) < 0.9  # and not always on the same
    assert float(made[:, :, :2].mean()) < 0.1


def test_a_conditional_model_makes_what_is_asked_for():
    model = learned(make_training(250, conditional=True)).generator
    label = torch.arange(20) % 2
    made = model.finished(model(torch.randn(20, 64, generator=rng()), label))
    right = made[:, :, 2:6, 4:].mean((1, 2, 3)) > made[:, :, 2:6, :4].mean((1, 2, 3))
    assert torch.equal(right.long(), label)


def test_a_model_that_sees_what_damage_leaves_restores_it():
    """Of the square at the left or at the right, the hole leaves the two outer columns."""
    training = learned(make_training(300, damage=CentreHole(side=0.5)))
    model, truth = training.generator, training.real.images.repeat(10, 1, 1, 1)
    hint = hint_of(*CentreHole(side=0.5)(truth, rng()))
    made = model.finished(model.solve(torch.randn(20, 1, 8, 8, generator=rng()), torch.linspace(1, 0, 9), None, hint))
    sides = [(part[:, :, 2:6, :4].mean((1, 2, 3)), part[:, :, 2:6, 4:].mean((1, 2, 3))) for part in (made, truth / 255)]
    assert torch.equal(sides[0][1] > sides[0][0], sides[1][1] > sides[1][0])
    assert float((sides[0][1] - sides[0][0]).abs().mean()) > 0.7


def test_policies_see_what_damage_leaves_and_not_the_truth():
    training, damage = make_training(1, damage=CentreHole(side=0.5)), CentreHole(side=0.5)
    images = training.real
    changes = {"data": Splits(images, images, images), "damage": damage, "condition": "target"}
    env = make_env(training.generator, steps=2, **changes)
    state = env.reset(6, rng())
    seen, view = env.observe(state), env.view(state)
    assert set(seen) == set(env.spec.observation)
    assert "target" not in seen
    assert torch.equal(view.context["target"], images.images[state.index] / 255)
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    assert torch.equal(view.context["known_mask"], ~hole.expand(6, 1, 8, 8))
    assert torch.equal(view.context["damaged"], view.context["target"] * ~hole)
    assert torch.equal(
        seen["hint"], torch.cat([2 * view.context["damaged"] - 1, (~hole).expand(6, 1, 8, 8).float()], 1)
    )


TASKS = {
    "inpaint": ["task=inpaint"], "denoise": ["task=denoise"], "jpeg_size": ["reward=[jpeg_size]", "env.size=16"],
    "colourfulness": ["reward=[colourfulness]", "env.channels=3"], "symmetry": ["reward=[symmetry]"],
    "caption": ["data=captions", "reward=caption", "env.size=24", "env.channels=3"],
}  # fmt: skip


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("task", [*TASKS][:1] + [pytest.param(name, marks=pytest.mark.slow) for name in [*TASKS][1:]])
@pytest.mark.mostly_slow(5)
def test_every_agent_has_every_task(task, agent, tmp_path):
    """But for those whose reward lets no gradient through, and agents that need one."""
    sizes = [word for word in TASKS[task] if word.startswith("env.")]  # which win over what makes it small
    words = [*small("env=diffusion", f"agent={agent}", *TASKS[task]), *sizes]
    words += ["data.per_class=2", "total_steps=80", "eval_interval=80"]
    if agent in ("pathwise", "gradient") and task in ("jpeg_size", "caption"):
        with pytest.raises(UserError, match="gradient"):
            train(session(*words), tmp_path)
    else:
        assert train(session(*words), tmp_path) == "finished"


def test_a_picture_of_ones_own_is_restored(tmp_path, rlgen):
    write_picture(tmp_path / "mine.png")
    words = small("env=diffusion", "task=inpaint", "agent=nft", "data=glyphs")
    made = rlgen_cli.train(*words, folder=tmp_path / "run").draw(tmp_path / "mine.png", n=3)
    context = made.view.context
    assert torch.equal(context["damaged"], context["target"] * context["known_mask"])
    assert (context["target"] == context["target"][:1]).all()
    code, out, error = rlgen("draw", f"run={tmp_path / 'run'}", "image=mine.png", "n=2")
    assert code == 0, error
    assert json.loads((tmp_path / out.rpartition("drawn: ")[2].strip() / "scores.json").read_text())["psnr"] > 0


@pytest.mark.parametrize("order", [1, 2])
def test_a_changed_network_acts_as_a_model_of_its_own_would(order):
    """The steps of the policy in the model's environment are those of the changed model in its own."""
    first, second = (learned(make_training(40)).generator for _ in range(2))
    policy = NetworkPolicy(
        net=network_of(partial(Denoiser, generator=first, rank=None, log_prob="sum"))(
            observation=make_env(first, order=order).spec.observation, action=Normal(first.shape)
        ),
        evaluate="sample",
    )
    with torch.no_grad():
        for part, weight in zip(policy.net.denoiser.changes, second.network.parameters(), strict=True):
            part.change.normal_(std=0.02, generator=rng(3))
            weight.add_(part.change)
    steered, own = (make_env(model, order=order, spacing="log_snr", last_time=0.1) for model in (first, second))
    state, alone, carry, noise = steered.reset(3, rng()), own.reset(3, rng()), policy.initial_carry(3), rng(1)
    for _ in range(10):
        out = policy.forward(steered.observe(state), None, carry, torch.zeros(1, 3, dtype=torch.bool))
        drawn = torch.randn(3, 64, generator=noise)
        state, alone = steered.step(state, out.policy.mode() + drawn), own.step(alone, drawn)
        assert torch.allclose(state.noisy, alone.noisy, atol=1e-3)
        carry = out.carry
    assert (state.noisy - played(steered, 3).noisy).abs().max() > 0.05


def test_the_memory_of_a_sequence_is_that_of_its_steps():
    """An update reads T steps at once, as they were acted one after the other."""
    run = session(*small("env=diffusion", "agent=policy_gradient", "reward=[symmetry]"))
    env, net = run.envs["train"], run.agent.policy.net  # type: ignore[union-attr]
    with torch.no_grad():
        for part in net.denoiser.changes:
            part.change.normal_(std=0.02, generator=rng(3))
    state, carry, none = env.reset(2, rng()), net.initial_carry(2), torch.zeros(3, 2, dtype=torch.bool)
    seen, means = [], []
    for _ in range(3):
        seen.append(env.observe(state))
        out = net(seen[-1], None, carry, none[:1])
        means.append(out.policy.mode())
        state, carry = env.step(state, out.policy.mode()), out.carry
    together = {name: torch.cat([part[name] for part in seen]) for name in seen[0]}
    whole = net(together, None, net.initial_carry(2), none)
    assert torch.allclose(whole.policy.mode(), torch.cat(means), atol=1e-4)
    assert torch.allclose(whole.carry.estimate, carry.estimate, atol=1e-5)


def test_runs_of_several_seeds_may_have_one_model():
    words = small("env=diffusion", "agent=random", "reward=[symmetry]")
    first, second, other = (
        assemble(compose(*words, f"seed={seed}", f"env.generator.seed={own}")).source
        for seed, own in ((1, 7), (2, 7), (1, 8))
    )
    assert isinstance(first, DiffusionTraining)
    assert first.cache_key == second.cache_key != other.cache_key
    for training in (first, second, other):
        learned(training)
    weights = [next(training.network.parameters()) for training in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("rank", ["null", "2"])
@pytest.mark.parametrize("agent", ["policy_gradient", "reward_weighted"])
def test_a_policy_begins_as_the_model_though_that_was_trained_later(agent, rank):
    words = small("env=diffusion", f"agent={agent}", "network=denoiser", "reward=[symmetry]")
    run = session(*words, f"agent.network.denoiser.rank={rank}")
    assert isinstance(run.source, DiffusionTraining)
    learned(run.source)
    env = run.envs["train"]
    policy: Any = run.agent.policy if agent == "policy_gradient" else run.agent.policy.policy
    state = env.step(env.reset(4, rng()), env.spec.action.sample(4, rng(1)))
    start = torch.zeros(1, 4, dtype=torch.bool)
    assert policy.forward(env.observe(state), None, None, start).policy.mode().abs().max() < 1e-3
    count = sum(parameter.numel() for parameter in policy.net.denoiser.parameters())
    whole = sum(parameter.numel() for parameter in run.source.generator.network.parameters())
    assert (count < whole) == (rank == "2")


def test_held_out_samples_may_take_more_steps():
    run = session(*small("env=diffusion", "agent=random", "reward=[symmetry]"), "env.eval_max_steps=5")
    assert [run.envs[split].spec.max_steps for split in ("train", "valid", "test")] == [3, 5, 5]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.mostly_slow(5)
def test_every_agent_trains_and_resumes_bit_for_bit(agent, tmp_path):
    able = agent not in ("best_of", "cem", "gradient", "particles", "random")
    words = small("env=diffusion", f"agent={agent}", "reward=classifier", *(["network=denoiser"] if able else []))
    anchored = agent in ("actor_critic", "ppo", "policy_gradient", "pathwise")
    resumes([*words, *(["agent.anchor.prior=env"] if anchored else [])], 160, tmp_path)
    made = {path.name for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert {"grid.png", "strip.png", "timelapse.gif", "scores.json"} <= made
    assert (tmp_path / "parts" / "stages" / "generator" / "result").is_dir()


class AtTheEnd:
    """A reward of finished samples alone, from their estimates in [−1, 1]."""

    has_learned_terms = False

    def __init__(self, log_r: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.log_r = log_r

    def __call__(
        self, before: View, after: View, done: torch.Tensor, *, known: Any = None, ending: bool = True
    ) -> Scored:
        value = self.log_r(2 * after.sample.flatten(1) - 1) * done
        return Scored(value, value, {}, {})

    def learned_reward(self, frames: View, done: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(done, dtype=torch.float32)


def trained(kind: Any, env: Diffusion, log_r: Any, windows: int, rate: float, **changes: Any) -> Any:
    """An agent of a kind that has learned from so many windows of episodes."""
    optimizer = partial(
        Adam, learning_rate=Linear(rate, 1e-4, 1.0), max_grad_norm=1.0, eps=1e-5, weight_decay=0.0, nonfinite="stop"
    )
    settings: dict[str, Any] = {"num_envs": 128, "ema_decay": 0.9} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = kind(env=env, rng=rng(2), device=CPU, optimizer=optimizer, evaluate="sample", **settings)
    stepper = Stepper(
        env=env, reward=AtTheEnd(log_r), learners={"agent": agent}, rng=rng(3), num_envs=settings["num_envs"],
        group_size=getattr(agent, "group_size", 1), together=True,
    )  # fmt: skip
    stepper.enter(stepper.fresh())
    steps, policy_rng = windows * env.spec.max_steps, rng(4)
    for step in range(steps):
        decision = decide(agent.policy, env, stepper.state, None, explore=True, rng=policy_rng)
        stepper.renew(stepper.step(decision, None, step / steps).done)
    return agent


def network_of(denoiser: Any) -> Any:
    """Builds a policy network of few parameters, or a diffusion model's own."""
    body = partial(MLP, width=48, layers=2, pool=1, embed=1)
    return partial(
        PolicyNetwork, precision=Precision("float32"), body=body, recurrent=None, maps=None, denoiser=denoiser,
        order="independent", continuous="gaussian", std=1.0, init_scale=0.01, dropout=0.0,
    )  # fmt: skip


def made_by(agent: Any, env: Diffusion, n: int) -> torch.Tensor:
    """Samples [N, 2] in [−1, 1]."""
    return rollout(env, agent.policy, env.reset(n, rng(5)), rng(6)).final.estimate.flatten(1)


def test_reward_weighted_regression_finds_the_posterior():
    """Two modes and a reward of log 3 for one of them, at a price of 1 a nat: three quarters are to be there, the mode
    as wide as the model's own steps leave it; the normaliser is 2."""
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.1), steps=16)
    agent = trained(
        RewardWeighted, env, lambda x: math.log(3) * (x[:, 0] > 0), windows=40, rate=5e-3, network=network_of(None),
        buffer_size=4096, learning_starts=1024, reference_size=0, batch_size=128, updates=20, kl_coef=1.0,
    )  # fmt: skip
    assert float(agent.buffer.log_mean_weight()) == pytest.approx(math.log(2), abs=0.1)
    made, before = made_by(agent, env, 2000), played(env, 2000).estimate.flatten(1)
    right = made[:, 0] > 0
    assert float(right.float().mean()) == pytest.approx(0.75, abs=0.05)
    assert torch.allclose(made[right].mean(0), torch.tensor([0.5, -0.5]), atol=0.05)
    narrower = made[right].std(0) / before[before[:, 0] > 0].std(0)
    assert 0.85 < float(narrower.mean()) < 1.1


GRID = torch.cartesian_prod(*[torch.tensor([-10.0, -5.0, 0.0, 5.0, 10.0])] * 2) / 12  # modes in [−1, 1]
SPREAD = math.sqrt(0.3) / 12
KEPT = {0: 4, 2: 10, 4: 4, 6: 5, 10: 10, 13: 5, 17: 4, 20: 15, 24: 4}  # modes by their weights


@pytest.mark.long
def test_the_toy_of_25_gaussians():
    """Relative trajectory balance's (Venkatraman et al. 2024, section 3.1): a model of 25 Gaussians on a grid, and a
    reward that leaves nine of them with weights of their own, whose normaliser is 1. The model is trained, too."""
    wanted = torch.zeros(25)
    wanted[list(KEPT)] = torch.tensor([float(weight) for weight in KEPT.values()])
    wanted /= wanted.sum()
    source = rng(9)
    points = GRID[torch.randint(25, (50000,), generator=source)] + SPREAD * torch.randn(50000, 2, generator=source)
    pixels = ((points + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).view(-1, 1, 1, 2)
    training = learned(
        make_training(
            3000, real=Images(pixels, torch.zeros(len(pixels), dtype=torch.long)), batch_size=1024, ema_decay=0.999,
            network=partial(DenoisingMLP, width=192), learning_rate=Linear(2e-3, 1e-5, 1.0),
        )
    )  # fmt: skip

    def log_r(x: torch.Tensor) -> torch.Tensor:
        near = -torch.cdist(x, GRID).square() / (2 * SPREAD**2)
        return ((near + wanted.log()).logsumexp(1) - (near - math.log(25)).logsumexp(1)).clamp(min=-10)

    env = make_env(training.generator, steps=20, order=2, spacing="log_snr", last_time=0.02, solver_steps=4)
    agent = trained(
        RewardWeighted, env, log_r, windows=6, rate=3e-3, num_envs=4000, buffer_size=24000, learning_starts=20000,
        network=network_of(partial(Denoiser, generator=training.generator, rank=None, log_prob="sum")), reference_size=2000,
        batch_size=256, updates=2500, kl_coef=1.0, ema_decay=0.995,
    )  # fmt: skip
    share = torch.bincount(torch.cdist(made_by(agent, env, 20000), GRID).argmin(1), minlength=25) / 20000
    assert bool((share[list(KEPT)] > 0.5 * wanted[list(KEPT)]).all())
    assert float((share - wanted).abs().sum() / 2) < 0.05
    assert abs(float(agent.buffer.log_mean_weight())) < 0.05


def test_particles_find_the_posterior_without_training():
    """As above: three quarters are to be in the mode with a reward of log 3, at whatever step it is seen."""
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.1), steps=16)
    for temperature, share in ((1.0, 0.75), (0.5, 0.9)):
        reward: Any = WeightedSum({"side": Term(RightSide(), 1.0, "potential")}, False)
        planner = Particles(env=env, reward=reward, temperature=temperature)
        made = rollout(env, planner, env.reset(2000, rng(5)), rng(6)).final.estimate.flatten(1)
        assert float((made[:, 0] > 0).float().mean()) == pytest.approx(share, abs=0.05)
        assert 0.9 < float(made[made[:, 0] > 0].std(0).mean() / played(env, 2000).estimate.flatten(1).abs().std()) < 1.1


class RightSide:
    """log 3 where the first number is above 0, and on the way there, between."""

    judges, needs = "picture", frozenset[str]()

    def __call__(self, view: View) -> torch.Tensor:
        return math.log(3) * ((2 * view.sample.flatten(1)[:, 0] - 1) * 4).clamp(0, 1)


def test_which_particles_go_on_by_hand():
    """Among the first three one has all the weight; the last asks for something else, and keeps its place."""
    alike = torch.block_diag(torch.ones(3, 3), torch.ones(1, 1)).bool()
    chosen = selected(torch.tensor([-100.0, 0.0, -100.0, -5.0]), alike, rng())
    assert chosen.tolist() == [1, 1, 1, 3]
    equal = selected(torch.zeros(1000), torch.ones(1000, 1000, dtype=torch.bool), rng())
    assert torch.equal(equal, torch.arange(1000))


def test_the_mean_of_what_leads_to_several_ends_by_hand():
    """Between two ends that a state is equally far from, the mean action leads to the middle; beside one, to it."""
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.2), steps=4, last_time=0.2)
    ends = env.reset(2, rng())._replace(estimate=torch.tensor([[0.5, -0.5], [-0.5, 0.5]]).view(2, 1, 1, 2))
    state = env.reset(2, rng())._replace(
        noisy=torch.tensor([[0.0, 0.0], [0.4, -0.4]]).view(2, 1, 1, 2), step=torch.tensor([3, 3], dtype=torch.int16)
    )  # t = .4, so α = .6 and σ = .4: the ends lie at ±.3 (1, −1)
    towards = env.action_towards(state, ends)
    gain = env._gain(state).unsqueeze(1)
    assert torch.allclose(towards / gain + state.estimate.flatten(1), torch.tensor([[0.0, 0.0], [1.0, -1.0]]) * (
        0.5 * math.tanh(0.3 * 2 * 0.4 / 0.16)
    ), atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(("price", "low", "high"), [(0.0, 0.9, 1.0), (30.0, 0.5, 0.75)])
def test_nft_moves_to_what_is_rewarded_and_a_price_holds_it_back(price, low, high):
    env = make_env(Modes([[0.5, -0.5], [-0.5, 0.5]], 0.1), steps=16)
    agent = trained(
        NFT, env, lambda x: 1.0 * (x[:, 0] > 0), windows=40, rate=5e-3, network=network_of(None), group_size=8,
        beta=1.0, advantage_clip=1.0, kl_coef=price, num_minibatches=4, epochs=1,
    )  # fmt: skip
    assert low < float((made_by(agent, env, 2000)[:, 0] > 0).float().mean()) < high


def test_what_nft_calls_good_by_hand():
    """Two groups of returns 0, 2 and 1, 1: deviations from their means −1, 1, 0, 0, of all √½."""
    env = make_env(Modes([[0.5, -0.5]], 0.1), steps=2)
    agent = trained(
        NFT, env, lambda x: x[:, 0], windows=0, rate=1e-3, network=network_of(None), num_envs=4, group_size=2,
        beta=1.0, advantage_clip=2.0, kl_coef=0.0, num_minibatches=1, epochs=1,
    )  # fmt: skip
    agent.returns = torch.tensor([0.0, 2.0, 1.0, 1.0])
    share = 1 / (2 * math.sqrt(0.5))
    assert torch.allclose(agent._optimality(), torch.tensor([0.5 - 0.5 * share, 0.5 + 0.5 * share, 0.5, 0.5]))


WRONG = {
    "env=diffusion generator=r1": r"env\.generator: must be a diffusion model here; use generator=flow\.",
    "env=diffusion agent=dqn": r"agent: DQN cannot act in this environment, which has an action of 784 standard",
    "env=diffusion env.size=10": r"env\.size: must be a multiple of 4",
    "env=diffusion env.last_time=1": r"env\.last_time: must be between 0 and 1",
    "env=diffusion env.sampler.eta=0": r"env\.sampler\.eta: must be above 0",
    "env=diffusion joint=true": r"joint: this generator does not learn along",
    "env=diffusion env.generator.conditional=true env.condition=none": r"env\.condition: a conditional generator needs",
    "env=diffusion agent.network.denoiser.rank=0": r"agent\.network\.denoiser\.rank: must be at least 1",
    "env=pixel agent=ppo network=denoiser": r"denoiser: needs a step's noise as action",
    "env=pixel brush=stroke agent=ppo agent.anchor.prior=env": r"prior: env stands for standard normal actions",
    "env=pixel agent=reward_weighted": r"agent: RewardWeighted cannot act in env\.brush=Pen",
    "env=diffusion agent=reward_weighted agent.learning_starts=0": r"agent\.learning_starts: must be from 1 to",
    "env=diffusion agent=dqn control=guidance env.generator.conditional=false": r"env\.control: guidance needs env\.generator\.conditional=true",
    "env=diffusion agent=dqn control=pick_noise env.control.count=1": r"env\.control\.count: must be from 2 to 4096",
    "env=diffusion agent=ppo control=pick_noise network=denoiser": r"denoiser: needs a step's noise as action",
    "env=diffusion agent=nft agent.group_size=3": r"agent\.group_size: must divide num_envs",
    "env=diffusion task=inpaint generator/network=unet2d": r"damage: a UNet2DModel sees the noisy picture alone",
    "env=diffusion damage=scratches env.damage.count=0": r"env\.damage\.count: must be from 1 to 1000",
    "env=diffusion agent=particles agent.temperature=0": r"agent\.temperature: must be above 0",
    "env=pixel agent=particles": r"agent: Particles cannot act in env\.brush=Pen",
    "env=diffusion agent=nft agent.beta=0": r"agent\.beta: must be above 0",
    "env=diffusion agent=reward_weighted agent.reference_size=-1": r"agent\.reference_size: must be at least 0",
    "env=diffusion agent=reward_weighted agent.kl_coef=0": r"agent\.kl_coef: must be above 0",
}


@pytest.mark.parametrize(("words", "said"), WRONG.items())
def test_what_cannot_be_is_said(words, said):
    with pytest.raises(UserError, match=said):
        assemble(compose(*words.split(), "data.per_class=2", "device=cpu"))


def test_pretraining_leaves_samples_and_weights(tmp_path, rlgen):
    words = small("env=diffusion")
    kept = [word for word in words if not word.startswith(("agent", "env=", "total_steps"))]
    code, _, error = rlgen("pretrain", "env=diffusion", *kept, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, error
    assert (tmp_path / "run" / "generator" / "model.safetensors").is_file()
    config = json.loads((tmp_path / "run" / "generator" / "config.json").read_text())
    assert config["class"] == "DenoisingUNet"
    assert list((tmp_path / "run" / "samples").glob("*.png"))
