"""GANs with a reward fused in: reward, Fréchet distance and coverage against λ, for MNIST digits and sprites.

python -m benchmarks.fused [updates=1500]
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.files import SPRITES, mnist, published
from benchmarks.generators import COLOURED, SMALL_GAN, gan_of, generated, rotation_features
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, pictures
from benchmarks.parts import data_of, remembered
from benchmarks.report import Line, Row, curves, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session, assemble

SHOWN = 12  # samples of each λ


class Set(NamedTuple):
    """A set of pictures, and the reward that is fused in."""

    name: str
    term: str
    weights: tuple[float, ...]  # λ
    words: list[str]


def sets(call: Call) -> list[Set]:
    """Those of the table."""
    sprites = [*COLOURED, f"data.path={published(call, SPRITES)}"]
    return [
        Set("digits", "symmetry", call.pick((0.0, 0.1, 0.3, 1.0, 3.0), (0.0, 1.0)), mnist(call)),
        Set("sprites", "colourfulness", call.pick((0.0, 0.01, 0.03, 0.1, 0.3), (0.0, 0.1)), sprites),
    ]


def trained_gan(call: Call, words: list[str], weight: float, updates: int) -> Session:
    """A session whose GAN had so many updates."""
    words = ["env=latent_gan", "agent=random", *words, f"env.generator.fused_reward.weight={weight}"]
    session = assemble(composed("train", [*words, *call.pick([], SMALL_GAN)]))
    for _ in range(updates):
        gan_of(session).update(0.0)
    return session


def real_pictures(call: Call, session: Session, name: str) -> Tensor:
    """What the samples are compared with."""
    data = data_of(session)
    return pictures(data.test if name == "digits" else data.train)[: call.pick(4000, 50)]


@torch.no_grad()
def worth(session: Session, term: str, samples: Tensor) -> float:
    """The mean of a term's score."""
    return float(session.reward.terms[term].score(View(samples, {}, {})).mean())


def measured(call: Call, chosen: Set, weight: float, updates: int) -> dict[str, Any]:
    """Reward, distance and coverage of a training, what real pictures are worth, and the first samples."""
    session = trained_gan(call, [*chosen.words, f"reward={chosen.term}"], weight, updates)
    real, made = real_pictures(call, session, chosen.name), generated(session, call.pick(4000, 50))
    features = FixedJudge(call) if chosen.name == "digits" else rotation_features(call, session)
    known, found = features(real), features(made)
    count = min(len(known), len(found))
    return {
        "reward": worth(session, chosen.term, made), "real": worth(session, chosen.term, real),
        "distance": frechet(found, known), "coverage": neighbourhoods(known[:count], found[:count])["coverage"],
        "shown": (255 * made[:SHOWN]).round().int().tolist(),
    }  # fmt: skip


def measure(call: Call) -> None:
    updates = call.pick(int(call.settings["updates"]), 3)
    rows: list[Row] = [["data", "reward", "λ", "mean reward", "Fréchet distance", "coverage"]]
    panels: dict[str, dict[str, Line]] = {}
    for chosen in sets(call):
        found = {
            weight: remembered(
                call.parts / f"{chosen.name}_{weight}_{updates}.json",
                partial(measured, call, chosen, weight, updates),
            )
            for weight in chosen.weights
        }
        name, term = chosen.name, chosen.term
        rows.append([f"{name}, real pictures", term, "", f"{found[chosen.weights[0]]['real']:.3f}", "", ""])
        for weight, made in found.items():
            cells = (f"{made['reward']:.3f}", f"{made['distance']:.3g}", f"{made['coverage']:.2f}")
            rows.append([name, term, weight, *cells])
        for title, key in (("reward", "reward"), ("Fréchet distance", "distance"), ("coverage", "coverage")):
            panels[f"{name}: {title}"] = {term: [(weight, made[key]) for weight, made in found.items()]}
        shown = torch.cat([torch.tensor(made["shown"]) for made in found.values()]) / 255
        write_png(call.results / f"fused_{name}.png", enlarge(grid(shown, columns=SHOWN), 400))
    curves(call.results / "fused.png", panels, "λ")
    write(call, "GANs with a reward fused in", [
        f"`python -m benchmarks.fused updates={updates}`: one seed, {updates} updates each; λ scales the "
        "reward's gradient on a picture by the length of the adversarial one. Distance and coverage on "
        f"{call.pick(4000, 50)} samples: digits against test pictures in the fixed judge's features; sprites against "
        "the training pictures in the features of a net trained to tell by how far a picture was turned. "
        "A row of the pictures is a λ, from 0 upwards. The distance of the sprites is therefore to what the generator "
        "learned from, and says nothing about pictures that it has not seen; `benchmarks.gan sets=sprites` has the "
        "distance to held-out ones.",
        table(rows), "![](fused.png)", "![](fused_digits.png)", "![](fused_sprites.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("fused", measure, arguments, updates="1500")


if __name__ == "__main__":
    main(sys.argv[1:])
