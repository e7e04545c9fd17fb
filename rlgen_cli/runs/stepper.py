"""One batched step, and what learns from it: act, step, score, observe, update. Whoever trains uses this."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.host import readable
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
        together: episodes of a fixed length begin, and so end, together; False where some may be begun anew alone.
    """

    def __init__(
        self, *, env: Env, reward: Reward, learners: dict[str, Trainable], rng: torch.Generator, num_envs: int,
        group_size: int, together: bool,
    ) -> None:  # fmt: skip
        self.env, self.reward, self.learners, self.rng = env, reward, learners, rng
        self.groups, self.group_size = num_envs // group_size, group_size
        self.interval = env.spec.steps_between_ends if together else 1
        self.steps = 0  # since all began
        self.state: State = None
        self.view: View
        self.scores: dict[str, Tensor] = {}  # of `view`, as far as the newest step gave them

    def fresh(self) -> State:
        """N episodes that begin."""
        return repeat(self.env.reset(self.groups, self.rng), self.group_size)

    def enter(self, state: State, steps: int = 0, scores: dict[str, Tensor] | None = None) -> None:
        """Go on from these states, which came after so many steps, with the scores that the newest gave."""
        self.state, self.view, self.steps, self.scores = state, self.env.view(state), steps, scores or {}

    def step(self, decision: Decision, carry: Carry, progress: float) -> Stepped:
        """Apply a decision that was made with the memory `carry`, and let everything learn. Finished episodes stay as
        they are until `renew`."""
        self.steps += 1
        with torch.no_grad():
            after = self.env.step(self.state, decision.action)
            view, done = self.env.view(after), self.env.done(after)
            scored = self.reward(self.view, view, done, known=self.scores, ending=self._may_end(done))
        step = Transition(
            self.state, decision.action, scored.total, scored.static, after, done, carry, decision.carry,
            decision.policy_output, decision.observation, view,
        )  # fmt: skip
        for learner in self.learners.values():
            if isinstance(learner, Learner):
                learner.observe(step)
        metrics: Metrics = {}
        for name, learner in self.learners.items():
            metrics |= {f"{name}/{key}": value for key, value in learner.update(progress).items()}
        self.state, self.view, self.scores = after, view, scored.scores
        return Stepped(scored, done, metrics)

    def renew(self, done: Tensor) -> bool:
        """Begin anew where `done`, bool [N]; returns whether that may have been anywhere."""
        ending = self._may_end(done)
        if ending:
            self.enter(select(done, self.fresh(), self.state), self.steps)
        return ending

    def _may_end(self, done: Tensor) -> bool:
        """False where it is known that no episode is done, without asking a device that would have to be waited for."""
        if self.steps % self.interval:
            return False
        return not readable(done) or bool(done.any())
