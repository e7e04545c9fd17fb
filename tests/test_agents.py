"""Each agent solves the tiny environment and improves on random in a real one; targets, losses and steps by hand."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from rlgen_cli.agents.actor_critic import ActorCritic, clipped_loss, value_error
from rlgen_cli.agents.backups import Backup, MaxBackup, PriorBackup, SoftBackup
from rlgen_cli.agents.baselines import GroupMean, RunningMean, Steps
from rlgen_cli.agents.dqn import DQN, QPolicy
from rlgen_cli.agents.pathwise import Pathwise
from rlgen_cli.agents.policy_gradient import PolicyGradient, whole_episodes
from rlgen_cli.core import optimizer as core_optimizer
from rlgen_cli.core.acting import decide
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Trainable
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import (
    Carry,
    Decision,
    Discrete,
    EnvSpec,
    Observation,
    ObservationSpec,
    PictureSpec,
    Scored,
    TensorSpec,
    Transition,
    View,
    image,
    vector,
)  # fmt: skip
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.memory.replay import Replay, Uniform, Window
from rlgen_cli.policies.anchor import Anchor, HasAnchor, QPrior
from rlgen_cli.policies.distributions import Categorical
from rlgen_cli.policies.encoders import MLP, Maps
from rlgen_cli.policies.exploration import EpsilonGreedy
from rlgen_cli.policies.policy_network import Output
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.q_network import QNetwork, QOutput
from rlgen_cli.policies.target_network import HardUpdate, SoftUpdate
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stepper import Stepper
from tests.conftest import SMALL, session, small
from tests.training import target_score, trained

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TINY = [
    "env=tiny",
    "num_envs=32",
    "threads=1",
    SMALL[0],
    "agent.network.maps.channels=16",
    "reward.terms.target.weight=1",
]
LEARNER = [
    "total_steps=2048", "agent.batch_size=32", "agent.learning_starts=256", "agent.replay.buffer_size=8000",
    "agent.gradient_steps=3", "agent.optimizer.learning_rate.start=0.003",
]  # fmt: skip
COLD = ["agent.temperature.start=0.02", "agent.temperature.end=0.02"]
DQNS = {
    "default": [],
    "hard target, plain maximum": ["target_update=hard", "agent.target_update.interval=50"],
    "double": ["agent.backup.double=true"],
    "dueling": ["agent.network.dueling=true"],
    "n-step": ["agent.n_step=3"],
    "λ": ["agent.n_step=4", "agent.td_lambda=0.8"],
    "prioritised": ["replay=prioritized"],
    "soft": ["backup=soft", *COLD],
    "soft, λ": ["backup=soft", *COLD, "agent.n_step=3", "agent.td_lambda=0.8"],
    "plain head": ["agent.network.maps=null", "agent.network.body.pool=1", "agent.network.body.width=128", "env.size=3", "env.cells=3", "total_steps=2560"],
}  # fmt: skip


def test_random_actions_do_not_solve_the_tiny_environment():
    for size in (["env.size=4", "env.cells=4"], ["env.size=3", "env.cells=3"]):
        assert target_score(session("env=tiny", "agent=random", "threads=1", *size), 400) < -0.6


@pytest.mark.parametrize("words", DQNS.values(), ids=DQNS.keys())
@pytest.mark.mostly_slow(3)
def test_dqn_solves_the_tiny_environment(words):
    tau = [] if "target_update=hard" in words else ["agent.target_update.tau=0.02"]
    score = target_score(trained(session(*TINY, *LEARNER, *tau, *words)), 200, 1)
    assert score > -0.15, f"of the wanted cells {-score:.0%} are missing"


def test_greedy_search_solves_the_tiny_environment():
    assert target_score(session("env=tiny", "agent=greedy", "threads=1"), 50) == 0


COPIERS = {
    "pen": ["env.brush.widths=[1.5]", "env.brush.patch_size=9"],
    "pixel": [],
}
PACE = {
    "pen": ["total_steps=1920", "agent.batch_size=64", "agent.optimizer.learning_rate.start=0.005"],
    "pixel": ["total_steps=3840", "agent.batch_size=32", "agent.optimizer.learning_rate.start=0.01", "agent.network.maps.depth=1"],
}  # fmt: skip


@pytest.mark.parametrize("brush", COPIERS)
def test_dqn_beats_random_at_copying(brush):
    base = [
        f"brush={brush}", "env.size=12", "env.max_steps=24", "data.per_class=40", "num_envs=32",
        "data.characters=0123456789", "threads=1", SMALL[0], *COPIERS[brush],
    ]  # fmt: skip
    learner = [
        "agent.network.body.width=64", "agent.network.maps.channels=8", "agent.learning_starts=512",
        "agent.replay.buffer_size=8000", "agent.gradient_steps=3", "agent.exploration.epsilon.start=1", *PACE[brush],
    ]  # fmt: skip
    learned = target_score(trained(session(*base, *learner)), 60)
    random = target_score(session(*base, "agent=random"), 60)
    assert learned > random + 0.3
    assert learned > -0.95  # better than leaving the canvas blank


FAST = "agent.optimizer.learning_rate.start=0.01"
POLICIES = {
    "A2C": ["agent=actor_critic", "agent.num_steps=4", "total_steps=6400"],
    "PPO": ["agent=ppo", "agent.num_steps=8", "agent.num_minibatches=2", "total_steps=4096"],
    "PPO with a clipped value, no stop": [
        "agent=ppo", "agent.num_steps=8", "agent.num_minibatches=2", "agent.objective.clip_range_vf=0.2",
        "agent.target_kl=null", "total_steps=4096",
    ],
    "REINFORCE, no baseline": ["agent=policy_gradient", "baseline=none", "total_steps=6400"],
    "REINFORCE, running mean": ["agent=policy_gradient", "baseline=mean", "total_steps=6400"],
    "REINFORCE, learned": ["agent=policy_gradient", "baseline=learned", "total_steps=6400"],
    "REINFORCE, group": ["agent=policy_gradient", "baseline=group", "total_steps=6400"],
    "REINFORCE, rollouts": ["agent=policy_gradient", "agent.rollouts=2", "total_steps=6400"],
}  # fmt: skip


@pytest.mark.parametrize("words", POLICIES.values(), ids=POLICIES.keys())
@pytest.mark.mostly_slow(2)
def test_policies_solve_the_tiny_environment(words):
    score = target_score(trained(session(*TINY, FAST, *words)), 200, 1)
    assert score > -0.2, f"of the wanted cells {-score:.0%} are missing"


COPY = [
    "env.size=12", "env.max_steps=6", "data.per_class=40", "data.characters=0123456789", "num_envs=32", "threads=1",
    SMALL[0], "reward.terms.target.per=pixel", "reward.terms.target.weight=20", "env.time_encoding=one_hot",
]  # fmt: skip
SPIRAL = ["brush=spiral", "env.brush.grid=6", "env.brush.widths=[1.0,2.5]", "env.brush.patch_size=0"]
STROKE = ["brush=stroke", "env.brush.widths=[1.0,2.5]"]
REAL = {
    "PPO, spiral": ["agent=ppo", *SPIRAL],
    "PPO, spiral in order": ["agent=ppo", *SPIRAL, "agent.network.order=autoregressive"],
    "PPO, free spiral": ["agent=ppo", "brush=spiral_continuous", "env.brush.widths=[1.0,2.5]", "env.brush.patch_size=0"],
    "PPO, strokes": ["agent=ppo", *STROKE],
    "PPO, Beta strokes": ["agent=ppo", *STROKE, "agent.network.continuous=beta"],
    "A2C, spiral": ["agent=actor_critic", *SPIRAL],
    "REINFORCE, spiral": ["agent=policy_gradient", *SPIRAL],
    "DQN, spiral": ["agent=dqn", *SPIRAL, "agent.batch_size=64", "agent.replay.buffer_size=8000", "agent.learning_starts=320"],
}  # fmt: skip


@pytest.mark.parametrize("words", REAL.values(), ids=REAL.keys())
@pytest.mark.mostly_slow(4)
def test_agents_beat_random_with_every_kind_of_action(words):
    rate = ["agent.optimizer.learning_rate.start=0.005"]
    learned = target_score(trained(session(*COPY, *words, "agent.network.body.width=64", *rate, "total_steps=1920")))
    env = [word for word in words if word.startswith(("env.", "brush="))]
    random = target_score(session(*COPY, *env, "agent=random"))
    assert learned > 0.7 * random, f"{learned:.3f} after, {random:.3f} before"


def test_the_pathwise_gradient_learns_to_copy():
    words = [
        *COPY, "brush=stroke", "env.brush.widths=[0.5,3.0]", "env.brush.edge=1.5", "agent=pathwise",
        "agent.gradient_steps=2", "agent.network.std=0.02", "agent.evaluate=mode", "agent.network.body.width=64",
        "agent.network.body.pool=1", "agent.optimizer.learning_rate.start=0.005", "agent.entropy_coef.start=0",
        "agent.entropy_coef.end=0", "total_steps=3840",
    ]  # fmt: skip
    run = trained(session(*words))
    result = evaluate(run.envs["test"], run.actor, run.reward, episodes=100, seed=0, device=CPU)
    blank = -float(result.view.context["target"].square().mean())
    assert result.scores["target"] > 0.6 * blank


def test_the_pathwise_gradient_is_the_slope_of_the_return():
    """Against a central difference, along the gradient, with the same noise and the canvas not rounded."""
    words = [*COPY, "brush=stroke", "agent=pathwise", "agent.gamma=1", "num_envs=8", "precision=float32"]
    run = session(*words, "agent.network.body.width=32", "env.brush.edge=3", "agent.network.std=0.1", "env.max_steps=1")
    agent = run.agent
    assert isinstance(agent, Pathwise)
    state = run.envs["train"].reset(8, run.streams["env"])

    def total() -> Tensor:
        return agent._unroll(state, rng(3)).returns.double().mean()

    bias = agent.policy.net.head.numbers.bias
    (grad,) = torch.autograd.grad(total(), bias)
    direction = grad / grad.norm()
    before = bias.detach().clone()
    values = []
    for sign in (1, -1):
        bias.data = before + sign * 0.2 * direction
        values.append(total().item())
    assert (values[0] - values[1]) / 0.4 == pytest.approx(grad.norm().item(), rel=0.25)


def test_a_terminal_score_is_found_once_in_an_unrolled_episode_and_has_the_gradient_of_a_potential(monkeypatch):
    """With a discount of 1 the potential's rewards sum to the final score, less that of the blank canvas."""
    words = [*COPY, "brush=stroke", "agent=pathwise", "agent.gamma=1", "num_envs=8", "precision=float32"]
    gradients, calls = list[Tensor](), list[int]()
    for form in ("potential", "terminal"):
        run = session(*words, "agent.network.body.width=32", "env.max_steps=3", f"reward.terms.target.form={form}")
        agent, term = run.agent, run.reward.terms["target"]
        assert isinstance(agent, Pathwise)
        seen, score = [], type(term.score).__call__
        with monkeypatch.context() as patched:
            patched.setattr(
                type(term.score), "__call__", lambda *a, seen=seen, score=score: (seen.append(1), score(*a))[1]
            )
            returns = agent._unroll(run.envs["train"].reset(8, run.streams["env"]), rng(3)).returns
        gradients.append(torch.autograd.grad(returns.mean(), agent.policy.net.head.numbers.weight)[0])
        calls.append(len(seen))
    assert calls == [3, 1]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_what_gradients_cannot_pass_is_refused():
    with pytest.raises(
        UserError, match=r"^agent: Pathwise cannot act in env\.brush=SpiralBrush.*use another brush \(.*stroke"
    ):
        session(*COPY, "agent=pathwise", *SPIRAL)
    plain = [word for word in COPY if not word.startswith("reward.")]
    ink = ["reward=coverage", "~reward.terms.coverage", "+reward/term=ink_cost"]
    with pytest.raises(UserError, match=r"pathwise needs a reward that is differentiable; use agent=policy_gradient"):
        session(*plain, "agent=pathwise", "brush=stroke", *ink)


