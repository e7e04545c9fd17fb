"""Policies: densities against numbers worked by hand, memories against step-by-step play, and the price of a prior."""

import math

import pytest
import torch

from rlgen_cli.runs.assemble import config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.memory.rollouts import SegmentMemory
from rlgen_cli.policies.distributions import Beta, Categorical, Decisions, Head, Joint, SquashedGaussian
from rlgen_cli.policies.recurrent import GRU, Transformer
from rlgen_cli.runs.trainer import resume, train
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.core.types import Continuous, Discrete, Factored, Mixed, Transition
from tests.conftest import compose, session, small

SPECS = {
    "discrete": Discrete(5),
    "factored": Factored((3, 2, 4)),
    "continuous": Continuous(2),
    "mixed": Mixed(Factored((3, 2)), Continuous(2)),
}
TOKENS = ["lstm", "note_rnn"]  # these read tokens: tests/test_train.py has them compose
NETWORKS = sorted(file.stem for file in (config_folder() / "network").glob("*.yaml") if not file.stem.startswith("q"))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(spec, order="autoregressive", continuous="gaussian") -> Head:
    torch.manual_seed(0)
    made = Head(spec, 8, order, continuous, 0.7, 0.01)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return made


def test_a_choice_by_hand():
    choice = Categorical(torch.tensor([[0.0, math.log(3.0), -torch.inf]]))  # 1/4, 3/4, forbidden
    log_prob, entropy = choice.judge(torch.tensor([1]))
    assert log_prob.item() == pytest.approx(math.log(0.75))
    assert entropy.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert choice.mode().item() == 1
    many = Categorical(choice.log_p.expand(20_000, 3))
    action, said = many.draw(rng())
    assert (action == 1).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert (action == 2).sum() == 0
    torch.testing.assert_close(said, many.judge(action)[0])


def test_a_forbidden_choice_has_a_finite_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    log_prob, entropy = Categorical(logits.masked_fill(torch.tensor([[False, False, True]]), -torch.inf)).judge(
        torch.tensor([0])
    )
    (log_prob + entropy).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_squashed_gaussian_by_hand():
    # sigmoid(0) = .5; density there is that of N(0, σ) at 0 over the sigmoid's slope .25.
    policy = SquashedGaussian(torch.zeros(1, 1), torch.full((1, 1), math.log(0.5)))
    log_prob, _ = policy.judge(torch.tensor([[0.5]]))
    assert log_prob.item() == pytest.approx(math.log(1 / (0.5 * math.sqrt(2 * math.pi)) / 0.25), abs=1e-5)
    x = torch.linspace(0.0005, 0.9995, 1000).view(-1, 1)
    wide = SquashedGaussian(torch.full((1000, 1), 0.3), torch.zeros(1000, 1))
    density = wide.judge(x)[0].exp()
    assert density.mean().item() == pytest.approx(1.0, abs=2e-3)  # integrates to one
    by_sum = -(density * density.log()).mean()
    assert wide.judge(x)[1][0].item() == pytest.approx(by_sum.item(), abs=5e-3)
    assert policy.mode().item() == 0.5
    assert torch.isfinite(policy.judge(torch.tensor([[1.0]]))[0]).all()  # the border is kept out of


def test_a_beta_by_hand():
    # Beta(2, 2) has density 6 x (1 − x).
    policy = Beta(torch.full((4000, 1), 2.0), torch.full((4000, 1), 2.0))
    assert policy.judge(torch.full((4000, 1), 0.25))[0][0].item() == pytest.approx(math.log(6 * 0.25 * 0.75), abs=1e-5)
    draws, said = policy.draw(rng())
    assert draws.mean().item() == pytest.approx(0.5, abs=0.02)
    assert draws.var().item() == pytest.approx(0.05, abs=0.005)  # ab / (a + b)² / (a + b + 1)
    torch.testing.assert_close(said, policy.judge(draws)[0])


@pytest.mark.parametrize("order", ["independent", "autoregressive"])
def test_all_decisions_together_have_probability_one(order):
    spec = Factored((3, 2, 4))
    grid = torch.cartesian_prod(*(torch.arange(n) for n in spec.sizes))  # [24, 3]
    features = torch.randn(1, 8, generator=rng()).expand(24, 8)
    policy = head(spec, order)(features)
    log_prob, entropy = policy.judge(grid)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    true_entropy = -(log_prob.exp() * log_prob).sum()
    assert (log_prob.exp() * entropy).sum().item() == pytest.approx(true_entropy.item(), abs=1e-5)
    marginal = torch.stack([log_prob.exp()[(grid[:, 0] == i)].sum() for i in range(3)])
    later = torch.stack([log_prob.exp()[(grid[:, 0] == i) & (grid[:, 2] == 1)].sum() for i in range(3)]) / marginal
    apart = (later - later[0]).abs().max()
    assert (apart > 0.01) if order == "autoregressive" else (apart < 1e-5)  # what the third knows of the first


