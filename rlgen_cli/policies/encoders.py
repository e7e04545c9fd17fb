"""What turns an observation into features: a perceptron, convolutions, convolutional maps over an action grid, the
newest token, or a frozen autoencoder's code.

A body is built from the observation's spec, has `features` (their number), and returns features [N, features].
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.types import Observation, ObservationSpec


class Modulated(nn.Module):
    """Linear layers with layer norm, scaled and shifted by the observation's vector (FiLM, Perez et al. 2018).

    Time left, label and noise act on every layer, so that one network can behave as differently as ten labels ask for.
    """

    def __init__(self, inputs: int, vector: int, width: int, layers: int) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        require(layers >= 1, f"layers: must be at least 1, got {layers}.")
        self.features = width
        sizes = [inputs] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.film = nn.Linear(vector, 2 * width * layers)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        film = self.film(vector).chunk(2 * len(self.hidden), 1)
        for i, (linear, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            x = torch.relu(norm(linear(x)) * (1 + film[2 * i]) + film[2 * i + 1])
        return x


class Perceptron(nn.Module):
    """The picture reduced by `pool`, the close view, the tokens (each part as `embed` numbers) and the vector through
    `layers` modulated layers."""

    def __init__(self, *, observation: ObservationSpec, width: int, layers: int, pool: int, embed: int) -> None:
        super().__init__()
        require(pool >= 1, f"pool: must be at least 1, got {pool}.")
        planes, high, wide = observation.image
        inputs = planes * -(-high // pool) * -(-wide // pool) + near(observation) + observation.vector
        self.words = Words(observation.vocabulary, embed) if observation.history else None
        if self.words is not None:
            inputs += observation.history * self.words.features
        self.features, self.pool = width, pool
        self.layers = Modulated(inputs, observation.vector, width, layers)

    def forward(self, observation: Observation) -> Tensor:
        seen = [reduce(observation.image, self.pool), observation.patch, observation.vector]
        if self.words is not None:
            seen.append(self.words(observation.tokens))
        return self.layers(torch.cat([part.flatten(1) for part in seen], 1), observation.vector)


class Words(nn.Module):
    """Tokens [N, K, F] as learned vectors [N, K, F · embed]; a part that is −1 (nothing there) has one of its own."""

    first: Tensor  # [F], where each part's vectors begin

    def __init__(self, vocabulary: tuple[int, ...], embed: int) -> None:
        super().__init__()
        require(embed >= 1, f"embed: must be at least 1, got {embed}.")
        self.features = len(vocabulary) * embed
        sizes = torch.tensor([0, *(size + 1 for size in vocabulary)])
        self.register_buffer("first", sizes.cumsum(0)[:-1] + 1, persistent=False)
        self.table = nn.Embedding(int(sizes.sum()), embed)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens + self.first).flatten(2)


class Newest(nn.Module):
    """The newest token, for a network that remembers the others, and perhaps older ones.

    Args:
        lags: which tokens, 1 being the newest. embed: learned numbers for each part of a token, or 0 for a one in its
            place among zeros. spread: standard deviation of these at the start. clock: the observation's vector
            beside them. dropout: share of these numbers that training leaves out.
    """

    def __init__(
        self, *, observation: ObservationSpec, lags: list[int], embed: int, spread: float, clock: bool, dropout: float
    ) -> None:
        super().__init__()
        require(spread > 0, f"spread: must be above 0, got {spread}.")
        require(0.0 <= dropout < 1.0, f"dropout: must be in [0, 1), got {dropout}.")
        self.dropout = nn.Dropout(dropout)
        require(observation.history >= 1, "_target_: newest reads tokens; use body=perceptron in this environment.")
        within = len(lags) > 0 and min(lags) >= 1 and max(lags) <= observation.history
        require(within, f"lags: must be from 1 to env.history = {observation.history}, got {lags}.")
        self.vocabulary, self.lags, self.clock = observation.vocabulary, [-lag for lag in lags], clock
        self.words = Words(self.vocabulary, embed) if embed else None
        if self.words is not None:
            self.words.table.weight.data *= spread
        width = self.words.features if self.words is not None else sum(self.vocabulary)
        self.features = width * len(lags) + observation.vector * clock

    def forward(self, observation: Observation) -> Tensor:
        assert observation.tokens is not None
        seen = observation.tokens[:, self.lags]  # [N, lags, F]
        x = (self.words(seen) if self.words is not None else self._one_hot(seen)).flatten(1)
        x = self.dropout(x)
        return torch.cat([x, observation.vector], 1) if self.clock else x

    def _one_hot(self, tokens: Tensor) -> Tensor:
        """Float [N, lags, sum of sizes]; all zeros where a token is −1."""
        parts = [
            part.unsqueeze(2) == torch.arange(size, device=part.device)
            for part, size in zip(tokens.unbind(2), self.vocabulary, strict=True)
        ]
        return torch.cat(parts, 2).float()


class Convolutions(nn.Module):
    """The picture reduced by `pool`, through strided 3 × 3 convolutions of `channels`, twice as many after each, down
    to about 4 × 4, then with close view and vector through `layers` modulated layers."""

    def __init__(self, *, observation: ObservationSpec, width: int, layers: int, channels: int, pool: int) -> None:
        super().__init__()
        require(pool >= 1, f"pool: must be at least 1, got {pool}.")
        require(channels >= 1, f"channels: must be at least 1, got {channels}.")
        require(observation.history == 0, "_target_: convolutions read pictures, not tokens; use body=perceptron.")
        planes, high, wide = observation.image
        high, wide = -(-high // pool), -(-wide // pool)
        stages: list[nn.Module] = []
        while max(high, wide) > 4 or not stages:
            stages += [nn.Conv2d(planes, channels, 3, stride=2, padding=1), nn.ReLU()]
            planes, channels, high, wide = channels, 2 * channels, -(-high // 2), -(-wide // 2)
        self.features, self.pool = width, pool
        self.stages = nn.Sequential(*stages)
        inputs = planes * high * wide + near(observation) + observation.vector
        self.layers = Modulated(inputs, observation.vector, width, layers)

    def forward(self, observation: Observation) -> Tensor:
        image = reduce(observation.image, self.pool).contiguous(memory_format=torch.channels_last)
        seen = (self.stages(image), observation.patch, observation.vector)
        return self.layers(torch.cat([part.flatten(1) for part in seen], 1), observation.vector)


class Maps(nn.Module):
    """Convolutions at the picture's resolution with a coarse view of all of it, ending in one map per action plane.

    A point's own colours reach its map directly too: what a pixel gains by a colour is linear in them but for a part
    that all colours share. Maps are resized to the action grid by pooling. Features are the coarse view's mean.
    """

    where: Tensor  # [1, 2, H, W], where a point is, in [−1, 1]

    def __init__(self, *, observation: ObservationSpec, grid: tuple[int, int, int], channels: int, depth: int) -> None:
        super().__init__()
        require(min(channels, depth) >= 1, f"channels: must be at least 1, as depth, got {channels} and {depth}.")
        planes, high, _ = observation.image
        self.features, self.grid = channels, grid[1:]
        inputs = planes + 2 + observation.vector
        line = torch.linspace(-1, 1, high)
        self.register_buffer("where", torch.stack(torch.meshgrid(line, line, indexing="ij")).unsqueeze(0))
        self.stem = nn.Conv2d(inputs, channels, 3, padding=1)
        self.point = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.local = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth - 1))
        coarse = -(-high // 4)
        self.coarse = nn.Sequential(
            nn.Conv2d(inputs, channels, 4, stride=4, padding=(4 * coarse - high + 1) // 2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.mean = nn.Linear(channels, channels)
        self.out = nn.Conv2d(channels, grid[0], 1)
        self.direct = nn.Conv2d(planes, grid[0], 1, bias=False)
        for start in (self.out.weight, self.out.bias, self.direct.weight):
            nn.init.zeros_(start)  # type: ignore[arg-type]

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Features [N, channels] and maps, flat [N, planes · rows · columns]."""
        image = observation.image
        n, _, high, wide = image.shape
        vector = observation.vector.view(n, -1, 1, 1).expand(-1, -1, high, wide)
        x = torch.cat([image, self.where.expand(n, -1, -1, -1), vector], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        coarse = self.coarse(x)  # [N, channels, ~H/4, ~W/4]
        features = torch.relu(self.mean(coarse.mean((2, 3))))
        coarse = nn.functional.interpolate(coarse, (high, wide)) + features.view(n, -1, 1, 1)
        x = torch.relu(self.stem(x) + self.point(x) + coarse)  # the neighbourhood, the point itself, the whole
        if self.grid != (high, wide):  # the rest at the grid's resolution
            x, image = (nn.functional.adaptive_avg_pool2d(part, self.grid) for part in (x, image))
        for conv in self.local:
            x = x + torch.relu(conv(x))
        return features, (self.out(x) + self.direct(image)).flatten(1)


def near(observation: ObservationSpec) -> int:
    """How many numbers the close view around the pen has."""
    planes, high, wide = observation.patch
    return planes * high * wide


def reduce(image: Tensor, factor: int) -> Tensor:
    """Mean over factor × factor blocks, [N, C, ⌈H/f⌉, ⌈W/f⌉]; zeros beyond the border. Strided sums are five times
    faster on a CPU than average pooling."""
    high, wide = image.shape[2:]
    image = nn.functional.pad(image, [0, -wide % factor, 0, -high % factor])
    rows = sum((image[:, :, i::factor] for i in range(1, factor)), image[:, :, ::factor])
    return sum((rows[..., i::factor] for i in range(1, factor)), rows[..., ::factor]) / factor**2
