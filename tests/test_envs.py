"""Every environment keeps its contract, as the config builds it; every choice runs with its defaults."""

from pathlib import Path

import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.testing import check_env
from tests.conftest import session, small

CONFIGS = Path(__file__).parent.parent / "configs"
BRUSHES = sorted(path.stem for path in (CONFIGS / "brush").glob("*.yaml"))
STARTS = sorted(path.stem for path in (CONFIGS / "start").glob("*.yaml"))


@pytest.mark.parametrize("name", ["tiny", "pixel", "music", "latent_gan", "latent_music"])
def test_contract(name):
    env = session(*small(f"env={name}", "agent=random")).envs["train"]
    check_env(env, device=torch.device("cpu"))


@pytest.mark.parametrize("choice", [f"brush={name}" for name in BRUSHES] + [f"start={name}" for name in STARTS])
def test_every_choice_of_the_canvas_runs_with_its_defaults(choice):
    env = session("agent=random", "data.per_class=4", "threads=1", "env.max_steps=2", choice).envs["train"]
    check_env(env, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("env.size=4", "env.size"), ("env.brush.reach=0", "env.brush.reach"), ("env.brush.widths=[]", "env.brush.widths"),
        ("start=image env.start.erase=2", "env.start.erase"), ("brush=stroke env.stop=true", "env.stop"),
        ("brush=pen_grid env.brush.grid=50", "env.brush.grid"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named_in_full(overrides, key):
    with pytest.raises(UserError, match=f"^{key}: "):
        session("agent=random", "data.per_class=2", *overrides.split())
