"""Everything that ships keeps its contract, by the checks that are exported for users' own components."""

import functools
import sys
from collections.abc import Callable

import pytest
import torch

from rlgen_cli.config.locate import choices
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.protocols import Planner
from rlgen_cli.core.specs import Decision
from rlgen_cli.domains.canvas.tiny import TinyCanvas
from rlgen_cli.policies.recurrent import Hidden
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.misfits import targets
from rlgen_cli.testing import (
    Trained,
    check_env,
    check_generator,
    check_learner,
    check_planner,
    check_policy,
    check_reward,
    check_score,
)
from tests.conftest import write_clip
from tests.shipped import (
    AGENTS,
    CLASSES,
    EVERY_KIND,
    HOMES,
    MELODY,
    NEEDS,
    STATIC,
    build,
    component_cases,
    config,
    env_of,
    first_that_fits,
    spec_of,
    term,
    variants,
    write_files,
)

CPU = torch.device("cpu")
PLANNERS = [name for name in AGENTS if issubclass(CLASSES[name], Planner)]
LEARNERS = [name for name in AGENTS if name not in PLANNERS]
GANS = [name for name, kind in targets("generator").items() if hasattr(kind, "joint_learner")]
# An environment for each kind of action space: discrete on a grid and not, factored, continuous, mixed, tokens.
ACTIONS = [
    "env=tiny", "env=pixel brush=pen", "env=pixel brush=spiral", "env=pixel brush=stroke",
    "env=pixel brush=spiral_continuous", "env=music encoding=melody", "env=diffusion",
]  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What some components read."""
    write_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def session(variant: str, agent: str, reward: dict[str, list[str]], *needs: str, device: str = "cpu") -> Session:
    return build(config(variant.split(), agent.split(), reward.get(env_of(variant), []), needs), device)


@pytest.mark.parametrize("variant", variants())
def test_environments(variant):
    check_env(session(variant, "agent=random", STATIC).envs["train"], device=CPU)


@pytest.mark.parametrize("env", choices("env"))
def test_environments_on_held_out_data_and_on_meta(env):
    check_env(session(f"env={env}", "agent=random", STATIC).envs["test"], device=CPU)
    there = session(f"env={env}", "agent=random", STATIC, device="meta").envs["train"]
    check_env(there, device=torch.device("meta"))


@pytest.mark.parametrize("case", component_cases("env"))
@pytest.mark.mostly_slow(4)
def test_components_of_environments(case, files):
    component, *owners = case.split()
    needs = NEEDS.get(component.partition("=")[2], [])
    homes = (config([f"env={env}", component], ["agent=random"], STATIC.get(env, []), needs) for env in owners)
    check_env(first_that_fits(homes).envs["train"], device=CPU)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("env=pixel brush=pen", "env.stop=true env.noise=2 env.condition=both env.time_encoding=one_hot"),
        ("env=pixel brush=pixel", "env.channels=3 env.colours=3 env.observation_size=4"),
        ("env=music encoding=melody", "env.scale=major env.prime=random env.given_tokens=2"),
        ("env=music encoding=chorale", "env.harmonise=true env.time_encoding=one_hot"),
        ("env=latent_gan steering=set_latent", "env.start=mean env.condition=both"),
        ("env=latent_gan steering=continuous_step", "env.steering.space=parameters"),
        ("env=latent_gan steering=discrete_step", "env.generator.conditional=true env.condition=label"),
        ("env=diffusion", "env.generator.conditional=true env.condition=both env.channels=3"),
    ],
)
def test_environments_otherwise_set(variant, words):
    check_env(session(variant, "agent=random", STATIC, *words.split()).envs["train"], device=CPU)


@pytest.mark.parametrize("agent", LEARNERS)
@pytest.mark.parametrize("variant", ACTIONS)
def test_policies(variant, agent):
    if CLASSES[agent].accepts(spec_of(variant)):  # others are refused
        check_built_policy(functools.partial(session, variant, f"agent={agent}", STATIC))


@pytest.mark.parametrize("learner", ["ppo", "dqn"])
@pytest.mark.parametrize("name", choices("network"))
@pytest.mark.mostly_slow(3)
def test_networks(name, learner, files):
    agent = [f"agent={learner}", f"network={name}"]
    needs = NEEDS.get(name, [])

    def built() -> Session:
        homes = (["env=pixel", "brush=pen"], MELODY, ["env=diffusion"])
        return first_that_fits(config(env, agent, STATIC.get(env_of(env[0]), []), needs) for env in homes)

    if name == "denoiser" and learner == "dqn":  # its Q-network has no such part
        return
    check_built_policy(built)


def check_built_policy(build_session: Callable[[], Session]) -> None:
    """The policies of one session and of another with other first weights."""
    sessions = [build_session(), build_session()]
    policies = iter([built.agent.policy for built in sessions if built.agent is not None])
    check_policy(lambda: next(policies), sessions[0].envs["train"], device=CPU, num_envs=4)


def check_built_learner(build_session: Callable[[], Session], name: str, stream: str) -> None:
    """The learners of that name of one session and of another with other first weights."""
    sessions = [build_session(), build_session()]

    def trained(built: Session) -> Trained:
        policy = built.agent.policy if name == "agent" and built.agent is not None else None
        return Trained(built.learners[name], built.streams[stream], policy)

    learners = iter([trained(built) for built in sessions])
    check_learner(lambda: next(learners), sessions[0].envs["train"], device=CPU, num_envs=4)


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("variant", ACTIONS)
def test_planners(variant, planner):
    if CLASSES[planner].accepts(spec_of(variant)):  # others are refused
        built = session(variant, f"agent={planner}", STATIC)
        assert isinstance(built.actor, Planner)
        check_planner(built.actor, built.envs["train"], device=CPU)


@pytest.mark.parametrize("agent", LEARNERS)
@pytest.mark.parametrize("variant", ACTIONS)
def test_agents(variant, agent):
    if CLASSES[agent].accepts(spec_of(variant)):  # others are refused
        check_built_learner(functools.partial(session, variant, f"agent={agent}", STATIC), "agent", "agent")


@pytest.mark.parametrize("case", component_cases("agent"))
@pytest.mark.mostly_slow(3)
def test_components_of_agents(case, files):
    component, owner, *_ = case.split()
    name = component.partition("=")[2]
    agent = [f"agent={owner}", component, *(["network=note_rnn"] if name == "g" else [])]

    def built() -> Session:
        homes = (["env=tiny"], MELODY)
        return first_that_fits(config(env, agent, STATIC.get(env_of(env[0]), []), NEEDS.get(name, [])) for env in homes)

    check_built_learner(built, "agent", "agent")


@pytest.mark.parametrize("name", choices("reward/term"))
@pytest.mark.mostly_slow(4)
def test_terms(name, files, tmp_path):
    """Each score keeps its contract; those that learn, the learners' too."""
    if name == "clip":
        write_clip(tmp_path / "clip")
    built = the_term(name)
    for one in built.reward.terms.values():
        check_score(one.score, built.envs["train"], device=CPU, form=one.form)
    for key in built.reward.learners():
        check_built_learner(functools.partial(the_term, name), key, "reward")