def test_the_pathwise_price_is_that_of_the_steps_unrolled():
    """Nothing is measured by the check that the reward is differentiable, so that β moves with updates only."""
    target = [
        "agent.anchor.prior=start",
        "agent.anchor.target_kl=0.1",
        "agent.anchor.rate=1",
        "agent.anchor.kl_coef=0.2",
    ]
    run = session(*COPY, "brush=stroke", "agent=pathwise", *target, "agent.network.body.width=16", "total_steps=160")
    assert isinstance(run.agent, HasAnchor)
    anchor = run.agent.anchor
    assert anchor.kl is None
    assert anchor.update(0.0) == {}
    trained(run)  # five of six steps: no update yet
    assert anchor.beta.item() == pytest.approx(0.2)
    trained(run)  # the sixth: policy and prior are still the same, so the KL is 0 and β falls by a fifth
    assert anchor.beta.item() == pytest.approx(0.2 * 0.8)
    assert anchor.kl is None


def test_groups_begin_together_and_stay_together(monkeypatch):
    run = session(*COPY, "agent=policy_gradient", "baseline=group", *SPIRAL, "total_steps=1000")
    agent, seen = run.agent, []
    assert isinstance(agent, PolicyGradient)
    assert run.group_size == 8
    observe = agent.observe
    monkeypatch.setattr(agent, "observe", lambda step: (seen.append(step.state), observe(step)))
    trained(run)
    for state in seen:
        assert (state.index.view(4, 8) == state.index.view(4, 8)[:, :1]).all()
        assert (state.step.view(4, 8) == state.step.view(4, 8)[:, :1]).all()
    assert len({tuple(state.index.tolist()) for state in seen}) > 3
    assert (seen[1].canvas[0] != seen[1].canvas[1:8]).any()
    with pytest.raises(UserError, match=r"^agent\.baseline\._target_: a group's mean needs episodes of one length"):
        session(*COPY, "brush=pen", "env.stop=true", "agent=policy_gradient", "baseline=group")


