"""A policy as an ONNX file, which runs without torch and without rlgen: named observations in, actions out."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from rlgen_cli.agents.dqn import QPolicy
from rlgen_cli.core.acting import Actor
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import Discrete, EnvSpec
from rlgen_cli.policies.actor import NetworkPolicy, no_start
from rlgen_cli.policies.distributions import Categorical

MASK = "allowed"  # the input that says which actions are
Q_VALUES, LOG_PROBS = "q_values", "log_probs"
EXAMPLES = 3  # episodes that the network is traced with


class BestAction(nn.Module):
    """What a policy takes for best in N states, and, where a step is one decision among A actions, what it makes of
    each of them, float32 [N, A].

    Args:
        policy: without memory. spec: of the environment. names: of the observations, in the order of the arguments.
        masked: a mask of the allowed actions, bool [N, A], is the last argument.
    """

    def __init__(self, policy: QPolicy | NetworkPolicy, spec: EnvSpec, names: list[str], masked: bool) -> None:
        super().__init__()
        self.policy, self.names, self.masked = policy, names, masked
        self.net = policy.net
        self.single = isinstance(spec.action, Discrete)
        self.outputs = ["action", Q_VALUES if isinstance(policy, QPolicy) else LOG_PROBS][: 1 + self.single]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        mask = given[-1] if self.masked else None
        observation = dict(zip(self.names, given, strict=False))
        start = no_start(observation)
        if isinstance(self.policy, QPolicy):
            q = self.policy.values(self.net, observation, mask, None, start)[0]
            return (self.policy.best(q), q)[: 1 + self.single]
        said = self.policy.forward(observation, mask, None, start).policy
        return (said.mode(), said.log_p) if isinstance(said, Categorical) else (said.mode(),)


def write_onnx(path: Path, env: Env, actor: Actor, rng: torch.Generator) -> None:
    """Write a policy's best actions. Inputs are the observations by name, float32 [N, …] (pictures from 0 to 1) or
    whole numbers, and, where some actions are forbidden, `allowed`, bool [N, A]. Outputs are `action` and, where a step
    is one decision, `q_values` or `log_probs`, float32 [N, A].

    Raises:
        UserError: for what cannot be written so, and where the packages for it are not installed.
    """
    if not isinstance(actor, QPolicy | NetworkPolicy):
        raise UserError("a planner tries actions out in the environment, and has no network")
    require(actor.initial_carry(1) is None, "the network has a memory, which the file would have no place for")
    require(all(map(find_spec, ("onnx", "onnxscript"))), "that needs pip install 'rlgen[export]'")
    given = inputs(env, rng)
    module = BestAction(actor, env.spec, [name for name in given if name != MASK], MASK in given)
    rows = torch.export.Dim("rows")
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), tuple(given.values()), input_names=list(given), output_names=module.outputs, dynamo=True,
            dynamic_shapes=(tuple({0: rows} for _ in given),), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(str(path))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own: packages that it could use, and calls of its own that are old."""
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        said.setLevel(level)


def inputs(env: Env, rng: torch.Generator) -> dict[str, Tensor]:
    """What the policy is given in some states, by name."""
    state = env.reset(EXAMPLES, rng)
    seen = {name: as_unit(part) if part.dtype == torch.uint8 else part for name, part in env.observe(state).items()}
    mask = env.action_mask(state)
    return seen if mask is None else seen | {MASK: mask}
