"""What turns an observation into features.

An encoder is built from the observation's spec and reads tensors by their kind, so that it serves every environment. It
has `features` (their number), and returns features [N, features]. What it does with an observation before the first
weight that learns (reducing, flattening) is its `prepare`: done once, it serves every pass over that observation. A
prepared observation is as good as a raw one wherever a network is given one.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.layers import FiLMLayers, TokenEmbedding
from rlgen_cli.core.pixels import as_unit, reduce
from rlgen_cli.core.specs import Observation, ObservationSpec, of_kind

# Names in a prepared observation, which no environment gives.
INPUTS, IMAGE, VECTOR = "(prepared) inputs", "(prepared) image", "(prepared) vector"


@runtime_checkable
class Prepares(Protocol):
    """A network, or its encoder, with something to do before the first weight that learns."""

    def prepare(self, observation: Observation) -> Observation: ...


def prepared(network: nn.Module | None, observation: Observation) -> Observation:
    """The observation as the network's passes read it; one that is prepared stays as it is."""
    if INPUTS not in observation and isinstance(network, Prepares):
        return network.prepare(observation)
    return observation


class Inputs:
    """The tensors of an observation by kind, each kind as one.

    Raises:
        UserError: for images of several sizes, or several token sequences.
    """

    def __init__(self, spec: ObservationSpec) -> None:
        images, tokens = of_kind(spec, "image"), of_kind(spec, "tokens")
        sizes = {part.shape[1:] for part in images.values()}
        require(len(sizes) <= 1, f"observation: its images must have one size, got {sorted(sizes)}.")
        require(len(tokens) <= 1, f"observation: must have one sequence of tokens at most, got {list(tokens)}.")
        kinds = ("image", "patch", "vector", "tokens", "action_gain")
        self.names = {kind: tuple(of_kind(spec, kind)) for kind in kinds}
        high, wide = next(iter(sizes), (0, 0))
        self.image_shape = (sum(part.shape[0] for part in images.values()), high, wide)  # C, H, W
        self.patch_size = sum(part.size for part in of_kind(spec, "patch").values())
        self.vector_size = sum(part.size for part in of_kind(spec, "vector").values())
        first = next(iter(tokens.values()), None)
        self.history, self.vocabulary = (0, ()) if first is None else (first.shape[0], first.vocabulary)

    def prepared(self, observation: Observation, numbers: list[Tensor], **more: Tensor) -> Observation:
        """What passes read: these numbers as one tensor [N, D], the vectors, what heads add, and `more`."""
        kept = {name: observation[name] for name in (*self.names["tokens"], *self.names["action_gain"])}
        return {INPUTS: torch.cat(numbers, 1), VECTOR: self.vector(observation), **more, **kept}

    def image(self, observation: Observation, pool: int = 1) -> Tensor:
        """All planes, reduced by `pool`, float [N, C, ⌈H/f⌉, ⌈W/f⌉]."""
        images = [observation[name] for name in self.names["image"]]
        if len({image.dtype for image in images}) > 1:
            images = [as_unit(image) for image in images]
        return reduce(torch.cat(images, 1), pool)

    def numbers(self, observation: Observation) -> list[Tensor]:
        """Patches and vectors, flat, [N, ·] each."""
        patches = [as_unit(observation[name]).flatten(1) for name in self.names["patch"]]
        return [*patches, *(observation[name] for name in self.names["vector"])]

    def vector(self, observation: Observation) -> Tensor:
        """All vectors, float [N, vector_size]."""
        if not self.names["vector"]:
            some = next(iter(observation.values()))  # its shape, since torch.export takes a len for a constant
            return torch.zeros(some.shape[0], 0, device=some.device)
        return torch.cat([observation[name] for name in self.names["vector"]], 1)

    def tokens(self, observation: Observation) -> Tensor:
        """Int64 [N, K, F]."""
        return observation[self.names["tokens"][0]]