@pytest.mark.parametrize("continuous", ["gaussian", "beta"])
@pytest.mark.parametrize("name", SPECS)
def test_every_action_space_draws_judges_and_learns(name, continuous):
    spec = SPECS[name]
    made = head(spec, continuous=continuous)
    policy = made(torch.randn(64, 8, generator=rng()))
    action, said = policy.draw(rng())
    like = spec.sample(64, rng())
    assert (action.shape, action.dtype) == (like.shape, like.dtype)
    assert policy.mode().shape == action.shape
    log_prob, entropy = policy.judge(action.detach())
    torch.testing.assert_close(log_prob, said, rtol=1e-3, atol=1e-3)
    assert entropy.shape == (64,)
    (log_prob.mean() + entropy.mean()).backward()
    assert all(torch.isfinite(w.grad).all() for w in made.parameters() if w.grad is not None)
    assert sum(w.grad.abs().sum() for w in made.parameters() if w.grad is not None) > 0


def test_mixed_actions_condition_numbers_on_decisions():
    made = head(Mixed(Factored((2,)), Continuous(1)))
    policy = made(torch.zeros(2, 8))
    assert isinstance(policy, Joint)
    rest = torch.full((2, 1), 0.3)
    log_prob, _ = policy.judge(torch.cat([torch.tensor([[0.0], [1.0]]), rest], 1))
    decided, _ = Decisions(policy.first.features, policy.first.logits, policy.first.absorb, 1).judge(
        torch.tensor([[0], [1]])
    )
    numbers = log_prob - decided
    assert (numbers[0] - numbers[1]).abs() > 1e-3


