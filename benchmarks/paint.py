"""Photographs in 256 strokes at 128 × 128: the painter, with and without a finish by gradient, beside optimising the
same number of strokes for each picture, and beside search.

python -m benchmarks.paint [run=] [pictures=200] [optimised=20] [searched=4] [updates=1000]

run: a run of experiment=painter; the painter that comes with rlgen where none is named. pictures: that the painter
paints; of these `optimised`, evenly chosen, are painted in every way, and `searched` of those by search.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageColor
from torch import Tensor

from benchmarks.files import PHOTOS, published
from benchmarks.generators import slug
from benchmarks.harness import Call, run
from benchmarks.judge import mean
from benchmarks.parts import QUICK, remembered, trained
from benchmarks.report import Row, table, with_interval, write
from rlgen_cli.config.compose import composed
from rlgen_cli.core.files import files_below
from rlgen_cli.core.specs import Tip
from rlgen_cli.data.folder import SUFFIXES, read_whole
from rlgen_cli.data.images import pil_to_tensor
from rlgen_cli.domains.canvas.brushes.stroke_cells import NUMBERS, Curves, StrokeCells, best_colours, coverage, gains
from rlgen_cli.domains.canvas.compositing import EDGE, Strokes, composite
from rlgen_cli.domains.canvas.painting import ANY, Painter, painted
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.refining import refined
from rlgen_cli.evaluation.likeness import psnr, ssim
from rlgen_cli.evaluation.media.raster import grid, write_png
from rlgen_cli.runs.paint import FEW, opened, paint, painter_of

SIDE, STROKES = 128, 256
GRID_WIDTH, GRID_LENGTH, GRID_OPACITY = 1.2, 1.3, 0.8  # of the strokes that are optimised; lengths in cells
REFINEMENTS = (10, 50)  # updates
KINDS = {
    "straight lines": Pens(tip=Tip("line")),
    "ellipses": Pens(tip=Tip("ellipse")),
    "triangles": Pens(tip=Tip("triangle")),
    "tapered curves": Pens(tip=Tip("curve", 0.8)),
    "curves of six bristles": Pens(bristles=6),
}
CEM_ROUNDS, CEM_ELITES, CEM_STD = 4, 0.25, 0.3  # of actions from 0 to 1, at the start
COLOURS = ["black", "white", "firebrick", "gold", "navy"]
TRIES = 64  # random strokes for each cell, of which the best are drawn
Method = Callable[[Tensor, Tensor], Strokes]


def photographs(call: Call, count: int) -> Tensor:
    """The middles of test photographs, evenly chosen, float [count, 3, SIDE, SIDE] in [0, 1]."""
    files = files_below(published(call, PHOTOS), SUFFIXES)
    chosen = files[:: max(1, len(files) // count)][:count]
    side = call.pick(SIDE, 48)
    return torch.stack([middle_of(file, side) for file in chosen]).float() / 255


def middle_of(file: Path, side: int) -> Tensor:
    """The largest square in the middle of a picture, uint8 [3, side, side]."""
    image = read_whole(file, (0, 0, 0), "photos")
    left, top = ((length - min(image.size)) // 2 for length in image.size)
    square = image.crop((left, top, left + min(image.size), top + min(image.size)))
    return pil_to_tensor(square.resize((side, side), Image.Resampling.LANCZOS))


def on_a_grid(target: Tensor, paper: Tensor, strokes: int) -> Strokes:
    """Short strokes in all directions, in the colours of their middles, side by side."""
    rng = torch.Generator().manual_seed(0)
    n, side = len(target), round(strokes**0.5)
    cell = target.shape[3] / side
    axis = (torch.arange(side) + 0.5) * cell - 0.5
    middle = torch.cartesian_prod(axis, axis).flip(1).repeat(n, 1)  # [N · side², 2]
    angle = torch.pi * torch.rand(len(middle), generator=rng)
    half = GRID_LENGTH / 2 * cell * torch.stack([angle.cos(), angle.sin()], 1)
    picture = torch.arange(n).repeat_interleave(side**2)
    x, y = middle.round().long().unbind(1)
    ones = torch.ones(len(middle))
    points = torch.stack([middle - half, middle, middle + half], 1)
    return Strokes(points, GRID_WIDTH * cell * ones, GRID_OPACITY * ones, target[picture, :, y, x], picture)


def optimised(updates: int, strokes: int, target: Tensor, paper: Tensor) -> Strokes:
    """Strokes from a grid, by so many updates of Adam."""
    return refined(target, paper, on_a_grid(target, paper, strokes), updates, ANY)


def by_policy(
    painter: Painter, tile: int, strokes: int, refine: int, pens: Pens, target: Tensor, paper: Tensor
) -> Strokes:
    """The painter's strokes, and a finish."""
    made = painted(target, paper, painter, tile, strokes, pens)
    return refined(target, paper, made, refine, pens) if refine else made


