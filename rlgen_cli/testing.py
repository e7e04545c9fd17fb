"""Checks that a component keeps its contract (`core.protocols`), for this package's tests and for those of your own
components.

Each check plays a few episodes with what it is given, and raises an AssertionError that says what is wrong and what
would be right:

    from rlgen_cli.testing import check_env

    def test_my_environment():
        check_env(MyEnv(device=torch.device("cpu")), device=torch.device("cpu"))
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core import checkpoint
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.protocols import (
    Differentiable,
    DrawsStrokes,
    Env,
    Generator,
    HasCritic,
    HasExpert,
    LearnedScore,
    Learner,
    PacksStates,
    Planner,
    Policy,
    Reward,
    Score,
    Stepwise,
    TeachesSequences,
    Trainable,
)
from rlgen_cli.core.specs import (
    ActionSpec,
    Carry,
    Continuous,
    Decision,
    Discrete,
    EnvSpec,
    Factored,
    Metrics,
    Mixed,
    Normal,
    PictureSpec,
    State,
    TensorSpec,
    Transition,
    View,
)
from rlgen_cli.core.tree import join, map_tensors, select

ROWS = 6  # episodes that are played at once
LIMIT = 500  # batched steps within which a learner must have made an update


# --- Environments ---------------------------------------------------------------------------------------------------


def check_env(env: Env, *, device: torch.device) -> None:
    """Specs describe the tensors; `reset` and `step` are functions that change nothing; episodes end when the spec says
    so and stay as they are; what the environment offers beyond `Env` works.

    Args:
        env: built on `device`. device: on `meta`, names, shapes and types are checked, and that nothing waits for the
            device or stays behind on the CPU; elsewhere values too.
    """
    spec = env.spec
    _check_spec(spec)
    state = _check_reset(env, device)
    played = [state]
    for step in range(spec.max_steps + 2):
        _check_shown(env, state, device)
        action = uniform_action(env, state, _rng(step, device), device)
        after = _check_step(env, state, action, device)
        _check_capabilities(env, state, action, device)
        if device.type != "meta":
            _check_end(env, state, after, step + 1)
        state = after
        played.append(state)
    if isinstance(env, TeachesSequences):
        _check_teaching(env, env, played, device)


def uniform_action(env: Env, state: State, rng: torch.Generator, device: torch.device) -> Tensor:
    """Actions in N states, each as likely as another among those that are allowed."""
    mask, n = env.action_mask(state), len(env.done(state))
    if mask is None:
        return env.spec.action.sample(n, rng, device)
    noise = torch.rand(mask.shape, generator=rng, device=device).masked_fill(~mask, -1.0)
    choices = [part.argmax(1) for part in torch.split(noise, _sizes(env.spec.action), 1)]
    return choices[0] if isinstance(env.spec.action, Discrete) else torch.stack(choices, 1)


def _check_spec(spec: EnvSpec) -> None:
    assert spec.max_steps >= 1, f"spec.max_steps: must be at least 1, got {spec.max_steps}."
    assert spec.observation, "spec.observation: a policy must see something."
    assert spec.kinds, "spec.kinds: must say what the sample is, as picture or sequence."
    images = {part.shape[1:] for part in spec.observation.values() if part.kind == "image"}
    assert len(images) <= 1, f"spec.observation: its images must have one size, got {sorted(images)}."
    both = set(spec.context) & set(spec.info)
    assert not both, f"spec: {sorted(both)} must be of the context or of the info, not of both."


def _check_reset(env: Env, device: torch.device) -> State:
    """All randomness comes from the generator that is given."""
    everyone = torch.get_rng_state()
    state, again = env.reset(ROWS, _rng(0, device)), env.reset(ROWS, _rng(0, device))
    assert torch.equal(everyone, torch.get_rng_state()), "reset: must draw from the generator it is given alone."
    for tensor in _leaves(state, "reset"):
        assert len(tensor) == ROWS, f"reset: every field must have {ROWS} rows, got {list(tensor.shape)}."
        assert tensor.device.type == device.type, f"reset: a field lies on {tensor.device} instead of {device}."
    for tensor in _leaves(env.reset(1, _rng(0, device)), "reset"):
        assert len(tensor) == 1, f"reset: every field must have 1 row for one episode, got {list(tensor.shape)}."
    if device.type != "meta":
        assert _same(state, again), "reset: must give the same episodes for the same generator."
        assert not env.done(state).any(), "reset: episodes must begin unfinished."
    return state


def _check_shown(env: Env, state: State, device: torch.device) -> None:
    """What policies and rewards see of a state."""
    spec = env.spec
    before, shown, view = _copy(state), env.observe(state), env.view(state)
    _check_tensors("observe", spec.observation, shown, device, "image", "patch")
    _check_tensors("view.context", spec.context, view.context, device)
    _check_tensors("view.info", spec.info, view.info, device)
    _check_sample(spec, view, device)
    _check_mask(spec, env.action_mask(state), device)
    done = env.done(state)
    assert done.dtype == torch.bool, f"done: must be bool, got {done.dtype}."
    assert list(done.shape) == [ROWS], f"done: must have the shape [{ROWS}], got {list(done.shape)}."
    assert done.device.type == device.type, f"done: lies on {done.device} instead of {device}."
    if device.type != "meta":
        assert _same(state, before), "observe, view or action_mask: must not change the state."
        again = (env.observe(state), env.view(state))
        assert _same((shown, view), again), "observe or view: must show the same state alike each time."


def _check_sample(spec: EnvSpec, view: View, device: torch.device) -> None:
    sample, wanted = view.sample, spec.sample
    if isinstance(wanted, PictureSpec):
        _check_tensors("view", {"sample": TensorSpec("image", wanted.shape, 0.0, 1.0)}, {"sample": sample}, device)
        return
    shape = (wanted.length, len(wanted.vocabulary))
    tokens = TensorSpec("tokens", shape, vocabulary=wanted.vocabulary)
    _check_tensors("view", {"sample": tokens}, {"sample": sample}, device)


def _check_tensors(
    where: str, spec: Mapping[str, TensorSpec], tensors: Mapping[str, Tensor], device: torch.device, *kinds: str
) -> None:
    """Names in the spec's order, shapes, types and ranges; planes of these kinds may be bytes."""
    assert list(tensors) == list(spec), f"{where}: must have {list(spec)} as the spec says, got {list(tensors)}."
    for name, part in spec.items():
        tensor, key = tensors[name], f"{where}: {name}"
        wanted = [ROWS, *part.shape]
        assert list(tensor.shape) == wanted, f"{key} must have the shape {wanted}, got {list(tensor.shape)}."
        as_bytes = part.kind in kinds and tensor.dtype == torch.uint8
        assert tensor.dtype == part.dtype or as_bytes, f"{key} must be {part.dtype}, got {tensor.dtype}."
        assert tensor.device.type == device.type, f"{key} lies on {tensor.device} instead of {device}."
        if device.type != "meta" and part.size:
            _check_values(key, part, as_unit(tensor) if as_bytes else tensor)


