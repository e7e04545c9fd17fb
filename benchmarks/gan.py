"""GANs on MNIST by the clock: what each recipe makes after 60, 120 and 180 seconds, seen by the fixed judge.

python -m benchmarks.gan [seeds=1,2] [recipes=r1,conditional,dcgan,wgan_gp,hinge,r3]
"""

import sys
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.generators import SMALL_GAN, gan_of, generated
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, pictures
from benchmarks.parts import data_of, remembered
from benchmarks.report import Line, Row, curves, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.evaluation.distances import frechet, kernel_distance, neighbourhoods, vendi
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session, assemble

RECIPES = {"conditional": ["env.generator.conditional=true", "env.condition=label"]}
SHOWN = ("r1", "conditional")  # recipes whose samples are shown
HEAD: Row = ["recipe", "seed", "seconds", "updates", "Fréchet distance", "KID", "precision", "recall", "density",
             "coverage", "Vendi"]  # fmt: skip


def untrained(call: Call, recipe: str, seed: int) -> Session:
    """A session with a GAN before its first update."""
    words = RECIPES.get(recipe, [f"generator={recipe}"])
    small = call.pick([], SMALL_GAN)
    return assemble(composed("train", ["env=latent_gan", "agent=random", *mnist(call), f"seed={seed}", *words, *small]))


class Measure:
    """What samples are compared with: the features of the test pictures."""

    def __init__(self, call: Call) -> None:
        self.call, self.judge, data = call, FixedJudge(call), data_of(untrained(call, "r1", 1))
        self.count, self.near = call.pick(10_000, 100), call.pick(5_000, 50)
        self.real = self.judge(pictures(data.test))
        images = pictures(data.train)
        some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: self.count]
        self.others = self.judge(images[some])

    def cells(self, features: Tensor) -> tuple[Row, float]:
        """A row's numbers, and the Fréchet distance among them."""
        real, made, distance = self.real[: self.near], features[: self.near], frechet(features, self.real)
        near = neighbourhoods(real, made)
        shares = (f"{near[name]:.2f}" for name in ("precision", "recall", "density", "coverage"))
        return [f"{distance:.1f}", f"{kernel_distance(made, real):.3g}", *shares, f"{vendi(features):.2f}"], distance

    def timed(self, recipe: str, seed: int) -> dict[str, Any]:
        """The rows of a training, one at each mark, and its curve of (seconds, distance)."""
        session, spent = untrained(self.call, recipe, seed), 0.0
        gan, rows, curve = gan_of(session), [], []
        for mark in self.call.pick((60.0, 120.0, 180.0), (0.1, 0.2)):
            while spent < mark:
                began = time.perf_counter()
                gan.update(0.0)
                spent += time.perf_counter() - began
            made = generated(session, self.count)
            cells, distance = self.cells(self.judge(made))
            rows.append([recipe, seed, f"{mark:g}", gan.updates_done, *cells])
            curve.append((mark, distance))
            print(*rows[-1], flush=True)
            if recipe in SHOWN and seed == 1:
                write_png(self.call.results / f"gan_{recipe}_{mark:g}.png", enlarge(grid(made[:100], columns=10), 560))
        return {"rows": rows, "curve": curve}


def measure(call: Call) -> None:
    measured = Measure(call)
    rows: list[Row] = [HEAD, ["real pictures", "", "", "", *measured.cells(measured.others)[0]]]
    lines: dict[str, Line] = {}
    for recipe in call.each("recipes"):
        for seed in call.seeds():
            path = call.parts / f"{recipe}_{seed}.json"
            found = remembered(path, partial(measured.timed, recipe, seed))
            rows += found["rows"]
            lines[f"{recipe}, seed {seed}"] = found["curve"]
    curves(call.results / "gan.png", {"Fréchet distance": lines}, "seconds of training")
    write(call, "GANs on MNIST by the clock", [
        "`python -m benchmarks.gan`: each recipe from a fresh seed, judged at 60, 120 and 180 s of training (the time "
        f"for judging is not counted). {measured.count} samples of fresh latents against the {len(measured.real)} test "
        "pictures, in the features of the fixed judge, which trains nothing; neighbours (k = 5), and KID, on "
        f"{measured.near} of each. The row of real pictures is what training pictures have.",
        table(rows), "![](gan.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("gan", measure, arguments, seeds="1,2", recipes="r1,conditional,dcgan,wgan_gp,hinge,r3")


if __name__ == "__main__":
    main(sys.argv[1:])
