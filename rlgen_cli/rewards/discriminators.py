"""Discriminators of pictures and of sequences."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.layers import Blur, ConvNet, TokenEmbedding
from rlgen_cli.core.specs import EnvSpec, PictureSpec, SequenceSpec, View
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences


class Discriminator(Protocol):
    """A network that tells real from made samples.

    Samples are stored compactly (`shape`, `dtype`) and embedded as floats, so that noise can be added and gradients
    taken.
    """

    shape: tuple[int, ...]  # of a stored sample
    dtype: torch.dtype

    def score(self, view: View, label: Tensor | None) -> Tensor:
        """Logits [N] of N states and, with classes, their labels, int64 [N]."""
        ...

    def stored(self, view: View) -> Tensor:
        """The samples of N states, stored, [N, *shape]."""
        ...

    def real(self, real: Images | Sequences, index: Tensor) -> Tensor:
        """Rows `index` [B] of the data, stored, [B, *shape]."""
        ...

    def crop(self, stored: Tensor, rng: torch.Generator) -> Tensor:
        """A training batch of real and as many made samples [2 B, *shape], cut where unfinished ones are judged too."""
        ...

    def embed(self, stored: Tensor) -> Tensor:
        """Stored samples as floats [N, …]."""
        ...

    def __call__(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Logits [N] of embedded samples and, with classes, their labels, int64 [N]."""
        ...

    def to(self, device: torch.device) -> Self: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class PictureDiscriminator(nn.Module):
    """Strided convolutions; with classes, a projection on the label is added (Miyato and Koyama 2018).

    Args:
        pairs: a sample is judged beside its target, a real image beside itself (Ganin et al. 2018, section 3.3).
        channels, width: of the convolutions and the hidden layer. blur: judge slightly blurred pictures.

    Raises:
        UserError: for an environment that makes no pictures, and for pairs where there is no target.
    """

    dtype = torch.uint8

    def __init__(self, *, spec: EnvSpec, pairs: bool, channels: int, width: int, blur: bool) -> None:
        super().__init__()
        require(
            isinstance(spec.sample, PictureSpec), "_target_: scores pictures; use reward=adversarial_sequence here."
        )
        require(
            not pairs or "target" in spec.context,
            "pairs: a sample is judged beside its target, which env.condition=target (or both) gives.",
        )
        planes, high, wide = spec.picture().shape
        classes = spec.classes if "label" in spec.context else 0
        planes = 2 * planes if pairs else planes
        self.pairs = pairs
        self.shape: tuple[int, ...] = (planes, high, wide)
        self.blur = Blur(planes) if blur else nn.Identity()
        self.net = ConvNet((planes, high, wide), channels, width, slope=0.2)
        self.out = nn.Linear(width, 1)
        self.classes = nn.Embedding(classes, width) if classes else None
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=width**-0.5)

    def score(self, view: View, label: Tensor | None) -> Tensor:
        return self(self.judged(view), label)

    def judged(self, view: View) -> Tensor:
        """What is judged of N states, float [N, C, H, W] in [0, 1]."""
        return torch.cat([view.sample, view.context["target"]], 1) if self.pairs else view.sample

    def stored(self, view: View) -> Tensor:
        """Uint8 [N, C, H, W]."""
        return (self.judged(view) * 255).round().to(torch.uint8)

    def real(self, real: Images | Sequences, index: Tensor) -> Tensor:
        assert isinstance(real, Images)
        images = real.images[index]
        return torch.cat([images, images], 1) if self.pairs else images

    def crop(self, stored: Tensor, rng: torch.Generator) -> Tensor:
        """Pictures are judged as they are."""
        return stored

    def embed(self, stored: Tensor) -> Tensor:
        """Float [N, C, H, W] in [0, 1]."""
        return stored.float() / 255

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

    Raises:
        UserError: for an environment that makes no sequences.
    """

    dtype = torch.int16

    def __init__(self, *, spec: EnvSpec, kind: Literal["cnn", "gru"], embed: int, width: int, prefixes: float) -> None:
        super().__init__()
        require(isinstance(spec.sample, SequenceSpec), "_target_: scores sequences; use reward=adversarial here.")
        require(0.0 <= prefixes <= 1.0, f"prefixes: must be in [0, 1], got {prefixes}.")
        sample = spec.sequence()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        self.shape: tuple[int, ...] = (sample.length, len(sample.vocabulary))
        self.prefixes = prefixes
        self.embedding = TokenEmbedding(sample.vocabulary, embed)
        inputs = self.embedding.features
        self.gru = nn.GRU(inputs, width, batch_first=True) if kind == "gru" else None
        sizes = () if kind == "gru" else (2, 3, 5, 8)
        self.filters = nn.ModuleList(nn.Conv1d(inputs, width, size, padding=size - 1) for size in sizes)
        features = width if kind == "gru" else width * len(self.filters)
        self.out = nn.Sequential(nn.Linear(features, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def score(self, view: View, label: Tensor | None) -> Tensor:
        return self(view.sample, label)

    def _best(self, filter_: nn.Module, tokens: Tensor) -> Tensor:
        """The most that a filter finds anywhere in tokens [N, T, F], float [N, width]."""
        (weight, bias), values = filter_.parameters(), self.embedding.table.weight
        parts, size, beyond = tokens.shape[2], weight.shape[2], len(values)
        # What each value adds at each of the filter's places; nothing beyond the sequence's ends.
        table = torch.einsum("ve,wfes->sfvw", values, weight.unflatten(1, (parts, -1)))
        table = nn.functional.pad(table, [0, 0, 0, 1])  # [size, F, values + 1, width]
        ends = [0, 0, size - 1, size - 1]
        windows = nn.functional.pad(tokens + self.embedding.first, ends, value=beyond).unfold(1, size, 1)
        begins = torch.arange(size * parts, device=tokens.device).view(size, parts) * (beyond + 1)
        index = windows.transpose(2, 3) + begins  # [N, T + size − 1, size, F]
        found = nn.functional.embedding_bag(index.flatten(0, 1).flatten(1), table.flatten(0, 2), mode="sum")
        return found.view(*index.shape[:2], -1).amax(1) + bias

    def stored(self, view: View) -> Tensor:
        """Int16 [N, T, F]."""
        return view.sample.to(torch.int16)

    def real(self, real: Images | Sequences, index: Tensor) -> Tensor:
        assert isinstance(real, Sequences)
        return real.tokens[index].to(torch.int16)

    def crop(self, stored: Tensor, rng: torch.Generator) -> Tensor:
        """A batch [2 B, T, F] with some pairs (a real and a made sequence) cut to a random length."""
        pairs, length = len(stored) // 2, stored.shape[1]
        drawn = torch.rand(2, pairs, generator=rng, device=stored.device)
        end = torch.where(drawn[0] < self.prefixes, 1 + (drawn[1] * length).long(), length)
        kept = torch.arange(length, device=stored.device) < end.unsqueeze(1)
        return torch.where(kept.repeat(2, 1).unsqueeze(2), stored, -1)

    def embed(self, stored: Tensor) -> Tensor:
        """Float [N, T, D]."""
        return self.embedding(stored.long())

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Logits [N] of embedded sequences [N, T, D], or of tokens, int64 [N, T, F]: convolutions of tokens (without
        noise) are sums of rows of a table, which takes fewer operations unless there are more values than tokens to
        judge."""
        if not x.is_floating_point():
            if self.gru is None and x.shape[0] * x.shape[1] >= self.embedding.table.num_embeddings:
                return self._judge(torch.cat([self._best(filter_, x) for filter_ in self.filters], 1))
            x = self.embed(x)
        if self.gru is not None:
            return self.out(self.gru(x)[1][0]).squeeze(1)
        x = x.transpose(1, 2)  # [N, D, T]
        return self._judge(torch.cat([filter_(x).amax(2) for filter_ in self.filters], 1))

    def _judge(self, best: Tensor) -> Tensor:
        """Logits [N] of the most that each filter found, [N, features]."""
        return self.out(nn.functional.leaky_relu(best, 0.2)).squeeze(1)  # monotone: as before the maximum
