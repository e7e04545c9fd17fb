"""`rlgen paint`: pictures of any size in strokes, by the painter that comes with rlgen or a run of one's own."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from rlgen_cli.config.saved import plain_config
from rlgen_cli.core.acting import decide, initial_carry
from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import files_below
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Tip, TipKind
from rlgen_cli.data.folder import SUFFIXES, colour_of, read_whole
from rlgen_cli.data.images import pil_to_tensor
from rlgen_cli.domains.canvas.brushes.brush import check_tip
from rlgen_cli.domains.canvas.brushes.stroke_cells import Curves, StrokeCells
from rlgen_cli.domains.canvas.compositing import Strokes, composite
from rlgen_cli.domains.canvas.environment import Canvas
from rlgen_cli.domains.canvas.painting import Painter, painted, reduced, rescaled, rounds_for
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.refining import refined
from rlgen_cli.evaluation.likeness import mse, psnr, ssim
from rlgen_cli.evaluation.media.painting import FORMATS, Painting, write_painting
from rlgen_cli.evaluation.media.video import FILMS, has_video, require_video
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.log import say
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.saved_run import find_run
from rlgen_cli.runs.style import check_flag, check_number, check_whole, film_of, page_of
from rlgen_cli.runs.wishes import Wishes, wished

SHIPPED = Path(__file__).parent.parent / "painter"  # the run that comes with rlgen
MOST_STROKES, MOST_UPDATES, MOST_BRISTLES, WIDEST, HIGHEST = 100_000, 100_000, 32, 4096, 8192
FEW, ENOUGH = 16, 2000  # pictures of the run's own data, where they are made anew: for nothing, and to fit networks to
TOGETHER = 8  # pictures of one size that are painted at once, if they have so few pixels
SMALL = 1 << 20  # pixels, of all of them
BYTES = 400  # that a pixel takes, about, where some ten strokes lie on each other


class Picture(NamedTuple):
    """A file, and what is to be painted."""

    file: Path
    pixels: Tensor  # float [3, H, W] in [0, 1]


class Wanted(NamedTuple):
    """How pictures are to be painted."""

    strokes: int
    refine: int  # updates afterwards
    pens: Pens
    terms: dict[str, Any]  # that the finish raises, too
    paper: Tensor | None  # float [3]; None: each picture's mean


def paint(config: DictConfig) -> Path:
    """Paint the pictures of `config.files`; returns the folder where the paintings lie.

    Raises:
        UserError: for a value out of range, a file that is no picture, and a run that paints none.
    """
    require(not OmegaConf.is_missing(config, "files"), "files: name a picture, as in rlgen paint cat.jpg.")
    wanted, formats = wanted_of(config), formats_of(config.format)
    film, page = film_of(config.film), page_of(config.plotter)
    background = colour_of("background", str(config.background))
    check_whole("width", config.width, WIDEST)
    files = named(config.files)
    session = opened(config, ENOUGH if wanted.terms else FEW)
    painter, tile = painter_of(session)
    wishes = Wishes(wanted.terms, session)
    out = Path(config.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    for group in grouped(pictures(files, background, config.width)):
        began = time.perf_counter()
        target = torch.stack([picture.pixels for picture in group]).to(session.device)
        made, paper = painting_of(target, painter, tile, wanted, wishes)
        count, made = torch.bincount(made.picture, minlength=len(group)), wanted.pens.hairs(made)
        seconds = (time.perf_counter() - began) / len(group)
        shown = composite(paper[:, :, None, None].expand_as(target), made, wanted.pens.tip).clamp(0, 1)
        numbers = {"mse": mse(shown, target), "psnr": psnr(shown, target), "ssim": ssim(shown, target)}
        for i, picture in enumerate(group):
            strokes = made.of((made.picture == i).nonzero().squeeze(1))
            strokes = strokes._replace(picture=torch.zeros_like(strokes.picture))
            name = free_name(picture.file.stem, told)
            write_painting(Painting(strokes, wanted.pens.tip, paper[i], shown[i]), formats, film, page, out / name)
            told[name] = {"file": picture.file.name, "strokes": int(count[i]), "seconds": round(seconds, 2)}
            told[name] |= {key: round(float(value[i]), 5) for key, value in numbers.items()}
            text = f"PSNR {told[name]['psnr']:.1f} dB, SSIM {told[name]['ssim']:.2f}, {seconds:.1f} s"
            say(f"{name}: {told[name]['strokes']} strokes, {text}")
    (out / "scores.json").write_text(json.dumps(told, indent=1) + "\n")
    return out


def wanted_of(config: DictConfig) -> Wanted:
    """What the keys ask for.

    Raises:
        UserError: for a value out of range.
    """
    check_whole("strokes", config.strokes, MOST_STROKES)
    check_whole("refine", config.refine, MOST_UPDATES, 0)
    palette = None
    if config.palette is not None:
        require(
            OmegaConf.is_list(config.palette),
            f"palette: must be a list of colours, as in [black,white], got {config.palette}.",
        )
        require(len(config.palette) > 0, "palette: must have at least one colour.")
        palette = torch.tensor([colour_of("palette", str(name)) for name in config.palette]) / 255
    paper = None if config.paper == "auto" else torch.tensor(colour_of("paper", str(config.paper))) / 255
    narrowest, widest = widths_of(config.widths)
    check_flag("opaque", config.opaque)
    pens = Pens(palette, narrowest, widest, 1.0 if config.opaque else 0.0, tip_of(config), config.bristles)
    return Wanted(config.strokes, config.refine, pens, wished(config), paper)


def tip_of(config: DictConfig) -> Tip:
    """What strokes look like; bristles are checked here, too, since not all kinds have them.

    Raises:
        UserError: for a kind that there is not, a number out of range, and what does not go together.
    """
    kinds = get_args(TipKind)
    require(config.kind in kinds, f"kind: must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {config.kind}.")
    check_number("taper", config.taper, 0, 1)
    check_whole("bristles", config.bristles, MOST_BRISTLES, 0)
    line = config.kind in ("curve", "line")
    require(line or config.bristles == 0, f"bristles: kind={config.kind} has none; use them with kind=curve or line.")
    return check_tip(config.kind, config.taper)


def widths_of(given: Any) -> tuple[float, float]:
    """The smallest and the largest width, pixels.

    Raises:
        UserError: for what is no such pair.
    """
    if given is None:
        return 0.0, math.inf
    pair = OmegaConf.is_list(given) and len(given) == 2
    require(pair, f"widths: must be the smallest and the largest, as in [4,40], got {given}.")
    for width in given:
        check_number("widths", width, 0.1, WIDEST)
    require(given[0] <= given[1], f"widths: the first must be the smaller one, got {given}.")
    return float(given[0]), float(given[1])


def formats_of(given: Any) -> list[str]:
    """The formats as they are asked for, or the usual ones.

    Raises:
        UserError: for one that is not known, or that needs what is not installed.
    """
    if given is None:
        return ["png", "svg", *(["mp4"] if has_video() else [])]
    formats = [given] if isinstance(given, str) else list(given)
    for name in formats:
        require(name in FORMATS, f"format: must be of {', '.join(FORMATS)}, got {name}.")
    if set(FILMS) & set(formats):
        require_video()
    return formats


def named(given: Any) -> list[Path]:
    """The files that are named, and those in folders that are.

    Raises:
        UserError: for a file that there is not.
    """
    paths = [Path(str(name)).expanduser() for name in ([given] if isinstance(given, str) else given)]
    found: list[Path] = []
    for path in paths:
        require(path.exists(), f"files: there is no {path}.")
        inside = files_below(path, SUFFIXES) if path.is_dir() else [path]
        require(bool(inside), f"files: {path} holds no image file.")
        found += inside
    return found


def pictures(files: list[Path], background: tuple[int, ...], width: int) -> Iterator[Picture]:
    """What is to be painted, `width` pixels wide.

    Raises:
        UserError: for a file that is no picture, and for one that would be too high.
    """
    for file in files:
        image = read_whole(file, background, "files")
        height = max(1, round(image.height * width / image.width))
        high = f"files: {file} would be {height} pixels high, more than {HIGHEST}; give a smaller width."
        require(height <= HIGHEST, high)
        require_memory(BYTES * width * height, f"width: a painting of {width} × {height} pixels")
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        yield Picture(file, pil_to_tensor(image).float() / 255)


def grouped(found: Iterator[Picture]) -> Iterator[list[Picture]]:
    """Successive pictures of one size, a few at a time."""
    group: list[Picture] = []
    for picture in found:
        pixels = (len(group) + 1) * picture.pixels[0].numel()
        full = len(group) == TOGETHER or pixels > SMALL
        if group and (full or picture.pixels.shape != group[0].pixels.shape):
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


def painting_of(target: Tensor, painter: Painter, tile: int, wanted: Wanted, wishes: Wishes) -> tuple[Strokes, Tensor]:
    """The strokes of pictures [N, 3, H, W], and the colours below them, [N, 3]."""
    paper = target.mean((2, 3)) if wanted.paper is None else wanted.paper.to(target).expand(len(target), -1)
    made = painted(target, paper, painter, tile, wanted.strokes, wanted.pens)
    if wanted.refine and len(made.width):
        shape = (target.shape[2], target.shape[3])
        level = rounds_for(shape, tile, wanted.strokes)[-1].shape  # as fine as strokes are
        level = shape if level[0] > shape[0] else level
        pens = wanted.pens.scaled(level[0] / shape[0])
        wish = wishes.of_side(min(level))
        made = refined(reduced(target, level), paper, rescaled(made, shape, level), wanted.refine, pens, wish)
        made = rescaled(made, level, shape)
    return made, paper


def opened(config: DictConfig, count: int) -> Session:
    """The run that paints, with so many of its own pictures, where they are made anew."""
    run = str(config.run or SHIPPED)
    data = plain_config(find_run(run)[0] / "config.yaml").get("data") or {}
    few = {"data.count": count} if "count" in data else {}
    asked = {"run": run, "n": 1, "seed": 0, "split": "test", "set": few}
    return open_run(OmegaConf.create({**asked, "device": config.device, "trust": list(config.trust)})).session


def painter_of(session: Session) -> tuple[Painter, int]:
    """What proposes strokes for tiles, and their side, pixels.

    Raises:
        UserError: for a run that does something else.
    """
    env = session.envs["test"]
    if not (isinstance(env, Canvas) and isinstance(env.brush, StrokeCells) and env.channels == 3):
        raise UserError("run: it paints no pictures in colour; train one with experiment=painter.")
    brush, canvas = env.brush, env

    def propose(target: Tensor, before: Tensor) -> Curves:
        rng = stream(0, "sample", session.device)
        tiles = canvas.with_picture(target)
        state = tiles.start_from(torch.arange(len(target), device=target.device), rng)
        state = state._replace(canvas=before)
        carry = initial_carry(session.actor, len(target))
        return brush.curves(decide(session.actor, tiles, state, carry, explore=False, rng=rng).action)

    return propose, env.size


def free_name(stem: str, taken: dict[str, Any]) -> str:
    """A file's name that no other painting has."""
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}_{count}", count + 1
    return name