def the_term(name: str) -> Session:
    return first_that_fits(term(name, env, NEEDS.get(name, [])) for env in HOMES)


@pytest.mark.parametrize("env", choices("env"))
def test_rewards(env):
    built = session(f"env={env}", "agent=random", EVERY_KIND)
    check_reward(built.reward, built.envs["train"], device=CPU)


@pytest.mark.parametrize("name", choices("generator"))
def test_generators(name, files):
    built = a_generator(name)
    assert built.source is not None
    check_generator(built.source.generator, device=CPU)


@pytest.mark.parametrize("name", GANS)
def test_generators_that_learn(name):
    check_built_learner(functools.partial(a_generator, name), "generator", "generator")


def a_generator(name: str) -> Session:
    """A session that steers a generator, which learns along where it can."""
    needs = [*NEEDS.get(name, []), f"joint={str(name in GANS).lower()}"]
    envs = ("latent_gan", "latent_music")
    return first_that_fits(
        config([f"env={env}", f"generator={name}"], ["agent=random"], STATIC[env], needs) for env in envs
    )


class Canvas(TinyCanvas):
    """Four cells of nine, of which three actions may ink one each; what follows breaks one promise each."""

    def __init__(self) -> None:
        super().__init__(device=CPU, size=3, cells=3)

    def action_mask(self, state):
        return (state.canvas == 0).flatten(1)


