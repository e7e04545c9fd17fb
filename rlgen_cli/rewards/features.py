"""Scores in the features of a small network that is trained on the data once and cached: style, likeness, novelty,
diversity. They compare what pictures show, where pixels compare where it stands."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, normalize, relu

from rlgen_cli.core.checkpoint import cached
from rlgen_cli.data.images import Images, digest
from rlgen_cli.core.errors import require
from rlgen_cli.core.fitting import teach
from rlgen_cli.rewards.pictures import load_reference, picture_shape
from rlgen_cli.core.types import EnvSpec, View


class FeatureNet(nn.Module):
    """Three convolutions; trained to tell labels apart, or without labels, by how far a picture was turned (Gidaris et
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


def feature_net(real: Images, steps: int, device: torch.device) -> FeatureNet:
    """The net for this data after `steps` batches, frozen."""
    require(steps >= 1, f"steps: must be at least 1, got {steps}.")
    net = FeatureNet(real.images.shape[1], len(real.classes) or 4)
    key = f"1 {digest(real.images)} {digest(real.labels)} {steps}"
    loss = partial(_loss, net, real.to("cpu"))
    cached("features", key, net, lambda: teach(net, "the reward's feature net", loss, steps, 2e-3))
    net.requires_grad_(False)
    return net.to(device)


def _loss(net: FeatureNet, real: Images, rng: torch.Generator) -> Tensor:
    """Of a batch of noisy pictures, asked for their label, or for how far they were turned."""
    index = torch.randint(len(real.images), (64,), generator=rng)
    x, answer = real.images[index].float() / 255, real.labels[index]
    if not real.classes:
        answer = torch.arange(64) % 4
        x = torch.stack([torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(x, answer, strict=True)])
    x = x + 0.1 * torch.rand(64, 1, 1, 1, generator=rng) * torch.randn(x.shape, generator=rng)
    return cross_entropy(net(x), answer)


class Style:
    """Minus the distance between Gram matrices of the picture's maps and a reference's (Gatys et al. 2016), as a share
    of the reference's own size: 0 for the reference itself.

    Args:
        reference: a picture file. steps: training of the feature net.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, spec: EnvSpec, real: Images, device: torch.device, reference: str, steps: int) -> None:
        self.net = feature_net(real, steps, device)
        self.wanted = self._grams(load_reference(reference, picture_shape(spec)).to(device))

    def __call__(self, view: View) -> Tensor:
        parts = [
            ((gram - wanted).square().sum((1, 2)) + 1e-12).sqrt() / wanted.norm()
            for gram, wanted in zip(self._grams(view.sample), self.wanted, strict=True)
        ]
        return -torch.stack(parts).mean(0)

    def _grams(self, x: Tensor) -> list[Tensor]:
        """[N, C, C] for each layer."""
        return [flat @ flat.transpose(1, 2) / flat.shape[2] for maps in self.net.maps(x) for flat in [maps.flatten(2)]]


class Perceptual:
    """Minus the root mean squared difference between the maps of the sample and of its target, each layer in units of
    its own size on the target: 0 for the target itself.

    Args:
        steps: training of the feature net.
    """

    judges = "picture"
    needs = frozenset(["target"])

    def __init__(self, *, real: Images, device: torch.device, steps: int) -> None:
        self.net = feature_net(real, steps, device)

    def __call__(self, view: View) -> Tensor:
        assert view.context.target is not None
        pairs = zip(self.net.maps(view.sample), self.net.maps(view.context.target), strict=True)
        parts = [
            ((one - two).square().mean((1, 2, 3)) + 1e-12).sqrt() / (two.square().mean((1, 2, 3)) + 1e-6).sqrt()
            for one, two in pairs
        ]
        return -torch.stack(parts).mean(0)


class Novelty:
    """Distance of a picture's features to the nearest of `limit` training pictures, from 0 to 2.

    Args:
        limit: the first of the data. steps: training of the feature net.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, real: Images, device: torch.device, limit: int, steps: int) -> None:
        require(limit >= 1, f"limit: must be at least 1, got {limit}.")
        self.net = feature_net(real, steps, device)
        with torch.no_grad():
            self.known = self.net.features(real.images[:limit].float() / 255)

    def __call__(self, view: View) -> Tensor:
        nearest = (self.net.features(view.sample) @ self.known.T).amax(1)
        return (2 - 2 * nearest).clamp(min=1e-12).sqrt()


class Diversity:
    """Mean distance of a picture's features to those of the others in its batch, from 0 to 2; where a label is asked
    for, to the others that were asked for the same one.

    Args:
        steps: training of the feature net.
    """

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, real: Images, device: torch.device, steps: int) -> None:
        self.net = feature_net(real, steps, device)

    def __call__(self, view: View) -> Tensor:
        features = self.net.features(view.sample)
        distance = (2 - 2 * features @ features.T).clamp(min=1e-12).sqrt()
        others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
        if view.context.label is not None:
            others &= view.context.label.unsqueeze(1) == view.context.label
        return (distance * others).sum(1) / others.sum(1).clamp(min=1)
