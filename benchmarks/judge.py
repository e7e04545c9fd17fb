"""Judges that take no part in any training: a fixed network, distances in its features, and classifiers.

Accepted, of a picture: an 11-class classifier, ten digits and «not a digit», gives a digit. Its negatives are random
strokes of the same environment, digits with shuffled patches, and blends of two digits.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.files import JUDGE, published
from benchmarks.harness import Call
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.distances import vendi

NOT_A_DIGIT = 10


class FixedJudge(nn.Module):
    """The published network: features [N, 64] of pictures [N, 1, H, W] in [0, 1], resized to 28 × 28 where needed."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        weights = np.load(published(call, JUDGE))
        self.c1, self.c2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.f1, self.f2 = nn.Linear(3136, 64), nn.Linear(64, 10)
        self.load_state_dict({key: torch.from_numpy(weights[key]) for key in weights.files})

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        parts = []
        for x in images.cpu().split(500):
            if x.shape[-1] != 28:
                x = F.interpolate(x, (28, 28), mode="bilinear", antialias=True)
            x = F.max_pool2d(torch.relu(self.c1(x * 2 - 1)), 2)
            x = F.max_pool2d(torch.relu(self.c2(x)), 2)
            parts.append(torch.relu(self.f1(x.flatten(1))))
        return torch.cat(parts)

    @torch.no_grad()
    def confidence(self, features: Tensor, label: Tensor) -> Tensor:
        """The probability of each label, [N]."""
        logits: Tensor = self.f2(features)
        return logits.softmax(1).gather(1, label.cpu().unsqueeze(1)).squeeze(1)


def vendi_in_label(features: Tensor, label: Tensor) -> dict[int, float]:
    """The Vendi score of each label's samples."""
    label = label.cpu()
    return {int(i): vendi(features[label == i]) for i in label.unique()}


def mean(values: Iterable[float]) -> float:
    """Of some numbers."""
    values = list(values)
    return sum(values) / len(values)


def pictures(data: Images) -> Tensor:
    """Float [M, C, H, W] in [0, 1]."""
    return data.images.float() / 255


class Classifier(nn.Module):
    """Two convolutions and a hidden layer: logits [N, classes] of pictures [N, 1, S, S]."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * (size // 4) ** 2, 128), nn.ReLU(), nn.Linear(128, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Classes [N]."""
        return torch.cat([self(part).argmax(1) for part in images.cpu().split(1000)])


def train_classifier(
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]], size: int, classes: int, steps: int, seed: int
) -> Classifier:
    """Adam on `steps` batches, one cycle of the learning rate."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # first weights and dropout
        torch.manual_seed(seed)
        net = Classifier(size, classes).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(steps):
            images, labels = batch(rng)
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def recogniser(data: Images, steps: int) -> Classifier:
    """A classifier of ten digits."""
    images = pictures(data)

    def batch(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(images), (128,), generator=rng)
        return images[index], data.labels[index]

    return train_classifier(batch, images.shape[-1], 10, steps, 0)


def shift(images: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """The whole batch moved by up to `most` pixels."""
    dx, dy = torch.randint(-most, most + 1, (2,), generator=rng).tolist()
    return torch.roll(images, (dy, dx), (2, 3))


def shuffle_patches(images: Tensor, parts: int, rng: torch.Generator) -> Tensor:
    """Each picture cut into parts × parts pieces, put together in another order."""
    n, _, size, _ = images.shape
    side = size // parts
    patches = images.view(n, parts, side, parts, side).permute(0, 1, 3, 2, 4).reshape(n, parts * parts, side, side)
    order = torch.rand(n, parts * parts, generator=rng).argsort(1)
    mixed = patches.gather(1, order.view(n, -1, 1, 1).expand_as(patches))
    return mixed.view(n, parts, parts, side, side).permute(0, 1, 3, 2, 4).reshape(n, 1, size, size)


def blend(images: Tensor, rng: torch.Generator) -> Tensor:
    """The brighter of two digits, one of them moved, at every pixel."""
    other = images[torch.randperm(len(images), generator=rng)]
    return torch.maximum(images, shift(other, 3, rng))


def digit_judge(data: Images, strokes: Tensor, steps: int, seed: int) -> Classifier:
    """The 11-class judge, from real digits and random `strokes`, float [M, 1, S, S]."""
    images, labels = pictures(data), data.labels

    def batch(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(images), (160,), generator=rng)
        real, label = images[index], labels[index]
        drawn = strokes[torch.randint(len(strokes), (64,), generator=rng)]
        wrong = [
            shuffle_patches(real[:24], 2, rng), shuffle_patches(real[24:48], 4, rng), blend(real[48:80], rng), drawn,
        ]  # fmt: skip
        x = torch.cat([shift(real, 1, rng), *wrong])
        x = (x + 0.1 * torch.randn(x.shape, generator=rng)).clamp(0, 1)
        return x, torch.cat([label, torch.full((len(x) - len(real),), NOT_A_DIGIT)])

    return train_classifier(batch, images.shape[-1], 11, steps, seed)