class DrawsByItself(Canvas):
    def reset(self, n, rng):
        return super().reset(n, torch.Generator().manual_seed(int(torch.randint(99, ()))))


class ChangesTheState(Canvas):
    def step(self, state, action):
        state.canvas[:, :, 0] = 255
        return super().step(state, action)


class NeverStays(Canvas):
    def step(self, state, action):
        after = super().step(state, action)
        return after._replace(canvas=255 - after.canvas)


class ChangesTheType(Canvas):
    def step(self, state, action):
        return state._replace(step=state.step.long() + 1)


class NeverEnds(Canvas):
    def done(self, state):
        return torch.zeros_like(state.step, dtype=torch.bool)


class EndsEarly(Canvas):
    def done(self, state):
        return state.step >= 2


class ShowsMore(Canvas):
    def observe(self, state):
        return super().observe(state) | {"extra": state.step}


class OutOfRange(Canvas):
    def observe(self, state):
        return {name: 2 * as_unit(tensor) for name, tensor in super().observe(state).items()}


class WrongSample(Canvas):
    def view(self, state):
        return super().view(state)._replace(sample=state.canvas)


class AllowsNothing(Canvas):
    def action_mask(self, state):
        return torch.zeros(len(state.step), 9, dtype=torch.bool)


class Loses(Canvas):
    def pack(self, state):
        return state._replace(canvas=state.canvas[:, :, :1])

    def unpack(self, packed):
        return packed._replace(canvas=packed.canvas.expand(-1, -1, 3, -1))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (DrawsByItself, "must draw from the generator it is given alone"),
        (ChangesTheState, "step: must not change the state"),
        (NeverStays, "step: must leave a finished state as it is"),
        (ChangesTheType, "step: must keep shapes, types and device"),
        (NeverEnds, "done: must be true after spec.max_steps = 3 steps"),
        (EndsEarly, "spec.fixed_length: an episode ended earlier"),
        (ShowsMore, r"observe: must have .* as the spec says"),
        (OutOfRange, r"observe: target must be in \[0.0, 1.0\]"),
        (WrongSample, "view: sample must be torch.float32, got torch.uint8"),
        (AllowsNothing, "action_mask: must allow an action in every state"),
        (Loses, "unpack: must be the inverse of pack"),
    ],
)
def test_a_broken_environment_is_told_what_is_wrong(broken, said):
    check_env(Canvas(), device=CPU)
    with pytest.raises(AssertionError, match=said):
        check_env(broken(), device=CPU)


class First:
    """A policy and planner that inks the first free cell."""

    def initial_carry(self, n):
        return Hidden(torch.zeros(n, 1))

    def act(self, observation, mask, carry, *, explore, rng):
        return Decision(mask.float().argmax(1), Hidden(carry.value + 1))

    def plan(self, env, state, rng):
        return env.action_mask(state).float().argmax(1)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class IgnoresTheMask(First):
    def act(self, observation, mask, carry, *, explore, rng):
        return Decision(torch.zeros(len(mask), dtype=torch.long), carry)

    def plan(self, env, state, rng):
        return torch.zeros(len(state.step), dtype=torch.long)


class WrongType(First):
    def act(self, observation, mask, carry, *, explore, rng):
        return Decision(mask.float().argmax(1).float(), carry)

    def plan(self, env, state, rng):
        return super().plan(env, state, rng).int()


class Wilful(First):
    """Draws from everyone's generator."""

    def act(self, observation, mask, carry, *, explore, rng):
        return Decision((torch.rand(mask.shape) * mask).argmax(1), carry)

    def plan(self, env, state, rng):
        return (torch.rand(len(state.step), 9) * env.action_mask(state)).argmax(1)


