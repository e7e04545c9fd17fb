"""Choices that do not go together, and values that nobody means, end in a sentence and never in a traceback. `make test`
has a sample, `make test-slow` more of them; combinations.py says how all pairs are gone through."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from rlgen_cli.config.instantiate import component
from rlgen_cli.core import capacity
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import assemble
from tests import wrong_values
from tests.combinations import (
    BUILT,
    built,
    every_pair_of_three,
    faults,
    given,
    outcome,
    pairs,
    triples,
    words_of,
    write_place,
    wrong,
)
from tests.conftest import compose, slow

PARTS = 6  # of the slow ones, so that several processes share them
# What once ended in a traceback, without an end, or in a sentence that said nothing, and what is said now.
ONCE_WRONG = {
    "env=music agent=ppo network=vae": r"agent\.network\.body\._target_: an autoencoder needs images",
    "env=latent_music reward=colourfulness": r"reward\.terms\.colourfulness: scores pictures, and this environment makes",
    "+reward/term=colourfulness encoding=tokens": r"reward\.terms\.colourfulness: scores pictures",
    "agent=best_of network/recurrent=lstm": r"network/recurrent: agent=best_of has none; use it with agent=actor_critic",
    "data=leaves reward=classifier": r"data: have no labels, which this classifier learns; give data that have some\.",
    "network/kind=q": r"network/kind: follows from the agent",
    "network/body=null": r"network/body: cannot be null; valid are: cells, convolutions",
    "env=music reward=function reward.terms.function.path=mine:with_torch env.length=4": r"path: mine:with_torch failed on samples torch.int64 .* at .*mine\.py:2 \(RuntimeError: .*\)",
    "reward=organ reward.adversarial_fraction=text": r"reward\.terms\.\w+\.weight: cannot be computed from other keys",
    "reward=rl_tuner_balanced reward.terms.prior.source=x": r"reward\.terms\.prior\.source: is no key here; valid are: autoc",
}  # fmt: skip
WRONG_VALUES = {
    "agent.optimizer.learning_rate=-1": r"agent\.optimizer\.learning_rate: must be at least 0 from start to end, got -1\.0 ",
    "agent.optimizer.learning_rate.end=-1": r"agent\.optimizer\.learning_rate: must be at least 0 from start to end",
    "agent.optimizer.learning_rate=nan": r"agent\.optimizer\.learning_rate: must be a number, .* got nan",
    "agent.optimizer.learning_rate.start=inf": r"agent\.optimizer\.learning_rate\.start: must be a number, got inf",
    "agent.batch_size=1000000000000000000000": r"agent\.batch_size: must be a whole number, got 10{21}",
    "agent.batch_size=1000000000000": r"agent\.batch_size: 1000000000000 windows of 1 steps would need .* PB, and this mac",
    "agent.replay.buffer_size=1000000000000": r"agent\.replay\.buffer_size: \d+ frames would need .* TB, and this machine",
    "agent.network.body.width=1000000000000": r"agent\.network\.body\.width: a tensor of .* PB would be needed, and this",
    "agent.network.body.layers=1000000000000": r"agent\.network\.body\.layers: must be from 1 to 100",
    "num_envs=1000000000000": r"num_envs: 1000000000000 episodes would need .* PB, and this machine has .* of memory",
    "agent.replay.buffer_size=1000000000": r"agent\.replay\.buffer_size: \d+ frames would need .* [GT]B, and this machine",
    "data.per_class=1000000000000": r"data\.per_class: 1000000000000 pictures of each character would need .* PB, and",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that choices read, in this test's folder."""
    write_place(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize("line", ONCE_WRONG)
def test_what_was_wrong_is_a_sentence_now(line: str, place: None) -> None:
    with pytest.raises(UserError, match=ONCE_WRONG[line]):
        built(line.split())
    assert faults([tuple(line.split())]) == []


@pytest.mark.parametrize("word", WRONG_VALUES)
def test_a_value_that_cannot_be_is_refused_by_its_key(word: str) -> None:
    config = compose("network/body=mlp", "env.size=8", "data.per_class=2", word)
    with pytest.raises(UserError, match=WRONG_VALUES[word]) as refused:
        assemble(config)
    assert len(str(refused.value).splitlines()) == 1


def test_a_generator_of_sequences_learns_with_its_own_realism_fused_in() -> None:
    """Before the first step there are no tokens, which the discriminator is asked about all the same."""
    assert faults([("env=latent_music", "env.generator.fused_reward.weight=1")]) == []


def test_a_sample_of_all_pairs(place: None) -> None:
    assert faults(random.Random(1).sample(list(pairs()), 12)) == []


@pytest.mark.parametrize("part", slow(*range(PARTS)))
def test_environments_agents_and_networks(part: int, place: None) -> None:
    """Every two of them together, with a third that changes from pair to pair."""
    assert faults(every_pair_of_three("env", "agent", "network")[part::PARTS]) == []


def test_every_two_of_three_groups_come_together() -> None:
    chosen = every_pair_of_three("env", "agent", "network")
    for i, j in ((0, 1), (0, 2), (1, 2)):
        here = {(row[i], row[j]) for row in chosen}
        assert here == {(row[i], row[j]) for row in triples("env", "agent", "network")}


@pytest.mark.parametrize("part", slow(*range(PARTS)))
def test_more_of_all_pairs(part: int, place: None) -> None:
    assert faults(random.Random(2).sample(list(pairs()), 120)[part::PARTS]) == []


@pytest.mark.parametrize(("group", "below"), slow(("env", ""), ("agent", "agent.")))
def test_every_key_with_wrong_values(group: str, below: str, place: None) -> None:
    """Those of environments with the rewards and data that go with them, and those of agents."""
    tried, found = wrong_values.faults(words_of(group), below)
    assert tried > 500
    assert found == []


def test_a_fault_of_the_program_is_found() -> None:
    """What finds the faults tells a traceback and a foreign sentence from a success and a sentence of ours."""

    def fails() -> None:
        raise ZeroDivisionError("division by zero")

    assert wrong(BUILT) is None
    assert wrong("agent.gamma: must be in [0, 1], got 2.") is None
    assert wrong(outcome(fails)) is not None
    assert wrong("Could not override 'x'. See https://hydra.cc/docs") is not None
    assert wrong("network/body: agent=random has none; use it with agent=.") is not None


def test_a_chosen_body_takes_the_place_of_maps() -> None:
    """Pen moves lie on a grid, where maps would take the body's place."""
    assert compose("network/body=convolutions").agent.network.maps is None
    assert compose("network/body=vae", "agent.network.maps.channels=4").agent.network.maps.channels == 4
    assert compose("network=mlp").agent.network.maps is not None
    assert compose("network=gru", "network/recurrent=null").agent.network.recurrent is None


def test_a_network_by_one_name_is_of_the_kind_that_the_agent_needs() -> None:
    kinds = {}
    for agent in ("dqn", "ppo"):
        run = assemble(compose("env=music", f"agent={agent}", "network=lstm", "threads=1", "data.count=12"))
        assert run.agent is not None
        policy: Any = run.agent.policy
        kinds[agent] = (type(policy.net).__name__, type(policy.net.recurrent).__name__)
    assert kinds == {"dqn": ("QNetwork", "LSTM"), "ppo": ("PolicyNetwork", "LSTM")}


class Wide:
    """A component with one large tensor."""

    def __init__(self, *, width: int, depth: int) -> None:
        self.weight = torch.zeros(width, depth)


def test_a_component_is_refused_before_it_asks_for_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "memory", lambda: 4000)
    node = OmegaConf.create({"_target_": f"{__name__}.Wide", "width": 500, "depth": 2})
    assert component(node, "agent.wide").weight.shape == (500, 2)  # 4 kB: all that there is
    node.width = 501
    said = r"agent\.wide\.width: a tensor of 4\.01 kB would be needed.*choose smaller sizes \(width=501, depth=2\)\.$"
    with pytest.raises(UserError, match=said):
        component(node, "agent.wide")


@pytest.mark.parametrize(("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e13, "25 TB")])
def test_bytes_in_words(size: float, said: str) -> None:
    assert capacity.in_words(size) == said


def test_all_pairs_are_many_and_what_is_given_belongs_to_a_choice() -> None:
    every = list(pairs())
    assert len(every) > 12_000
    assert len(list(triples("env", "agent", "network"))) == 918
    assert given(("data=folder", "agent=dqn")) == ["data=folder", "agent=dqn", "data.path=pictures"]
