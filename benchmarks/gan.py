"""GANs by the clock: what each recipe makes of digits, sprites and emoji after 60, 120 and 180 seconds.

    python -m benchmarks.gan [seeds=1,2] [sets=mnist,sprites,emoji] [recipes=r1,conditional,dcgan,wgan_gp,hinge,r3]

Digits by each recipe, and coloured pictures by the default one.
"""

import sys
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.files import EMOJI, SPRITES, mnist, published
from benchmarks.generators import COLOURED, SMALL_GAN, gan_of, generated, rotation_features
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, pictures
from benchmarks.parts import data_of, remembered
from benchmarks.report import Line, Row, curves, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.evaluation.distances import frechet, kernel_distance, neighbourhoods, vendi
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session, assemble

RECIPES = {"conditional": ["env.generator.conditional=true", "env.condition=label"]}
FOLDERS = {"sprites": SPRITES, "emoji": EMOJI}
SOURCES = {
    "sprites": "The sprites are tiles of Dungeon Crawl Stone Soup, CC0.",
    "emoji": "The emoji are those of Noto Emoji, OFL 1.1 and Apache-2.0.",
}
SHOWN = ("r1", "conditional")  # recipes whose samples are shown
HEAD: Row = ["recipe", "seed", "seconds", "updates", "Fréchet distance", "KID", "precision", "recall", "density",
             "coverage", "Vendi"]  # fmt: skip


def untrained(call: Call, name: str, recipe: str, seed: int) -> Session:
    """A session with a GAN before its first update.

    Args:
        name: of the set of pictures.
    """
    words = RECIPES.get(recipe, [f"generator={recipe}"])
    data = mnist(call) if name == "mnist" else [*COLOURED, f"data.path={published(call, FOLDERS[name])}"]
    small = call.pick([], SMALL_GAN)
    return assemble(composed("train", ["env=latent_gan", "agent=random", *data, f"seed={seed}", *words, *small]))


class Measure:
    """What samples of one set are compared with: the features of its held-out pictures."""

    def __init__(self, call: Call, name: str) -> None:
        session = untrained(call, name, "r1", 1)
        data = data_of(session)
        self.call, self.name, self.images = call, name, pictures(data.train)
        self.features = FixedJudge(call) if name == "mnist" else rotation_features(call, session)
        self.real = self.features(pictures(data.test))
        self.count = call.pick(10_000 if name == "mnist" else 4000, 100)
        self.near = min(len(self.real), call.pick(5_000, 50))
        some = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(0))[: self.count]
        self.others = self.features(self.images[some])

    def cells(self, features: Tensor) -> tuple[Row, float]:
        """A row's numbers, and the Fréchet distance among them."""
        real, made, distance = self.real[: self.near], features[: self.near], frechet(features, self.real)
        near = neighbourhoods(real, made)
        shares = (f"{near[name]:.2f}" for name in ("precision", "recall", "density", "coverage"))
        return [f"{distance:.3g}", f"{kernel_distance(made, real):.3g}", *shares, f"{vendi(features):.2f}"], distance

    def timed(self, recipe: str, seed: int) -> dict[str, Any]:
        """The rows of a training, one at each mark, and its curve of (seconds, distance). The learning rate falls over
        the seconds, as it falls over the updates of `rlgen pretrain`."""
        session, spent = untrained(self.call, self.name, recipe, seed), 0.0
        gan, rows, curve = gan_of(session), [], []
        marks = self.call.pick((60.0, 120.0, 180.0), (0.1, 0.2))
        for mark in marks:
            while spent < mark:
                began = time.perf_counter()
                gan.update(min(spent / marks[-1], 1.0))
                spent += time.perf_counter() - began
            made = generated(session, self.count)
            cells, distance = self.cells(self.features(made))
            rows.append([recipe, seed, f"{mark:g}", gan.updates_done, *cells])
            curve.append((mark, distance))
            print(self.name, *rows[-1], flush=True)
        if recipe in SHOWN and seed == 1:
            write_png(self.call.results / f"gan_{self.name}_{recipe}.png", enlarge(self.shown(made), 560))
        return {"rows": rows, "curve": curve}

    def shown(self, made: Tensor) -> Tensor:
        """Unselected samples in rows, each above the training pictures that are nearest to it in pixels."""
        made = made[:50]
        nearest = self.images[torch.cdist(made.flatten(1), self.images.flatten(1)).argmin(1)]
        pairs = torch.stack([made.unflatten(0, (-1, 10)), nearest.unflatten(0, (-1, 10))], 1)  # [5, 2, 10, C, H, W]
        return grid(pairs.flatten(0, 2), columns=10)


def page(call: Call, name: str, recipes: list[str]) -> None:
    """The table and pictures of one set."""
    measured = Measure(call, name)
    rows: list[Row] = [HEAD, ["real pictures", "", "", "", *measured.cells(measured.others)[0]]]
    lines: dict[str, Line] = {}
    for recipe in recipes:
        for seed in call.seeds():
            path = call.parts / f"{name}_{recipe}_{seed}.json"
            found = remembered(path, partial(measured.timed, recipe, seed))
            rows += found["rows"]
            lines[f"{recipe}, seed {seed}"] = found["curve"]
    title = "gan" if name == "mnist" else f"gan_{name}"
    curves(call.results / f"{title}.png", {"Fréchet distance": lines}, "seconds of training")
    turned = "a net trained to tell by how far a picture was turned"
    judge = "the fixed judge, which trains nothing" if name == "mnist" else turned
    shown = [recipe for recipe in SHOWN if recipe in recipes]
    write(call, f"GANs on {name} by the clock", [
        f"`python -m benchmarks.gan sets={name} seeds={call.settings['seeds']}`: each recipe from a fresh "
        "seed, judged at 60, 120 and 180 s of training (the time for judging is not counted), over which its learning "
        "rate falls. "
        f"{measured.count} samples of fresh latents against the {len(measured.real)} test pictures, in the features of "
        f"{judge}; neighbours (k = 5), and KID, on {measured.near} of each. The row of real pictures is what training "
        "pictures have.",
        table(rows), f"![]({title}.png)",
        *(f"Unselected samples of {recipe} after 180 s, each row above the nearest training pictures:\n\n"
          f"![](gan_{name}_{recipe}.png)" for recipe in shown),
        *([SOURCES[name]] if name in SOURCES else []),
    ], title)  # fmt: skip


def measure(call: Call) -> None:
    for name in call.each("sets"):
        page(call, name, call.each("recipes") if name == "mnist" else ["r1"])


def main(arguments: list[str]) -> None:
    run(
        "gan",
        measure,
        arguments,
        seeds="1,2",
        sets="mnist,sprites,emoji",
        recipes="r1,conditional,dcgan,wgan_gp,hinge,r3",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