def _check_values(key: str, part: TensorSpec, tensor: Tensor) -> None:
    assert torch.isfinite(tensor).all(), f"{key} must be finite."
    low, high = float(tensor.min()), float(tensor.max())
    assert part.low <= low <= high <= part.high, f"{key} must be in [{part.low}, {part.high}], got {low} to {high}."
    if part.kind == "label":
        assert 0 <= low <= high < part.high, f"{key} must be from 0 to below {part.high}, got {low} to {high}."
    if part.kind == "tokens":
        sizes = part.vocabulary
        assert len(sizes) == tensor.shape[-1], f"{key} must have a vocabulary for each of {tensor.shape[-1]} parts."
        for i, size in enumerate(sizes):
            inside = (tensor[..., i] >= -1) & (tensor[..., i] < size)
            assert inside.all(), f"{key} must be −1 or below {size} in part {i}."


def _check_mask(spec: EnvSpec, mask: Tensor | None, device: torch.device) -> None:
    if mask is None:
        return
    finite = isinstance(spec.action, Discrete | Factored)
    assert finite, f"action_mask: must be None, since there is no mask over {spec.action}."
    sizes = _sizes(spec.action)
    wanted = [ROWS, sum(sizes)]
    assert list(mask.shape) == wanted, f"action_mask: must have the shape {wanted}, got {list(mask.shape)}."
    assert mask.dtype == torch.bool, f"action_mask: must be bool, got {mask.dtype}."
    if device.type != "meta":
        some = all(part.any(1).all() for part in torch.split(mask, sizes, 1))
        assert some, "action_mask: must allow an action in every state, also in finished ones."


