"""Each agent solves the tiny environment and improves on random in a real one."""

from functools import partial

import pytest
import torch

from rlgen_cli.agents.actor_critic import clipped_loss, value_error
from rlgen_cli.agents.dqn import Frames
from rlgen_cli.core.errors import UserError
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.policies.encoders import Perceptron
from rlgen_cli.policies.q_network import QNetwork
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import Choice, Discrete, Observation, ObservationSpec, Transition
from tests.conftest import session

TINY = [
    "env=tiny",
    "num_envs=32",
    "total_steps=9600",
    "threads=1",
    "log_interval=9600",
    "eval_interval=9600",
    "checkpoint_interval=100000",
    "agent.batch_size=64",
    "agent.warmup=256",
    "agent.capacity=8000",
    "agent.network.channels=16",
    "reward.terms.target.weight=1",
    "agent.updates=3",
    "agent.learning_rate.start=0.003",
    "agent.tau=0.02",
]
FLAGS = {
    "default": [],
    "hard target, plain maximum": [
        "agent.double=false",
        "agent.target_update=hard",
        "agent.target_interval=50",
    ],
    "dueling": ["agent.dueling=true"],
    "n-step": ["agent.n_step=3"],
    "λ": ["agent.n_step=4", "agent.trace=0.8"],
    "prioritised": ["agent.priority=0.6"],
    "soft": ["agent.backup=soft", "agent.temperature.start=0.02", "agent.temperature.end=0.02"],
    "plain head": ["agent.network.head=plain", "agent.network.body.pool=1", "agent.network.body.width=128"],
}


def tiny_random_score() -> float:
    return evaluate(session("env=tiny", "agent=random", "threads=1"), "test", 400, 0).scores["target"]


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS.keys())
def test_dqn_solves_the_tiny_environment(flags, tmp_path):
    run = session(*TINY, *flags)
    train(run, tmp_path / "run")
    score = evaluate(run, "test", 200, 1).scores["target"]
    assert tiny_random_score() < -0.6
    assert score > -0.15, f"of the wanted cells {-score:.0%} are missing"


def test_greedy_search_solves_the_tiny_environment():
    assert evaluate(session("env=tiny", "agent=greedy", "threads=1"), "test", 50, 0).scores["target"] == 0


@pytest.mark.parametrize("action", ["pen", "pixel"])
def test_dqn_beats_random_at_copying(action, tmp_path):
    base = [
        f"env.action={action}", "env.size=12", "env.widths=[1.5]", "env.max_steps=24", "data.per_class=40", "num_envs=32",
        "data.characters=0123456789", "threads=1", f"env.patch={9 if action == 'pen' else 0}",
    ]  # fmt: skip
    learner = [
        "total_steps=10000", "agent.batch_size=64", "agent.network.body.width=64", "agent.network.channels=8", "agent.warmup=512",
        "agent.capacity=8000", "agent.updates=3", "agent.learning_rate.start=0.005", "agent.epsilon.start=1", "log_interval=10000", "eval_interval=10000", "checkpoint_interval=100000",
    ]  # fmt: skip
    run = session(*base, *learner)
    train(run, tmp_path / "run")
    learned = evaluate(run, "test", 60, 0).scores["target"]
    random = evaluate(session(*base, "agent=random"), "test", 60, 0).scores["target"]
    assert learned > random + 0.3
    assert learned > -1.0  # better than leaving the canvas blank


def test_double_q_takes_the_online_choice_and_the_target_value():
    run = session("env=tiny", "threads=1", "agent.double=true")
    agent = run.agent
    state = agent.env.reset(3, run.streams["env"])
    online, target = torch.zeros(3, 16), torch.arange(16.0).expand(3, 16)
    online[:, 5] = 1.0
    agent._q = lambda network, env, state, carry, start: (online if network is agent.online else target, None)
    frames = Frames(state, torch.zeros(1, 3, dtype=torch.bool))
    assert agent._value(frames, (3, 1)).tolist() == [5.0, 5.0, 5.0]
    agent.double = False
    assert agent._value(frames, (3, 1)).tolist() == [15.0, 15.0, 15.0]


def test_exploration_follows_epsilon_and_sober_environments_do_not_explore():
    run = session("env=tiny", "threads=1", "num_envs=400", "agent.sober=0.5", "agent.capacity=4000")
    agent = run.agent
    agent.epsilon = lambda progress: 1.0
    state = agent.env.reset(400, run.streams["env"])
    greedy = agent.act(agent.env, state, None, explore=False, rng=run.streams["policy"]).action
    daring = agent.act(agent.env, state, None, explore=True, rng=run.streams["policy"]).action
    assert torch.equal(greedy[:200], daring[:200])
    assert (greedy[200:] != daring[200:]).float().mean() > 0.8