def test_group_and_mean_baselines_by_hand():
    spec = session("env=tiny", "agent=random", "threads=1").envs["train"].spec
    returns, one = torch.tensor([[1.0, 3.0, 10.0, 20.0]]), torch.ones(1, 4, dtype=torch.bool)
    steps = Steps(returns, torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.long), one)
    group = GroupMean(spec=spec, num_envs=4, group_size=2)
    assert group(steps).tolist() == [[2.0, 2.0, 15.0, 15.0]]
    mean = RunningMean(spec=spec, device=CPU, rate=0.05)
    assert mean(steps).tolist() == [[0.0] * 4]
    assert mean(steps).tolist() == [[8.5] * 4]  # the first window's mean
    mean(steps._replace(returns=returns + 20))
    assert mean.mean[0].item() == pytest.approx(8.5 + 0.05 * 20)
    before = mean.mean.clone()
    mean(steps._replace(counted=~one))  # what is not learned from is not expected, either
    assert torch.equal(mean.mean, before)


def test_a_learned_baseline_learns():
    """The value's loss is ½ (V − return)², and reaches the value's weights."""
    words = ["agent=policy_gradient", "agent.num_minibatches=1", "agent.gamma=1"]
    run = session(*TINY, *words, "agent.optimizer.learning_rate.start=0.01")
    agent, env = run.agent, run.envs["train"]
    assert isinstance(agent, PolicyGradient)
    bias = agent.policy.net.value.bias
    for count in (1, 2):
        state = env.reset(32, run.streams["env"])
        for step in range(4):
            decision = decide(agent.policy, env, state, None, explore=True, rng=run.streams["policy"])
            after, reward = env.step(state, decision.action), torch.full((32,), float(step == 3))
            agent.observe(Transition(state, decision.action, reward, reward, after, env.done(after), policy_output=decision.policy_output, observation=decision.observation))  # fmt: skip
            state = after
        metrics = agent.update(0.0)
        if count == 1:  # V = 0 and the return is 1 at each step
            assert metrics["value_loss"].item() == pytest.approx(0.5)
            assert bias.item() == pytest.approx(0.01, rel=1e-2)  # Adam's first step has the length of its rate
    assert metrics["value_loss"].item() < 0.49


def test_rollouts_estimate_what_follows(monkeypatch):
    """With one cell left to ink and a policy that always inks it, each continuation brings that cell's reward."""
    run = session("env=tiny", "threads=1", "num_envs=4", "agent=policy_gradient", "agent.rollouts=3", "agent.gamma=0.5",
                  "env.cells=2", "env.size=2", "reward.terms.target.weight=1")  # fmt: skip
    agent, env = run.agent, run.envs["train"]
    assert isinstance(agent, PolicyGradient)
    state = env.reset(4, run.streams["env"])
    cells = state.target.flatten(1).float().topk(2, 1).indices  # [4, 2]
    second = cells.repeat_interleave(3, 0)[:, 1].repeat(2)
    monkeypatch.setattr(agent.policy, "act", lambda observation, mask, carry, explore, rng: Decision(second))
    after = env.step(state, cells[:, 0])
    zero = torch.zeros(4)
    agent.observe(Transition(state, cells[:, 0], zero, zero, after, env.done(after)))
    last = env.step(after, cells[:, 1])
    agent.observe(Transition(after, cells[:, 1], zero, zero, last, env.done(last)))
    # Half of the target's two cells each: the second is worth .5; after the last step nothing follows.
    assert agent._continue(agent.rollout.take()).tolist() == [[0.5] * 4, [0.0] * 4]