def _check_step(env: Env, state: State, action: Tensor, device: torch.device) -> State:
    """The state after the action, found twice."""
    before, action_before = _copy(state), action.clone()
    everyone = torch.get_rng_state()
    after, again = env.step(state, action), env.step(state, action)
    assert torch.equal(everyone, torch.get_rng_state()), "step: must draw no random numbers."
    for old, new in zip(_leaves(state, "reset"), _leaves(after, "step"), strict=True):
        same = old.shape == new.shape and old.dtype == new.dtype and old.device == new.device
        assert same, f"step: must keep shapes, types and device, got {new.dtype} {list(new.shape)} on {new.device}."
    if device.type != "meta":
        assert _same(state, before), "step: must not change the state that it is given."
        assert torch.equal(action, action_before), "step: must not change the action that it is given."
        assert _same(after, again), "step: must be a function; it gave two results for one state and action."
    return after


def _check_end(env: Env, state: State, after: State, steps: int) -> None:
    """Finished episodes stay as they are, and episodes are as long as the spec says."""
    spec, over, done = env.spec, env.done(state), env.done(after)
    assert (done | ~over).all(), "done: a finished episode must stay finished."
    stays = _same(map_tensors(lambda t: t[over], state), map_tensors(lambda t: t[over], after))
    assert stays, "step: must leave a finished state as it is."
    if steps >= spec.max_steps:
        assert done.all(), f"done: must be true after spec.max_steps = {spec.max_steps} steps."
    elif spec.fixed_length:
        early = "an episode ended earlier; say fixed_length=False, or let all take max_steps"
        assert not done.any(), f"spec.fixed_length: {early}."


def _check_capabilities(env: Env, state: State, action: Tensor, device: torch.device) -> None:
    """What an environment may offer beyond `Env`."""
    has_data = device.type != "meta"
    if isinstance(env, PacksStates):
        packed = env.pack(state)
        restored = env.unpack(packed)
        for tensor in _leaves(packed, "pack") + _leaves(restored, "unpack"):
            assert tensor.device.type == device.type, f"pack or unpack: a field lies on {tensor.device}."
        if has_data:
            assert _same(restored, state), "unpack: must be the inverse of pack, to the bit."
    if isinstance(env, HasExpert):
        expert = env.expert_action(state)
        if expert is not None:
            _check_action("expert_action", env.spec.action, expert, None, device)
    if isinstance(env, DrawsStrokes):
        _check_stroke(env, env, state, action, device)
    assert isinstance(env, Differentiable) or not env.spec.differentiable, (
        "spec.differentiable: needs a method differentiable_state (core.protocols.Differentiable)."
    )
    if isinstance(env, Differentiable) and env.spec.differentiable:
        _check_gradient(env, env, state, action, device)


def _check_stroke(env: Env, draws: DrawsStrokes, state: State, action: Tensor, device: torch.device) -> None:
    strokes, colours = draws.strokes(state, action), draws.background.shape[0]
    assert strokes, "strokes: must give at least one."
    stroke = strokes[0]
    shapes = {"points": (3, 2), "width": (), "colour": (colours,), "opacity": (), "drawn": ()}
    for name, shape in shapes.items():
        tensor, wanted = getattr(stroke, name), [ROWS, *shape]
        assert list(tensor.shape) == wanted, f"strokes: {name} must have the shape {wanted}, got {list(tensor.shape)}."
        assert tensor.device.type == device.type, f"strokes: {name} lies on {tensor.device} instead of {device}."
    where = draws.background.device
    assert where.type == device.type, f"background: lies on {where} instead of {device}."
    if device.type != "meta":
        assert not stroke.drawn[env.done(state)].any(), "strokes: must draw nothing where the episode is over."


def _check_gradient(env: Env, soft: Differentiable, state: State, action: Tensor, device: torch.device) -> None:
    """A step on a differentiable state gives the same numbers, and its sample a gradient on the action."""
    leaf = action.detach().clone().requires_grad_()
    sample = env.view(env.step(soft.differentiable_state(state), leaf)).sample
    assert sample.requires_grad, "spec.differentiable: no gradient flows from the sample to the action."
    (grad,) = torch.autograd.grad(sample.sum(), leaf, allow_unused=True)
    assert grad is not None, "spec.differentiable: no gradient flows from the sample to the action."
    if device.type != "meta":
        assert torch.isfinite(grad).all(), "differentiable_state: the gradient on the action must be finite."
        plain = env.view(env.step(state, action)).sample
        near = torch.allclose(sample.detach(), plain, atol=1e-4)
        assert near, "differentiable_state: a step must give the same sample as from the plain state."


