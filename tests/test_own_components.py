"""A user's own environment, agent and reward term: one Python file and one YAML each, outside the package, run by the
`rlgen` command. What a run's folder names is imported for whoever opens it only where they say so."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError
from rlgen_cli.testing import Trained, check_env, check_learner, check_policy, check_score
from tests.conftest import Rlgen, session

CPU = torch.device("cpu")
RUN = "hydra.run.dir=run"
SHORT = ["num_envs=4", "total_steps=64", "log_interval=32", "eval_interval=64", "eval_episodes=4", "threads=1", RUN]
CANVAS = ["env=pixel", "env.size=12", "env.max_steps=4", "data.per_class=2"]

NUMBER_LINE = '''
"""A walk on a line of numbers."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Discrete, EnvSpec, Observation, PictureSpec, View, image, vector


class LineState(NamedTuple):
    visited: Tensor  # bool [N, L]
    wanted: Tensor  # bool [N, L]
    place: Tensor  # int64 [N]
    step: Tensor  # int64 [N]


class NumberLine:
    """From the middle of `length` numbers, one to the left or right a step; a visited number is marked, and those up to
    some other number are to be."""

    def __init__(self, *, device: torch.device, length: int, max_steps: int) -> None:
        self.numbers, self.length, self.max_steps = torch.arange(length, device=device), length, max_steps
        marks = vector(length, 0.0, 1.0)
        self.spec = EnvSpec(
            observation={"trail": marks, "wish": marks, "walker": marks, "time_left": vector(1, 0.0, 1.0)},
            action=Discrete(2),
            sample=PictureSpec(1, 1, length),
            max_steps=max_steps,
            context={"target": image(1, 1, length)},
        )

    def reset(self, n: int, rng: torch.Generator) -> LineState:
        place = self.numbers[self.length // 2].expand(n)
        end = torch.randint(self.length, (n,), generator=rng, device=self.numbers.device)
        low, high = torch.minimum(place, end).unsqueeze(1), torch.maximum(place, end).unsqueeze(1)
        wanted = (self.numbers >= low) & (self.numbers <= high)
        return LineState(self.numbers == place.unsqueeze(1), wanted, place, torch.zeros_like(place))

    def step(self, state: LineState, action: Tensor) -> LineState:
        going = ~self.done(state)
        place = (state.place + (2 * action - 1) * going).clamp(0, self.length - 1)
        return LineState(state.visited | self.here(place), state.wanted, place, state.step + going)

    def here(self, place: Tensor) -> Tensor:
        return self.numbers == place.unsqueeze(1)

    def done(self, state: LineState) -> Tensor:
        return state.step >= self.max_steps

    def observe(self, state: LineState) -> Observation:
        left = 1 - state.step.unsqueeze(1) / self.max_steps
        seen = {"trail": state.visited, "wish": state.wanted, "walker": self.here(state.place), "time_left": left}
        return {name: tensor.float() for name, tensor in seen.items()}

    def view(self, state: LineState) -> View:
        marks, wanted = (field.float().view(-1, 1, 1, self.length) for field in (state.visited, state.wanted))
        return View(marks, {"target": wanted}, {})

    def action_mask(self, state: LineState) -> Tensor | None:
        return None
'''
NUMBER_LINE_YAML = """
# A walk on a line of numbers
_target_: own_line.NumberLine
length: 9
max_steps: 4
"""

REINFORCE = '''
"""REINFORCE in its plainest form."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import EnvSpec, Metrics, Transition
from rlgen_cli.memory.rollouts import RolloutBuffer, flat
from rlgen_cli.policies.actor import NetworkPolicy, build_network, example_transition


class Reinforce:
    """The score function times the return of the whole episode, less its mean over the batch."""

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return spec.fixed_length  # so that all episodes begin and end together

    def __init__(
        self, *, env: Env, rng: torch.Generator, device: torch.device, network: Callable[..., nn.Module],
        optimizer: Callable[..., Adam], scale: float,
    ) -> None:
        net = build_network(network, env.spec, device)
        self.env, self.rng, self.scale = env, rng, scale
        self.policy = NetworkPolicy(net=net, evaluate="sample")
        self.optimizer = optimizer(parameters=net.parameters())
        self.rollout = RolloutBuffer(env.spec.max_steps)

    def observe(self, step: Transition) -> None:
        self.rollout.add(step)

    def update(self, progress: float) -> Metrics:
        if not self.rollout.full:
            return {}
        segment = self.rollout.take()
        states = flat(segment.state)
        out = self.policy.forward(self.env.observe(states), self.env.action_mask(states), None, segment.starts())
        log_prob = out.policy.evaluate_actions(segment.action.flatten(0, 1))[0].view_as(segment.reward)  # [T, N]
        returns = segment.reward.sum(0)
        loss = -self.scale * (log_prob * (returns - returns.mean())).mean()
        self.optimizer.step(loss, progress)
        return {"loss": loss.detach(), "return": returns.mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "rollout": self.rollout.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng))
'''
REINFORCE_YAML = """
# REINFORCE in its plainest form
defaults:
  - /network/kind@network: policy
  - /network@network: mlp
  - /optimizer@optimizer: adam
  - _self_
_target_: own_agent.Reinforce
scale: 1.0
"""

CORNER = '''
"""Ink in a corner."""

from typing import Literal

from torch import Tensor

from rlgen_cli.core.specs import View


class Corner:
    """Mean brightness of the nine pixels in a corner at the top."""

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, side: Literal["left", "right"]) -> None:
        self.columns = slice(0, 3) if side == "left" else slice(-3, None)

    def __call__(self, view: View) -> Tensor:
        return view.sample[:, :, :3, self.columns].mean((1, 2, 3))
'''
CORNER_YAML = """
# Ink in a corner
_target_: own_term.Corner
weight: 2.0
form: potential  # potential | terminal
side: left  # left | right
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str, str], ModuleType]:
    """Writes a module on the path and a YAML below `mine`, and imports the module."""

    def write(module: str, code: str, path: str, text: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / f"{module}.py").write_text(code)
        (tmp_path / "mine" / path).parent.mkdir(parents=True)
        (tmp_path / "mine" / path).write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(module)

    return write


