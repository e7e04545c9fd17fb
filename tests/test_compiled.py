"""What is compiled gives the same numbers, or is left alone."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlgen_cli.core import compiled
from rlgen_cli.core.compiled import Compiled
from rlgen_cli.runs.assemble import assemble
from tests.shipped import config, variants


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def double(pair: Pair) -> Tensor:
    return pair.first * 2


def pair(rows: int = 3) -> Pair:
    return Pair(torch.arange(float(rows)), torch.zeros(rows))


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Callable[..., Any]]:
    """A compiler of the test's own, which makes what stands first in the list, and no waiting."""
    made: list[Callable[..., Any]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: made[0])
    monkeypatch.setattr(compiled, "PATIENCE", 0.0)
    return made


def timed(monkeypatch: pytest.MonkeyPatch, compiled_ms: float) -> None:
    """Let a call take 1 ms as it is."""
    monkeypatch.setattr(compiled, "took", lambda function, args: 1.0 if function is double else compiled_ms)


@pytest.mark.parametrize(("result", "milliseconds", "kept"), [(2.0, 0.5, True), (2.0, 2.0, False), (2.1, 0.5, False)])
def test_what_is_faster_and_equal_is_kept(result, milliseconds, kept, compiles, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "rlgen_cli")
    calls = []

    def other(given: Pair) -> Tensor:
        calls.append(given)
        return given.first * result

    compiles.append(other)
    timed(monkeypatch, milliseconds)
    function = Compiled(double, "double", "auto")
    assert torch.equal(function(pair()), double(pair())) or kept
    calls.clear()
    assert function(pair()).tolist() == [0.0, 2.0, 4.0]
    assert bool(calls) is kept
    (line,) = caplog.messages
    assert ("is compiled" in line) is kept
    assert ("with other numbers" in line) is (result != 2.0)


def test_every_set_of_shapes_is_judged_for_itself(compiles, monkeypatch):
    compiles.append(lambda given: double(given))
    timed(monkeypatch, 0.5)
    function = Compiled(double, "double", "auto")
    for rows in (3, 4, 3):
        assert len(function(pair(rows))) == rows
    assert len(function.chosen) == 2


def test_where_nothing_can_be_compiled_one_line_says_so(compiles, caplog):
    caplog.set_level(logging.INFO, "rlgen_cli")

    def broken(given: Pair) -> Tensor:
        raise RuntimeError("no compiler was found\nand more")

    compiles.append(broken)
    function = Compiled(double, "double", "always")
    for _ in range(3):
        assert function(pair()).tolist() == [0.0, 2.0, 4.0]
    assert caplog.messages == ["compile: double runs as it is (no compiler was found)"]


@pytest.mark.parametrize("mode", ["auto", "always"])
@pytest.mark.parametrize("wrong", [lambda given: (), lambda given: given.first.int(), lambda given: given.first[:2]])
def test_what_a_compiler_lost_or_changed_is_not_used(wrong, mode, compiles, caplog):
    caplog.set_level(logging.INFO, "rlgen_cli")
    compiles.append(wrong)
    function = Compiled(double, "double", mode)
    for _ in range(2):
        assert function(pair()).tolist() == [0.0, 2.0, 4.0]
    (line,) = caplog.messages
    assert line.startswith("compile: double runs as it is (the compiled result has tensors of [")


def test_what_a_cuda_graph_gives_is_copied(compiles, monkeypatch):
    """Played on the CPU: the graph writes every result to the same place."""
    place = torch.zeros(3)
    compiles.append(lambda given: place.copy_(given.first * 2))
    monkeypatch.setattr(compiled, "on_gpu", lambda args: True)
    function = Compiled(double, "double", "always")
    first = function(pair())
    second = function(Pair(torch.ones(3), torch.zeros(3)))
    assert first.tolist() == [0.0, 2.0, 4.0]
    assert second.tolist() == [2.0, 2.0, 2.0]


def test_a_function_waits_until_it_has_taken_its_time(compiles):
    compiles.append(double)
    function = Compiled(double, "double", "auto")
    function.patience = 1e9
    function(pair())
    assert not function.chosen
    assert all(seconds > 0 for seconds in function.seconds.values())


def test_gradients_flow_through_the_function_as_it_is(compiles):
    function = Compiled(double, "double", "always")
    start = pair()._replace(first=torch.ones(3, requires_grad=True))
    function(start).sum().backward()
    assert start.first.grad is not None
    assert start.first.grad.tolist() == [2.0] * 3


@pytest.mark.parametrize("env", variants())
@pytest.mark.mostly_slow(5)
def test_what_an_environment_does_is_one_graph(env):
    """No branch on a tensor and no look at one: step and observe are traced whole, and give the same."""
    torch._dynamo.reset()
    session = assemble(config(env.split(), ["agent=random"], [], ["compile=never"]))
    made, streams = session.envs["train"], session.streams
    with torch.no_grad():
        state = made.reset(4, streams["env"])
        action = made.spec.action.sample(4, streams["env"], session.device)
        for function, args in ((made.step, (state, action)), (made.observe, (state,)), (made.view, (state,))):
            graph = torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")
            pairs = zip(tree_leaves(function(*args)), tree_leaves(graph(*args)), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
