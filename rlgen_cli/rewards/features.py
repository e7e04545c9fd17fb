"""Scores in the features of a small network that is fitted to the data before the run: style, likeness, novelty,
diversity. They compare what pictures show, where pixels compare where it stands."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, normalize, relu

from rlgen_cli.core.errors import require
from rlgen_cli.core.fitting import draw, draw_index
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images, digest
from rlgen_cli.rewards.pictures import load_reference

BATCH_SIZE, LEARNING_RATE, NOISE_STD = 64, 2e-3, 0.1
TURNS = 4  # quarters of a circle


class FeatureNet(nn.Module):
    """Three convolutions; fitted to tell labels apart, or without labels, by how far a picture was turned (Gidaris et
    al. 2018)."""

    def __init__(self, planes: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Conv2d(planes, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1),
        ])  # fmt: skip
        self.out = nn.Linear(64, classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Each layer's maps of pictures [N, C, H, W] in [0, 1]."""
        found, x = [], 2 * x - 1
        for i, layer in enumerate(self.layers):
            x = relu(layer(max_pool2d(x, 2) if i else x))
            found.append(x)
        return found

    def features(self, x: Tensor) -> Tensor:
        """[N, 64], of length 1."""
        return normalize(self.maps(x)[-1].mean((2, 3)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.maps(x)[-1].mean((2, 3)))


def data_key(real: Images) -> str:
    """What names the data in a cache; on the meta device, which holds no data, the shape has to do."""
    contents = "" if real.images.is_meta else f"{digest(real.images)} {digest(real.labels)}"
    return f"{tuple(real.images.shape)} {contents}"


def feature_net(real: Images, updates: int, device: torch.device, helpers: Helpers) -> FeatureNet:
    """The net for this data, which a stage will fit by `updates` batches; all scores of a run share it."""
    require(updates >= 1, f"updates: must be at least 1, got {updates}.")
    key = f"2 {data_key(real)} {updates}"
    build = partial(_network, real.images.shape[1], len(real.classes) or TURNS, device)
    return cast(
        FeatureNet, helpers.fitted("features", key, build, partial(_loss_function, real), updates, LEARNING_RATE)
    )


def _network(planes: int, classes: int, device: torch.device) -> nn.Module:
    return FeatureNet(planes, classes).to(device)


def _loss_function(real: Images, net: nn.Module) -> Callable[[torch.Generator], Tensor]:
    """The cross-entropy of a batch of noisy pictures, asked for their label, or for how far they were turned."""

    def loss(rng: torch.Generator) -> Tensor:
        index = draw_index(len(real.images), BATCH_SIZE, real.images, rng)
        x, answer = real.images[index].float() / 255, real.labels[index]
        if not real.classes:
            parts = x.chunk(TURNS)
            x = torch.cat([torch.rot90(part, turn, (2, 3)) for turn, part in enumerate(parts)])
            answer = torch.arange(TURNS, device=x.device).repeat_interleave(BATCH_SIZE // TURNS)
        std = NOISE_STD * draw((BATCH_SIZE, 1, 1, 1), x, rng)
        return cross_entropy(net(x + std * draw(x.shape, x, rng, normal=True)), answer)

    return loss


class Style:
    """Minus the distance between Gram matrices of the picture's maps and a reference's (Gatys et al. 2016), as a share
    of the reference's own size: 0 for the reference itself.

    Args:
        reference: a picture file. updates: of the feature net's fit.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(
        self, *, spec: EnvSpec, real: Images, device: torch.device, helpers: Helpers, reference: str, updates: int
    ) -> None:
        self.net = feature_net(real, updates, device, helpers)
        self.reference = load_reference(reference, spec.picture().shape).to(device)  # [1, C, H, W]

    def __call__(self, view: View) -> Tensor:
        parts = [
            ((gram - target).square().sum((1, 2)) + 1e-12).sqrt() / target.norm()
            for gram, target in zip(self._grams(view.sample), self.target_grams, strict=True)
        ]
        return -torch.stack(parts).mean(0)

    @cached_property
    def target_grams(self) -> list[Tensor]:
        """The reference's Gram matrices, found at the first call: by then the net is fitted."""
        with torch.no_grad():
            return self._grams(self.reference)

    def _grams(self, x: Tensor) -> list[Tensor]:
        """[N, C, C] for each layer."""
        return [flat @ flat.transpose(1, 2) / flat.shape[2] for maps in self.net.maps(x) for flat in [maps.flatten(2)]]


class Perceptual:
    """Minus the root mean squared difference between the maps of the sample and of its target, each layer in units of
    its own size on the target: 0 for the target itself.

    Args:
        updates: of the feature net's fit.
    """

    judges = "picture"
    needs = frozenset(["target"])

    def __init__(self, *, real: Images, device: torch.device, helpers: Helpers, updates: int) -> None:
        self.net = feature_net(real, updates, device, helpers)

    def __call__(self, view: View) -> Tensor:
        pairs = zip(self.net.maps(view.sample), self.net.maps(view.context["target"]), strict=True)
        parts = [
            ((one - two).square().mean((1, 2, 3)) + 1e-12).sqrt() / (two.square().mean((1, 2, 3)) + 1e-6).sqrt()
            for one, two in pairs
        ]
        return -torch.stack(parts).mean(0)


class PictureNovelty:
    """Distance of a picture's features to the nearest of `limit` training pictures, from 0 to 2.

    Args:
        limit: the first of the data. updates: of the feature net's fit.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, real: Images, device: torch.device, helpers: Helpers, limit: int, updates: int) -> None:
        require(limit >= 1, f"limit: must be at least 1, got {limit}.")
        self.net = feature_net(real, updates, device, helpers)
        self.real = real.images[:limit]

    def __call__(self, view: View) -> Tensor:
        similarity = (self.net.features(view.sample) @ self.real_features.T).amax(1)
        return (2 - 2 * similarity).clamp(min=1e-12).sqrt()

    @cached_property
    def real_features(self) -> Tensor:
        """[M, 64] of the training pictures, found at the first call: by then the net is fitted."""
        with torch.no_grad():
            return self.net.features(self.real.float() / 255)


class Diversity:
    """Mean distance of a picture's features to those of the others in its batch, from 0 to 2; where a label is asked
    for, to the others that were asked for the same one.

    Args:
        updates: of the feature net's fit.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, real: Images, device: torch.device, helpers: Helpers, updates: int) -> None:
        self.net = feature_net(real, updates, device, helpers)

    def __call__(self, view: View) -> Tensor:
        features = self.net.features(view.sample)  # [N, 64]
        distance = (2 - 2 * features @ features.T).clamp(min=1e-12).sqrt()
        others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
        if "label" in view.context:
            label = view.context["label"]
            others &= label.unsqueeze(1) == label
        return (distance * others).sum(1) / others.sum(1).clamp(min=1)