def random_painter(brush: StrokeCells, tries: int) -> Painter:
    """So many strokes of each cell at random: search, since the best are drawn."""
    rng = torch.Generator().manual_seed(1)

    def propose(target: Tensor, canvas: Tensor) -> Curves:
        parts = [brush.curves(torch.rand(len(target), NUMBERS * brush.grid**2, generator=rng)) for _ in range(tries)]
        return Curves(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True)))

    return propose


def cem_painter(brush: StrokeCells, tries: int) -> Painter:
    """So many strokes of each cell by the cross-entropy method, each alone against what is there."""
    rng = torch.Generator().manual_seed(1)

    def propose(target: Tensor, canvas: Tensor) -> Curves:
        n, cells, each = len(target), brush.grid**2, tries // CEM_ROUNDS
        seen, before = target.float() / 255, canvas.float() / 255
        middle, std = torch.full((n, 1, cells, NUMBERS), 0.5), torch.full((n, 1, cells, NUMBERS), CEM_STD)
        for _ in range(CEM_ROUNDS):
            action = (middle + std * torch.randn(n, each, cells, NUMBERS, generator=rng)).clamp(0, 1)
            curves = [brush.curves(tried.flatten(1)) for tried in action.unbind(1)]
            joint = Curves(*(torch.cat(fields, 1) for fields in zip(*curves, strict=True)))
            alpha = coverage(joint, brush.size, EDGE, ANY.tip)
            gain = gains(alpha, before, seen, best_colours(alpha, before, seen)).view(n, each, cells)
            best = gain.topk(max(2, round(CEM_ELITES * each)), 1).indices  # [N, elites, cells]
            elite = action.gather(1, best.unsqueeze(3).expand(-1, -1, -1, NUMBERS))
            middle, std = elite.mean(1, keepdim=True), elite.std(1, keepdim=True)
        return brush.curves(elite[:, 0].flatten(1))

    return propose


@torch.no_grad()
def measured(method: Method, pens: Pens, target: Tensor) -> dict[str, Any]:
    """How near a method comes to pictures, one after the other, and its time."""
    psnrs, ssims, seconds = [], [], []
    for picture in target.split(1):
        paper, began = picture.mean((2, 3)), time.perf_counter()
        strokes = method(picture, paper)
        seconds.append(time.perf_counter() - began)
        made = composite(paper[:, :, None, None].expand_as(picture), pens.hairs(strokes), pens.tip).clamp(0, 1)
        psnrs.append(float(psnr(made, picture)))
        ssims.append(float(ssim(made, picture)))
    return {"psnr": psnrs, "ssim": ssims, "seconds": seconds}


def painter_for(call: Call) -> tuple[Painter, int, StrokeCells]:
    """The painter, the side of its tiles, and its brush."""
    folder = call.settings["run"] or None
    if call.quick:
        words = ["experiment=painter", "data.count=40", *QUICK, "agent.network.body.channels=4"]
        folder = str(trained(call.parts / "painter", words))
    config = composed("paint", ["files=none"])
    config.run = folder
    session = opened(config, FEW)
    painter, tile = painter_of(session)
    brush: Any = session.envs["test"].brush  # type: ignore[attr-defined]
    return painter, tile, brush


