"""What a training does is traced whole, and gives the same numbers so: the steps of a rollout from acting to observing
anew, and an update. What a CUDA graph takes in must be able to do that.

Random streams cannot be traced: what they give is taken down as the steps run as they are, and handed to the graph in
the same order.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.stepper import Stepper
from rlgen_cli.runs.trainer import Loop
from tests.shipped import STATIC, config

ENVS = {"pixel": ["env=pixel", "brush=pen"], "music": ["env=music"]}
STEPS = 3  # of each environment, that an agent has seen when it learns
DRAWS = ("rand", "randn", "randint", "randperm")


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Nothing is decided by a look at numbers; what is compiled goes with the test."""
    monkeypatch.setattr(Stepper, "_may_end", lambda self, done: self.steps % self.interval == 0)
    torch._dynamo.reset()


def loop_of(env: str, agent: str) -> Loop:
    whole = config(ENVS[env], [f"agent={agent}"], STATIC.get(env, []), ["compile=never", f"agent.num_steps={STEPS}"])
    return Loop(assemble(whole))


def taken_down(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
    """What an action gives, and the random numbers that it drew."""
    drawn: list[Tensor] = []
    with monkeypatch.context() as patch:
        for name, real in [(name, getattr(torch, name)) for name in DRAWS]:

            def draw(*args: Any, real: Any = real, **more: Any) -> Tensor:
                drawn.append(real(*args, **more))
                return drawn[-1]

            patch.setattr(torch, name, draw)
        return action(), drawn


def in_one_graph(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], drawn: list[Tensor]) -> Any:
    """What the action gives when it is traced whole, with these random numbers."""
    with monkeypatch.context() as patch:
        for name in DRAWS:
            patch.setattr(torch, name, lambda *args, **more: drawn.pop(0))
        result = torch.compile(action, fullgraph=True, dynamic=False, backend="eager")()
    assert not drawn
    return result


def check_same(one: Any, other: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """The same numbers in two trees, in which there are some."""
    pairs = [(a, b) for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True) if isinstance(a, Tensor)]
    assert pairs
    for a, b in pairs:
        torch.testing.assert_close(b, a, rtol=rtol, atol=atol)


def rollout(loop: Loop) -> Any:
    """Steps to beyond the end of the episodes, and all that they give."""
    given = []
    for _ in range(loop.session.envs["train"].spec.max_steps + 1):
        decision, stepped = loop.play()
        loop.renew(decision, stepped)
        given.append((decision, stepped.scored, stepped.done))
    return given, loop.stepper.state, loop.stepper.view, loop.stepper.scores, loop.carry, loop.tally.state_dict()


@pytest.mark.parametrize("agent", ["dqn", "ppo"])
@pytest.mark.parametrize("env", ENVS)
def test_a_rollout(env, agent, monkeypatch):
    plain, traced = (loop_of(env, agent) for _ in range(2))
    for loop in (plain, traced):
        loop.session.learners.clear()
    result, drawn = taken_down(monkeypatch, lambda: rollout(plain))
    assert drawn
    check_same(result, in_one_graph(monkeypatch, lambda: rollout(traced), drawn))


class Losses:
    """In an optimizer's place, keeps the losses and changes no weight."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def step(self, loss: Tensor, progress: float, keep: Tensor | None = None) -> None:
        self.losses.append(loss)


def about_to_learn(env: str, agent: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An agent that has seen enough for an update, whose gradients will reach every layer."""
    loop = loop_of(env, agent)
    learner: Any = loop.session.agent
    torch.manual_seed(0)
    for parameter in learner.policy.net.parameters():  # a head that starts at zero would pass no gradient to its body
        torch.nn.init.normal_(parameter, std=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(learner, "update", lambda progress: {})
        for _ in range(STEPS):
            loop.renew(*loop.play())
    return learner


def updated(learner: Any) -> Any:
    """What an update measures, its losses, and the target network after it."""
    metrics = learner.update(0.0)
    return metrics, learner.optimizer.losses, target_of(learner)


def target_of(learner: Any) -> list[Tensor]:
    """The target network's weights, if there is one."""
    return list(learner.target.parameters()) if hasattr(learner, "target") else []


def gradients(learner: Any) -> list[Tensor | None]:
    """Of all the losses of the update, by weight."""
    whole = torch.stack(learner.optimizer.losses).sum()
    return list(torch.autograd.grad(whole, list(learner.policy.net.parameters()), allow_unused=True))


@pytest.mark.parametrize("agent", ["dqn", "ppo"])
@pytest.mark.parametrize("env", ENVS)
def test_the_loss_of_an_update_and_its_gradients(env, agent, monkeypatch):
    plain, traced = (about_to_learn(env, agent, monkeypatch) for _ in range(2))
    for learner in (plain, traced):
        learner.optimizer = Losses()
    result, drawn = taken_down(monkeypatch, lambda: updated(plain))
    assert drawn
    check_same(result, in_one_graph(monkeypatch, lambda: updated(traced), drawn))
    found = gradients(plain)
    assert any(grad is not None and bool(grad.any()) for grad in found)
    check_same(found, gradients(traced))


@pytest.mark.skipif(not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch traces no backward")
@pytest.mark.parametrize("agent", ["dqn", "ppo"])
def test_a_whole_update(agent, monkeypatch):
    """Also backward, clipping, the stop by KL, Adam, which counts its steps on the device as on a GPU and so rounds
    otherwise, and the target network."""
    plain, traced = (about_to_learn("pixel", agent, monkeypatch) for _ in range(2))
    before = [parameter.detach().clone() for parameter in plain.policy.net.parameters()]
    result, drawn = taken_down(monkeypatch, lambda: plain.update(0.0))
    traced.optimizer.adam.capturable = True
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        graph = in_one_graph(monkeypatch, lambda: traced.update(0.0), drawn)
    check_same(result, graph, rtol=1e-3, atol=1e-6)
    assert any(not torch.equal(old, new) for old, new in zip(before, plain.policy.net.parameters(), strict=True))
    one, other = ([learner.optimizer.adam.tensors(), target_of(learner)] for learner in (plain, traced))
    check_same(one, other, rtol=1e-3, atol=1e-6)
