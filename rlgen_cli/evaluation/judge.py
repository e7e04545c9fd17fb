"""A judge of pictures that takes no part in any training: a network whose features distances are measured in."""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, max_pool2d, relu

from rlgen_cli.core.errors import require
from rlgen_cli.core.fitting import draw_index
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images, digest

BATCH = 128


class Judge(nn.Module):
    """Two convolutions and a hidden layer of 64, larger than what rewards see with and fitted in another way: to tell
    labels apart, or without labels, by how far a picture was turned (Gidaris et al. 2018)."""

    def __init__(self, sample: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        planes, high, wide = sample
        self.one, self.two = nn.Conv2d(planes, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * (high // 4) * (wide // 4), 64)
        self.out = nn.Linear(64, classes)

    def hidden_features(self, x: Tensor) -> Tensor:
        """Features [N, 64] of pictures [N, C, H, W] in [0, 1]."""
        x = max_pool2d(relu(self.one(2 * x - 1)), 2)
        x = max_pool2d(relu(self.two(x)), 2)
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
    key = f"2 {digest(real.images)} {digest(real.labels)} {updates}"
    net = helpers.fitted(
        "judge", key, lambda: Judge((planes, high, wide), len(real.classes) or 4).to(real.images.device),
        lambda net: partial(batch_loss, real, net), updates, 1e-3,
    )  # fmt: skip
    return cast(Judge, net)


def batch_loss(data: Images, net: nn.Module, rng: torch.Generator) -> Tensor:
    """The loss of a batch, moved by up to a pixel, so that where a picture stands is not what is learned."""
    judge, index = cast(Judge, net), draw_index(len(data.images), BATCH, data.images, rng)
    x, answer = data.images[index].float() / 255, data.labels[index]
    dx, dy = torch.randint(-1, 2, (2,), generator=rng).tolist()
    x = torch.roll(x, (dy, dx), (2, 3))
    if not data.classes:
        x = torch.cat([torch.rot90(part, turn, (2, 3)) for turn, part in enumerate(x.chunk(4))])
        answer = torch.arange(4, device=x.device).repeat_interleave(BATCH // 4)
    return cross_entropy(judge.out(judge.hidden_features(x)), answer, label_smoothing=0.02)