def metrics() -> list[dict[str, float]]:
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]


def check_trust(rlgen: Rlgen, module: str) -> None:
    """Sampling from the run, and going on with it, is refused in one sentence unless the module is named."""
    for words in (["sample", "run=run", "n=2", "format=png", "out=samples"], ["train", "resume=run", "total_steps=96"]):
        code, _, complaint = rlgen(*words)
        assert code == 2
        assert len(complaint.strip().splitlines()) == 1
        assert complaint.endswith(f"if you know it, allow it with trust=[{module}].\n")
        code, _, complaint = rlgen(*words, f"trust=[{module}]")
        assert code == 0, complaint
    assert len(list(Path("samples").glob("00?.png"))) == 2
    assert json.loads(Path("run/status.json").read_text())["step"] == 96


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_an_environment(agent, rlgen, own):
    """Its observations have names that no shipped environment has, and it takes no data; the agents and their networks
    are as they ship."""
    line = own("own_line", NUMBER_LINE, "env/number_line.yaml", NUMBER_LINE_YAML).NumberLine
    check_env(line(device=CPU, length=9, max_steps=4), device=CPU)
    check_env(line(device=torch.device("meta"), length=9, max_steps=4), device=torch.device("meta"))
    more = ["agent.learning_starts=16", "agent.batch_size=8"] if agent == "dqn" else []
    words = ["env=number_line", f"agent={agent}", "+reward/term=target", *more, *SHORT, "--config-dir", "mine"]
    code, _, complaint = rlgen("train", *words)
    assert code == 0, complaint
    assert any("agent/q" in line or "agent/policy_loss" in line for line in metrics())
    assert len(list(Path("run/samples/final").glob("*.png"))) > 10
    check_trust(rlgen, "own_line")


def test_an_environment_is_learned(own):
    """PPO with its defaults, in two seconds."""
    own("own_line", NUMBER_LINE, "env/number_line.yaml", NUMBER_LINE_YAML)
    from rlgen_cli.runs.assemble import assemble
    from rlgen_cli.runs.trainer import train

    words = ["env=number_line", "agent=ppo", "reward=target", *SHORT, "num_envs=32", "total_steps=6400"]
    assert train(assemble(composed("train", [*words, "--config-dir", "mine"])), Path("run")) == "finished"
    returns = [line["return"] for line in metrics() if "return" in line]
    assert sum(returns[-20:]) / 20 > 3 > 0 > returns[0]  # of 10 times 1, the blank line's error, at the most


def test_an_agent(rlgen, own):
    module = own("own_agent", REINFORCE, "agent/reinforce.yaml", REINFORCE_YAML)
    words = [
        *CANVAS,
        "agent=reinforce",
        "agent.scale=2",
        "agent.network.maps.channels=4",
        *SHORT,
        "--config-dir",
        "mine",
    ]

    def built() -> Any:
        agent = session(*words).agent
        assert isinstance(agent, module.Reinforce)
        assert agent.scale == 2.0
        return agent

    def trained() -> Trained:
        agent = built()
        return Trained(agent, agent.rng, agent.policy)

    env = session(*words).envs["train"]
    check_policy(lambda: built().policy, env, device=CPU)
    check_learner(trained, env, device=CPU, num_envs=4)
    code, _, complaint = rlgen("train", *words)
    assert code == 0, complaint
    assert "agent/loss" in metrics()[0]
    check_trust(rlgen, "own_agent")


