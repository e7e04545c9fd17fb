"""Generators that agents steer: GANs of pictures and of token sequences, diffusion models, and generators from files.

What a config builds is a source: an object whose attribute `generator` (a `core.protocols.Generator`) makes samples.
A source that can also train its generator is a `TrainsGenerator`, and one that can do so along with a policy
`LearnsAlong`.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from rlgen_cli.core.protocols import Generator, Learner, Reward
from rlgen_cli.core.stages import Stage


@runtime_checkable
class GeneratorSource(Protocol):
    """What a config below `configs/generator` builds."""

    generator: Generator


@runtime_checkable
class TrainsGenerator(Protocol):
    """A source that fits its generator to data before a run."""

    generator: Generator

    def stage(self) -> Stage:
        """The training that comes before the run."""
        ...

    def export(self, folder: Path) -> None:
        """Write what makes samples, as generator=file reads it, or in the form that its network has."""
        ...


@runtime_checkable
class LearnsAlong(TrainsGenerator, Protocol):
    """A source that trains its generator along with a policy, too, where joint=true, and knows the run's reward."""

    def attach_reward(self, reward: Reward) -> None:
        """The run's reward, which is built after the generator; to be called before anything is trained."""
        ...

    def joint_learner(self) -> Learner:
        """What trains the generator along with a policy."""
        ...
