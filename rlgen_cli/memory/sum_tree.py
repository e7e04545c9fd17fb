"""Rows drawn in proportion to their mass, without a look at all of them."""

import torch
from torch import Tensor


class SumTree:
    """Masses of rows, sums of blocks of them, and sums of blocks of these: drawing one row, or changing it, costs about
    the cube root of the number of rows. A changed block is summed anew from its rows, so that nothing drifts, and a
    tree built at once equals one that grew, to the bit.

    Args:
        rows: how many; a row whose `mass` is not above 0 is never drawn.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.width = next(width for width in range(1, rows + 1) if width**3 >= rows)
        blocks = -(-rows // self.width)
        self.mass = torch.zeros(blocks * self.width, device=device)
        self.sums = torch.zeros(self.width**2, dtype=torch.float64, device=device)  # of `width` rows each
        self.top = torch.zeros(self.width, dtype=torch.float64, device=device)  # of `width` sums each

    @property
    def nbytes(self) -> int:
        return self.mass.nbytes + self.sums.nbytes + self.top.nbytes

    def rebuild(self) -> None:
        """Take in all masses."""
        self.refresh(torch.arange(0, len(self.mass), self.width, device=self.mass.device))

    def refresh(self, rows: Tensor) -> None:
        """Take in that the masses of these rows [K] changed; a row may be named twice."""
        block = rows // self.width
        self.sums[block] = self._positive(block).sum(1)
        upper = block // self.width
        self.top[upper] = self._sums(upper).sum(1)

    def draw(self, batch: int, rng: torch.Generator) -> Tensor:
        """Rows [B], each as likely as its share of the whole mass."""
        # In (0, 1], so that nothing of mass 0 is found.
        uniform = 1 - torch.rand(1, batch, generator=rng, dtype=torch.float64, device=self.mass.device)
        upper, rest = _find(self.top.unsqueeze(0), uniform * self.top.sum())
        upper = upper.view(batch)
        within, rest = _find(self._sums(upper), rest.view(batch, 1))
        block = upper * self.width + within.view(batch)
        within, _ = _find(self._positive(block), rest)
        return block * self.width + within.view(batch)

    def _positive(self, block: Tensor) -> Tensor:
        """Masses of blocks [K], float64 [K, width]."""
        return self.mass.view(-1, self.width).index_select(0, block).clamp(min=0).double()

    def _sums(self, upper: Tensor) -> Tensor:
        """Sums below those of the top level [K], [K, width]."""
        return self.sums.view(-1, self.width).index_select(0, upper)


def _find(mass: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """In which of the masses [K, W], laid end to end, points [K, M] lie, and how far into it."""
    cumulative = mass.cumsum(1)
    point = torch.minimum(point, cumulative[:, -1:])  # a sum in another order may be a little more
    index = torch.searchsorted(cumulative, point).clamp(max=mass.shape[1] - 1)  # (without any mass there is no place)
    before = cumulative.gather(1, (index - 1).clamp(min=0))
    return index, point - torch.where(index > 0, before, 0.0)
