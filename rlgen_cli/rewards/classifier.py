"""The log-probability of the asked label, or of one of some, under a small classifier that is fitted to the data before
the run."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from rlgen_cli.core.errors import nearest, require
from rlgen_cli.core.fitting import draw, draw_index
from rlgen_cli.core.layers import Blur, ConvNet
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images
from rlgen_cli.rewards.features import data_key

BATCH_SIZE, LEARNING_RATE = 128, 2e-3


class Classifier:
    """log p(label | sample), at most 0; or p itself, from 0 to 1, which a value network can know as well where p is
    small as where it is large.

    The classifier is fitted to noisy, slightly blurred training images. Its confidence on random strokes means nothing,
    so it is a part of a mix, and no measure of quality by itself.

    Args:
        updates: of its fit. noise_std: largest standard deviation of the noise.
        label_smoothing: share of each label that all classes get in the fit (Szegedy et al. 2016), in [0, 1); with 0
            the probabilities are those of the data, with more none comes near 0 or 1.
        temperature: of its probabilities; above 1 it keeps the score from saturating.
        scale: log (the log-probability) or linear (the probability).
        labels: names of the data's classes, any of which will do, or null for the label that each episode asks for.

    Raises:
        UserError: for a value out of range, or a name that the data have not.
    """

    judges = "picture"
    prefers = frozenset(["label"])

    def __init__(
        self,
        *,
        spec: EnvSpec,
        real: Images,
        device: torch.device,
        helpers: Helpers,
        updates: int,
        noise_std: float,
        label_smoothing: float,
        temperature: float,
        scale: Literal["log", "linear"],
        labels: list[str | int] | None,
    ) -> None:
        require(bool(real.classes), "data: have no labels, which this classifier learns; give data that have some.")
        names = [str(name) for name in labels or []]
        for name in names:
            require(name in real.classes, f"labels: the data have no {name}; {nearest(name, real.classes)}")
        require(labels is None or bool(names), "labels: must name at least one class, or be null.")
        self.needs = frozenset(["label"] if labels is None else [])
        self.wanted = [real.classes.index(name) for name in names]
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        fits = 0.0 <= label_smoothing < 1.0
        require(fits, f"label_smoothing: must be in [0, 1), got {label_smoothing}.")
        require(temperature > 0, f"temperature: must be above 0, got {temperature}.")
        self.temperature, self.linear = float(temperature), scale == "linear"
        key = f"3 {data_key(real)} {updates} {float(noise_std)} {float(label_smoothing)}"
        build = partial(_network, spec.picture().shape, len(real.classes), device)
        self.net = helpers.fitted(
            "classifier", key, build, partial(_loss_function, real, float(noise_std), float(label_smoothing)), updates,
            LEARNING_RATE,
        )  # fmt: skip

    def __call__(self, view: View) -> Tensor:
        logits = self.net(view.sample) / self.temperature  # [N, classes]
        log_p = log_softmax(logits, 1)
        if self.wanted:
            log_p = log_p[:, self.wanted].logsumexp(1)
        else:
            log_p = log_p.gather(1, view.context["label"].unsqueeze(1)).squeeze(1)
        return log_p.exp() if self.linear else log_p


def _network(shape: tuple[int, int, int], classes: int, device: torch.device) -> nn.Module:
    return nn.Sequential(Blur(shape[0]), ConvNet(shape, 16, 64, slope=0.0), nn.Linear(64, classes)).to(device)


def _loss_function(
    real: Images, noise_std: float, label_smoothing: float, net: nn.Module
) -> Callable[[torch.Generator], Tensor]:
    """The cross-entropy of a batch of noisy pictures, as a function of the generator that draws it."""

    def loss(rng: torch.Generator) -> Tensor:
        index = draw_index(len(real.images), BATCH_SIZE, real.images, rng)
        x = real.images[index].float() / 255
        std = noise_std * draw((BATCH_SIZE, 1, 1, 1), x, rng)
        x = x + std * draw(x.shape, x, rng, normal=True)
        return cross_entropy(net(x), real.labels[index], label_smoothing=label_smoothing)

    return loss