def test_a_soft_policy_draws_from_the_softmax():
    run = session("env=tiny", "threads=1", "agent.temperature.start=1", "agent.temperature.end=1")
    agent = run.agent
    state = agent.env.reset(20_000, run.streams["env"])
    q = torch.full((1, 16), -100.0)
    q[0, 2], q[0, 3] = 0.0, torch.log(torch.tensor(3.0))
    agent._q = lambda network, env, state, carry, start: (q.expand(20_000, 16), None)
    action = agent.act(agent.env, state, None, explore=False, rng=run.streams["policy"]).action
    assert (action == 3).float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert (action == 2).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("head", ["maps", "plain"])
@pytest.mark.parametrize("size", [10, 16, 28])
def test_networks_take_any_size(head, size):
    spec = ObservationSpec((3, size, size), (2, 5, 5), 4)
    action = Discrete(2 * 5 * 5 + 1, (2, 5, 5))
    net = QNetwork(
        observation=spec,
        action=action,
        dueling=True,
        head=head,
        body=partial(Perceptron, width=8, layers=2, pool=3, embed=4),
        memory=None,
        channels=4,
        depth=2,
    )
    seen = Observation(torch.rand(6, *spec.image), torch.rand(6, *spec.patch), torch.rand(6, 4), torch.zeros(6, 0))
    assert net(seen, None, torch.zeros(1, 6, dtype=torch.bool)).q.shape == (6, 51)


def test_maps_move_with_the_picture():
    """A spatial head's value at a grid point depends on what lies there: shifting the picture shifts the maps."""
    torch.manual_seed(0)
    spec, action = ObservationSpec((1, 16, 16), (0, 0, 0), 1), Discrete(256, (1, 16, 16))
    net = QNetwork(
        observation=spec,
        action=action,
        dueling=False,
        head="maps",
        body=None,
        memory=None,
        channels=8,
        depth=2,
    )
    torch.nn.init.normal_(net.maps.out.weight)
    net.maps.stem.weight.data[:, 1:3] = 0  # the planes that say where a point is
    torch.nn.init.normal_(net.maps.direct.weight)
    net.maps.point[0].weight.data[:, 1:3] = 0
    for field in (net.maps.coarse[4].weight, net.maps.coarse[4].bias):
        torch.nn.init.zeros_(field)
    image = torch.zeros(2, 1, 16, 16)
    image[0, 0, 5, 5] = image[1, 0, 8, 9] = 1.0
    seen = Observation(image, torch.zeros(2, 0, 0, 0), torch.zeros(2, 1), torch.zeros(2, 0))
    maps = net(seen, None, torch.zeros(1, 2, dtype=torch.bool)).q.view(2, 16, 16)
    torch.testing.assert_close(maps[0, 3:8, 3:8], maps[1, 6:11, 7:12])


POLICY_TINY = [
    "env=tiny", "num_envs=32", "threads=1", "log_interval=100000", "eval_interval=100000", "checkpoint_interval=1000000",
    "agent.network.channels=16", "reward.terms.target.weight=1",
]  # fmt: skip
POLICY_FLAGS = {
    "A2C": ["agent=actor_critic", "agent.rollout=4", "agent.learning_rate.start=0.003"],
    "PPO": ["agent=ppo", "agent.rollout=8"],
    "PPO with a clipped value, no stop": ["agent=ppo", "agent.rollout=8", "agent.value_clip=0.2", "agent.stop_kl=null"],
    "REINFORCE, no baseline": ["agent=policy_gradient", "agent.baseline=none", "agent.learning_rate.start=0.003"],
    "REINFORCE, running mean": ["agent=policy_gradient", "agent.baseline=mean", "agent.learning_rate.start=0.003"],
    "REINFORCE, learned": ["agent=policy_gradient", "agent.baseline=learned", "agent.learning_rate.start=0.003"],
    "REINFORCE, group": ["agent=policy_gradient", "agent.baseline=group", "agent.learning_rate.start=0.003"],
    "REINFORCE, rollouts": ["agent=policy_gradient", "agent.rollouts=2", "agent.learning_rate.start=0.003"],
}


@pytest.mark.parametrize("flags", POLICY_FLAGS.values(), ids=POLICY_FLAGS.keys())
def test_policies_solve_the_tiny_environment(flags, tmp_path):
    run = session(*POLICY_TINY, "total_steps=25000", *flags)
    train(run, tmp_path / "run")
    score = evaluate(run, "test", 200, 1).scores["target"]
    assert score > -0.2, f"of the wanted cells {-score:.0%} are missing"


