"""Planes as bytes and as floats."""

import pytest
import torch

from rlgen_cli.core.pixels import as_unit, reduce
from rlgen_cli.core.seeding import stream
from rlgen_cli.domains.canvas.environment import Canvas
from tests.conftest import session

CPU = torch.device("cpu")


def test_blocks_by_hand():
    planes = torch.tensor([[[[0, 255, 51], [255, 255, 0], [0, 0, 102]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[0.75, 0.05], [0.0, 0.1]]]])  # beyond the border lie zeros
    torch.testing.assert_close(reduce(planes, 2), expected)
    torch.testing.assert_close(reduce(planes / 255, 2), expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [8, 9])
def test_bytes_and_floats_reduce_alike(factor, side):
    planes = torch.randint(256, (5, 3, side, side), generator=stream(0, "env", CPU), dtype=torch.uint8)
    from_bytes, from_floats = reduce(planes, factor), reduce(as_unit(planes), factor)
    assert from_bytes.dtype == torch.float32
    torch.testing.assert_close(from_bytes, from_floats)
    torch.testing.assert_close(reduce(planes.transpose(2, 3), factor), from_floats.transpose(2, 3))  # not contiguous


@pytest.mark.parametrize("words", [[], ["env.channels=3"], ["env.observation_size=8"], ["brush=stroke"]])
def test_a_canvas_is_seen_alike_where_gradients_flow(words):
    """A differentiable state is seen as floats, another as bytes: a network reads the same."""
    run = session("agent=random", "env=pixel", "env.size=16", "reward=target", *words)
    env, rng = run.envs["train"], stream(1, "env", CPU)
    assert isinstance(env, Canvas)
    state = env.reset(6, rng)
    for _ in range(3):
        state = env.step(state, env.spec.action.sample(6, rng))
    seen, soft = env.observe(state), env.observe(env.differentiable_state(state))
    assert soft.keys() == seen.keys()
    for name, field in seen.items():
        # A difference of colours is rounded to a byte.
        tolerance = 0.51 / 255 if name in ("difference", "patch") else 1e-6
        torch.testing.assert_close(as_unit(field), as_unit(soft[name]), atol=tolerance, rtol=0)
