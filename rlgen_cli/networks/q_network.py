"""Q-networks: a plain head over flat features, and spatial maps with a value for every grid point."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rlgen_cli.errors import require
from rlgen_cli.types import Discrete, Observation, ObservationSpec


class QNetwork(nn.Module):
    """Q-values [N, A] of N observations.

    Args:
        observation, action: what goes in and what is chosen from.
        head: plain (a multilayer perceptron), maps (convolutions that end in one value per grid point), or auto:
            maps where the actions lie on a grid.
        width, layers: hidden layers of the plain head and their units.
        channels, depth: convolutions of the maps and their channels.
        pool: the plain head sees the picture reduced by this factor; the close view around the pen stays sharp.
        dueling: value and advantage streams (Wang et al. 2016, eq. 9).

    Where the observation has a preview, it is added to the Q-values: the network learns the rest, what follows.
    """

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: Discrete,
        dueling: bool,
        head: Literal["auto", "plain", "maps"],
        width: int,
        layers: int,
        pool: int,
        channels: int,
        depth: int,
    ) -> None:
        super().__init__()
        require(min(channels, depth) >= 1, f"channels: must be at least 1, as depth, got {channels} and {depth}.")
        require(width >= 1, f"width: must be at least 1, got {width}.")
        require(layers >= 1, f"layers: must be at least 1, got {layers}.")
        require(pool >= 1, f"pool: must be at least 1, got {pool}.")
        require(
            head != "maps" or action.grid is not None,
            "head: maps need actions that lie on a grid; use plain.",
        )
        self.dueling = dueling
        spatial = head == "maps" or (head == "auto" and action.grid is not None)
        body = MapHead(observation, action, channels, depth) if spatial else None
        self.body = body or PlainHead(observation, action.n, width, layers, pool)
        self.value = nn.Linear(self.body.features, 1) if dueling else None

    def forward(self, observation: Observation) -> Tensor:
        q, features = self.body(observation)
        if self.value is not None:
            q = self.value(features) + q - q.mean(1, keepdim=True)
        return q + observation.preview if observation.preview.shape[1] else q


class PlainHead(nn.Module):
    """The pooled picture, the close view and the vector through a perceptron; returns ([N, A], [N, width]).

    The vector (time left, label, noise …) also scales and shifts every hidden layer (FiLM, Perez et al. 2018), so
    that one network can behave as differently as ten labels ask for.
    """

    def __init__(self, observation: ObservationSpec, actions: int, width: int, layers: int, pool: int) -> None:
        super().__init__()
        planes, high, wide = observation.image
        near = observation.patch[0] * observation.patch[1] * observation.patch[2]
        inputs = planes * -(-high // pool) * -(-wide // pool) + near + observation.vector
        self.features = width
        self.pool = pool
        sizes = [inputs] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.film = nn.Linear(observation.vector, 2 * width * layers)
        self.out = nn.Linear(width, actions)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor]:
        seen = (reduce(observation.image, self.pool), observation.patch, observation.vector)
        x = torch.cat([part.flatten(1) for part in seen], 1)
        film = self.film(observation.vector).chunk(2 * len(self.hidden), 1)
        for i, (linear, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            x = torch.relu(norm(linear(x)) * (1 + film[2 * i]) + film[2 * i + 1])
        return self.out(x), x


def reduce(image: Tensor, factor: int) -> Tensor:
    """Mean over factor × factor blocks, [N, C, ⌈H/f⌉, ⌈W/f⌉]; zeros beyond the border. Strided sums are five times
    faster on a CPU than average pooling."""
    high, wide = image.shape[2:]
    image = nn.functional.pad(image, [0, -wide % factor, 0, -high % factor])
    rows = sum((image[:, :, i::factor] for i in range(1, factor)), image[:, :, ::factor])
    return sum((rows[..., i::factor] for i in range(1, factor)), rows[..., ::factor]) / factor**2


class MapHead(nn.Module):
    """Convolutions at the picture's resolution with a coarse view of all of it, ending in one map per action plane.

    A point's own colours reach its values directly too: what a pixel gains by a colour is linear in them but for a part
    that all colours share. Maps are resized to the action grid by pooling; actions off the grid (stop) get a linear
    head over the mean features. Returns ([N, A], [N, width]).
    """

    where: Tensor  # [1, 2, H, W], where a point is, in [−1, 1]

    def __init__(self, observation: ObservationSpec, action: Discrete, width: int, depth: int) -> None:
        super().__init__()
        assert action.grid is not None
        planes, high, _ = observation.image
        maps, rows, columns = action.grid
        self.features, self.grid = width, (rows, columns)
        inputs = planes + 2 + observation.vector
        line = torch.linspace(-1, 1, high)
        self.register_buffer("where", torch.stack(torch.meshgrid(line, line, indexing="ij")).unsqueeze(0))
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        self.point = nn.Sequential(nn.Conv2d(inputs, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth - 1))
        coarse = -(-high // 4)
        self.coarse = nn.Sequential(
            nn.Conv2d(inputs, width, 4, stride=4, padding=(4 * coarse - high + 1) // 2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.mean = nn.Linear(width, width)
        self.out = nn.Conv2d(width, maps, 1)
        self.direct = nn.Conv2d(planes, maps, 1, bias=False)
        spare = action.n - maps * rows * columns
        self.off_grid = nn.Linear(width, spare) if spare else None
        for start in (self.out.weight, self.out.bias, self.direct.weight):
            nn.init.zeros_(start)  # type: ignore[arg-type]

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor]:
        image = observation.image
        n, _, high, wide = image.shape
        vector = observation.vector.view(n, -1, 1, 1).expand(-1, -1, high, wide)
        x = torch.cat([image, self.where.expand(n, -1, -1, -1), vector], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        coarse = self.coarse(x)  # [N, width, ~H/4, ~W/4]
        features = torch.relu(self.mean(coarse.mean((2, 3))))
        coarse = nn.functional.interpolate(coarse, (high, wide)) + features.view(n, -1, 1, 1)
        x = torch.relu(self.stem(x) + self.point(x) + coarse)  # the neighbourhood, the point itself, the whole
        if self.grid != (high, wide):  # the rest at the grid's resolution
            x, image = (nn.functional.adaptive_avg_pool2d(part, self.grid) for part in (x, image))
        for conv in self.local:
            x = x + torch.relu(conv(x))
        q = (self.out(x) + self.direct(image)).flatten(1)
        return (torch.cat([q, self.off_grid(features)], 1) if self.off_grid else q), features