def measure(call: Call) -> None:
    torch.set_num_threads(1)
    painter, tile, brush = painter_for(call)
    strokes, all_ = call.pick(STROKES, 36), photographs(call, call.pick(int(call.settings["pictures"]), 4))
    every = max(1, len(all_) // call.pick(int(call.settings["optimised"]), 2))
    some, few = all_[::every], all_[::every][: call.pick(int(call.settings["searched"]), 1)]
    updates, finish, tries = call.pick(int(call.settings["updates"]), 4), call.pick(50, 2), call.pick(TRIES, 8)

    def by(proposes: Painter, refine: int, pens: Pens = ANY) -> Method:
        return partial(by_policy, proposes, tile, strokes, refine, pens)

    methods: dict[str, tuple[Method, Pens, Tensor]] = {
        "the painter": (by(painter, 0), ANY, all_),
        **{
            f"the painter, then {refine} updates": (by(painter, refine), ANY, all_)
            for refine in call.pick(REFINEMENTS, (finish,))
        },
        f"{updates} updates from a grid": (partial(optimised, updates, strokes), ANY, some),
        **{
            f"the painter in {name}, then {finish} updates": (by(painter, finish, pens), pens, some)
            for name, pens in KINDS.items()
        },
        f"greedy: the best of {TRIES} random strokes a cell": (by(random_painter(brush, tries), 0), ANY, few),
        f"CEM: {TRIES} strokes a cell": (by(cem_painter(brush, tries), 0), ANY, few),
    }  # fmt: skip
    rows: list[Row] = [["", "PSNR, dB", "SSIM", "seconds a picture", "pictures", "less than the optimised, dB"]]
    found = {
        name: remembered(call.parts / f"{slug(name)}.json", partial(measured, *given))
        for name, given in methods.items()
    }  # fmt: skip
    best = found[f"{updates} updates from a grid"]["psnr"]
    for name, one in found.items():
        same = one["psnr"][::every] if len(one["psnr"]) == len(all_) else one["psnr"]
        short = [wanted - made for wanted, made in zip(best, same, strict=False)]
        rows.append([
            name, with_interval(one["psnr"]), with_interval(one["ssim"]), f"{mean(one['seconds']):.2f}",
            len(one["psnr"]), with_interval(short),
        ])  # fmt: skip
    write_page(call, rows, strokes)
    pictures(call, painter, tile)
    styles(call)


def write_page(call: Call, rows: list[Row], strokes: int) -> None:
    """The table."""
    said = " ".join(f"{key}={call.settings[key]}" for key in ("pictures", "optimised", "searched", "updates"))
    write(call, "Photographs in strokes", [
        f"`python -m benchmarks.paint {said}`: the middles of test photographs of BSDS500, evenly chosen, at "
        f"{SIDE} × {SIDE}, in {strokes} strokes each, quadratic Béziers unless it is said. The painter learned from "
        "shapes that rlgen draws, and saw no photograph; how it is asked (rounds, shares of the strokes), and the rate "
        "of Adam, were chosen on photographs of the training and validation sets, on which nothing was trained. The "
        "optimised strokes begin on a grid, each in the "
        "colour of its middle, and are moved by Adam on points, widths, opacities and colours; the finish after the "
        "painter is the same. Search proposes strokes where the painter does, each of which is tried alone against "
        "what is there. Means over pictures, with half the width of the 95 % interval; times are of one picture alone, "
        "on one thread.",
        table(rows),
        "A scene that is drawn here, and in 100, 500 and 2 000 strokes; below, in 500 of five colours, in thick ones "
        "that cover what is below, on white paper, and after 200 updates of refinement (else 20); then in "
        f"{', '.join(KINDS)}:\n\n![](paint_strokes.png)\n\n![](paint_options.png)\n\n![](paint_kinds.png)",
        "The scene in 500 strokes with 100 updates by `rlgen paint`, with `terms.perceptual.weight=0.01`, and with "
        "`style=` the picture to the left of each and `terms.style.weight=0.1`:\n\n![](paint_styles.png)",
    ])  # fmt: skip


def scene(side: int) -> Tensor:
    """A landscape that is drawn here, float [3, 2 · side / 3, side]: evening, hills, a lake, a boat and a tree."""
    wide, high = side, 2 * side // 3
    x = torch.linspace(0, 1, wide).expand(high, wide)
    y = torch.linspace(0, 1, high).view(-1, 1).expand(high, wide)

    def colour(red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue]).view(3, 1, 1)

    def over(below: Tensor, above: Tensor, cover: Tensor) -> Tensor:
        return below + cover.clamp(0, 1) * (above - below)

    sharp = wide / 2  # from no cover to all of it in two pixels
    picture = over(colour(0.16, 0.22, 0.45), colour(0.98, 0.62, 0.38), (y / 0.55) ** 1.4)
    sun = ((x - 0.68).square() + ((y - 0.36) * high / wide).square()).sqrt()
    picture = over(picture, colour(1.0, 0.9, 0.6), 0.8 * (-((sun / 0.13) ** 2)).exp())
    picture = over(picture, colour(1.0, 0.97, 0.85), (0.05 - sun) * sharp)
    for height, wave, shade in ((0.44, 5.0, 0.42), (0.50, 9.0, 0.30), (0.55, 14.0, 0.2)):
        edge = height + 0.04 * (wave * x + 7 * height).sin() + 0.02 * (2.7 * wave * x).sin()
        picture = over(picture, colour(0.8 * shade, 0.9 * shade, 1.5 * shade), (y - edge) * sharp)
    lake = over(colour(0.9, 0.55, 0.4), colour(0.1, 0.16, 0.33), (y - 0.6) / 0.3)
    glitter = (-(((x - 0.68) / 0.05) ** 2)).exp() * (0.6 + 0.4 * (160 * y + 3 * (30 * x).sin()).sin())
    picture = over(picture, over(lake, colour(1.0, 0.85, 0.6), 0.7 * glitter), (y - 0.6) * sharp)
    hull = torch.minimum(y - 0.705, 0.74 - y) * sharp * ((x - 0.33).abs() < 0.09 - (y - 0.705))
    picture = over(picture, colour(0.25, 0.08, 0.06), hull)
    sail = torch.minimum(torch.minimum(0.70 - y, x - 0.33), 0.33 + 0.3 * (y - 0.45) - x) * sharp
    picture = over(picture, colour(0.96, 0.93, 0.86), sail)
    bank = 0.9 + 0.03 * (8 * x).sin()
    picture = over(picture, colour(0.08, 0.13, 0.07), (y - bank) * sharp)
    picture = over(picture, colour(0.12, 0.07, 0.04), (0.012 - (x - 0.1).abs()) * sharp * (y > 0.4))
    for dx, dy, radius in ((0.0, 0.33, 0.1), (-0.06, 0.42, 0.07), (0.07, 0.43, 0.08), (0.02, 0.24, 0.06)):
        leaf = ((x - 0.1 - dx).square() + ((y - dy) * high / wide).square()).sqrt()
        crown = (radius + 0.008 * (90 * x + 70 * y).sin() - leaf) * sharp
        picture = over(picture, colour(0.1 + dx, 0.24 + dx, 0.1), crown)
    return picture.clamp(0, 1)