def test_ppo_losses_by_hand():
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    # min(ρA, clip(ρ, .8, 1.2) A): 1.2, −1.5, .5, −.8
    assert clipped_loss(ratio.log(), advantage, 0.2).item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert clipped_loss(ratio.log(), advantage, None).item() == pytest.approx(-(1.5 - 1.5 + 0.5 - 0.5) / 4)
    value, old, returns = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([3.0, 1.0])
    assert value_error(value, old, returns, None).item() == pytest.approx(0.5 * (1 + 1) / 2)
    # Held within ± .5 of the old value, the first stands at .5: (.5 − 3)² = 6.25 is the larger error.
    assert value_error(value, old, returns, 0.5).item() == pytest.approx(0.5 * (6.25 + 1) / 2)


def test_advantages_by_hand():
    """Generalised advantages: δ0 = 1 + .5·20 − 10 = 1, δ1 = 2 − 20 = −18 at the end; A0 = δ0 + .5·.5·δ1."""
    reward, value = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])
    ended = torch.tensor([[False, True]])
    advantage = lambda_returns(reward, torch.tensor([[20.0, 99.0]]), ended, 0.5, 0.5) - value
    assert advantage.tolist() == [[1.0 - 0.25 * 18.0, -18.0]]


def adam(*parameters: nn.Parameter, rate: float = 0.1, max_grad_norm: float = 1e6) -> Adam:
    schedule = Linear(rate, rate, 1.0)
    return Adam(
        parameters=parameters,
        learning_rate=schedule,
        max_grad_norm=max_grad_norm,
        eps=1e-8,
        weight_decay=0.0,
        nonfinite="stop",
    )


def snapshot(optimizer: Adam) -> list[Tensor]:
    """Weights, first and second moments and step counts."""
    return [tensor.detach().clone() for tensor in optimizer.adam.tensors()]


def test_adam_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = Adam(
        nonfinite="stop",
        parameters=[weight, nn.Parameter(torch.zeros(1), requires_grad=False)], learning_rate=Linear(0.1, 0.0, 1.0),
        max_grad_norm=5.0, eps=1e-8, weight_decay=0.0,
    )  # fmt: skip
    assert len(optimizer.parameters) == 1  # what is frozen stays out of it
    optimizer.step((weight * torch.tensor([6.0, -8.0])).sum(), 0.5)
    # The gradient (6, −8) has length 10 and is halved; the first step has the length of the rate, which is half over.
    torch.testing.assert_close(weight.grad, torch.tensor([3.0, -4.0]))
    torch.testing.assert_close(weight.data, torch.tensor([0.95, -0.95]))
    torch.testing.assert_close(optimizer.adam.state[0]["exp_avg"], 0.1 * torch.tensor([3.0, -4.0]))


@pytest.mark.parametrize("looks", [True, False], ids=["the host looks", "the host does not look"])
def test_a_step_that_is_not_kept_leaves_weights_and_moments(looks, monkeypatch):
    """Also the very first one, and one whose gradient is no number; later steps are those of an optimizer that never saw
    it."""
    monkeypatch.setattr(core_optimizer, "readable", lambda keep: looks)
    grads = torch.tensor([[1.0, 2.0], [3.0, -1.0], [torch.nan, torch.inf], [2.0, 2.0]])
    one, two = (nn.Parameter(torch.tensor([0.5, -0.5])) for _ in range(2))
    stopping, never = adam(one), adam(two)
    no, yes = torch.tensor(False), torch.tensor(True)
    stopping.step((one * grads[0]).sum(), 0.0, keep=no)
    assert one.tolist() == [0.5, -0.5]
    assert all(not tensor.any() for tensor in snapshot(stopping)[1:])
    for grad, keep in ((grads[1], yes), (grads[2], no), (grads[0], no), (grads[3], yes)):
        before = snapshot(stopping)
        stopping.step((one * grad).sum(), 0.0, keep=keep)
        if keep:
            never.step((two * grad).sum(), 0.0)
        assert all(torch.equal(a, b) == (not keep) for a, b in zip(before, snapshot(stopping), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(snapshot(stopping), snapshot(never), strict=True))


def weights_and_loss() -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    """Two weights, and a loss of the first and, from its second call on, of the second."""
    weights, calls = [nn.Parameter(torch.tensor([[0.5, -0.5]])), nn.Parameter(torch.tensor([2.0]))], itertools.count()
    return weights, lambda: (weights[0] ** 3).sum() + (weights[1].square().sum() if next(calls) else 0.0)


@pytest.mark.parametrize("settings", [{}, {"betas": (0.0, 0.99)}, {"eps": 1e-3, "weight_decay": 0.1}])
def test_plain_adam_is_that_of_torch(settings):
    """The same numbers, also where a weight has no gradient at first, and from its state dict, which older checkpoints
    hold."""
    (ours, our_loss), (theirs, their_loss) = weights_and_loss(), weights_and_loss()
    plain, usual = PlainAdam(ours, 0.1, **settings), torch.optim.Adam(theirs, lr=0.1, foreach=True, **settings)
    for step in range(5):
        plain.learning_rate = usual.param_groups[0]["lr"] = 0.1 / (1 + step)
        for optimizer, loss in ((plain, our_loss), (usual, their_loss)):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        again = PlainAdam([weight.detach().clone() for weight in theirs], 0.1, **settings)
        again.load_state_dict(copy.deepcopy(usual.state_dict()))
        assert all(torch.equal(a, b) for a, b in zip(plain.tensors(), again.tensors(), strict=True))


def test_an_optimizer_takes_the_state_of_its_own_tensors_alone():
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    saved = PlainAdam([one, two], 0.1).state_dict()
    with pytest.raises(ValueError, match="of 2 tensors does not fit one of 1"):
        PlainAdam([one], 0.1).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"exp_avg 0 of an optimizer is \[2\], and must be \[1\]"):
        PlainAdam([two, one], 0.1).load_state_dict(saved)


