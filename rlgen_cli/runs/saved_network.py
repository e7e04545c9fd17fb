"""The frozen policy network of an earlier run, for reward terms and planners."""

from pathlib import Path
from typing import Any

from torch import nn

from rlgen_cli.config.instantiate import component
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.trust import Trust
from rlgen_cli.policies.actor import build_network
from rlgen_cli.policies.anchor import adopt, saved_weights
from rlgen_cli.policies.note_rnn import note_rnn
from rlgen_cli.runs.saved_run import config_of, opening


def saved_network(source: str, *, env: Env, trust: Trust, runtime: dict[str, Any], where: str) -> nn.Module:
    """The network of a run's or a checkpoint's folder (built as its config says), or of an `.npz` with a Note RNN.

    Raises:
        UserError: where there is none, or it does not fit this environment.
    """
    folder, device = Path(source), runtime["device"]
    if folder.suffix == ".npz":
        build: Any = lambda **given: note_rnn(precision=runtime["precision"], **given)  # noqa: E731
    else:
        home = folder.parent.parent if (folder / "manifest.json").is_file() else folder
        require((home / "config.yaml").is_file(), f"{where}: there is no run in {source}.")
        with opening(home):
            build = component(config_of(home, trust).agent.get("network"), where, **runtime)
    with opening(folder):
        net = build_network(build, env.spec, device)
        adopt(net, saved_weights(source, where, device), f"{where}: {source}")
    return net.requires_grad_(False)
