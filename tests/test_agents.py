"""Each agent solves the tiny environment and improves on random in a real one."""

import pytest
import torch

from rlgen_cli.evaluate import evaluate
from rlgen_cli.networks.q_network import QNetwork
from rlgen_cli.train import train
from rlgen_cli.types import Discrete, Observation, ObservationSpec
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
    "soft": ["agent.temperature.start=0.02", "agent.temperature.end=0.02"],
    "plain head": ["agent.network.head=plain", "agent.network.pool=1", "agent.network.width=128"],
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
        "total_steps=10000", "agent.batch_size=64", "agent.network.width=64", "agent.network.channels=8", "agent.warmup=512",
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
    agent._q = lambda network, env, state: online if network is agent.online else target
    assert agent._value(state).tolist() == [5.0, 5.0, 5.0]
    agent.double = False
    assert agent._value(state).tolist() == [15.0, 15.0, 15.0]


def test_exploration_follows_epsilon_and_sober_environments_do_not_explore():
    run = session("env=tiny", "threads=1", "num_envs=400", "agent.sober=0.5", "agent.capacity=4000")
    agent = run.agent
    agent.epsilon = lambda progress: 1.0
    state = agent.env.reset(400, run.streams["env"])
    greedy = agent.act(agent.env, state, explore=False, rng=run.streams["policy"])
    daring = agent.act(agent.env, state, explore=True, rng=run.streams["policy"])
    assert torch.equal(greedy[:200], daring[:200])
    assert (greedy[200:] != daring[200:]).float().mean() > 0.8


def test_a_soft_policy_draws_from_the_softmax():
    run = session("env=tiny", "threads=1", "agent.temperature.start=1", "agent.temperature.end=1")
    agent = run.agent
    state = agent.env.reset(20_000, run.streams["env"])
    q = torch.full((1, 16), -100.0)
    q[0, 2], q[0, 3] = 0.0, torch.log(torch.tensor(3.0))
    agent._q = lambda network, env, state: q.expand(20_000, 16)
    action = agent.act(agent.env, state, explore=False, rng=run.streams["policy"])
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
        width=8,
        layers=2,
        pool=3,
        channels=4,
        depth=2,
    )
    seen = Observation(torch.rand(6, *spec.image), torch.rand(6, *spec.patch), torch.rand(6, 4), torch.zeros(6, 0))
    assert net(seen).shape == (6, 51)


def test_maps_move_with_the_picture():
    """A spatial head's value at a grid point depends on what lies there: shifting the picture shifts the maps."""
    torch.manual_seed(0)
    spec, action = ObservationSpec((1, 16, 16), (0, 0, 0), 1), Discrete(256, (1, 16, 16))
    net = QNetwork(
        observation=spec,
        action=action,
        dueling=False,
        head="maps",
        width=8,
        layers=1,
        pool=1,
        channels=8,
        depth=2,
    )
    torch.nn.init.normal_(net.body.out.weight)
    net.body.stem.weight.data[:, 1:3] = 0  # the planes that say where a point is
    torch.nn.init.normal_(net.body.direct.weight)
    net.body.point[0].weight.data[:, 1:3] = 0
    for field in (net.body.coarse[4].weight, net.body.coarse[4].bias):
        torch.nn.init.zeros_(field)
    image = torch.zeros(2, 1, 16, 16)
    image[0, 0, 5, 5] = image[1, 0, 8, 9] = 1.0
    maps = net(Observation(image, torch.zeros(2, 0, 0, 0), torch.zeros(2, 1), torch.zeros(2, 0))).view(2, 16, 16)
    torch.testing.assert_close(maps[0, 3:8, 3:8], maps[1, 6:11, 7:12])
