"""A judge of pictures that takes no part in any training: a network whose features distances are measured in."""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, linear, max_pool2d, relu

from rlgen_cli.core.errors import require
from rlgen_cli.core.fitting import draw_index
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images, digest

BATCH = 64
LARGEST = 32  # side of what is looked at, pixels: larger pictures are reduced to it
LEARNING_RATE = 3e-3


class Judge(nn.Module):
    """Two convolutions and a hidden layer of 64, another network than what rewards see with, and fitted in another way:
    to tell labels apart, or without labels, by how far a picture was turned (Gidaris et al. 2018). It is small, so that
    its fit takes seconds."""

    def __init__(self, sample: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        planes, high, wide = sample
        self.seen = (min(high, LARGEST), min(wide, LARGEST))
        rows, columns = ((side + 1) // 2 // 2 for side in self.seen)
        self.one = nn.Conv2d(planes, 16, 5, stride=2, padding=2)
        self.two = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * rows * columns, 64)
        self.out = nn.Linear(64, classes)

    def hidden_features(self, x: Tensor) -> Tensor:
        """Features [N, 64] of pictures [N, C, H, W] in [0, 1]."""
        x = x if x.shape[2:] == self.seen else interpolate(x, self.seen, mode="area")
        x = max_pool2d(relu(self.two(relu(self.one(2 * x - 1)))), 2)
        return relu(self.hidden(x.flatten(1)))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The same, on the CPU, some at a time."""
        return torch.cat([self.hidden_features(part).cpu() for part in x.split(500)])

    def confidence(self, features: Tensor) -> Tensor:
        """Probability of each label, [N, classes]."""
        return linear(features, self.out.weight.cpu(), self.out.bias.cpu()).softmax(1)


def judge_of(real: Images, updates: int, helpers: Helpers) -> Judge:
    """The judge for this data, which a stage will fit in `updates` batches; cached by the pictures.

    Raises:
        UserError: for pictures below 8 × 8.
    """
    require(updates >= 1, f"updates: must be at least 1, got {updates}.")
    planes, high, wide = real.images.shape[1:]
    require(min(high, wide) >= 8, f"run: its pictures are {high} × {wide}, too small to be judged; 8 × 8 is the least.")
    key = f"3 {digest(real.images)} {digest(real.labels)} {updates}"
    net = helpers.fitted(
        "judge", key, lambda: Judge((planes, high, wide), len(real.classes) or 4).to(real.images.device),
        lambda net: partial(batch_loss, real, net), updates, LEARNING_RATE,
    )  # fmt: skip
    return cast(Judge, net)


def batch_loss(data: Images, net: nn.Module, rng: torch.Generator) -> Tensor:
    """The loss of a batch, moved by up to a pixel, so that where a picture stands is not what is learned."""
    judge, index = cast(Judge, net), draw_index(len(data.images), BATCH, data.images, rng)
    x, answer = data.images[index].float() / 255, data.labels[index]
    dx, dy = torch.randint(-1, 2, (2,), generator=rng).tolist()
    x = torch.roll(x, (dy, dx), (2, 3))
    if not data.classes:
        x, answer = turned(x)
    return cross_entropy(judge.out(judge.hidden_features(x)), answer, label_smoothing=0.02)


def turned(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [N, C, H, W], a quarter of them each turned by none to three right angles, and how many, int64 [N]."""
    parts = x.tensor_split(4)
    turns = torch.cat([torch.full((len(part),), turn, device=x.device) for turn, part in enumerate(parts)])
    return torch.cat([torch.rot90(part, turn, (2, 3)) for turn, part in enumerate(parts)]), turns


def accuracy(judge: Judge, held_out: Images) -> float:
    """Share of pictures that took no part in the fit whose label (without labels, whose turn) the judge knows."""
    x, answer = held_out.images.float() / 255, held_out.labels
    if not held_out.classes:
        x, answer = turned(x)
    return float((judge.confidence(judge.features(x)).argmax(1) == answer.cpu()).float().mean())