def test_a_stop_by_kl_keeps_weights_and_moments(monkeypatch):
    run = session(
        "env=tiny", "threads=1", "num_envs=8", "agent=ppo", "agent.num_steps=4", "agent.target_kl=1.0e-6",
        "agent.num_minibatches=1",
    )  # fmt: skip
    agent, env = run.agent, run.envs["train"]
    assert isinstance(agent, ActorCritic)
    states, step = [], agent.optimizer.step
    head = agent.policy.net.maps.out.weight

    def record(loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
        step(loss, progress, keep)
        states.append(snapshot(agent.optimizer))

    monkeypatch.setattr(agent.optimizer, "step", record)
    state = env.reset(8, run.streams["env"])
    for _ in range(4):
        decision = decide(agent.policy, env, state, None, explore=True, rng=run.streams["policy"])
        after, reward = env.step(state, decision.action), torch.rand(8, generator=run.streams["env"])
        agent.observe(Transition(state, decision.action, reward, reward, after, env.done(after), policy_output=decision.policy_output, observation=decision.observation))  # fmt: skip
        state = after
    before = head.detach().clone()
    agent.update(0.0)
    assert len(states) == 4
    assert not torch.equal(head, before)  # the first step moves nothing yet, so it is taken
    for later in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], later, strict=True))
    assert all(counts == 1 for counts in states[0][-1:])


# A small world with numbers that are known.


class WalkState(NamedTuple):
    episode: Tensor  # int64 [N], a number drawn at its beginning
    step: Tensor  # int64 [N]
    stopped: Tensor  # bool [N]


class Walk:
    """Action 0 goes on, action 1 stops; an episode has `longest` steps at most."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.spec = EnvSpec(
            observation={"time": vector(1)}, action=Discrete(2), sample=PictureSpec(1, 1, 1), max_steps=longest,
            info={"code": TensorSpec("label", ())}, fixed_length=False,
        )  # fmt: skip

    def reset(self, n: int, rng: torch.Generator) -> WalkState:
        episode, zero = torch.randint(2**15, (n,), generator=rng), torch.zeros(n, dtype=torch.long)
        return WalkState(episode, zero, zero.bool())

    def step(self, state: WalkState, action: Tensor) -> WalkState:
        going = ~self.done(state)
        return WalkState(state.episode, state.step + going, state.stopped | ((action == 1) & going))

    def done(self, state: WalkState) -> Tensor:
        return state.stopped | (state.step >= self.longest)

    def observe(self, state: WalkState) -> Observation:
        return {"time": state.step.unsqueeze(1).float()}

    def view(self, state: WalkState) -> View:
        """The code of the newest step says which one it was, and what was done."""
        code = (state.episode * 16 + state.step) * 2 + state.stopped
        return View(torch.zeros(len(code), 1, 1, 1), {}, {"code": code})

    def action_mask(self, state: WalkState) -> Tensor | None:
        return None


class CodeReward:
    """The step's code."""

    has_learned_terms = False

    def __call__(
        self, before: View, after: View, done: Tensor, *, known: Mapping[str, Tensor] | None = None, ending: bool = True
    ) -> Scored:
        code = after.info["code"].float()
        return Scored(code, code, {}, {})

    def learned_reward(self, frames: View, done: Tensor) -> Tensor:
        return torch.zeros(len(done))


class FixedNetwork(nn.Module):
    """The same numbers in every state: a policy's logits, or Q-values."""

    def __init__(self, numbers: list[float], *, values: bool, **_: Any) -> None:
        super().__init__()
        self.numbers, self.values = nn.Parameter(torch.tensor(numbers)), values

    def initial_carry(self, n: int) -> Carry:
        return None

    def forward(self, observation: Observation, *rest: Any) -> Any:
        numbers = self.numbers.expand(len(observation["time"]), -1)
        if self.values:
            return QOutput(numbers, None)
        return Output(Categorical(numbers), torch.zeros(len(numbers)), None)


class Recorder:
    """A baseline of nothing, which keeps what it saw of the steps that are learned from (in episodes of up to 6)."""

    value_coef = 0.0

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.ages: list[int] = []

    def __call__(self, steps: Steps) -> Tensor:
        self.returns += steps.returns[steps.counted].tolist()
        self.ages += steps.age[steps.counted].tolist()
        assert steps.age.max() < 6  # also of steps that are not counted: baselines look it up
        return torch.zeros_like(steps.returns)


def test_whole_episodes_by_hand():
    ends = torch.tensor([0, 1, 0, 0, 1, 0]).bool().unsqueeze(1)
    assert whole_episodes(ends, 0).flatten().tolist() == [True, True, True, True, True, False]
    # Of two old steps, an earlier segment has learned from those whose end it saw.
    assert whole_episodes(ends, 2).flatten().tolist() == [False, False, True, True, True, False]
    assert whole_episodes(ends, 3).flatten().tolist() == [False, False, True, True, True, False]
    assert whole_episodes(ends, 1).flatten().tolist() == [True, True, True, True, True, False]