def _check_teaching(env: Env, teaches: TeachesSequences, played: list[State], device: torch.device) -> None:
    """The states in which a finished sequence's tokens were set look to a policy as they did in the episode."""
    views = [env.view(state) for state in played]
    tokens, prime = views[-1].sample, views[-1].context["prime"]
    drawn = teaches.primes(ROWS, _rng(0, device))
    assert drawn.shape == prime.shape, f"primes: must have the shape {list(prime.shape)}, got {list(drawn.shape)}."
    states = teaches.teacher_states(tokens, prime)
    shown = env.observe(states)
    for name, tensor in shown.items():
        length = tokens.shape[1] * ROWS
        assert len(tensor) == length, f"teacher_states: must give {length} states, got {len(tensor)}."
        if device.type != "meta":
            seen = torch.cat([env.observe(state)[name] for state in played[: tokens.shape[1]]])
            assert torch.equal(tensor, seen), f"teacher_states: {name} must be as it was when the token was set."


# --- Policies and planners ------------------------------------------------------------------------------------------


def check_policy(build: Callable[[], Policy], env: Env, *, device: torch.device, num_envs: int = ROWS) -> None:
    """A policy gives allowed actions, is a function of what it is given, keeps the shape of its memory, and acts alike
    where its state is loaded.

    Args:
        build: makes the policy, each time afresh.
        env: what it acts in, built on `device`. num_envs: environments that it explores in.
    """
    policy, other = build(), build()
    other.load_state_dict(_through_checkpoint(policy.state_dict(), device))
    state, carry = env.reset(num_envs, _rng(0, device)), policy.initial_carry(num_envs)
    for step in range(env.spec.max_steps):
        for explore in (False, True):
            decision = _check_decision(policy, env, state, carry, explore, step, device)
            loaded = _act(other, env, state, carry, explore, _rng(step, device))
            assert _same(decision, loaded), "load_state_dict: a policy must act as the one whose state it loaded."
        state, carry = env.step(state, decision.action), decision.carry
    few = env.reset(1, _rng(0, device))
    action = _act(policy, env, few, policy.initial_carry(1), False, _rng(0, device)).action
    assert len(action) == 1, f"act: must give one action for one state, got {list(action.shape)}."


def _act(policy: Policy, env: Env, state: State, carry: Carry, explore: bool, rng: torch.Generator) -> Decision:
    return policy.act(env.observe(state), env.action_mask(state), carry, explore=explore, rng=rng)


def _check_decision(
    policy: Policy, env: Env, state: State, carry: Carry, explore: bool, seed: int, device: torch.device
) -> Decision:
    observation, mask, carry_before = env.observe(state), env.action_mask(state), _copy(carry)
    before = _copy(observation)
    decision, again = (policy.act(observation, mask, carry, explore=explore, rng=_rng(seed, device)) for _ in range(2))
    assert _same(observation, before), "act: must not change the observation."
    assert _same(carry, carry_before), "act: must not change the memory that it is given; the new one is returned."
    assert _same(decision, again), "act: must draw from the generator it is given alone, and keep nothing to itself."
    _check_action("act", env.spec.action, decision.action, mask, device)
    for old, new in zip(_leaves(carry, "carry"), _leaves(decision.carry, "carry"), strict=True):
        assert old.shape == new.shape, f"act: the memory must keep its shape {list(old.shape)}, got {list(new.shape)}."
    for tensor in _leaves(decision.policy_output, "policy_output"):
        rows = len(decision.action)
        assert len(tensor) == rows, f"act: policy_output must have {rows} rows, got {list(tensor.shape)}."
    return decision


