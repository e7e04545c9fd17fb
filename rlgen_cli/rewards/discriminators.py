"""What a discriminator is: of pictures or of sequences.

Each says how a sample is kept in a memory (`keep`, of `shape` and `dtype`), how real ones are (`real`), what of it goes
into the network (`embed`: floats [N, …], so that noise can be added and gradients taken), and gives a logit [N]; `cut`
prepares a batch of real and as many made ones for training.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.core.errors import require
from rlgen_cli.policies.encoders import Words
from rlgen_cli.core.layers import Blur, ConvNet
from rlgen_cli.core.types import EnvSpec, Sequence, View


class PictureDiscriminator(nn.Module):
    """Strided convolutions; with classes, a projection on the label is added (Miyato and Koyama 2018).

    Args:
        pairs: a sample is judged beside its target, a real image beside itself (Ganin et al. 2018, section 3.3).
        channels, width: size. blur: judge slightly blurred pictures.
    """

    dtype = torch.uint8

    def __init__(self, *, spec: EnvSpec, pairs: bool, channels: int, width: int, blur: bool) -> None:
        super().__init__()
        require(not isinstance(spec.sample, Sequence), "net: judges pictures; use reward=adversarial_sequence here.")
        planes, high, wide = spec.sample  # type: ignore[misc]
        classes = spec.classes if "label" in spec.context else 0
        self.pairs, self.shape = pairs, ((1 + pairs) * planes, high, wide)
        self.blur = Blur(self.shape[0]) if blur else nn.Identity()
        self.net = ConvNet(self.shape, channels, width, slope=0.2)
        self.out = nn.Linear(width, 1)
        self.classes = nn.Embedding(classes, width) if classes else None
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=width**-0.5)

    def seen(self, view: View) -> Tensor:
        """What is judged, float [N, C, H, W] in [0, 1]."""
        if not self.pairs:
            return view.sample
        assert view.context.target is not None
        return torch.cat([view.sample, view.context.target], 1)

    def keep(self, view: View) -> Tensor:
        return (self.seen(view) * 255).round().to(torch.uint8)

    def real(self, real: Images, index: Tensor) -> Tensor:
        images = real.images[index]
        return torch.cat([images, images], 1) if self.pairs else images

    def cut(self, kept: Tensor, rng: torch.Generator) -> Tensor:
        """Pictures are judged as they are."""
        return kept

    def embed(self, kept: Tensor) -> Tensor:
        return kept.float() / 255

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        features = self.net(self.blur(x))
        logit = self.out(features).squeeze(1)
        if self.classes is None:
            return logit
        return logit + (features * self.classes(label)).sum(1)


class SequenceDiscriminator(nn.Module):
    """Token sequences, finished or not: by convolutions over time with a maximum (Yu et al. 2017), or by a GRU.

    Args:
        kind: cnn or gru. embed: numbers for each part of a token. width: features.
        prefixes: share of the training pairs that are cut, real and made alike, to a random length, so that unfinished
            sequences can be judged (as a potential).
    """

    dtype = torch.int16

    def __init__(
        self, *, spec: EnvSpec, pairs: bool, kind: Literal["cnn", "gru"], embed: int, width: int, prefixes: float
    ) -> None:
        super().__init__()
        require(isinstance(spec.sample, Sequence), "net: judges sequences; use reward=adversarial here.")
        require(0.0 <= prefixes <= 1.0, f"prefixes: must be in [0, 1], got {prefixes}.")
        assert isinstance(spec.sample, Sequence)
        self.shape, self.prefixes = (spec.sample.length, len(spec.sample.vocabulary)), prefixes
        self.words = Words(spec.sample.vocabulary, embed)
        inputs = self.words.features
        self.gru = nn.GRU(inputs, width, batch_first=True) if kind == "gru" else None
        sizes = () if kind == "gru" else (2, 3, 5, 8)
        self.filters = nn.ModuleList(nn.Conv1d(inputs, width, size, padding=size - 1) for size in sizes)
        features = width if kind == "gru" else width * len(self.filters)
        self.out = nn.Sequential(nn.Linear(features, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def seen(self, view: View) -> Tensor:
        return self.embed(view.sample)

    def keep(self, view: View) -> Tensor:
        return view.sample.to(torch.int16)

    def real(self, real: Sequences, index: Tensor) -> Tensor:
        return real.tokens[index].to(torch.int16)

    def cut(self, kept: Tensor, rng: torch.Generator) -> Tensor:
        """The two halves of a batch [2 B, T, F] with some pairs cut to a random length."""
        n, length = len(kept) // 2, kept.shape[1]
        draw = torch.rand(2, n, generator=rng, device=kept.device)
        end = torch.where(draw[0] < self.prefixes, 1 + (draw[1] * length).long(), length)
        there = torch.arange(length, device=kept.device) < end.unsqueeze(1)
        return torch.where(there.repeat(2, 1).unsqueeze(2), kept, -1)

    def embed(self, kept: Tensor) -> Tensor:
        """Float [N, T, D]."""
        return self.words(kept.long())

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        if self.gru is not None:
            return self.out(self.gru(x)[1][0]).squeeze(1)
        x = x.transpose(1, 2)  # [N, D, T]
        best = [nn.functional.leaky_relu(filter_(x), 0.2).amax(2) for filter_ in self.filters]
        return self.out(torch.cat(best, 1)).squeeze(1)