@pytest.mark.parametrize("anchored", [False, True])
def test_reinforce_learns_from_every_episode_once(anchored):
    """A policy that goes on with probability ½ goes on as often among the steps learned from as among those made:
    leaving out the episodes that a segment cuts off would leave out the long ones."""
    env, recorder, n, rounds, longest = Walk(6), Recorder(), 64, 60, 6
    anchor = Anchor(
        env=env, prior="start" if anchored else "none", network=None, kl_coef=0.25, target_kl=None, rate=0.1, fresh=True
    )
    agent = PolicyGradient(
        env=env, reward=CodeReward(), rng=rng(1), num_envs=n, device=CPU,
        network=partial(FixedNetwork, [0.0, 0.0], values=False), anchor=anchor,
        optimizer=partial(Adam, learning_rate=Linear(0.0, 0.0, 1.0), max_grad_norm=1.0, eps=1e-5, weight_decay=0.0, nonfinite="stop"),
        baseline=recorder, rollouts=0, num_minibatches=1, gamma=0.0, normalize_advantage=False, entropy_coef=Linear(0.0, 0.0, 1.0),
        evaluate="sample",
    )  # fmt: skip
    learners: dict[str, Trainable] = {"agent": agent}
    if anchored:
        anchor.net.numbers.data = torch.tensor([0.8, 0.2]).log()
        learners["anchor"] = anchor
    stepper = Stepper(
        env=env, reward=CodeReward(), learners=learners, rng=rng(2), num_envs=n, group_size=1, together=True
    )
    stepper.enter(stepper.fresh())
    made: list[list[int]] = [[] for _ in range(n)]  # codes of the episodes that are not over
    over: Counter[int] = Counter()
    for _ in range(rounds * longest):
        decision = decide(agent.policy, env, stepper.state, None, explore=True, rng=rng(len(over) + 7))
        stepped = stepper.step(decision, None, 0.0)
        for i, (code, done) in enumerate(zip(stepped.scored.total.int().tolist(), stepped.done.tolist(), strict=True)):
            made[i].append(code)
            if done:
                over.update(made[i])
                made[i] = []
        stepper.renew(stepped.done)
    # A return, without a discount, is the step's code less the price β · (log ½ − log prior of the action).
    learned = Counter(round(value + 0.2) for value in recorder.returns)
    prices = {0: 0.25 * math.log(0.5 / 0.8), 1: 0.25 * math.log(0.5 / 0.2)} if anchored else {0: 0.0, 1: 0.0}
    for value in recorder.returns:
        code = round(value + 0.2)
        assert value == pytest.approx(code - prices[code % 2], abs=0.04 + 2e-7 * code)
    assert learned == over  # the last update came with the last step
    assert [code // 2 % 16 - 1 for code in (round(value + 0.2) for value in recorder.returns)] == recorder.ages
    first = {code: count for code, count in learned.items() if code // 2 % 16 == 1}
    goes_on = sum(count for code, count in first.items() if code % 2 == 0) / sum(first.values())
    assert goes_on == pytest.approx(0.5, abs=0.02)
    # What ends within a segment of six steps that begins anywhere is short more often.
    assert sum(first.values()) > 5000


class FixedPrior:
    """A prior of one policy."""

    def __init__(self, probabilities: list[float]) -> None:
        self.logits = torch.tensor(probabilities).log().tolist()

    def initialise(self, q_network: nn.Module) -> None:
        pass

    def frozen(self, spec: EnvSpec, device: torch.device) -> nn.Module:
        return FixedNetwork(self.logits, values=False).requires_grad_(False)


TAU, GAMMA, REWARD = 0.5, 0.9, torch.tensor([1.0, 0.0])
SOFT: dict[str, tuple[Backup, float]] = {
    "soft": (SoftBackup(mean=True), TAU * math.log((math.exp(2) + 1) / 2)),
    "psi": (SoftBackup(mean=False), TAU * math.log(math.exp(2) + 1)),
    "g": (PriorBackup(), TAU * math.log(0.25 * math.exp(2) + 0.75)),
}


def fixed_dqn(q: Tensor, backup: Backup, td_lambda: float, n_step: int) -> DQN:
    """DQN in `Walk` whose networks give the same values everywhere, with γ = .9 and τ = .5."""
    env = Walk(1000)
    return DQN(
        env=env, reward=CodeReward(), rng=rng(1), num_envs=4, device=CPU,
        network=partial(FixedNetwork, q.tolist(), values=True), backup=backup,
        prior=cast(QPrior, FixedPrior([0.25, 0.75])), replay=partial(Replay, buffer_size=400, sampling=Uniform),
        exploration=EpsilonGreedy(num_envs=4, device=CPU, epsilon=Linear(0.0, 0.0, 1.0), greedy_env_fraction=0.0),
        target_update=HardUpdate(interval=1),
        optimizer=partial(Adam, learning_rate=Linear(0.01, 0.01, 1.0), max_grad_norm=1.0, eps=1e-5, weight_decay=0.0, nonfinite="stop"),
        gamma=Linear(GAMMA, GAMMA, 1.0), n_step=n_step, td_lambda=td_lambda, temperature=Linear(TAU, TAU, 1.0),
        batch_size=64, gradient_steps=1.0, learning_starts=0, huber_delta=1.0,
    )  # fmt: skip


def td_target(agent: DQN, window: Window) -> Tensor:
    """What the agent's windows are trained towards at the start, [L, B]."""
    frames = agent._frames(window)
    return agent._td_target(window, frames, agent._values(agent.policy.net, frames, 0, agent.length), 0.0)


def walk(agent: DQN, calls: int, ends: Callable[[int], bool]) -> None:
    """Transitions of uniform actions, whose reward is 1 for the first and 0 for the second, that end when told."""
    state, choose = agent.env.reset(4, rng(3)), rng(4)
    for call in range(calls):
        action = torch.randint(2, (4,), generator=choose)
        reward, done = REWARD[action], torch.full((4,), ends(call))
        after = state._replace(step=state.step + 1)
        agent.observe(Transition(state, action, reward, reward, after, done))
        state = agent.env.reset(4, rng(3)) if ends(call) else after


@pytest.mark.parametrize(
    ("huber_delta", "losses", "settled"), [(1.0, [0.125, 2.5], 0.25), (2.0, [0.125, 4.0], 0.5), (None, [0.125, 4.5], 2)]
)
def test_the_loss_of_dqn_by_hand(huber_delta, losses, settled):
    """Of errors of .5 and 3; and where a value settles whose targets are 0, 0, 0, 0 and 10, with the mean 2: at δ / 4 of
    Huber's, since one linear error then pulls as much as four squared ones."""
    agent = fixed_dqn(REWARD, SoftBackup(mean=True), 1.0, n_step=1)
    agent.huber_delta = huber_delta
    assert agent._loss(torch.tensor([0.5, 3.0]), torch.zeros(2)).tolist() == losses
    target, q = torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0]), torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.SGD([q], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        agent._loss(q.expand(5), target).sum().backward()
        optimizer.step()
    assert q.item() == pytest.approx(settled, abs=1e-3)


@pytest.mark.parametrize("td_lambda", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SOFT)
def test_soft_lambda_targets_of_dqn_have_the_fixed_point_of_one_step_targets(name, td_lambda):
    """Two actions in an episode without an end, Q(a) = r(a) + γ V: the target of every step of a window is Q of its
    action, so that the loss is 0, whatever was done after it."""
    backup, constant = SOFT[name]
    q = REWARD + GAMMA * constant / (1 - GAMMA)
    agent = fixed_dqn(q, backup, td_lambda, n_step=4)
    walk(agent, 60, lambda call: False)
    window = agent.replay.sample(64, 4, rng())
    target = td_target(agent, window)
    torch.testing.assert_close(target, q[window.action])
    assert len({tuple(actions) for actions in window.action.T.tolist()}) > 12  # of 16 sequences
    metrics = agent.update(0.0)
    assert metrics["td_error"].item() == pytest.approx(0, abs=1e-4)


def test_soft_lambda_targets_by_hand_where_an_episode_ends():
    """Windows of three steps, the second of which ends the episode: nothing flows over the end, and what stands beside
    the last frame counts for nothing."""
    agent = fixed_dqn(torch.tensor([1.0, 0.0]), SoftBackup(mean=False), 0.5, n_step=3)
    walk(agent, 60, lambda call: call % 4 == 3)
    window = agent.replay.sample(64, 3, rng())
    target = td_target(agent, window).T
    value = TAU * math.log(math.exp(2) + 1)
    action, valid = window.action.T, window.valid.T  # [64, 3]
    reward, q = REWARD[action], torch.tensor([1.0, 0.0])[action]
    ends = window.terminated.T & valid
    last = torch.where(ends[:, 2], reward[:, 2], reward[:, 2] + GAMMA * value)
    bonus = value - q  # [64, 3]
    mixed = 0.5 * value + 0.5 * (last + bonus[:, 2])
    second = torch.where(ends[:, 1], reward[:, 1], reward[:, 1] + GAMMA * mixed)
    mixed = 0.5 * value + 0.5 * (second + bonus[:, 1])
    first = torch.where(ends[:, 0], reward[:, 0], reward[:, 0] + GAMMA * mixed)
    expected = torch.stack([first, second, last], 1)
    torch.testing.assert_close(target[valid], expected[valid])
    assert ends.sum() > 0
    assert (~window.valid).any()


@pytest.mark.parametrize("words", [[], ["agent.n_step=3"], ["backup=soft", "agent.n_step=3", "agent.td_lambda=0.5", *COLD], ["replay=prioritized", "agent.n_step=3"]])  # fmt: skip
@pytest.mark.mostly_slow(4)
def test_forbidden_actions_beside_last_frames_do_no_harm(words):
    """A chorale's voices have different notes to choose from, so that an action of an earlier lap is forbidden in the
    frame in which no action was taken: its value of −∞ must not be counted."""
    run = session(*small("env=music", "encoding=chorale", "agent=dqn", "reward=harmony"), *words, "total_steps=800")
    trained(run)  # asserts that all metrics are finite
    assert isinstance(run.agent, DQN)
    assert all(torch.isfinite(weight).all() for weight in run.agent.policy.net.parameters())


def test_a_replay_too_small_for_its_windows_is_refused():
    words = ["env=tiny", "threads=1", "num_envs=4"]
    with pytest.raises(
        UserError,
        match=r"^agent\.replay\.buffer_size: must be at least 12 frames for each of 4 .* = 48, to hold windows of 10",
    ):
        session(*words, "agent.n_step=10", "agent.replay.buffer_size=44")
    session(*words, "agent.n_step=10", "agent.replay.buffer_size=48")
    recurrent = ["network/recurrent=gru", "agent.network.maps=null"]
    with pytest.raises(
        UserError, match=r"must be at least 9 frames for each of 4 environments = 36, to hold windows of 4"
    ):
        session(*words, *recurrent, "agent.replay.buffer_size=32")


def test_double_q_takes_the_online_choice_and_the_target_value(monkeypatch):
    for double, value in (("true", 5.0), ("false", 15.0)):
        words = [f"agent.backup.double={double}", "agent.batch_size=3", "agent.gamma.start=0.5", "agent.gamma.end=0.5"]
        run = session("env=tiny", "threads=1", *words)
        agent = run.agent
        assert isinstance(agent, DQN)
        online, target = torch.zeros(3, 16), torch.arange(16.0).expand(3, 16)
        online[:, 5] = 1.0
        along = {id(agent.policy.net): online, id(agent.target): target}
        monkeypatch.setattr(agent, "_values", lambda network, *_, along=along: along[id(network)].unsqueeze(0))
        state = agent.env.reset(6, run.streams["env"])
        no = torch.zeros(1, 3, dtype=torch.bool)
        window = Window(state, torch.zeros(1, 3).long(), torch.ones(1, 3), no, ~no, torch.arange(3), torch.ones(3))
        assert td_target(agent, window).tolist() == [[1 + 0.5 * value] * 3]


def q_policy(run: Session) -> QPolicy:
    assert isinstance(run.agent, DQN)
    return run.agent.policy


def test_exploration_follows_epsilon_and_greedy_environments_do_not_explore():
    words = [
        "agent.exploration.greedy_env_fraction=0.5",
        "agent.exploration.epsilon.start=1",
        "agent.exploration.epsilon.end=0",
    ]
    run = session("env=tiny", "threads=1", "num_envs=400", "agent.replay.buffer_size=4000", *words)
    policy, env = q_policy(run), run.envs["train"]
    observation = env.observe(env.reset(400, run.streams["env"]))

    def act(explore: bool, progress: float) -> Tensor:
        policy.progress = progress
        return policy.act(observation, None, None, explore=explore, rng=rng()).action

    greedy = act(False, 0.0)
    assert torch.equal(greedy[:200], act(True, 0.0)[:200])
    assert (greedy[200:] != act(True, 0.0)[200:]).float().mean() > 0.8
    # ε falls over the first 30 % of the training: at 15 % it is ½.
    assert (greedy[200:] != act(True, 0.15)[200:]).float().mean().item() == pytest.approx(0.5 * 15 / 16, abs=0.1)
    assert torch.equal(greedy, act(True, 0.3))


def test_a_soft_policy_draws_from_the_softmax(monkeypatch):
    run = session("env=tiny", "threads=1", "agent.temperature.start=1", "agent.temperature.end=1")
    policy, env = q_policy(run), run.envs["train"]
    observation = env.observe(env.reset(20_000, run.streams["env"]))
    q = torch.full((1, 16), -100.0)
    q[0, 2], q[0, 3] = 0.0, torch.log(torch.tensor(3.0))
    monkeypatch.setattr(policy, "values", lambda *_: (q.expand(20_000, 16), None))
    action = policy.act(observation, None, None, explore=False, rng=run.streams["policy"]).action
    assert (action == 3).float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert (action == 2).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_branches_by_hand(monkeypatch):
    run = session(*COPY, *SPIRAL, "agent=dqn", "agent.network.body.width=8", "agent.batch_size=3")
    agent, policy = run.agent, q_policy(run)
    assert isinstance(agent, DQN)
    sizes = policy.sizes
    assert sizes == [6, 6, 6, 6, 4, 4, 1, 2]
    q = torch.cat([torch.arange(float(n)) for n in sizes]).expand(3, -1)
    assert policy.best(q).tolist() == [[n - 1 for n in sizes]] * 3
    action = torch.tensor([2, 1, 0, 3, 1, 2, 0, 1]).expand(3, -1)
    assert policy.of_action(q, action)[0].tolist() == [2, 1, 0, 3, 1, 2, 0, 1]
    monkeypatch.setattr(agent, "_values", lambda *_: q.unsqueeze(0))
    no = torch.zeros(1, 3, dtype=torch.bool)
    state = agent.env.reset(6, run.streams["env"])
    window = Window(state, action.unsqueeze(0), torch.zeros(1, 3), no, ~no, torch.arange(3), torch.ones(3))
    expected = agent.gamma(0.0) * sum(n - 1 for n in sizes) / 8
    torch.testing.assert_close(td_target(agent, window), torch.full((1, 3), expected))
    assert MaxBackup(double=False).needs_online is False


def test_target_networks_follow_by_hand():
    online, target = nn.Linear(1, 1), nn.Linear(1, 1)
    for parameter in online.parameters():
        nn.init.constant_(parameter, 4.0)
    for parameter in target.parameters():
        nn.init.constant_(parameter, 0.0)
    SoftUpdate(tau=0.25).follow(target, online, 1)
    assert target.weight.item() == target.bias.item() == 1.0
    SoftUpdate(tau=0.25).follow(target, online, 2)
    assert target.weight.item() == 1.75
    for updates, weight in ((1, 1.75), (2, 1.75), (3, 4.0)):
        HardUpdate(interval=3).follow(target, online, updates)
        assert target.weight.item() == weight


def test_schedules_by_hand():
    schedule = Linear(1.0, 0.0, 0.5)
    assert [schedule(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 0.0]
    with pytest.raises(UserError, match=r"^share: must be in \(0, 1\]"):
        Linear(1.0, 0.0, 0.0)


@pytest.mark.parametrize("maps", [partial(Maps, channels=4, depth=2), None], ids=["maps", "body"])
@pytest.mark.parametrize("size", [10, 16, 28])
def test_networks_take_any_size(maps, size):
    spec: ObservationSpec = {
        "canvas": image(1, size, size), "difference": image(2, size, size), "patch": TensorSpec("patch", (2, 5, 5)),
        "time": vector(1), "noise": vector(3),
    }  # fmt: skip
    net = QNetwork(
        observation=spec,
        action=Discrete(2 * 5 * 5 + 1, (2, 5, 5)),
        precision=Precision("float32"),
        dueling=True,
        maps=maps,
        body=partial(MLP, width=8, layers=2, pool=3, embed=4),
        recurrent=None,
    )
    observation = {name: torch.rand(6, *part.shape) for name, part in spec.items()}
    assert net(observation, None, torch.zeros(1, 6, dtype=torch.bool)).q.shape == (6, 51)


def test_maps_move_with_the_picture():
    """A spatial head's value at a grid point depends on what lies there: shifting the picture shifts the maps."""
    torch.manual_seed(0)
    spec: ObservationSpec = {"canvas": image(1, 16, 16), "time": vector(1)}
    net = QNetwork(
        observation=spec,
        action=Discrete(256, (1, 16, 16)),
        precision=Precision("float32"),
        dueling=False,
        maps=partial(Maps, channels=8, depth=2),
        body=partial(MLP, width=8, layers=2, pool=3, embed=4),
        recurrent=None,
    )
    maps = net.maps
    assert maps is not None
    nn.init.normal_(maps.out.weight)
    maps.stem.weight.data[:, 1:3] = 0  # the planes that say where a point is
    nn.init.normal_(maps.direct.weight)
    maps.point[0].get_parameter("weight").data[:, 1:3] = 0
    for field in (maps.coarse[4].get_parameter("weight"), maps.coarse[4].get_parameter("bias")):
        nn.init.zeros_(field)
    canvas = torch.zeros(2, 1, 16, 16)
    canvas[0, 0, 5, 5] = canvas[1, 0, 8, 9] = 1.0
    observation = {"canvas": canvas, "time": torch.zeros(2, 1)}
    q = net(observation, None, torch.zeros(1, 2, dtype=torch.bool)).q.view(2, 16, 16)
    torch.testing.assert_close(q[0, 3:8, 3:8], q[1, 6:11, 7:12])
