"""One leg of a run: something is fitted before (or instead of) reinforcement learning."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rlgen_cli.core.fitting import SupervisedFit
from rlgen_cli.core.protocols import Trainable


@dataclass(frozen=True)
class Stage:
    """What is fitted, for how long, and how to tell how good it is. `runs/stages.py` runs it.

    Args:
        name: of its folder below `stages/` and its records, as `classifier` or `generator`.
        trainable: what is updated.
        updates: how often, at the most.
        interval: updates between two records, checkpoints and evaluations.
        key: what the result depends on; stages with equal names and keys share one result in the cache. None: no cache.
        finish: called once the weights are there, whether they were fitted now, cached, or loaded.
        evaluate: held-out numbers of a split; the first is to be small.
        patience: evaluations without a smaller number, after which the stage ends early; None for never.
        keep_best: end with the weights of the best evaluation, not with the last.
        streams: the run's random streams that it draws from, by name, so that what follows goes on alike whether it was
            fitted now or loaded.
    """

    name: str
    trainable: Trainable
    updates: int
    interval: int
    key: str | None
    finish: Callable[[], None]
    evaluate: Callable[[str], dict[str, float]] | None = None
    patience: int | None = None
    keep_best: bool = False
    streams: tuple[str, ...] = ()


@dataclass
class Helpers:
    """The small networks that a run's components see with, each fitted by a stage before the first step, and shared by
    all that ask for the same one."""

    stages: list[Stage] = field(default_factory=list)
    networks: dict[tuple[str, str], nn.Module] = field(default_factory=dict)

    def add(self, stage: Stage) -> None:
        """Register a stage; a second one of the same name has its number in the name."""
        taken = sum(other.name.partition("_")[0] == stage.name for other in self.stages)
        name = f"{stage.name}_{taken + 1}" if taken else stage.name
        self.stages.append(Stage(**{**vars(stage), "name": name}))

    def fitted(
        self,
        name: str,
        key: str,
        build: Callable[[], nn.Module],
        loss: Callable[[nn.Module], Callable[[torch.Generator], Tensor]],
        updates: int,
        learning_rate: float,
    ) -> nn.Module:
        """The network of this name and key, which a stage will fit (or take from the cache) before the run begins.

        Args:
            name: of the stage. key: all that the result depends on.
            build: makes the network, on its device.
            loss: given the network, the function that draws a batch and gives its loss (fitting.SupervisedFit).
            updates: steps of Adam. learning_rate: Adam's.
        """
        if (name, key) not in self.networks:
            net = build()
            fit = SupervisedFit(net, loss(net), learning_rate)
            self.networks[name, key] = net
            self.add(Stage(name, fit, updates, max(1, updates // 4), key, fit.freeze))
        return self.networks[name, key]