def check_planner(planner: Planner, env: Env, *, device: torch.device) -> None:
    """A planner gives allowed actions in every state, finished ones too, and changes none."""
    state = env.reset(ROWS, _rng(0, device))
    for step in range(env.spec.max_steps + 1):
        before = _copy(state)
        action, again = (planner.plan(env, state, _rng(step, device)) for _ in range(2))
        assert _same(state, before), "plan: must not change the state; step gives a new one."
        assert torch.equal(action, again), "plan: must draw from the generator it is given alone, and keep nothing."
        _check_action("plan", env.spec.action, action, env.action_mask(state), device)
        state = env.step(state, action)


def _check_action(where: str, spec: ActionSpec, action: Tensor, mask: Tensor | None, device: torch.device) -> None:
    """Actions as the spec and the mask allow them."""
    n, whole = len(action), isinstance(spec, Discrete | Factored)
    shape = {Discrete: (), Factored: (len(_sizes(spec)),)}.get(type(spec), (_width(spec),))
    assert list(action.shape) == [n, *shape], f"{where}: must give actions {[n, *shape]}, got {list(action.shape)}."
    dtype = torch.int64 if whole else torch.float32
    assert action.dtype == dtype, f"{where}: must give {dtype} for {spec}, got {action.dtype}."
    if device.type == "meta":
        return
    columns = action.view(n, -1)
    for i, size in enumerate(_sizes(spec)):
        fits = (columns[:, i] >= 0) & (columns[:, i] < size)
        assert fits.all(), f"{where}: decision {i} must be from 0 to below {size}, got {columns[:, i].tolist()}."
        assert (columns[:, i] == columns[:, i].round()).all(), f"{where}: decision {i} must be a whole number."
    free = columns[:, len(_sizes(spec)) :]
    if isinstance(spec, Normal):
        assert free.isfinite().all(), f"{where}: must give finite numbers."
        return
    assert ((free >= 0) & (free <= 1)).all(), f"{where}: continuous numbers must be in [0, 1]."
    if mask is not None:
        for i, part in enumerate(torch.split(mask, _sizes(spec), 1)):
            allowed = part.gather(1, columns[:, i : i + 1])
            assert allowed.all(), f"{where}: must keep to the action mask."


def _sizes(spec: ActionSpec) -> list[int]:
    """How many choices each discrete decision has."""
    if isinstance(spec, Discrete):
        return [spec.n]
    if isinstance(spec, Factored):
        return list(spec.sizes)
    return list(spec.discrete.sizes) if isinstance(spec, Mixed) else []


def _width(spec: ActionSpec) -> int:
    """Numbers in an action with a continuous part."""
    if isinstance(spec, Mixed):
        return len(spec.discrete.sizes) + spec.continuous.dim
    return spec.dim if isinstance(spec, Continuous | Normal) else 0


# --- Learners -------------------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What `check_learner` trains."""

    learner: Trainable
    rng: torch.Generator  # that it draws from
    policy: Policy | None = None  # an agent's own; without one, actions are uniform


def check_learner(
    build: Callable[[], Trained], env: Env, *, device: torch.device, num_envs: int = ROWS, updates: int = 2
) -> None:
    """A learner makes updates and reports scalars; where its state (and an agent's policy's) is loaded, with the random
    stream where it was, the next updates are the same.

    Args:
        build: makes the learner, each time afresh.
        env: what it learns in, built on `device`. num_envs: environments that it learns from.
        updates: how many are compared.
    """
    first = build()
    episodes = _Episodes(env, num_envs, device)
    _until_updated(first, episodes, 1)
    saved = _through_checkpoint(_state_of(first), device)
    stream, steps = first.rng.get_state(), len(episodes.steps)
    expected = _until_updated(first, episodes, updates)
    second = build()
    second.learner.load_state_dict(saved["learner"])
    if second.policy is not None:
        second.policy.load_state_dict(saved["policy"])
    second.rng.set_state(stream)
    again: list[Metrics] = []
    for step in episodes.steps[steps:]:
        again += _taught(second, step)
    assert _same(expected, again), "load_state_dict: the next updates must be those that came without loading."
    same = _same(_state_of(first), _state_of(second))
    assert same, "state_dict: must hold all that an update changes, so that training goes on alike after loading."