COPY = [
    "env.size=12", "env.max_steps=6", "env.patch=0", "env.preview=0", "data.per_class=40", "data.characters=0123456789",
    "num_envs=32", "threads=1", "log_interval=100000", "eval_interval=100000", "checkpoint_interval=1000000",
    "reward.terms.target.per=pixel", "reward.terms.target.weight=20", "env.clock=steps",
]  # fmt: skip
BRUSH = ["env.action=brush", "env.grid=6", "env.widths=[1.0,2.5]"]
REAL = {
    "PPO, brush": ["agent=ppo", *BRUSH],
    "PPO, brush in order": ["agent=ppo", *BRUSH, "agent.network.order=autoregressive"],
    "PPO, free brush": ["agent=ppo", "env.action=brush_free", "env.widths=[1.0,2.5]"],
    "PPO, strokes": ["agent=ppo", "env.action=stroke", "env.widths=[1.0,2.5]"],
    "PPO, Beta strokes": ["agent=ppo", "env.action=stroke", "env.widths=[1.0,2.5]", "agent.network.continuous=beta"],
    "A2C, brush": ["agent=actor_critic", *BRUSH],
    "REINFORCE, brush": ["agent=policy_gradient", *BRUSH],
    "DQN, brush": ["agent=dqn", *BRUSH, "agent.batch_size=64", "agent.network.body.width=64", "agent.capacity=8000"],
}


@pytest.mark.parametrize("flags", REAL.values(), ids=REAL.keys())
def test_agents_beat_random_with_every_kind_of_action(flags, tmp_path):
    agent = [] if "agent=dqn" in flags else ["agent.network.body.width=64", "agent.learning_rate.start=0.003"]
    run = session(*COPY, *flags, *agent, "total_steps=12000")
    train(run, tmp_path / "run")
    learned = evaluate(run, "test", 100, 0).scores["target"]
    env = [word for word in flags if word.startswith("env.")]
    random = evaluate(session(*COPY, *env, "agent=random"), "test", 100, 0).scores["target"]
    assert learned > 0.8 * random, f"{learned:.3f} after, {random:.3f} before"


def test_the_pathwise_gradient_learns_to_copy(tmp_path):
    words = [
        *COPY, "env.action=stroke", "env.widths=[0.5,3.0]", "env.edge=1.5", "agent=policy_gradient", "agent.estimator=pathwise",
        "agent.updates=2", "agent.network.std=0.02", "agent.evaluate=mode", "agent.network.body.width=64", "agent.network.body.pool=1",
        "agent.learning_rate.start=0.003", "agent.entropy.start=0", "agent.entropy.end=0", "total_steps=12000",
    ]  # fmt: skip
    run = session(*words)
    train(run, tmp_path / "run")
    result = evaluate(run, "test", 100, 0)
    blank = -float(result.view.context.target.square().mean())
    assert result.scores["target"] > 0.6 * blank


def test_the_pathwise_gradient_is_the_slope_of_the_return():
    """Against a central difference, along the gradient, with the same noise and the canvas not rounded."""
    words = [
        *COPY,
        "env.action=stroke",
        "agent=policy_gradient",
        "agent.estimator=pathwise",
        "agent.gamma=1",
        "num_envs=8",
    ]
    run = session(*words, "agent.network.body.width=32", "env.edge=3", "agent.network.std=0.1", "env.max_steps=1")
    agent, env = run.agent, run.envs["train"]
    state = env.reset(8, run.streams["env"])

    def total() -> torch.Tensor:
        return agent._unroll(state, torch.Generator().manual_seed(3), 0.0)[0].double().mean()

    bias = agent.actor.net.head.numbers.bias
    (slope,) = torch.autograd.grad(total(), bias)
    direction = slope / slope.norm()
    before = bias.detach().clone()
    values = []
    for sign in (1, -1):
        bias.data = before + sign * 0.2 * direction
        values.append(total().item())
    assert (values[0] - values[1]) / 0.4 == pytest.approx(slope.norm().item(), rel=0.25)


def test_what_gradients_cannot_pass_is_refused():
    path = ["agent=policy_gradient", "agent.estimator=pathwise"]
    with pytest.raises(
        UserError, match=r"agent\.estimator: pathwise needs an environment that is differentiable.*stroke"
    ):
        session(*COPY, *path, "env.action=brush")
    plain = [word for word in COPY if not word.startswith("reward.")]
    ink = ["reward=coverage", "~reward.terms.coverage", "+reward/term=ink_cost"]
    with pytest.raises(UserError, match=r"agent\.estimator: pathwise needs a reward that is differentiable"):
        session(*plain, *path, "env.action=stroke", *ink)