class ChangesItsCarry(First):
    def act(self, observation, mask, carry, *, explore, rng):
        carry.value.add_(1)
        return super().act(observation, mask, carry, explore=explore, rng=rng)


class Unsaved(First):
    """Its weight is in no state dict."""

    made = 0

    def __init__(self):
        Unsaved.made += 1
        self.last = Unsaved.made % 2 == 0

    def act(self, observation, mask, carry, *, explore, rng):
        order = torch.arange(9) if self.last else -torch.arange(9)
        return Decision(torch.where(mask, order, -99).argmax(1), carry)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (IgnoresTheMask, "act: must keep to the action mask"),
        (WrongType, r"act: must give torch.int64 for 9 discrete actions, got torch.float32"),
        (Wilful, "act: must draw from the generator it is given alone"),
        (ChangesItsCarry, "act: must not change the memory that it is given"),
        (Unsaved, "load_state_dict: a policy must act as the one whose state it loaded"),
    ],
)
def test_a_broken_policy_is_told_what_is_wrong(broken, said):
    check_policy(First, Canvas(), device=CPU)
    with pytest.raises(AssertionError, match=said):
        check_policy(broken, Canvas(), device=CPU)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (IgnoresTheMask, "plan: must keep to the action mask"),
        (WrongType, r"plan: must give torch.int64"),
        (Wilful, "plan: must draw from the generator it is given alone"),
    ],
)
def test_a_broken_planner_is_told_what_is_wrong(broken, said):
    check_planner(First(), Canvas(), device=CPU)
    with pytest.raises(AssertionError, match=said):
        check_planner(broken(), Canvas(), device=CPU)


class Average:
    """A learner of the mean step of everything it saw."""

    def __init__(self):
        self.sum, self.count = torch.zeros(()), 0

    def observe(self, step):
        self.sum, self.count = self.sum + step.reward.mean(), self.count + 1

    def update(self, progress):
        return {"mean": self.sum / self.count}

    def state_dict(self):
        return {"sum": self.sum, "count": self.count}

    def load_state_dict(self, state):
        self.sum, self.count = state["sum"], state["count"]


class Forgets(Average):
    def load_state_dict(self, state):
        self.sum = state["sum"]


class LeavesAGradient(Average):
    def update(self, progress):
        return {"mean": self.sum.clone().requires_grad_()}


class NeverLearns(Average):
    def update(self, progress):
        return {}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Forgets, "the next updates must be those that came without loading"),
        (LeavesAGradient, "update: mean must be a scalar tensor without a gradient"),
        (NeverLearns, "update: must learn something within"),
    ],
)
def test_a_broken_learner_is_told_what_is_wrong(broken, said):
    check_learner(lambda: Trained(Average(), torch.Generator()), Canvas(), device=CPU)
    with pytest.raises(AssertionError, match=said):
        check_learner(lambda: Trained(broken(), torch.Generator()), Canvas(), device=CPU)


class Ink:
    judges, needs = "picture", frozenset(["num_marks"])

    def __call__(self, view):
        return view.info["num_marks"].float()


class Undeclared(Ink):
    needs = frozenset()


class NeedsMore(Ink):
    needs = frozenset(["label"])


class OneForAll(Ink):
    def __call__(self, view):
        return super().__call__(view).mean()


class Infinite(Ink):
    def __call__(self, view):
        return super().__call__(view).log()


class Moody(Ink):
    def __call__(self, view):
        return torch.rand(len(view.sample))


class OfMusic(Ink):
    judges = "music"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Undeclared, "needs: must name 'num_marks'"),
        (NeedsMore, r"needs: \['label'\] is not in this environment"),
        (OneForAll, r"must give one number per sample, \[6\], got \[\]"),
        (Infinite, "a score must be finite"),
        (Moody, "must give the same number for the same sample"),
        (OfMusic, r"judges: must be any, or one of \['picture'\]"),
    ],
)
def test_a_broken_score_is_told_what_is_wrong(broken, said):
    check_score(Ink(), Canvas(), device=CPU)
    with pytest.raises(AssertionError, match=said):
        check_score(broken(), Canvas(), device=CPU)