class _Episodes:
    """Episodes that begin anew when they end, and what happened in them. Rewards are random numbers."""

    def __init__(self, env: Env, num_envs: int, device: torch.device) -> None:
        self.env, self.num_envs, self.device = env, num_envs, device
        self.rng = _rng(0, device)
        self.state = env.reset(num_envs, self.rng)
        self.carry: Carry = None
        self.steps: list[Transition] = []

    def play(self, policy: Policy | None) -> Transition:
        """One step of every environment."""
        env, state, rng = self.env, self.state, self.rng
        if policy is None:
            decision = Decision(uniform_action(env, state, rng, self.device))
        else:
            self.carry = policy.initial_carry(self.num_envs) if self.carry is None else self.carry
            decision = _act(policy, env, state, self.carry, True, rng)
        after = env.step(state, decision.action)
        done, reward = env.done(after), torch.rand(self.num_envs, generator=rng, device=self.device)
        step = Transition(
            state, decision.action, reward, reward, after, done, self.carry, decision.carry, decision.policy_output,
            decision.observation, env.view(after),
        )  # fmt: skip
        self.state = select(done, env.reset(self.num_envs, rng), after)
        fresh = None if policy is None else policy.initial_carry(self.num_envs)
        self.carry = select(done, fresh, decision.carry)
        self.steps.append(step)
        return step


def _until_updated(trained: Trained, episodes: _Episodes, updates: int) -> list[Metrics]:
    """Train until so many updates were made; what they measured."""
    measured: list[Metrics] = []
    for _ in range(LIMIT):
        measured += _taught(trained, episodes.play(trained.policy))
        if len(measured) >= updates:
            return measured
    raise AssertionError(f"update: must learn something within {LIMIT} batched steps, and report what.")


def _taught(trained: Trained, step: Transition) -> list[Metrics]:
    """Let it observe one step and update; what it measured, or nothing."""
    if isinstance(trained.learner, Learner):
        trained.learner.observe(step)
    metrics = trained.learner.update(0.5)
    for name, value in metrics.items():
        scalar = isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad
        assert scalar, f"update: {name} must be a scalar tensor without a gradient, got {value!r}."
    return [_copy(metrics)] if metrics else []


def _state_of(trained: Trained) -> dict[str, Any]:
    policy = {} if trained.policy is None else {"policy": trained.policy.state_dict()}
    return {"learner": trained.learner.state_dict(), **policy}


# --- Scores, rewards, generators ------------------------------------------------------------------------------------


def check_score(
    score: Score, env: Env, *, device: torch.device, form: Literal["potential", "terminal"] = "potential"
) -> None:
    """A score gives one finite number per sample, reads no more than it says, and changes nothing.

    Args:
        score: built on `device`. env: whose samples it scores.
        form: as a potential, it must be finite in every state; as a terminal reward, where episodes are over.
    """
    spec = env.spec
    fits = score.judges == "any" or score.judges in spec.kinds
    assert fits, f"judges: must be any, or one of {sorted(spec.kinds)} here, got {score.judges}."
    missing = sorted(score.needs - spec.readable)
    assert not missing, f"needs: {missing} is not in this environment, which has {sorted(spec.readable)}."
    if isinstance(score, LearnedScore):
        assert isinstance(score.learned, bool), f"learned: must be true or false, got {score.learned!r}."
    state = env.reset(ROWS, _rng(0, device))
    for step in range(spec.max_steps + 1):
        view, over = env.view(state), env.done(state)
        value = _check_value(score, view)
        if device.type != "meta":
            counted = value if form == "potential" else value[over]
            assert torch.isfinite(counted).all(), f"a score must be finite, got {value.tolist()}."
        after = env.step(state, uniform_action(env, state, _rng(step, device), device))
        if isinstance(score, Stepwise) and isinstance(env, TeachesSequences) and step < spec.max_steps:
            gained, difference = score.gain(env.view(after)), score(env.view(after)) - value
            near = torch.allclose(gained, difference, atol=1e-3)
            wanted = f"the score after less the score before, {difference.tolist()}"
            assert near, f"gain: must be {wanted}, got {gained.tolist()}."
        state = after


