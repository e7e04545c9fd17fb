"""Differentiable augmentation for little data (Zhao et al. 2020): the discriminator sees real and generated pictures
through the same random changes, and gradients pass through them.

Deviation from the paper: what a shift or a cutout uncovers is black here, where the paper fills it with mid-grey.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlgen_cli.core.errors import require


def augment(x: Tensor, kinds: Sequence[str], rng: torch.Generator) -> Tensor:
    """Pictures [N, C, H, W] in [0, 1], each changed in each of `kinds`."""
    for kind in kinds:
        x = KINDS[kind](x, rng)
    return x


def check(kinds: Sequence[str]) -> None:
    """Refuse unknown kinds.

    Raises:
        UserError: for a kind that does not exist.
    """
    for kind in kinds:
        require(kind in KINDS, f"augment: must be of {', '.join(KINDS)}, got {kind}.")


def _uniform(x: Tensor, rng: torch.Generator) -> Tensor:
    """[N, 1, 1, 1] in [0, 1)."""
    return torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device)


def _colour(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness by ±¼, saturation × [0, 2), contrast × [½, 3/2).

    The paper's brightness is ±½ on pictures in [−1, 1], which is ±¼ on [0, 1]; the other two scale distances from a
    mean, which is the same in either range.
    """
    x = x + (_uniform(x, rng) - 0.5) / 2
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * 2 * _uniform(x, rng)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (_uniform(x, rng) + 0.5)


def _translation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Shifted by up to an eighth of each side."""
    n, channels, high, wide = x.shape
    rows, columns = _shifted(x, high, rng), _shifted(x, wide, rng)  # [N, H], [N, W]
    inside = (rows >= 0).unsqueeze(2) & (columns >= 0).unsqueeze(1)  # [N, H, W]
    x = x.gather(2, rows.clamp(min=0).view(n, 1, high, 1).expand(-1, channels, -1, wide))
    x = x.gather(3, columns.clamp(min=0).view(n, 1, 1, wide).expand(-1, channels, high, -1))
    return x * inside.unsqueeze(1)


def _shifted(x: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Where each of `side` lines comes from, int64 [N, side]; −1 from outside."""
    reach = max(1, side // 8)
    shift = torch.randint(-reach, reach + 1, (len(x), 1), generator=rng, device=x.device)
    source = torch.arange(side, device=x.device) + shift
    return torch.where((source >= 0) & (source < side), source, -1)


def _cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """A square of half the side erased, anywhere, also beyond the border."""
    n, _, high, wide = x.shape
    inside = []
    for side in (high, wide):
        centre = torch.randint(side, (n, 1), generator=rng, device=x.device)
        inside.append((torch.arange(side, device=x.device) - centre).abs() <= side // 4)
    return x * ~(inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "colour": _colour,
    "translation": _translation,
    "cutout": _cutout,
}
