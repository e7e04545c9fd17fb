"""GANs on MNIST by the clock: what each recipe makes after 60, 120 and 180 seconds, seen by the fixed judge.

python -m benchmarks.gan [seeds=1,2] [gans=r1,conditional,dcgan,wgan_gp,hinge,r3]
"""

import sys
import time

import torch

from benchmarks.judge import SHARED, Features
from benchmarks.report import RESULTS, curves, table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet, kernel_distance, neighbourhoods, vendi
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.core.seeding import stream

MARKS = (60, 120, 180)  # seconds
COUNT = 10_000
NEAR = 5_000  # pictures whose neighbours are looked at
RECIPES = {"conditional": ["env.gan.conditional=true", "env.condition=label"]}


def session(recipe: str, seed: int) -> Session:
    words = RECIPES.get(recipe, [f"gan@env.gan={recipe}"])
    return build(
        composed("train", [
            "env=latent_gan", "agent=random", "data=mnist", f"data.root={SHARED / 'mnist'}", f"seed={seed}", *words,
        ]), pretrained=False,
    )  # fmt: skip


@torch.no_grad()
def samples(built: Session, count: int) -> torch.Tensor:
    """Pictures of fresh latents, and of labels in turn where the generator knows them."""
    gan, rng = built.gan, stream(0, "gan benchmark", built.device)
    label = torch.arange(count) % max(gan.classes, 1)
    z = torch.randn(count, gan.latent, generator=rng)
    return torch.cat([gan(*parts) for parts in zip(z.split(500), label.split(500), strict=True)])


def cells(real: torch.Tensor, made: torch.Tensor, distance: float) -> list[object]:
    """A row's numbers, from features."""
    near = neighbourhoods(real[:NEAR], made[:NEAR])
    return [
        f"{distance:.1f}", f"{kernel_distance(made[:NEAR], real[:NEAR]):.3g}",
        *(f"{near[name]:.2f}" for name in ("precision", "recall", "density", "coverage")), f"{vendi(made):.2f}",
    ]  # fmt: skip


def clocked(recipe: str, seed: int, features: Features, real: torch.Tensor) -> tuple[list[list[object]], list]:
    """A row at each mark, and the curve (seconds, distance)."""
    built, rows, curve, spent = session(recipe, seed), [], [], 0.0
    for mark in MARKS:
        while spent < mark:
            began = time.perf_counter()
            built.gan.update(0.0, built.reward)
            spent += time.perf_counter() - began
        made = samples(built, COUNT)
        seen = features(made)
        distance = frechet(seen, real)
        rows.append([recipe, seed, mark, built.gan.updates, *cells(real, seen, distance)])
        curve.append((mark, distance))
        print(*rows[-1], flush=True)
        if seed == 1 and recipe in ("r1", "conditional"):
            write_png(RESULTS / f"gan_{recipe}_{mark}.png", enlarge(grid(made[:100], columns=10), 560))
    return rows, curve


def main(seeds: list[int], recipes: list[str]) -> None:
    register_resolvers()
    features = Features()
    pictures = session("r1", 1).data
    assert pictures is not None
    real = features(pictures.test.images.float() / 255)
    some = torch.randperm(len(pictures.train.images), generator=torch.Generator().manual_seed(0))[:COUNT]
    others = features(pictures.train.images[some].float() / 255)
    rows: list[list[object]] = [
        ["recipe", "seed", "seconds", "updates", "Fréchet distance", "KID", "precision", "recall", "density",
         "coverage", "Vendi"],
        ["real pictures", "", "", "", *cells(real, others, frechet(others, real))],
    ]  # fmt: skip
    lines = {}
    for recipe in recipes:
        for seed in seeds:
            found, lines[f"{recipe}, seed {seed}"] = clocked(recipe, seed, features, real)
            rows += found
    curves(RESULTS / "gan.png", {"Fréchet distance": lines}, "seconds of training")
    write("gan", "GANs on MNIST by the clock", [
        "`python -m benchmarks.gan`: each recipe from a fresh seed, judged at 60, 120 and 180 s of training (the time "
        f"for judging is not counted). {COUNT} samples of fresh latents against the {len(real)} test pictures, in the "
        "features of the fixed judge, which trains nothing; neighbours (k = 5), and KID, on "
        f"{NEAR} of each. The row of real pictures is what training pictures have.",
        table(rows), "![](gan.png)",
    ])  # fmt: skip


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    main(
        [int(seed) for seed in given.get("seeds", "1,2").split(",")],
        given.get("gans", "r1,conditional,dcgan,wgan_gp,hinge,r3").split(","),
    )