def _check_value(score: Score, view: View) -> Tensor:
    """The score of N samples, found thrice: also from a view with no more than the score says it reads."""
    before, n = _copy(view), len(view.sample)
    value, again = score(view).detach(), score(view).detach()
    assert list(value.shape) == [n], f"a score must give one number per sample, [{n}], got {list(value.shape)}."
    assert value.is_floating_point(), f"a score must give floating-point numbers, got {value.dtype}."
    assert value.device == view.sample.device, f"a score must stay on {view.sample.device}, got {value.device}."
    read = score.needs | {"label"}  # which some judge by where there is one (`prefers`)
    seen = View(view.sample, *({k: v for k, v in part.items() if k in read} for part in view[1:]))
    try:
        score(seen)
    except KeyError as error:
        raise AssertionError(f"needs: must name {error}, which the score reads.") from None
    if value.device.type != "meta":
        assert _same(view, before), "a score must not change what it is shown."
        assert torch.equal(value, again), "a score must give the same number for the same sample."
    return value


def check_reward(reward: Reward, env: Env, *, device: torch.device) -> None:
    """A reward gives one number per sample, and its parts add up: the static one, and what learned terms give."""
    state = env.reset(ROWS, _rng(0, device))
    for step in range(env.spec.max_steps):
        after = env.step(state, uniform_action(env, state, _rng(step, device), device))
        before_view, view, done = env.view(state), env.view(after), env.done(after)
        scored = reward(before_view, view, done)
        learned = reward.learned_reward(join(before_view, view), done)
        for name, value in {"total": scored.total, "static": scored.static, **scored.terms}.items():
            assert list(value.shape) == [ROWS], f"reward: {name} must have the shape [{ROWS}], got {list(value.shape)}."
        if device.type != "meta":
            near = torch.allclose(scored.static + learned, scored.total, atol=1e-4)
            assert near, "reward: the static and the learned part must add up to the total."
            assert reward.has_learned_terms or not learned.any(), "learned_reward: must be 0 without learned terms."
        state = after


def check_generator(generator: Generator, *, device: torch.device) -> None:
    """A generator is a function of its latents, names its directions, and can be saved."""
    z = torch.randn(ROWS, generator.latent, generator=_rng(0, device), device=device)
    label = torch.zeros(ROWS, dtype=torch.long, device=device) if generator.classes else None
    raw = generator(z, label)
    wanted = [ROWS, *generator.shape]
    assert list(raw.shape) == wanted, f"a generator must make raw samples {wanted}, got {list(raw.shape)}."
    finished = generator.finished(raw)
    assert len(finished) == ROWS, f"finished: must give {ROWS} samples, got {list(finished.shape)}."
    if generator.coordinates:
        shift = torch.zeros(ROWS, generator.coordinates, device=device)
        moved = generator(z, label, shift)
        assert _same(moved, raw), "shift: zeros must change nothing."
    for name in generator.direction_names:
        rows = generator.directions(name)
        right = rows.dim() == 2 and rows.shape[1] == generator.latent
        assert right, f"directions: must be [K, {generator.latent}], got {list(rows.shape)}."
    if isinstance(generator, HasCritic):
        logits = generator.realism(finished, label)
        assert list(logits.shape) == [ROWS], f"realism: must give [{ROWS}], got {list(logits.shape)}."
    if generator.differentiable:
        made = generator(z.clone().requires_grad_(), label)
        assert made.requires_grad, "differentiable: no gradient flows from the raw samples to the latents."
    generator.load_state_dict(_through_checkpoint(generator.state_dict(), device))
    assert _same(generator(z, label), raw), "load_state_dict: must bring back what state_dict saved."


# --- Trees ----------------------------------------------------------------------------------------------------------


def _rng(seed: int, device: torch.device) -> torch.Generator:
    """A generator that draws for the device; the CPU's stands in for the meta device's, which has none."""
    return torch.Generator("cpu" if device.type == "meta" else device).manual_seed(seed)


def _leaves(tree: Any, where: str) -> list[Tensor]:
    """All tensors of a tree of NamedTuples and dicts."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    right = tree is None or isinstance(tree, Tensor | dict | tuple)
    assert right, f"{where}: must be a NamedTuple of tensors, got {type(tree).__name__}."
    map_tensors(keep, tree)
    return found


def _copy(tree: Any) -> Any:
    return map_tensors(torch.clone, tree)


def _same(one: Any, other: Any) -> bool:
    """Whether two trees of dicts, lists, NamedTuples, tensors and plain values are equal, to the bit."""
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _through_checkpoint(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A state dict as a checkpoint on the disk gives it back."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "saved", {"part": {"component": state}})
        loaded: dict[str, Any] = checkpoint.load(Path(folder) / "saved", "part", device)["component"]
    return loaded