def test_groups_begin_together_and_stay_together(tmp_path):
    run = session(*COPY, "agent=policy_gradient", "agent.baseline=group", "agent.group=8", *BRUSH, "total_steps=1000")
    seen = []
    observe = run.agent.observe
    run.agent.observe = lambda transition: (seen.append(transition.state), observe(transition))
    train(run, tmp_path / "run")
    for state in seen:
        assert (state.index.view(4, 8) == state.index.view(4, 8)[:, :1]).all()
        assert (state.step.view(4, 8) == state.step.view(4, 8)[:, :1]).all()
    assert len({tuple(state.index.tolist()) for state in seen}) > 3
    assert (seen[1].canvas[0] != seen[1].canvas[1:8]).any()
    with pytest.raises(UserError, match=r"agent\.baseline: group needs episodes of one length"):
        session(*COPY, "env.action=pen", "env.stop=true", "agent=policy_gradient", "agent.baseline=group")


def test_group_and_mean_baselines_by_hand():
    run = session(
        "env=tiny", "threads=1", "num_envs=4", "agent=policy_gradient", "agent.baseline=group", "agent.group=2"
    )
    agent = run.agent
    returns = torch.tensor([[1.0, 3.0, 10.0, 20.0]])
    none, complete = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    age = torch.zeros(1, 4, dtype=torch.long)
    assert agent._baseline(returns, none, age, complete).tolist() == [[2.0, 2.0, 15.0, 15.0]]
    agent.baseline = "mean"
    assert agent._baseline(returns, none, age, complete).tolist() == [[0.0] * 4]
    assert agent._baseline(returns, none, age, complete).tolist() == [[8.5] * 4]  # the first window's mean
    agent._baseline(returns + 20, none, age, complete)
    assert agent.mean[0].item() == pytest.approx(8.5 + 0.05 * 20)


def test_rollouts_estimate_what_follows():
    """With one cell left to ink and a policy that always inks it, each continuation brings that cell's reward."""
    run = session("env=tiny", "threads=1", "num_envs=4", "agent=policy_gradient", "agent.rollouts=3", "agent.gamma=0.5",
                  "env.cells=2", "env.size=2", "reward.terms.target.weight=1")  # fmt: skip
    agent, env = run.agent, run.envs["train"]
    state = env.reset(4, run.streams["env"])
    cells = state.target.flatten(1).float().topk(2, 1).indices  # [4, 2]
    agent.actor.act = lambda env, state, carry, explore, rng: Choice(cells.repeat_interleave(3, 0)[:, 1].repeat(2))
    after = env.step(state, cells[:, 0])
    zero = torch.zeros(4)
    agent.memory.add(Transition(state, cells[:, 0], zero, zero, after, env.done(after)))
    last = env.step(after, cells[:, 1])
    agent.memory.add(Transition(after, cells[:, 1], zero, zero, last, env.done(last)))
    # Half of the target's two cells each: the second is worth .5; after the last step nothing follows.
    assert agent._continue(agent.memory.take()).tolist() == [[0.5] * 4, [0.0] * 4]


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


def test_a_stop_by_kl_keeps_the_weights():
    run = session(
        "env=tiny",
        "threads=1",
        "num_envs=8",
        "agent=ppo",
        "agent.rollout=4",
        "agent.stop_kl=1.0e-6",
        "agent.minibatches=1",
    )
    agent, env = run.agent, run.envs["train"]
    weights = []
    descend = agent._descend
    head = agent.actor.net.maps.out.weight
    agent._descend = lambda loss, going: (descend(loss, going), weights.append(head.detach().clone()))
    state = env.reset(8, run.streams["env"])
    for _ in range(4):
        choice = agent.act(env, state, None, explore=True, rng=run.streams["policy"])
        after = env.step(state, choice.action)
        agent.observe(
            Transition(
                state, choice.action, torch.rand(8), torch.zeros(8), after, env.done(after), None, None, choice.extras
            )
        )
        state = after
    before = head.detach().clone()
    agent.update(0.0)
    assert not torch.equal(weights[0], before)  # the first step moves nothing yet, so it is taken
    assert all(torch.equal(weight, weights[0]) for weight in weights[1:])


def test_branches_by_hand():
    run = session(*COPY, *BRUSH, "agent=dqn", "agent.double=false", "agent.network.body.width=8")
    agent = run.agent
    sizes = agent.sizes
    assert sizes == [6, 6, 6, 6, 4, 4, 1, 2]
    q = torch.cat([torch.arange(float(n)) for n in sizes]).expand(3, -1)
    assert agent._best(q).tolist() == [[n - 1 for n in sizes]] * 3
    assert agent._of(q, torch.ones(3, 8, dtype=torch.long) * torch.tensor([2, 1, 0, 3, 1, 2, 0, 1]))[0].tolist() == [
        2,
        1,
        0,
        3,
        1,
        2,
        0,
        1,
    ]
    agent._q = lambda network, env, state, carry, start: (q, None)
    frames = Frames(agent.env.reset(3, run.streams["env"]), torch.zeros(1, 3, dtype=torch.bool))
    assert agent._value(frames, (3, 1)).tolist() == [sum(n - 1 for n in sizes) / 8] * 3