def pictures(call: Call, painter: Painter, tile: int) -> None:
    """Paintings of a scene, with different settings, for the page on painting."""
    large, small = (scene(call.pick(side, 60)).unsqueeze(0) for side in (480, 310))
    mean, white = large.mean((2, 3)), torch.ones(1, 3)
    few, some, many = call.pick((100, 500, 2000), (4, 8, 16))
    palette = torch.tensor([ImageColor.getrgb(name) for name in COLOURS]) / 255

    def made(
        count: int, paper: Tensor = mean, pens: Pens = ANY, refine: int = 20, target: Tensor = large
    ) -> Tensor:  # fmt: skip
        strokes = painted(target, paper, painter, tile, count, pens)
        strokes = refined(target, paper, strokes, refine, pens)
        return composite(paper[:, :, None, None].expand_as(target), pens.hairs(strokes), pens.tip).clamp(0, 1)

    counts = [large, *(made(count) for count in (few, some, many))]
    kinds = [made(some, pens=pens, target=small) for pens in KINDS.values()]
    thick, colours = Pens(narrowest=12.0, widest=40.0, faintest=1.0), Pens(palette)
    options = [
        made(some, pens=colours),
        made(some, pens=thick),
        made(some, white),
        made(some, refine=call.pick(200, 2)),
    ]
    for name, shown in (("paint_strokes", counts), ("paint_options", options), ("paint_kinds", kinds)):
        write_png(call.results / f"{name}.png", grid(torch.cat(shown), len(shown)))


