"""Smooth pictures."""

from typing import Literal

from torch import Tensor

from rlgen_cli.core.specs import View


class NewTerm:
    """Minus the mean difference of neighbours, within rows or within columns.

    Args:
        within: rows or columns; from the YAML, as every key but `weight` and `form`, which belong to all terms.
    """

    judges = "picture"  # what it can score: a kind of sample (env.spec.kinds), or any
    needs: frozenset[str] = frozenset()  # what of context and info it reads, as in {"target"}

    def __init__(self, *, within: Literal["rows", "columns"]) -> None:
        self.dim = 3 if within == "rows" else 2

    def __call__(self, view: View) -> Tensor:
        """A number per sample, [N]; higher is better. `view.sample` is float [N, C, H, W] in [0, 1]."""
        return -view.sample.diff(dim=self.dim).abs().mean((1, 2, 3))