def test_an_agent_that_cannot_act_says_so(own):
    own("own_agent", REINFORCE, "agent/reinforce.yaml", REINFORCE_YAML)
    with pytest.raises(
        UserError, match=r"^agent: Reinforce cannot act in .* use another brush .* or an agent that can"
    ):
        session(*CANVAS, "env.stop=true", "agent=reinforce", "--config-dir", "mine")


def test_an_agent_that_names_no_environment_takes_all(own):
    says = """    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return spec.fixed_length  # so that all episodes begin and end together

"""
    assert says in REINFORCE
    module = own("own_agent", REINFORCE.replace(says, ""), "agent/reinforce.yaml", REINFORCE_YAML)
    built = session(*CANVAS, "env.stop=true", "agent=reinforce", "--config-dir", "mine").agent
    assert isinstance(built, module.Reinforce)


def test_a_reward_term(rlgen, own):
    corner = own("own_term", CORNER, "reward/term/corner.yaml", CORNER_YAML).Corner
    check_score(corner(side="left"), session(*CANVAS, "agent=random").envs["train"], device=CPU)
    words = [*CANVAS, "agent=random", "reward=coverage", *SHORT, "--config-dir", "mine"]
    code, _, complaint = rlgen("train", *words, "+reward/term=corner", "reward.terms.corner.side=right")
    assert code == 0, complaint
    assert {"score/coverage", "score/corner"} <= metrics()[0].keys()
    scores = json.loads(Path("run/samples/final/scores.json").read_text())["scores"]
    assert set(scores) == {"coverage", "corner"}
    check_trust(rlgen, "own_term")


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        (["+reward/term=corner"], ["target", "corner"]),
        (["+reward/term=[corner,ink_cost]"], ["target", "corner", "ink_cost"]),
        (["+reward/term=corner", "+reward/term=ink_cost"], ["target", "corner", "ink_cost"]),
        (["+reward/term@reward.terms.left=corner"], ["target", "left"]),
        (["+reward/term=[corner,no_correlation]", "env=pixel"], ["target", "correlation_1", "correlation_2", "correlation_3", "corner"]),
        (["reward=both"], ["coverage", "corner"]),
    ],
)  # fmt: skip
def test_terms_are_added_by_name(words, terms, own):
    """Without any word of where they belong, alone, as a list, beside a YAML of several terms, or in a reward's."""
    own("own_term", CORNER, "reward/term/corner.yaml", CORNER_YAML)
    both = "defaults:\n  - term@terms.coverage: coverage\n  - term@terms.corner: corner\n"
    Path("mine/reward/both.yaml").write_text(both)
    reward = composed("train", [*words, "--config-dir", "mine"]).reward
    assert list(reward) == ["terms"]
    assert list(reward.terms) == terms


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("+reward/term=cornr", r"^reward/term=cornr: there is no such choice; did you mean corner"),
        (
            "+reward/term=ink_cost +reward/term=ink_cost",
            r"^reward/term: reward\.terms\.ink_cost is there already; change its keys",
        ),
        (
            "+reward/term=corner,ink_cost",
            r"^reward/term: a sweep needs one place .*@reward\.terms\.NAME=corner,ink_cost",
        ),
        ("+reward/term=corner reward.terms.corner.side=up", r"^reward\.terms\.corner\.side: must be left or right"),
        ("reward=both", r"^reward=both: there is no such choice"),
        ("data=mnst", r"^data=mnst: there is no such choice; did you mean mnist"),
        ("env=number_line", r"^reward: has no term; add one"),
        ("env=number_line +reward/term=classifier", r"^reward\.terms\.classifier: needs data"),
    ],
)
def test_what_is_wrong_is_said(words, said, own):
    own("own_term", CORNER, "reward/term/corner.yaml", CORNER_YAML)
    own("own_line", NUMBER_LINE, "env/number_line.yaml", NUMBER_LINE_YAML)
    with pytest.raises(UserError, match=said):
        session("agent=random", "--config-dir", "mine", *words.split())


@pytest.mark.slow
def test_a_sweep_over_a_users_environment(rlgen, own):
    own("own_line", NUMBER_LINE, "env/number_line.yaml", NUMBER_LINE_YAML)
    words = ["env=number_line", "agent=random", "reward=target,coverage", *SHORT[:-1], "hydra.sweep.dir=sweep"]
    code, _, complaint = rlgen("train", "--config-dir", "mine", "-m", *words)
    assert code == 0, complaint
    assert [Path(f"sweep/{i}/status.json").is_file() for i in (0, 1)] == [True, True]
