"""One batched step, and what learns from it: act, step, score, observe, update. Whoever trains uses this."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Env, Learner, Reward, Trainable
from rlgen_cli.core.specs import Carry, Decision, Metrics, Scored, State, Transition, View
from rlgen_cli.core.tree import repeat, select


class Stepped(NamedTuple):
    """What one step of N environments gave."""

    scored: Scored
    done: Tensor  # bool [N]
    metrics: Metrics


class Stepper:
    """N episodes of an environment, and the learners that improve from them.

    Args:
        env, reward: what is stepped and scored.
        learners: by name, in the order in which they observe and update.
        rng: draws fresh episodes. num_envs: N. group_size: episodes that begin in the same state.
    """

    def __init__(
        self, *, env: Env, reward: Reward, learners: dict[str, Trainable], rng: torch.Generator, num_envs: int,
        group_size: int,
    ) -> None:  # fmt: skip
        self.env, self.reward, self.learners, self.rng = env, reward, learners, rng
        self.groups, self.group_size = num_envs // group_size, group_size
        self.state: State = None
        self.view: View

    def fresh(self) -> State:
        """N episodes that begin."""
        return repeat(self.env.reset(self.groups, self.rng), self.group_size)

    def enter(self, state: State) -> None:
        """Go on from these states."""
        self.state, self.view = state, self.env.view(state)

    def step(self, decision: Decision, carry: Carry, progress: float) -> Stepped:
        """Apply a decision that was made with the memory `carry`, and let everything learn. Finished episodes stay as
        they are until `renew`."""
        with torch.no_grad():
            after = self.env.step(self.state, decision.action)
            view, done = self.env.view(after), self.env.done(after)
            scored = self.reward(self.view, view, done)
        step = Transition(
            self.state, decision.action, scored.total, scored.static, after, done, carry, decision.carry,
            decision.policy_output, view,
        )  # fmt: skip
        for learner in self.learners.values():
            if isinstance(learner, Learner):
                learner.observe(step)
        metrics: Metrics = {}
        for name, learner in self.learners.items():
            metrics |= {f"{name}/{key}": value for key, value in learner.update(progress).items()}
        self.state, self.view = after, view
        return Stepped(scored, done, metrics)

    def renew(self, done: Tensor) -> None:
        """Begin anew where `done`, bool [N]."""
        self.enter(select(done, self.fresh(), self.state))
