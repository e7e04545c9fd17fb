"""Policies: densities against numbers worked by hand, memories against step-by-step play, precision, and the price of a
prior."""

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rlgen_cli.agents.actor_critic import ActorCritic
from rlgen_cli.agents.dqn import DQN
from rlgen_cli.config.locate import choices
from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import (
    ActionSpec,
    Continuous,
    Discrete,
    Factored,
    Metrics,
    Mixed,
    Observation,
    ObservationSpec,
    Transition,
    image,
    vector,
)  # fmt: skip
from rlgen_cli.core.tree import map_tensors, select
from rlgen_cli.policies.actor import NetworkPolicy, PolicyOutput, no_start
from rlgen_cli.policies.anchor import Anchor, HasAnchor
from rlgen_cli.policies.distributions import Beta, Categorical, Decisions, Head, Joint, SquashedGaussian
from rlgen_cli.policies.encoders import MLP, prepared
from rlgen_cli.policies.policy_network import PolicyNetwork
from rlgen_cli.policies.precision import Precision, full_precision
from rlgen_cli.policies.q_network import QNetwork
from rlgen_cli.policies.recurrent import GRU, LSTM, Transformer
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import SMALL, compose, session, small
from tests.resuming import resumes
from tests.training import trained

SPECS: dict[str, ActionSpec] = {
    "discrete": Discrete(5),
    "factored": Factored((3, 2, 4)),
    "continuous": Continuous(2),
    "mixed": Mixed(Factored((3, 2)), Continuous(2)),
}
TOKENS = ["lstm", "note_rnn"]  # these read tokens: tests/test_train.py has them compose
Q_NETWORKS = [name for name in choices("network") if name.startswith("q_")]
NETWORKS = [name for name in choices("network") if name not in Q_NETWORKS]
PLAIN = [network for network in NETWORKS if network != "denoiser"]  # which has an environment of its own
RUN = ["log_interval=6400", "eval_interval=6400", "checkpoint_interval=100000", "threads=1"]
GAINS = {"lstm": 3.0, "note_rnn": 3.0, "cells": 2.5}  # what an LSTM gives is below 1, and many layers lose more
TINY = ["env=tiny", "num_envs=32", "total_steps=1280", "agent.network.maps.channels=8", SMALL[0], *RUN]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(
    spec: ActionSpec,
    order: Literal["independent", "autoregressive"] = "autoregressive",
    continuous: Literal["gaussian", "beta"] = "gaussian",
) -> Head:
    torch.manual_seed(0)
    made = Head(spec, 8, order, continuous, 0.7, 0.01)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return made


def test_a_choice_by_hand():
    choice = Categorical(torch.tensor([[0.0, math.log(3.0), -torch.inf]]))  # 1/4, 3/4, forbidden
    log_prob, entropy = choice.evaluate_actions(torch.tensor([1]))
    assert log_prob.item() == pytest.approx(math.log(0.75))
    assert entropy.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert choice.mode().item() == 1
    many = Categorical(choice.log_p.expand(20_000, 3))
    action, log_prob = many.draw(rng())
    assert (action == 1).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert (action == 2).sum() == 0
    torch.testing.assert_close(log_prob, many.evaluate_actions(action)[0])


def test_a_forbidden_choice_has_a_finite_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    allowed = logits.masked_fill(torch.tensor([[False, False, True]]), -torch.inf)
    log_prob, entropy = Categorical(allowed).evaluate_actions(torch.tensor([0]))
    (log_prob + entropy).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("mean", [-50.0, -8.0, -7.0, 7.0, 8.0, 50.0])
def test_densities_at_the_ends_are_those_of_what_was_drawn(mean):
    """Float32 has few numbers near 1, so the normal variable cannot be told from an action whose mean lies far out: its
    squared distance in deviations, 1 on average, had been 500 000, and the gradients of a policy that wants 1 as large."""
    n, std = 20_000, 0.05
    raw = torch.full((n, 1), mean, requires_grad=True)
    log_std = torch.full((n, 1), math.log(std), requires_grad=True)
    policy = SquashedGaussian(raw, log_std)
    action, drawn = policy.draw(rng())
    log_prob, entropy = policy.evaluate_actions(action.detach())
    assert torch.equal(log_prob, drawn)
    assert float(-log_prob.detach().mean()) == pytest.approx(float(entropy.detach().mean()), abs=0.05)
    of_mean, of_log_std = torch.autograd.grad(log_prob.sum(), (raw, log_std))
    assert float(of_log_std.mean()) == pytest.approx(0, abs=0.05)  # the mean of squared distances, less 1
    inside = 1.0 if abs(mean) <= 8 else 0.0
    assert float((of_mean * std).square().mean()) == pytest.approx(inside, abs=0.05)  # beyond, nothing pushes further
    assert float(policy.mode().detach().mean()) == pytest.approx(
        1 / (1 + math.exp(-max(min(mean, 8.0), -8.0))), abs=1e-6
    )


