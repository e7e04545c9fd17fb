"""GANs with a reward fused in: reward, Fréchet distance and coverage against λ, for MNIST digits and sprites.

python -m benchmarks.fused [updates=1500]
"""

import sys

import torch
from torch import Tensor

from benchmarks.gan import samples
from benchmarks.judge import SHARED, Features
from benchmarks.report import RESULTS, curves, table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.rewards.features import feature_net
from rlgen_cli.core.types import Context, View

COUNT = 4000
SETS = {
    "digits": ("symmetry", (0.0, 0.1, 0.3, 1.0, 3.0), ["data=mnist", f"data.root={SHARED / 'mnist'}"]),
    "sprites": ("colourfulness", (0.0, 0.01, 0.03, 0.1, 0.3), [
        "data=folder", f"data.path={SHARED / 'sprites'}", "env.size=32", "env.channels=3",
        "env.gan.augment=[colour,translation,cutout]",
    ]),
}  # fmt: skip


def trained(words: list[str], weight: float, updates: int) -> Session:
    """A GAN after so many updates."""
    built = build(
        composed("train", ["env=latent_gan", "agent=random", *words, f"env.gan.fused={weight}"]), pretrained=False
    )
    for _ in range(updates):
        built.gan.update(0.0, built.reward)
    return built


def main(updates: int) -> None:
    register_resolvers()
    rows: list[list[object]] = [["data", "reward", "λ", "mean reward", "Fréchet distance", "coverage"]]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, (term, weights, words) in SETS.items():
        pictures: list[Tensor] = []
        lines: dict[str, list[tuple[float, float]]] = {"reward": [], "Fréchet distance": [], "coverage": []}
        for weight in weights:
            built = trained([*words, f"reward={term}"], weight, updates)
            assert built.data is not None
            real = (built.data.test if name == "digits" else built.data.train).images[:COUNT].float() / 255
            net = Features() if name == "digits" else feature_net(built.data.train, 600, built.device).features
            made = samples(built, COUNT)
            score = built.reward.terms[term].score
            known, found = net(real).detach(), net(made).detach()
            worth = float(score(View(made, Context(), torch.ones(len(made)))).mean())
            if weight == weights[0]:
                floor = float(score(View(real, Context(), torch.ones(len(real)))).mean())
                rows.append([f"{name}, real pictures", term, "", f"{floor:.3f}", "", ""])
            distance, count = frechet(found, known), min(len(known), len(found))
            covered = neighbourhoods(known[:count], found[:count])["coverage"]
            rows.append([name, term, weight, f"{worth:.3f}", f"{distance:.3g}", f"{covered:.2f}"])
            print(*rows[-1], flush=True)
            for line, value in zip(lines.values(), (worth, distance, covered), strict=True):
                line.append((weight, value))
            pictures.append(made[:12])
        panels |= {f"{name}: {key}": {term: line} for key, line in lines.items()}
        write_png(RESULTS / f"fused_{name}.png", enlarge(grid(torch.cat(pictures), columns=12), 400))
    curves(RESULTS / "fused.png", panels, "λ")
    write("fused", "GANs with a reward fused in", [
        f"`python -m benchmarks.fused updates={updates}`: one seed, {updates} updates each; λ scales the "
        "reward's gradient on a picture by the length of the adversarial one. Distance and coverage on "
        f"{COUNT} samples: digits against test pictures in the fixed judge's features; sprites against the training "
        "pictures in the features of a net trained to tell by how far a picture was turned. "
        "A row of the pictures is a λ, from 0 upwards.",
        table(rows), "![](fused.png)", "![](fused_digits.png)", "![](fused_sprites.png)",
    ])  # fmt: skip


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    main(int(given.get("updates", "1500")))