class MLP(nn.Module):
    """The images reduced by `pool`, the patches, the tokens (each part as `embed` numbers) and the vectors through
    `layers` modulated layers of `width`."""

    kind = "mlp"

    def __init__(self, *, observation: ObservationSpec, width: int, layers: int, pool: int, embed: int) -> None:
        super().__init__()
        self.inputs, self.features, self.pool = Inputs(observation), width, pool
        planes, high, wide = self.inputs.image_shape
        check_pool(pool, high, wide)
        size = planes * -(-high // pool) * -(-wide // pool) + self.inputs.patch_size + self.inputs.vector_size
        self.embedding = TokenEmbedding(self.inputs.vocabulary, embed) if self.inputs.history else None
        if self.embedding is not None:
            size += self.inputs.history * self.embedding.features
        self.layers = FiLMLayers(size, self.inputs.vector_size, width, layers)

    def prepare(self, observation: Observation) -> Observation:
        numbers = self.inputs.numbers(observation)
        if self.inputs.names["image"]:
            numbers.insert(0, self.inputs.image(observation, self.pool).flatten(1))
        return self.inputs.prepared(observation, numbers or [self.inputs.vector(observation)[:, :0]])

    def forward(self, observation: Observation) -> Tensor:
        observation = prepared(self, observation)
        x = observation[INPUTS]
        if self.embedding is not None:
            x = torch.cat([x, self.embedding(self.inputs.tokens(observation)).flatten(1)], 1)
        return self.layers(x, observation[VECTOR])


class LastToken(nn.Module):
    """The newest token, for a network that remembers the others, and perhaps older ones.

    Args:
        lags: which tokens, 1 being the newest. embed: learned numbers for each part of a token, or 0 for a one in its
            place among zeros. init_std: standard deviation of these at the start. vectors: the observation's vectors
            beside them. dropout: share of these numbers that training leaves out.
    """

    kind = "mlp"

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        lags: list[int],
        embed: int,
        init_std: float,
        vectors: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        require(init_std > 0, f"init_std: must be above 0, got {init_std}.")
        require(0.0 <= dropout < 1.0, f"dropout: must be in [0, 1), got {dropout}.")
        self.inputs, self.dropout = Inputs(observation), nn.Dropout(dropout)
        history, self.vocabulary = self.inputs.history, self.inputs.vocabulary
        require(history >= 1, "_target_: last_token reads tokens; use network/body=mlp in this environment.")
        within = len(lags) > 0 and min(lags) >= 1 and max(lags) <= history
        require(within, f"lags: must be from 1 to env.history = {history}, got {lags}.")
        self.lags, self.vectors = [-lag for lag in lags], vectors
        self.embedding = TokenEmbedding(self.vocabulary, embed) if embed else None
        if self.embedding is not None:
            self.embedding.table.weight.data *= init_std
        width = self.embedding.features if self.embedding is not None else sum(self.vocabulary)
        self.features = width * len(lags) + self.inputs.vector_size * vectors

    def forward(self, observation: Observation) -> Tensor:
        seen = self.inputs.tokens(observation)[:, self.lags]  # [N, lags, F]
        x = (self.embedding(seen) if self.embedding is not None else self._one_hot(seen)).flatten(1)
        x = self.dropout(x)
        return torch.cat([x, self.inputs.vector(observation)], 1) if self.vectors else x

    def _one_hot(self, tokens: Tensor) -> Tensor:
        """Float [N, lags, sum of sizes]; all zeros where a token is −1."""
        parts = [
            part.unsqueeze(2) == torch.arange(size, device=part.device)
            for part, size in zip(tokens.unbind(2), self.vocabulary, strict=True)
        ]
        return torch.cat(parts, 2).float()


class Convolutions(nn.Module):
    """The images reduced by `pool`, through strided 3 × 3 convolutions of `channels`, twice as many after each, down
    to about 4 × 4, then with patches and vectors through `layers` modulated layers of `width`."""

    kind = "convolutions"

    def __init__(self, *, observation: ObservationSpec, width: int, layers: int, channels: int, pool: int) -> None:
        super().__init__()
        require(channels >= 1, f"channels: must be at least 1, got {channels}.")
        self.inputs, self.features, self.pool = Inputs(observation), width, pool
        planes, high, wide = self.inputs.image_shape
        require(planes > 0, "_target_: convolutions read images, and this environment shows none; use body=mlp.")
        check_pool(pool, high, wide)
        high, wide = -(-high // pool), -(-wide // pool)
        stages: list[nn.Module] = []
        while max(high, wide) > 4 or not stages:
            stages += [nn.Conv2d(planes, channels, 3, stride=2, padding=1), nn.ReLU()]
            planes, channels, high, wide = channels, 2 * channels, -(-high // 2), -(-wide // 2)
        self.stages = nn.Sequential(*stages)
        size = planes * high * wide + self.inputs.patch_size + self.inputs.vector_size
        self.layers = FiLMLayers(size, self.inputs.vector_size, width, layers)

    def prepare(self, observation: Observation) -> Observation:
        image = self.inputs.image(observation, self.pool).contiguous(memory_format=torch.channels_last)
        numbers = [self.inputs.vector(observation)[:, :0], *self.inputs.numbers(observation)]
        return self.inputs.prepared(observation, numbers, **{IMAGE: image})

    def forward(self, observation: Observation) -> Tensor:
        observation = prepared(self, observation)
        x = torch.cat([self.stages(observation[IMAGE]).flatten(1), observation[INPUTS]], 1)
        return self.layers(x, observation[VECTOR])


class Cells(nn.Module):
    """The images alone through 3 × 3 convolutions, halved by some of them, to features for each cell of a grid. Where
    an action has a part for each cell (brush=stroke_cells), the features of a cell decide it; elsewhere all decide all.

    Args:
        channels: of the first convolution; up to four times as many later. halvings: a cell is 2^halvings pixels wide.
    """

    kind = "convolutions"

    def __init__(self, *, observation: ObservationSpec, channels: int, halvings: int) -> None:
        super().__init__()
        require(channels >= 1, f"channels: must be at least 1, got {channels}.")
        require(1 <= halvings <= 8, f"halvings: must be from 1 to 8, got {halvings}.")
        self.inputs, self.halvings = Inputs(observation), halvings
        planes, high, wide = self.inputs.image_shape
        require(planes > 0, "_target_: cells read images, and this environment shows none; use body=mlp.")
        layers: list[nn.Module] = [nn.Conv2d(planes, channels, 3, padding=1), nn.SiLU()]
        width = channels
        for i in range(halvings):
            more = channels * min(i + 2, 4)
            layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(width, more, 3, padding=1), nn.SiLU()]
            width = more
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):  # so many would leave nothing of the differences, as torch begins
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)
        self.cells = math.prod(-(-side // 2**halvings) for side in (high, wide))
        self.features = width * self.cells

    def prepare(self, observation: Observation) -> Observation:
        image = self.inputs.image(observation).contiguous(memory_format=torch.channels_last)
        return self.inputs.prepared(observation, [self.inputs.vector(observation)[:, :0]], **{IMAGE: image})

    def forward(self, observation: Observation) -> Tensor:
        """Features [N, cells · width], those of a cell beside each other, row by row."""
        x = self.layers(prepared(self, observation)[IMAGE])
        return x.flatten(2).mT.flatten(1)


class Maps(nn.Module):
    """Convolutions at the picture's resolution with a coarse view of all of it, ending in one map per action plane.

    A point's own colours reach its map directly too: what a pixel gains by a colour is linear in them but for a part
    that all colours share. Maps are resized to the action grid by pooling. Features are the coarse view's mean.

    Args:
        grid: planes, rows and columns of the actions. channels: of each layer. depth: convolutions, at least 1.
    """

    kind = "maps"
    position: Tensor  # [1, 2, H, W], where a point is, in [−1, 1]

    def __init__(self, *, observation: ObservationSpec, grid: tuple[int, int, int], channels: int, depth: int) -> None:
        super().__init__()
        require(channels >= 1, f"channels: must be at least 1, got {channels}.")
        require(1 <= depth <= 100, f"depth: must be from 1 to 100, got {depth}.")
        self.inputs = Inputs(observation)
        planes, high, wide = self.inputs.image_shape
        self.features, self.grid = channels, grid[1:]
        inputs = planes + 2 + self.inputs.vector_size
        lines = torch.linspace(-1, 1, high), torch.linspace(-1, 1, wide)
        self.register_buffer("position", torch.stack(torch.meshgrid(*lines, indexing="ij")).unsqueeze(0))
        self.stem = nn.Conv2d(inputs, channels, 3, padding=1)
        self.point = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.local = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth - 1))
        padding = tuple((4 * -(-side // 4) - side + 1) // 2 for side in (high, wide))
        self.coarse = nn.Sequential(
            nn.Conv2d(inputs, channels, 4, stride=4, padding=padding),  # type: ignore[arg-type]
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
        image = self.inputs.image(observation)
        n, _, high, wide = image.shape
        vector = self.inputs.vector(observation).view(n, -1, 1, 1).expand(-1, -1, high, wide)
        x = torch.cat([image, self.position.expand(n, -1, -1, -1), vector], 1)
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


def check_pool(pool: int, high: int, wide: int) -> None:
    """Refuse a factor that is larger than the images, where there are any."""
    side = max(high, wide)
    require(pool >= 1 and (not side or pool <= side), f"pool: must be from 1 to {side or 1}, got {pool}.")
