"""How a set of samples compares with a set of real ones, in the features [N, D] of some network.

A distance says little alone: beside it belong the number of samples and what two sets of real pictures have between
them.
"""

import torch
from torch import Tensor

BLOCK = 1000  # rows of a distance matrix at once
GRID = 500  # places at which densities are compared


def frechet(a: Tensor, b: Tensor) -> float:
    """|μ_a − μ_b|² + tr(C_a + C_b − 2 (C_a C_b)^½) (Heusel et al. 2017)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)³ (KID, Bińkowski et al. 2018); about
    0, perhaps below, for two sets of one distribution."""
    a, b = a.double(), b.double()

    def mean(x: Tensor, y: Tensor, alike: bool) -> Tensor:
        total = torch.zeros((), dtype=torch.double)
        for rows in x.split(BLOCK):
            total += (rows @ y.T / x.shape[1] + 1).pow(3).sum()
        if alike:  # a sample is not compared with itself
            return (total - (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()) / (len(x) * (len(x) - 1))
        return total / (len(x) * len(y))

    return float(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))


def neighbourhoods(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """What balls around samples, each as large as the distance to its k-th neighbour of its own kind, hold.

    precision, recall: share of made samples in a real one's ball, and of real ones in a made one's (Kynkäänniemi et al.
    2019). density: how many real balls hold a made sample, as a share of k; coverage: share of real balls that hold
    any (both Naeem et al. 2020).
    """
    radius_real, radius_fake = _radius(real, k), _radius(fake, k)
    inside = torch.zeros(len(fake))  # how many real balls hold it
    covered, recalled = 0.0, 0.0
    for rows, radius in zip(real.split(BLOCK), radius_real.split(BLOCK), strict=True):
        away = torch.cdist(rows, fake)  # [real, fake]
        near = away <= radius.unsqueeze(1)
        inside += near.sum(0)
        covered += float(near.any(1).sum())
        recalled += float((away <= radius_fake).any(1).sum())
    return {
        "precision": float((inside > 0).float().mean()),
        "recall": recalled / len(real),
        "density": float(inside.mean()) / k,
        "coverage": covered / len(real),
    }


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance to the k-th neighbour, [N]; the nearest is the sample itself."""
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(BLOCK)])


def vendi(x: Tensor) -> float:
    """How many different samples there seem to be: the exponential of the entropy of the eigenvalues of their cosine
    similarities, divided by N (Friedman and Dieng 2023). From 1 (all alike) to N."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    # The N × N matrix of similarities and this D × D one have the same eigenvalues above 0.
    share = torch.linalg.eigvalsh(unit.T @ unit / len(x)).clamp(min=1e-12)
    return float((-(share * share.log()).sum()).exp())


def from_corpus(made: Tensor, corpus: Tensor) -> tuple[float, float]:
    """How a feature [N, D] of a set compares with that of a corpus [M, D] (Yang and Lerch 2020): overlapping area (0 to
    1) and KL divergence (nats) between the density of the distances within the corpus, each piece against all others,
    and the density of the distances from made pieces to those of the corpus."""
    m = len(corpus)
    one, two = torch.triu_indices(m, m, 1, device=corpus.device)
    intra, inter = torch.cdist(corpus, corpus)[one, two].cpu(), torch.cdist(made, corpus).flatten().cpu()
    lowest, highest = min(float(intra.min()), float(inter.min())), max(float(intra.max()), float(inter.max()))
    if highest == lowest:  # all distances are one number
        return 1.0, 0.0
    narrowest = (highest - lowest) / 100  # of distances that hardly differ
    widths = [max(scott(part), narrowest) for part in (intra, inter)]
    at = torch.linspace(lowest - 3 * max(widths), highest + 3 * max(widths), GRID, dtype=torch.double)
    p, q = (density(part, at, width) for part, width in zip((intra, inter), widths, strict=True))
    return overlap(p, q), divergence(p, q)


def scott(x: Tensor) -> float:
    """Scott's bandwidth of a kernel density of one dimension."""
    return float(x.double().std()) * len(x) ** -0.2


def density(x: Tensor, at: Tensor, width: float) -> Tensor:
    """A Gaussian kernel density of numbers [N] at places [G], as probabilities that sum to 1."""
    total = torch.zeros_like(at)
    for part in x.double().split(BLOCK):
        total += (-0.5 * ((at.unsqueeze(1) - part) / width).square()).exp().sum(1)
    return total / total.sum()


def overlap(p: Tensor, q: Tensor) -> float:
    """The area below both of two densities on one grid, from 0 (nothing in common) to 1."""
    return float(torch.minimum(p, q).sum())


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p ‖ q) in nats of two densities on one grid; what is below a billionth of a billionth counts as that, so that
    there is a limit (about 40) where the two have nothing in common."""
    return float((p * (p.clamp(min=1e-18) / q.clamp(min=1e-18)).log()).sum())