def test_a_squashed_gaussian_by_hand():
    # sigmoid(0) = .5; density there is that of N(0, σ) at 0 over the sigmoid's slope .25.
    policy = SquashedGaussian(torch.zeros(1, 1), torch.full((1, 1), math.log(0.5)))
    log_prob, _ = policy.evaluate_actions(torch.tensor([[0.5]]))
    assert log_prob.item() == pytest.approx(math.log(1 / (0.5 * math.sqrt(2 * math.pi)) / 0.25), abs=1e-5)
    x = torch.linspace(0.0005, 0.9995, 1000).view(-1, 1)
    wide = SquashedGaussian(torch.full((1000, 1), 0.3), torch.zeros(1000, 1))
    density = wide.evaluate_actions(x)[0].exp()
    assert density.mean().item() == pytest.approx(1.0, abs=2e-3)  # integrates to one
    by_sum = -(density * density.log()).mean()
    assert wide.evaluate_actions(x)[1][0].item() == pytest.approx(by_sum.item(), abs=5e-3)
    assert policy.mode().item() == 0.5
    assert torch.isfinite(policy.evaluate_actions(torch.tensor([[1.0]]))[0]).all()  # the border is kept out of


def test_a_beta_by_hand():
    # Beta(2, 2) has density 6 x (1 − x).
    policy = Beta(torch.full((4000, 1), 2.0), torch.full((4000, 1), 2.0))
    log_prob = policy.evaluate_actions(torch.full((4000, 1), 0.25))[0]
    assert log_prob[0].item() == pytest.approx(math.log(6 * 0.25 * 0.75), abs=1e-5)
    draws, log_prob = policy.draw(rng())
    assert draws.mean().item() == pytest.approx(0.5, abs=0.02)
    assert draws.var().item() == pytest.approx(0.05, abs=0.005)  # ab / (a + b)² / (a + b + 1)
    torch.testing.assert_close(log_prob, policy.evaluate_actions(draws)[0])


@pytest.mark.parametrize("order", ["independent", "autoregressive"])
def test_all_decisions_together_have_probability_one(order):
    spec = Factored((3, 2, 4))
    grid = torch.cartesian_prod(*(torch.arange(n) for n in spec.sizes))  # [24, 3]
    features = torch.randn(1, 8, generator=rng()).expand(24, 8)
    policy = head(spec, order)(features)
    log_prob, entropy = policy.evaluate_actions(grid)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    true_entropy = -(log_prob.exp() * log_prob).sum()
    assert (log_prob.exp() * entropy).sum().item() == pytest.approx(true_entropy.item(), abs=1e-5)
    marginal = torch.stack([log_prob.exp()[(grid[:, 0] == i)].sum() for i in range(3)])
    later = torch.stack([log_prob.exp()[(grid[:, 0] == i) & (grid[:, 2] == 1)].sum() for i in range(3)]) / marginal
    apart = (later - later[0]).abs().max()
    assert (apart > 0.01) if order == "autoregressive" else (apart < 1e-5)  # what the third knows of the first