MEMORIES = {
    "gru": lambda: GRU(features=12),
    "transformer": lambda: Transformer(features=12, layers=2, heads=3, span=4),
    "long transformer": lambda: Transformer(features=12, layers=1, heads=2, span=20),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_stretch_is_the_same_as_step_by_step(name):
    """Seven steps at once, in two pieces, or one by one, with episodes that begin in between."""
    torch.manual_seed(0)
    memory, x = MEMORIES[name](), torch.randn(7, 3, 12)
    start = torch.zeros(7, 3, dtype=torch.bool)
    start[3, 0] = start[5, 1] = start[1, 1] = True
    if name != "gru":
        for block in memory.blocks:
            torch.nn.init.normal_(block.bias)
    whole, end = memory(x, memory.fresh(3), start)
    carry, steps = memory.fresh(3), []
    for t in range(7):
        seen, carry = memory(x[t : t + 1], carry, start[t : t + 1])
        steps.append(seen)
    torch.testing.assert_close(torch.cat(steps), whole, rtol=1e-4, atol=1e-5)
    one, between = memory(x[:4], memory.fresh(3), start[:4])
    two, late = memory(x[4:], between, start[4:])
    torch.testing.assert_close(torch.cat([one, two]), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory(x[:1], end, start[:1])[0], memory(x[:1], late, start[:1])[0])


@pytest.mark.parametrize("name", MEMORIES)
def test_nothing_is_remembered_over_a_start(name):
    torch.manual_seed(0)
    memory, x = MEMORIES[name](), torch.randn(5, 1, 12)
    start = torch.zeros(5, 1, dtype=torch.bool)
    changed = x.clone()
    changed[:2] = torch.randn(2, 1, 12)
    assert not torch.allclose(memory(x, memory.fresh(1), start)[0][2:], memory(changed, memory.fresh(1), start)[0][2:])
    start[2] = True
    torch.testing.assert_close(memory(x, memory.fresh(1), start)[0][2:], memory(changed, memory.fresh(1), start)[0][2:])
    torch.testing.assert_close(memory(x[2:], memory.fresh(1), start[2:])[0], memory(x, memory.fresh(1), start)[0][2:])


@pytest.mark.parametrize("agent", ["ppo", "policy_gradient"])
@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in TOKENS])
def test_every_network_runs_and_resumes_bit_for_bit(network, agent, tmp_path):
    body = ["agent.network.body.steps=3"] if network == "vae" else []
    words = [*small(f"agent={agent}", f"network={network}", "env.action=brush", "env.grid=4"), *body]
    assert train(session(*words, "stop_at=156"), tmp_path / "whole") == "preempted"
    assert train(session(*words, "stop_at=76"), tmp_path / "parts") == "preempted"
    assert resume(tmp_path / "parts", {"stop_at": 156}) == "preempted"
    from tests.test_train import tensors

    one, two = (tensors(tmp_path / name / "checkpoints" / "step_000000156") for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert resume(tmp_path / "parts", {}) == "finished"


@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_acting_and_learning_agree_about_what_was_said(memory):
    """The log probabilities of a segment, computed at once, are those of the steps that were played."""
    run = session(*small("agent=ppo", f"network={memory}", "env.action=pen"), "agent.rollout=11", "agent.minibatches=1")
    agent, env = run.agent, run.envs["train"]
    state, carry = env.reset(4, run.streams["env"]), agent.carry(4)
    for _ in range(11):  # episodes of six steps: one ends on the way
        choice = agent.act(env, state, carry, explore=True, rng=run.streams["policy"])
        after = env.step(state, choice.action)
        done = env.done(after)
        zero = torch.zeros(4)
        agent.observe(Transition(state, choice.action, zero, zero, after, done, carry, choice.carry, choice.extras))
        fresh = env.reset(4, run.streams["env"])
        state = map_tensors(
            lambda a, b, done=done: torch.where(done.view(-1, *[1] * (a.dim() - 1)), a, b), fresh, after
        )
        carry = map_tensors(
            lambda a, b, done=done: torch.where(done.view(-1, *[1] * (a.dim() - 1)), a, b), agent.carry(4), choice.carry
        )
    batch, _ = agent._prepare(agent.memory.take())
    _, learned = agent._loss(batch, 0.0)
    assert learned["moved"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_segment_knows_what_followed():
    memory = SegmentMemory(2)
    run = session("env=tiny", "agent=random", "threads=1")
    env = run.envs["train"]
    first = env.reset(3, run.streams["env"])
    second = env.step(first, torch.zeros(3, dtype=torch.long))
    third = env.step(second, torch.ones(3, dtype=torch.long))
    zero, never = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    for before, after in ((first, second), (second, third)):
        assert not memory.full
        memory.add(Transition(before, zero.long(), zero, zero, after, never))
    restored = SegmentMemory(2)
    restored.load_state_dict(memory.state_dict(), memory.steps[0])
    segment = restored.take()
    assert memory.full
    assert not restored.full
    following, carry = segment.following()
    assert torch.equal(following.canvas, torch.stack([second.canvas, third.canvas]))
    assert carry is None


ANCHOR = [
    "env=tiny",
    "threads=1",
    "num_envs=32",
    "total_steps=6400",
    "log_interval=6400",
    "eval_interval=6400",
    "checkpoint_interval=100000",
    "agent.network.channels=8",
]


def measured_kl(tmp_path, *words: str) -> float:
    run = session(*ANCHOR, "agent=ppo", "agent.rollout=8", *words)
    train(run, tmp_path / "_".join(words).replace("/", "-")[:60])
    agent, env = run.agent, run.envs["train"]
    state = env.reset(500, torch.Generator().manual_seed(5))
    policy = agent.actor.say(env, state, None, torch.zeros(1, 500, dtype=torch.bool)).policy
    prior = agent.anchor.net(env.observe(state), None, None, torch.zeros(1, 500, dtype=torch.bool)).policy
    return (policy.log_p.exp() * (policy.log_p - prior.log_p)).sum(1).mean().item()


def test_a_prior_holds_the_policy(tmp_path):
    """More nats from the start without a price than with one; a target is met from either side."""
    free = measured_kl(tmp_path, "agent.anchor.prior=start", "agent.anchor.coefficient=0")
    held = measured_kl(tmp_path, "agent.anchor.prior=start", "agent.anchor.coefficient=5")
    assert free > 0.3
    assert held < free / 2
    target = [
        "agent.anchor.prior=start",
        "agent.anchor.target=0.1",
        "agent.anchor.rate=1",
        "agent.anchor.coefficient=2",
    ]
    assert measured_kl(tmp_path, *target, "total_steps=12800") == pytest.approx(0.1, abs=0.1)


def test_the_price_by_hand():
    run = session(
        *ANCHOR, "agent=actor_critic", "agent.anchor.prior=start", "agent.anchor.coefficient=0.5", "agent.rollout=2"
    )
    agent, env = run.agent, run.envs["train"]
    state, zero = env.reset(32, run.streams["env"]), torch.zeros(32)
    for _ in range(2):
        choice = agent.act(env, state, None, explore=True, rng=run.streams["policy"])
        after = env.step(state, choice.action)
        agent.observe(Transition(state, choice.action, zero, zero, after, env.done(after), None, None, choice.extras))
        state = after
    segment = agent.memory.take()
    states = map_tensors(lambda field: field.flatten(0, 1), segment.state)
    metrics = agent.anchor.charge(segment, segment.extras.log_prob + 0.3, env.observe(states), None)
    # The policy is still the prior; its log probabilities were raised by .3: the price is .5 · .3 everywhere.
    torch.testing.assert_close(metrics["price"], torch.full((2, 32), 0.15))
    assert metrics["kl"].item() == pytest.approx(0.3, abs=1e-5)


def test_the_coefficient_follows_its_target():
    run = session(*ANCHOR, "agent=ppo", "agent.anchor.prior=start", "agent.anchor.target=0.2", "agent.anchor.rate=0.5")
    anchor = run.agent.anchor
    anchor.adapt(torch.tensor(0.4))  # twice the target: clipped to + 20 %, half of it
    assert anchor.beta.item() == pytest.approx(0.1 * 1.1)
    anchor.adapt(torch.tensor(0.18))  # − 10 %, half of it
    assert anchor.beta.item() == pytest.approx(0.1 * 1.1 * 0.95)


def test_a_run_can_be_the_prior(tmp_path):
    folder = tmp_path / "first"
    train(session(*ANCHOR, "agent=ppo", "agent.rollout=8"), folder)
    second = session(*ANCHOR, "agent=policy_gradient", f"agent.anchor.prior={folder}", "agent.anchor.coefficient=1")
    state = second.envs["train"].reset(16, torch.Generator().manual_seed(0))
    none = torch.zeros(1, 16, dtype=torch.bool)
    first = session(*ANCHOR, "agent=ppo", "agent.rollout=8")
    from rlgen_cli import checkpoint

    first.load(checkpoint.load_newest(folder, "cpu"))
    env = second.envs["train"]
    says = [run.agent.actor.say(env, state, None, none).policy.log_p for run in (first, second)]
    torch.testing.assert_close(*says)
    train(second, tmp_path / "second")
    import shutil

    shutil.rmtree(folder)  # a run goes on without the one it began from
    resume(tmp_path / "second", {"total_steps": 7000})


def test_a_prior_that_cannot_be_is_named(tmp_path):
    with pytest.raises(UserError, match=r"agent\.anchor\.prior: must be none, start, the folder"):
        session(*ANCHOR, "agent=ppo", "agent.anchor.prior=nowhere")
    train(session(*ANCHOR[:-1], "agent=random"), tmp_path / "random")
    with pytest.raises(UserError, match="has no policy; use a run of"):
        session(*ANCHOR, "agent=ppo", f"agent.anchor.prior={tmp_path / 'random'}")
    train(session(*ANCHOR, "agent=ppo", "agent.rollout=8", "agent.network.depth=1"), tmp_path / "other")
    with pytest.raises(UserError, match="has another network"):
        session(*ANCHOR, "agent=ppo", f"agent.anchor.prior={tmp_path / 'other'}")


def test_networks_know_whose_they_are():
    place = ["env.size=12", "env.patch=0", "data.per_class=4", "threads=1"]
    with pytest.raises(UserError, match=r"agent\.network: QNetwork is no policy network; use network=policy"):
        session(*place, "agent=ppo", "network=q")
    with pytest.raises(UserError, match=r"agent\.network: PolicyNetwork is no q network; use network=q"):
        session(*place, "agent=dqn", "network=policy")


@pytest.mark.parametrize("name", NETWORKS)
def test_network_yamls_compose(name):
    assert compose("agent=ppo", f"network={name}").agent.network._target_.endswith("PolicyNetwork")


@pytest.mark.parametrize("name", ["q", "q_lstm", "q_note_rnn"])
def test_q_network_yamls_compose(name):
    assert compose("agent=dqn", f"network={name}").agent.network._target_.endswith("QNetwork")


def test_networks_of_tokens_refuse_pictures():
    with pytest.raises(UserError, match=r"agent\.network\.body\._target_: newest reads tokens; use body=perceptron"):
        session("agent=ppo", "network=lstm", "env.size=8", "env.patch=0", "threads=1")
