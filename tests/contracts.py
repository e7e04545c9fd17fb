"""What every environment keeps, whatever it makes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Differentiable, DrawsStrokes, Env, HasExpert, PacksStates
from rlgen_cli.core.specs import PictureSpec, State, TensorSpec, View
from rlgen_cli.core.tree import map_tensors

ROWS = 6


def check_environment(env: Env, rng: torch.Generator, device: torch.device) -> None:
    """Episodes of uniform actions, to their end and beyond: specs hold, and steps are functions that change nothing."""
    spec = env.spec
    state = env.reset(ROWS, rng)
    for step in range(spec.max_steps + 2):
        _check_tensors(spec.observation, env.observe(state))
        _check_view(env, env.view(state))
        mask = env.action_mask(state)
        assert mask is None or (mask.dtype == torch.bool and mask.shape[0] == ROWS)
        action = spec.action.sample(ROWS, rng, device)
        before = map_tensors(torch.clone, state)
        after, again = env.step(state, action), env.step(state, action)
        assert _equal(state, before), "step changed the state that it was given"
        assert _equal(after, again), "step is not a function"
        assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(state, after, strict=True))
        done = env.done(state)
        assert done.dtype == torch.bool
        assert done.shape == (ROWS,)
        assert done.all() or step < spec.max_steps
        for a, b in zip(state, after, strict=True):
            assert torch.equal(a[done], b[done]), "a finished state moved"
        _check_capabilities(env, state, action)
        state = after
    assert env.done(state).all()


def check_on_meta(env: Env) -> None:
    """Two steps on tensors without data: a host sync, or a tensor on another device, raises."""
    rng, device = torch.Generator().manual_seed(0), torch.device("meta")
    state = env.reset(ROWS, rng)
    for _ in range(2):
        action = env.spec.action.sample(ROWS, rng, device)
        shown = [env.observe(state), env.view(state), state, env.done(state)]
        if isinstance(env, PacksStates):
            shown += [env.pack(state), env.unpack(env.pack(state))]
        if isinstance(env, HasExpert):
            shown.append(env.expert_action(state))
        if isinstance(env, DrawsStrokes):
            shown += [env.stroke(state, action), env.background]
        if isinstance(env, Differentiable) and env.spec.differentiable:
            shown.append(env.step(env.differentiable_state(state), action))
        for tree in shown:
            map_tensors(_on_meta, tree)
        state = env.step(state, action)


def _on_meta(tensor: Tensor) -> Tensor:
    assert tensor.device.type == "meta", "a tensor stayed behind on the CPU"
    return tensor


def _equal(one: State, other: State) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def _check_tensors(spec: Mapping[str, TensorSpec], tensors: Mapping[str, Tensor]) -> None:
    """Names in the spec's order, shapes, types and ranges."""
    assert list(tensors) == list(spec)
    for name, part in spec.items():
        tensor = tensors[name]
        assert tensor.shape == (ROWS, *part.shape), name
        assert tensor.dtype == part.dtype, name
        assert torch.isfinite(tensor).all(), name
        if part.size:
            assert part.low <= tensor.min(), name
            assert tensor.max() <= part.high, name
        if part.kind == "label":
            assert tensor.max() < part.high, name


def _check_view(env: Env, view: View) -> None:
    _check_tensors(env.spec.context, view.context)
    _check_tensors(env.spec.info, view.info)
    if isinstance(env.spec.sample, PictureSpec):
        assert view.sample.shape == (ROWS, *env.spec.sample.shape)
        assert view.sample.dtype == torch.float32
        assert view.sample.min() >= 0
        assert view.sample.max() <= 1
    else:
        assert view.sample.shape == (ROWS, env.spec.sample.length, len(env.spec.sample.vocabulary))
        assert view.sample.dtype == torch.int64


def _check_capabilities(env: Env, state: State, action: Tensor) -> None:
    if isinstance(env, PacksStates):
        assert _equal(env.unpack(env.pack(state)), state), "packing loses something"
    if isinstance(env, HasExpert):
        expert = env.expert_action(state)
        assert expert is None or expert.shape == (ROWS,)
    if isinstance(env, DrawsStrokes):
        stroke = env.stroke(state, action)
        assert stroke.points.shape == (ROWS, 3, 2)
        assert not stroke.drawn[env.done(state)].any()
    assert isinstance(env, Differentiable) or not env.spec.differentiable