def textures(shape: tuple[int, int]) -> Tensor:
    """Two pictures whose textures paintings are given, waves and tiles, float [2, 3, H, W]."""
    high, wide = shape
    x, y = torch.linspace(0, 1.5, wide).expand(high, wide), torch.linspace(0, 1, high).view(-1, 1).expand(high, wide)
    blue, cream = torch.tensor([[0.08, 0.2, 0.5], [0.95, 0.9, 0.75]]).view(2, 3, 1, 1)
    crest = 0.5 + 0.5 * (50 * y + 3 * (9 * x).sin() + (4 * x).cos()).sin()
    waves = blue + crest.square() * (cream - blue)
    colours = torch.tensor(
        [[0.75, 0.15, 0.1], [0.95, 0.75, 0.15], [0.1, 0.35, 0.4], [0.9, 0.85, 0.75], [0.15, 0.1, 0.1]]
    )
    across, down = 14 * (0.8 * x + 0.6 * y), 14 * (0.8 * y - 0.6 * x)
    which = (7 * across.floor() + 3 * down.floor() + (across.floor() * down.floor())).long() % len(colours)
    inside = torch.minimum(across.frac().abs(), down.frac().abs()) > 0.08
    return torch.stack([waves, colours[which].permute(2, 0, 1) * inside])


def styles(call: Call) -> None:
    """The scene by `rlgen paint` as it is, with the likeness of a small network, and in the textures of two pictures,
    each after its texture."""
    wide = call.pick(310, 60)
    picture = scene(wide)
    home, shape = call.parts / "styles", (picture.shape[1], wide)
    home.mkdir(exist_ok=True)
    given = dict(zip(("scene", "waves", "tiles"), [picture, *textures(shape)], strict=True))
    for name, pixels in given.items():
        write_png(home / f"{name}.png", (pixels * 255).round().to(torch.uint8))

    def painting(*words: str) -> Tensor:
        own = call.pick(["strokes=500", "refine=100"], ["strokes=8", "refine=2"])
        folder = f"out='{home / 'painted'}'"
        paint(composed("paint", [f"files='{home / 'scene.png'}'", f"width={wide}", "format=png", folder, *own, *words]))
        return pil_to_tensor(Image.open(home / "painted" / "scene.png").convert("RGB")).float() / 255

    shown = [painting(), painting("terms.perceptual.weight=0.01")]
    for name in ("waves", "tiles"):
        shown += [given[name], painting(f"style='{home / name}.png'", "terms.style.weight=0.1")]
    write_png(call.results / "paint_styles.png", grid(torch.stack(shown), 2))


def main(arguments: list[str]) -> None:
    run("paint", measure, arguments, run="", pictures="200", optimised="20", searched="4", updates="1000")


if __name__ == "__main__":
    main(sys.argv[1:])
