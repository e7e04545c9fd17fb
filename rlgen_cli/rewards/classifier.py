"""The log-probability of the asked label under a small classifier that is trained on the data once and cached."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from rlgen_cli.core.checkpoint import cached
from rlgen_cli.data.images import Images, digest
from rlgen_cli.core.errors import require
from rlgen_cli.core.layers import Blur, ConvNet
from rlgen_cli.core.fitting import teach
from rlgen_cli.core.types import EnvSpec, Sequence, View


class Classifier:
    """log p(label | sample), at most 0; or p itself, from 0 to 1, which a value network can know as well where p is
    small as where it is large.

    The classifier sees `steps` batches of noisy, slightly blurred training images; the result is cached by the
    pictures and these arguments. Its confidence on random strokes means nothing, so it is a part of a mix, not a judge.
    `temperature` above 1 keeps the score from saturating.
    """

    judges = "picture"
    needs = frozenset(["label"])

    def __init__(
        self,
        *,
        spec: EnvSpec,
        real: Images,
        device: torch.device,
        steps: int,
        noise: float,
        temperature: float,
        scale: Literal["log", "linear"],
    ) -> None:
        require(steps >= 1, f"steps: must be at least 1, got {steps}.")
        require(temperature > 0, f"temperature: must be above 0, got {temperature}.")
        assert not isinstance(spec.sample, Sequence)
        self.temperature, self.linear = float(temperature), scale == "linear"
        self.net = nn.Sequential(
            Blur(spec.sample[0]), ConvNet(spec.sample, 16, 64, slope=0.0), nn.Linear(64, len(real.classes))
        )
        key = f"1 {digest(real.images)} {digest(real.labels)} {steps} {float(noise)}"
        loss = partial(self._loss, real.to("cpu"), float(noise))
        cached("classifiers", key, self.net, lambda: teach(self.net, "the reward's classifier", loss, steps, 2e-3))
        self.net.to(device).requires_grad_(False)

    def __call__(self, view: View) -> Tensor:
        label = view.context.label
        assert label is not None
        logits = self.net(view.sample) / self.temperature
        log_p = log_softmax(logits, 1).gather(1, label.unsqueeze(1)).squeeze(1)
        return log_p.exp() if self.linear else log_p

    def _loss(self, real: Images, noise: float, rng: torch.Generator) -> Tensor:
        """Of a batch of noisy pictures."""
        index = torch.randint(len(real.images), (128,), generator=rng)
        x = real.images[index].float() / 255
        strength = noise * torch.rand(128, 1, 1, 1, generator=rng)
        x = x + strength * torch.randn(x.shape, generator=rng)
        return cross_entropy(self.net(x), real.labels[index], label_smoothing=0.05)
