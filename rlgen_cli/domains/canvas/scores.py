"""Scores that rules give: coverage, closeness to a target, cost of ink."""

from typing import Literal

from torch import Tensor

from rlgen_cli.core.specs import View


def ink(picture: Tensor, view: View) -> Tensor:
    """How far each pixel of a picture [N, C, H, W] is from the canvas's background (black, where there is none)."""
    background = view.info.get("background")
    return picture if background is None else (picture - background.view(*background.shape, 1, 1)).abs()


class Coverage:
    """Fraction of the canvas that is drawn on, in [0, 1]: the simplest score that can be learned."""

    judges = "picture"
    needs: frozenset[str] = frozenset()

    def __call__(self, view: View) -> Tensor:
        return ink(view.sample, view).mean(1).clamp(0, 1).flatten(1).mean(1)


class Target:
    """Minus the distance to the target image; 0 is a perfect copy.

    `norm` l2 sums squared, l1 absolute differences. `per` target divides by the same sum for a blank canvas, which so
    scores −1; 1 + score is ReSketch's similarity; `per` pixel gives the mean over pixels.
    """

    judges = "picture"
    needs = frozenset(["target"])

    def __init__(self, *, norm: Literal["l2", "l1"], per: Literal["target", "pixel"]) -> None:
        self.norm, self.per = norm, per

    def __call__(self, view: View) -> Tensor:
        target = view.context["target"]
        error = (view.sample - target).flatten(1)
        if self.per == "pixel":
            return -self._sum(error) / error.shape[1]
        # A blank target counts as one full pixel, so that the score stays finite.
        return -self._sum(error) / self._sum(ink(target, view).flatten(1)).clamp(min=1.0)

    def _sum(self, difference: Tensor) -> Tensor:
        """Of the squares or the absolute values, [N] of [N, D]."""
        return (difference.square() if self.norm == "l2" else difference.abs()).sum(1)


class InkCost:
    """Minus the number of marks made: each costs 1 times the term's weight."""

    judges = "picture"
    needs = frozenset(["num_marks"])

    def __call__(self, view: View) -> Tensor:
        return -view.info["num_marks"].float()