@pytest.mark.parametrize("continuous", ["gaussian", "beta"])
@pytest.mark.parametrize("name", SPECS)
def test_every_action_space_draws_evaluates_and_learns(name, continuous):
    spec = SPECS[name]
    made = head(spec, continuous=continuous)
    policy = made(torch.randn(64, 8, generator=rng()))
    action, drawn_log_prob = policy.draw(rng())
    like = spec.sample(64, rng())
    assert (action.shape, action.dtype) == (like.shape, like.dtype)
    assert policy.mode().shape == action.shape
    log_prob, entropy = policy.evaluate_actions(action.detach())
    torch.testing.assert_close(log_prob, drawn_log_prob, rtol=1e-3, atol=1e-3)
    assert entropy.shape == (64,)
    (log_prob.mean() + entropy.mean()).backward()
    grads = [weight.grad for weight in made.parameters() if weight.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


def test_mixed_actions_condition_numbers_on_decisions():
    made = head(Mixed(Factored((2,)), Continuous(1)))
    policy = made(torch.zeros(2, 8))
    assert isinstance(policy, Joint)
    rest = torch.full((2, 1), 0.3)
    log_prob, _ = policy.evaluate_actions(torch.cat([torch.tensor([[0.0], [1.0]]), rest], 1))
    first = Decisions(policy.first.features, policy.first.logits, policy.first.absorb, 1)
    decided, _ = first.evaluate_actions(torch.tensor([[0], [1]]))
    numbers = log_prob - decided
    assert (numbers[0] - numbers[1]).abs() > 1e-3


MEMORIES: dict[str, Callable[[], GRU | LSTM | Transformer]] = {
    "gru": lambda: GRU(features=12),
    "lstm": lambda: LSTM(features=12, width=7),
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
    if isinstance(memory, Transformer):
        for block in memory.blocks:
            torch.nn.init.normal_(block.get_parameter("bias"))
    whole, end = memory(x, memory.initial_carry(3), start)
    carry, steps = memory.initial_carry(3), []
    for t in range(7):
        seen, carry = memory(x[t : t + 1], carry, start[t : t + 1])
        steps.append(seen)
    torch.testing.assert_close(torch.cat(steps), whole, rtol=1e-4, atol=1e-5)
    one, between = memory(x[:4], memory.initial_carry(3), start[:4])
    two, late = memory(x[4:], between, start[4:])
    torch.testing.assert_close(torch.cat([one, two]), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory(x[:1], end, start[:1])[0], memory(x[:1], late, start[:1])[0])


@pytest.mark.parametrize("begins", [[], [(4, 0), (4, 1), (4, 2)], [(0, 1), (3, 0), (4, 2), (8, 1)]])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_recurrent_layer_is_its_cell_stepped_in_a_loop(name, begins):
    """Values, memory and gradients of nine steps, whether all episodes begin together, some of them, or none."""
    torch.manual_seed(0)
    memory, start = MEMORIES[name](), torch.zeros(9, 3, dtype=torch.bool)
    assert not isinstance(memory, Transformer)
    for place in begins:
        start[place] = True
    x = torch.randn(9, 3, 12, requires_grad=True)
    carry = map_tensors(lambda field: torch.randn_like(field).requires_grad_(), memory.initial_carry(3))
    cell: Any = memory.cell
    state, looped = list(carry), []
    for t in range(9):
        state = [part * ~start[t].unsqueeze(1) for part in state]
        state = [cell(x[t], state[0])] if name == "gru" else list(cell(x[t], tuple(state)))
        looped.append(state[0])
    by_cell = torch.stack(looped) + (x if name == "gru" else 0)
    by_layer, after = memory(x, carry, start)
    learned = [x, *carry, *memory.parameters()]
    pairs = zip([by_layer, *after], [by_cell, *state], strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
        weight = torch.randn_like(one)
        gradients = (torch.autograd.grad((out * weight).sum(), learned, retain_graph=True) for out in (one, other))
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEMORIES)
def test_nothing_is_remembered_over_a_start(name):
    torch.manual_seed(0)
    memory, x = MEMORIES[name](), torch.randn(5, 1, 12)
    begin, start = memory.initial_carry(1), torch.zeros(5, 1, dtype=torch.bool)
    changed = x.clone()
    changed[:2] = torch.randn(2, 1, 12)
    assert not torch.allclose(memory(x, begin, start)[0][2:], memory(changed, begin, start)[0][2:])
    start[2] = True
    torch.testing.assert_close(memory(x, begin, start)[0][2:], memory(changed, begin, start)[0][2:])
    torch.testing.assert_close(memory(x[2:], begin, start[2:])[0], memory(x, begin, start)[0][2:])


# Each network meets one of the agents always, and both with `make test-all`.
LEARNERS = {
    "mlp": "ppo",
    "gru": "policy_gradient",
    "transformer": "ppo",
    "convolutions": "policy_gradient",
    "vae": "ppo",
}
PAIRS = [(network, agent) for network in PLAIN if network not in TOKENS for agent in ("ppo", "policy_gradient")]


@pytest.mark.parametrize(
    ("network", "agent"),
    [
        pytest.param(*pair, marks=[pytest.mark.slow] if LEARNERS.get(pair[0], pair[1]) != pair[1] else [])
        for pair in PAIRS
    ],
)
@pytest.mark.mostly_slow(4)
def test_every_network_runs_and_resumes_bit_for_bit(network, agent, tmp_path):
    body = ["agent.network.body.updates=3"] if network == "vae" else []
    words = small(f"agent={agent}", f"network={network}", "brush=spiral", "env.brush.grid=4")
    if network == "cells":
        words = [*(word for word in words if not word.startswith("agent.network.")), "agent.network.body.channels=4"]
    resumes([*words, *body], 160, tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "agent=ppo network=vae",
        "agent=ppo network=vae agent.anchor.prior=start",
        "agent=dqn network/body=vae agent.network.maps=null",
    ],
)
def test_an_autoencoder_is_fitted_by_its_stage_alone(words):
    """Two networks share it (a policy and its prior, or online and target): the run's learner never trains it, and what
    freezes one of them does not keep the stage from fitting it."""
    run = session(*small(*words.split()), "agent.network.body.updates=3")
    assert isinstance(run.agent, ActorCritic | DQN)
    assert isinstance(run.agent.policy.net.body.autoencoder, torch.nn.Module)
    (stage,) = run.stages
    frozen = list(run.agent.policy.net.body.autoencoder.parameters())
    assert not any(weight.requires_grad for weight in frozen)
    assert not {id(weight) for weight in frozen} & {id(weight) for weight in run.agent.optimizer.parameters}
    before = [weight.clone() for weight in frozen]
    stage.trainable.update(0.0)
    assert any(not torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert not any(weight.requires_grad for weight in frozen)


def play(run: Session, steps: int, reward: float = 0.0) -> None:
    """Let an actor-critic (and its anchor) observe `steps` steps of every environment."""
    agent, env, streams = run.agent, run.envs["train"], run.streams
    assert isinstance(agent, ActorCritic)
    n = run.settings.num_envs
    state, carry, paid = env.reset(n, streams["env"]), agent.policy.initial_carry(n), torch.full((n,), reward)
    for _ in range(steps):
        observation, mask = env.observe(state), env.action_mask(state)
        decision = agent.policy.act(observation, mask, carry, explore=True, rng=streams["policy"])
        after = env.step(state, decision.action)
        done = env.done(after)
        step = Transition(
            state, decision.action, paid, paid, after, done, carry, decision.carry, decision.policy_output,
            decision.observation,
        )  # fmt: skip
        for learner in (agent, agent.anchor) if agent.anchor.active else (agent,):
            learner.observe(step)
        state = select(done, env.reset(n, streams["env"]), after)
        carry = select(done, agent.policy.initial_carry(n), decision.carry)


@pytest.mark.parametrize("network", ["mlp", "gru", "transformer"])
def test_acting_and_learning_agree_about_log_probabilities(network):
    """Those of a segment, computed at once, are those of the steps that were played."""
    words = ["precision=float32", "agent.num_steps=11", "agent.num_minibatches=1"]
    run = session(*small("agent=ppo", f"network={network}"), *words)
    play(run, 11)  # episodes of six steps: one ends on the way
    agent = run.agent
    assert isinstance(agent, ActorCritic)
    _, metrics = agent._loss(agent._prepare(agent.rollout.take()), 0.0)
    assert metrics["approx_kl"].item() == pytest.approx(0.0, abs=1e-6)


def where(network: str) -> list[str]:
    """An environment that a network fits; maps need actions on a grid."""
    return ["env=music"] if network in TOKENS else ["brush=pixel"]


def roughened(run: Session, gain: float = 1.0) -> Any:
    """The run's network, with weights that make it say something."""
    assert isinstance(run.agent, ActorCritic | DQN)
    net = run.agent.policy.net
    for weight in net.parameters():
        if weight.dim() > 1 and weight.requires_grad:
            torch.nn.init.normal_(weight.data, std=gain * weight[0].numel() ** -0.5, generator=rng())
    return net


def forced(agent: str, network: str, *words: str) -> Session:
    """A run in bfloat16, whatever the machine."""
    # What a configuration for small tests sets in the body has no place in all of these networks.
    plain = [word for word in small(*where(network), f"agent={agent}") if not word.startswith("agent.network")]
    updates = ["agent.network.body.updates=3"] if network == "vae" else []
    return session(*plain, f"network={network}", *updates, *words, "precision=bfloat16")


@pytest.mark.parametrize("network", PLAIN)
def test_in_bfloat16_old_and_new_log_probabilities_agree_within_the_clip_range(network, monkeypatch):
    """Acting on N rows, then evaluating T · N."""
    run = forced("ppo", network, "agent.num_steps=9", "agent.num_minibatches=1", "agent.network.init_scale=1")
    agent, net = run.agent, roughened(run, GAINS.get(network, 1.0))
    assert isinstance(agent, ActorCritic)
    play(run, 9)
    clip_range, compared = agent.objective.clip_range, []

    def compare(
        log_prob: Tensor,
        entropy: Tensor,
        value: Tensor,
        old_log_prob: Tensor,
        old_value: Tensor,
        *rest: Tensor,
        **_: float,
    ) -> tuple[Tensor, Metrics]:
        compared.append([log_prob.detach(), old_log_prob, value.detach(), old_value, entropy.detach()])
        return log_prob.sum(), {}

    monkeypatch.setattr(agent, "objective", compare)
    batch = agent._prepare(agent.rollout.take())
    agent._loss(batch, 0.0)
    net.precision = Precision("float32")
    agent._loss(batch, 0.0)
    (log_prob, old_log_prob, value, old_value, entropy), (exact, *_) = compared
    assert all(part.dtype == torch.float32 and torch.isfinite(part).all() for part in compared[0])
    assert clip_range is not None
    assert (log_prob - old_log_prob).exp().sub(1).abs().max() < clip_range / 2
    assert (value - old_value).abs().max() < 0.1 * value.std() + 0.01
    assert not torch.equal(log_prob, exact)  # it was forced indeed
    assert log_prob.std() > 0.3  # and the policy has something to say
    assert entropy.std() > 0


@pytest.mark.parametrize("network", Q_NETWORKS)
def test_in_bfloat16_q_values_are_finite_and_near_those_of_float32(network):
    run = forced("dqn", network, "agent.network.dueling=true")
    net, env = roughened(run), run.envs["train"]
    observation = env.observe(env.reset(50, rng()))
    q = net(observation, net.initial_carry(50), no_start(observation)).q
    assert q.dtype == torch.float32
    assert torch.isfinite(q).all()
    net.precision = Precision("float32")
    exact = net(observation, net.initial_carry(50), no_start(observation)).q
    assert (q - exact).abs().mean() < 0.03 * exact.std()
    assert not torch.equal(q, exact)  # it was forced indeed


def test_precision_is_what_was_asked_for(monkeypatch):
    assert Precision("bfloat16").bfloat16("cpu", "mlp")
    assert not Precision("float32").bfloat16("cpu", "mlp")
    monkeypatch.setattr("rlgen_cli.policies.precision.FASTER_IN_BFLOAT16", {"cpu": frozenset(["maps"])})
    assert Precision("auto").bfloat16("cpu", "maps")
    assert not Precision("auto").bfloat16("cpu", "mlp")
    assert not Precision("auto").bfloat16("cuda", "maps")
    x = torch.randn(4, 4)
    with Precision("auto").autocast("cpu", "maps"):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision("cpu"):
            assert (x @ x).dtype == torch.float32
    with Precision("auto").autocast("cpu", "mlp"):
        assert (x @ x).dtype == torch.float32


def test_on_the_meta_device_no_autocast_is_asked_for():
    assert isinstance(Precision("bfloat16").autocast("meta", "mlp"), nullcontext)
    assert isinstance(full_precision("meta"), nullcontext)
    run = session(*small("agent=ppo", "brush=pixel"), "precision=bfloat16", "device=meta")
    env = run.envs["train"]
    assert isinstance(run.agent, ActorCritic)
    decision = run.agent.policy.act(env.observe(env.reset(4, rng())), None, None, explore=True, rng=rng())
    assert decision.action.device.type == "meta"


def observation_of(spec: ObservationSpec, n: int, seed: int) -> Observation:
    """N observations that the spec allows, of no environment."""
    made = {}
    for name, part in spec.items():
        if part.kind == "tokens":
            columns = [torch.randint(-1, size, (n, part.shape[0]), generator=rng(seed)) for size in part.vocabulary]
            made[name] = torch.stack(columns, 2)
        else:
            made[name] = torch.rand(n, *part.shape, generator=rng(seed))
    return made


POLICIES = {
    "ppo": ["agent=ppo"],
    "ppo, mode": ["agent=ppo", "agent.evaluate=mode", "brush=stroke"],
    "ppo, spiral": ["agent=ppo", "brush=spiral", "env.brush.grid=4"],
    "ppo, gru": ["agent=ppo", "network=gru"],
    "ppo, tokens": ["agent=ppo", "env=music", "network=transformer"],
    "policy_gradient": ["agent=policy_gradient", "brush=pixel"],
    "pathwise": ["agent=pathwise", "brush=stroke"],
    "dqn": ["agent=dqn"],
    "dqn, branches": ["agent=dqn", "brush=spiral", "env.brush.grid=4"],
    "dqn, boltzmann": ["agent=dqn", "backup=soft", "agent.temperature.start=1", "agent.temperature.end=1"],
    "maximum_likelihood": ["agent=maximum_likelihood", "env=music", "reward=tonality"],
}


@pytest.mark.parametrize("words", POLICIES.values(), ids=POLICIES.keys())
@pytest.mark.parametrize("explore", [True, False])
def test_policies_act_on_observations_alone(words, explore):
    """No environment is passed, nor kept: equal observations are followed by equal actions, row by row."""
    run = session(*small(*words), "num_envs=8")
    assert run.agent is not None
    policy, spec = run.agent.policy, run.envs["train"].spec
    assert not any(value in run.envs.values() for value in vars(policy).values())
    observation, carry = observation_of(spec.observation, 8, 1), policy.initial_carry(8)
    once, again = (
        policy.act({name: x.clone() for name, x in observation.items()}, None, carry, explore=explore, rng=rng(5))
        for _ in range(2)
    )
    assert torch.equal(once.action, again.action)
    other = policy.act(observation_of(spec.observation, 8, 2), None, carry, explore=explore, rng=rng(5))
    assert once.action.shape == other.action.shape == spec.action.sample(8, rng()).shape
    if carry is not None:
        changed = [torch.equal(a, b) for a, b in zip(once.carry, other.carry, strict=True) if a.is_floating_point()]
        assert not any(changed)
    if not explore and words[0] == "agent=dqn" and len(words) < 4:  # nothing is drawn at random
        turned = policy.act(
            {name: x.flip(0) for name, x in observation.items()}, None, carry, explore=False, rng=rng(5)
        )
        assert torch.equal(turned.action, once.action.flip(0))


def test_a_mask_is_obeyed():
    for words in (["agent=ppo"], ["agent=dqn"], POLICIES["dqn, boltzmann"]):
        run = session(
            *small(*words, "brush=pixel"),
            "num_envs=50",
            "agent.network.maps=null",
            "agent.exploration.epsilon.start=1" if words[0] == "agent=dqn" else "seed=1",
        )
        assert run.agent is not None
        spec = run.envs["train"].spec
        assert isinstance(spec.action, Discrete)
        mask = torch.zeros(50, spec.action.n, dtype=torch.bool)
        mask[:, [3, 17]] = True
        for explore in (True, False):
            decision = run.agent.policy.act(
                observation_of(spec.observation, 50, 0), mask, None, explore=explore, rng=rng()
            )
            assert set(decision.action.tolist()) <= {3, 17}


def anchor_of(run: Session) -> Anchor:
    assert isinstance(run.agent, HasAnchor)
    return run.agent.anchor


def policy_of(run: Session) -> NetworkPolicy:
    assert run.agent is not None
    assert isinstance(run.agent.policy, NetworkPolicy)
    return run.agent.policy


def measured_kl(*words: str) -> float:
    pace = ["agent.num_steps=4", "agent.num_minibatches=1", "agent.optimizer.learning_rate.start=0.003"]
    run = trained(session(*TINY, "agent=ppo", "agent.anchor.prior=start", *pace, *words))
    observation = run.envs["train"].observe(run.envs["train"].reset(500, rng(5)))
    nets = policy_of(run).net, anchor_of(run).net
    policy, prior = (net(observation, None, None, no_start(observation)).policy for net in nets)
    return (policy.log_p.exp() * (policy.log_p - prior.log_p)).sum(1).mean().item()


def test_a_prior_holds_the_policy():
    """More nats from the start without a price than with one; a target is met from either side."""
    free = measured_kl("agent.anchor.kl_coef=0", "total_steps=2560")
    held = measured_kl("agent.anchor.kl_coef=5", "total_steps=2560")
    assert free > 0.3
    assert held < free / 2
    target = ["agent.anchor.target_kl=0.1", "agent.anchor.rate=1", "agent.anchor.kl_coef=2"]
    assert measured_kl(*target, "total_steps=5120") == pytest.approx(0.1, abs=0.1)


def test_the_price_by_hand():
    run = session(
        *TINY,
        "precision=float32",
        "agent=actor_critic",
        "agent.anchor.prior=start",
        "agent.anchor.kl_coef=0.5",
        "agent.num_steps=2",
    )
    anchor, env, policy = anchor_of(run), run.envs["train"], policy_of(run)
    assert run.learners["anchor"] is anchor
    state, zero = env.reset(32, run.streams["env"]), torch.zeros(32)
    for _ in range(2):
        decision = policy.act(env.observe(state), None, None, explore=True, rng=run.streams["policy"])
        output = PolicyOutput(decision.policy_output.log_prob + 0.3, zero)
        after = env.step(state, decision.action)
        anchor.observe(Transition(state, decision.action, zero, zero, after, env.done(after), policy_output=output))
        state = after
    penalty = anchor.take_penalty()
    assert isinstance(penalty, Tensor)
    # The policy is still the prior; its log probabilities were raised by .3: the price is .5 · .3 everywhere.
    torch.testing.assert_close(penalty, torch.full((2, 32), 0.15))
    metrics = anchor.update(0.0)
    assert metrics["kl"].item() == pytest.approx(0.3, abs=1e-5)
    assert metrics["beta"].item() == 0.5
    assert anchor.update(0.0) == {}  # nothing was measured since


@pytest.mark.parametrize("network", ["gru", "transformer"])
def test_a_prior_that_remembers_follows_the_episodes(network):
    """It is the policy as it began: step by step, and over the ends of episodes, both say the same."""
    run = session(
        *small("agent=ppo", f"network={network}"), "precision=float32", "agent.anchor.prior=start", "agent.num_steps=16"
    )
    roughened(run)
    anchor_of(run).net.load_state_dict(policy_of(run).net.state_dict())
    play(run, 16)
    penalty = anchor_of(run).take_penalty()
    assert isinstance(penalty, Tensor)
    assert penalty.shape == (16, 4)
    assert penalty.abs().max() < 1e-5


def test_the_price_is_paid_from_the_reward():
    run = session(
        *TINY,
        "agent=actor_critic",
        "agent.anchor.prior=start",
        "agent.anchor.kl_coef=0.5",
        "agent.num_steps=3",
        "agent.gamma=0",
    )
    agent = run.agent
    assert isinstance(agent, ActorCritic)
    play(run, 3, reward=2.0)
    agent.anchor.excess = [torch.full((32,), nats) for nats in (0.2, 0.4, 0.6)]
    batch = agent._prepare(agent.rollout.take())
    # 2 − .5 · nats, and without a discount nothing follows
    expected = torch.tensor([1.9, 1.8, 1.7]).repeat_interleave(32)
    torch.testing.assert_close(batch.returns.flatten(), expected)


def test_the_coefficient_follows_its_target():
    words = ["agent=ppo", "agent.anchor.prior=start", "agent.anchor.target_kl=0.2", "agent.anchor.rate=0.5"]
    anchor = anchor_of(session(*TINY, *words))
    anchor.kl = torch.tensor(0.4)  # twice the target: clipped to + 20 %, half of it
    anchor.update(0.0)
    assert anchor.beta.item() == pytest.approx(0.1 * 1.1)
    anchor.kl = torch.tensor(0.18)  # − 10 %, half of it
    anchor.update(0.0)
    assert anchor.beta.item() == pytest.approx(0.1 * 1.1 * 0.95)


def test_a_run_can_be_the_prior(tmp_path):
    folder = tmp_path / "first"
    train(session(*TINY, "agent=ppo", "agent.num_steps=8"), folder)
    newest = checkpoint.steps(folder)[-1]
    first = session(*TINY, "agent=ppo", "agent.num_steps=8")
    first.load_policy(checkpoint.load(newest, "policy", "cpu"))
    for name in ("training", "streams"):  # a prior needs the policy alone
        shutil.rmtree(newest / name)
    begun = ["agent=policy_gradient", "agent.anchor.kl_coef=1"]
    second = session(*TINY, *begun, f"agent.anchor.prior={folder}")
    observation = second.envs["train"].observe(second.envs["train"].reset(16, rng()))
    nets = [policy_of(first).net, policy_of(second).net, anchor_of(second).net]
    logits = [net(observation, None, None, no_start(observation)).policy.log_p for net in nets]
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[0], logits[2])
    train(second, tmp_path / "second")
    shutil.rmtree(folder)  # a run goes on without the one it began from
    assert resume(tmp_path / "second", {"total_steps": 1600}) == "finished"


def test_a_prior_that_cannot_be_is_named(tmp_path):
    with pytest.raises(UserError, match=r"agent\.anchor\.prior: must be none, start, the folder"):
        session(*TINY, "agent=ppo", "agent.anchor.prior=nowhere")
    short = ["env=tiny", "num_envs=32", *RUN, "total_steps=320"]
    train(session(*short, "agent=random"), tmp_path / "random")
    with pytest.raises(UserError, match="has no policy network; use a run of"):
        session(*TINY, "agent=ppo", f"agent.anchor.prior={tmp_path / 'random'}")
    other = ["agent=ppo", "agent.num_steps=8", "agent.network.maps.channels=8", "agent.network.maps.depth=1"]
    train(session(*short, *other), tmp_path / "other")
    with pytest.raises(UserError, match="has another network"):
        session(*TINY, "agent=ppo", f"agent.anchor.prior={tmp_path / 'other'}")


@pytest.mark.parametrize("network", [name for name in PLAIN if name != "vae"])
def test_networks_are_what_their_agent_wants(network):
    """One choice serves policies and Q-values."""
    for agent, kind in (("ppo", PolicyNetwork), ("dqn", QNetwork)):
        words = small(*where(network), f"agent={agent}", f"network={network}")
        built = session(*(word for word in words if not word.startswith("agent.network."))).agent
        assert isinstance(built, ActorCritic | DQN)
        assert isinstance(built.policy.net, kind)
    with pytest.raises(UserError, match=f"network=q_{network}: "):
        session("agent=dqn", f"network=q_{network}")


@pytest.mark.parametrize("name", NETWORKS)
def test_network_yamls_compose(name):
    assert compose("agent=ppo", f"network={name}").agent.network._target_.endswith("PolicyNetwork")


@pytest.mark.parametrize("name", Q_NETWORKS)
def test_q_network_yamls_compose(name):
    assert compose("agent=dqn", f"network={name}").agent.network._target_.endswith("QNetwork")


def test_networks_of_tokens_refuse_pictures():
    with pytest.raises(
        UserError, match=r"agent\.network\.body\._target_: last_token reads tokens; use network/body=mlp"
    ):
        session("env=pixel", "agent=ppo", "network=lstm", "env.size=8", "threads=1")


def test_an_environment_may_call_its_tensors_what_it_likes():
    """Names that a prepared observation might have stand for nothing but the tensors themselves."""
    torch.manual_seed(0)
    spec = {"image": image(1, 4, 4), "inputs": vector(3), "vector": vector(2)}
    net = MLP(observation=spec, width=8, layers=1, pool=2, embed=4)
    observation = {"image": torch.rand(5, 1, 4, 4), "inputs": torch.rand(5, 3), "vector": torch.rand(5, 2)}
    once = prepared(net, observation)
    assert prepared(net, once) is once
    assert torch.equal(net(once), net(observation))
    for name in spec:
        assert not torch.equal(net(observation | {name: observation[name] + 1}), net(observation))
