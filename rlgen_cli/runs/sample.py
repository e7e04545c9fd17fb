"""`rlgen sample` and `rlgen draw`: what a run's agent makes, as files."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from rlgen_cli.core.errors import UserError, nearest, require
from rlgen_cli.core.protocols import ChoosesData, Env
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import State
from rlgen_cli.data.folder import read_picture
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.registry import FORMATS, Medium, medium
from rlgen_cli.evaluation.media.style import Style
from rlgen_cli.evaluation.media.video import FILMS, require_video
from rlgen_cli.evaluation.rollout import Rollout, Said, rollout, unsaid
from rlgen_cli.rewards.reward import WeightedSum
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.log import say
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.style import style_of


class Samples:
    """N finished samples, and how they came about.

    Attributes:
        view: what rewards see of them: `view.sample` are pictures, float [N, C, H, W] in [0, 1], or tokens, int64
            [N, T, F]; `view.context` has targets and labels.
        scores: each term of the reward, unweighted, [N].
        record: as the file scores.json has it: counts, mean scores, diversity, the pens of what a plotter draws.
    """

    def __init__(self, env: Env, reward: WeightedSum, made: Rollout, told: dict[str, Any]) -> None:
        self.env, self.made, self.view = env, made, env.view(made.final)
        self.scores = reward.score(self.view)
        shown = medium(env)
        self.record: dict[str, Any] = {
            **told,
            "scores": {name: round(float(score.mean()), 6) for name, score in self.scores.items()},
            "diversity": round(shown.diversity(self.view.sample), 6),
            "unique": round(unique(self.view.sample), 6),
            **{name: round(value, 4) for name, value in shown.numbers(self.view).items()},
        }

    def save(self, out: Path | str, formats: list[str] | None = None, style: Style | None = None) -> Path:
        """Write files of `formats` (None: the usual ones) and scores.json into a folder; returns it.

        Args:
            style: how pictures look, films and animations run, plotters draw, and music sounds.

        Raises:
            UserError: for a format or a style that such samples do not have.
        """
        out, made_as = Path(out), medium(self.env, style)
        formats = checked(made_as, formats)
        out.mkdir(parents=True, exist_ok=True)
        self.record |= made_as.write(self.made, formats, out)
        (out / "scores.json").write_text(json.dumps(self.record, indent=1) + "\n")
        return out


def sample(config: DictConfig) -> Path:
    """Load the agent of `config.run` and write `config.n` samples; returns where they lie."""
    formats, style = formats_named(config.format), style_of(config)
    run, session, name = open_run(config)
    name = name if config.label is None else f"{name}_{config.label}"
    steps = needs_steps(session, formats, style)
    made = make_samples(session, config.split, config.n, config.seed, steps, label=config.label)
    return saved(made, config.out or run / "samples" / name, formats, style)


def draw(config: DictConfig) -> Path:
    """Let the agent of `config.run` draw the picture `config.image`, `config.n` times; returns where that lies."""
    formats, style = formats_named(config.format), style_of(config)
    run, session, name = open_run(config)
    needs_steps(session, formats, style)
    made = draw_picture(session, config.image, config.n, config.seed)
    return saved(made, config.out or run / "samples" / f"{Path(config.image).stem}_{name}", formats, style)


def saved(made: Samples, out: Path | str, formats: list[str] | None, style: Style) -> Path:
    """Write the samples, and say what a plotter's pens are and what they cannot draw; returns where they lie."""
    written = made.save(out, formats, style)
    plotted = made.record.get("plotter")
    if plotted:
        pens = ", ".join(f"{number} {colour}" for number, colour in enumerate(plotted["pens"], 1))
        say(f"plotter: pens {pens or 'none'}; {plotted['strokes_left_out']} strokes hardly show and are left out")
    return written


def needs_steps(session: Session, formats: list[str] | None, style: Style | None = None) -> bool:
    """Whether files of these formats show how samples came about; asked before anything is made.

    Raises:
        UserError: for a format or a style that such samples do not have.
    """
    made_as = medium(session.envs["test"], style)
    return made_as.needs_steps(checked(made_as, formats))


def checked(made_as: Medium, formats: list[str] | None) -> list[str]:
    """The formats, or the usual ones.

    Raises:
        UserError: for one that such samples do not have, or that needs what is not installed.
    """
    formats = list(made_as.usual) if formats is None else formats
    for name in formats:
        able = ", ".join(made_as.formats)
        require(name in made_as.formats, f"format: must be of {able} for this run, got {name}.")
    if set(FILMS) & set(formats):
        require_video()
    return formats


def formats_named(given: Any) -> list[str] | None:
    """The formats as they are asked for, of which each is known.

    Raises:
        UserError: for one that is not.
    """
    formats = [given] if isinstance(given, str) else given and list(given)
    for name in formats or []:
        require(name in FORMATS, f"format: must be of {', '.join(sorted(FORMATS))}, got {name}.")
    return formats or None


@torch.no_grad()
def make_samples(
    session: Session, split: str, n: int, seed: int, record: bool | None = None, said: Said = unsaid,
    label: str | int | None = None,
) -> Samples:  # fmt: skip
    """N samples on the data of `split`.

    Args:
        record: keep each step, from which time-lapses and strokes are written; None: if the usual files need it.
        label: of all of them, by name or number; null: any.

    Raises:
        UserError: for a split or a label that there is not.
    """
    require(split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {split}.")
    env, rng = session.envs[split], stream(seed, "sample", session.device)
    state = env.reset(n, rng) if label is None else labelled(env, n, rng, label)
    return played(session, env, state, rng, {"n": n, "seed": seed, "split": split}, record, said)


@torch.no_grad()
def draw_picture(session: Session, image: Path | str, n: int = 1, seed: int = 0) -> Samples:
    """What the agent makes of a picture of one's own, resized to the environment's, N times.

    Raises:
        UserError: for a file that is no picture, or a run that sees none.
    """
    env, rng = session.envs["test"], stream(seed, "sample", session.device)
    if not isinstance(env, ChoosesData) or "target" not in env.spec.context:
        raise UserError("draw: this run sees no picture to draw; train with reward=target or task=inpaint.")
    picture = read_picture(Path(image), env.spec.picture().shape, "image").to(session.device)
    env = env.with_picture(picture)
    state = env.start_from(torch.zeros(n, dtype=torch.long, device=session.device), rng)
    return played(session, env, state, rng, {"n": n, "seed": seed, "image": Path(image).name})


def played(
    session: Session, env: Env, state: State, rng: torch.Generator, told: dict[str, Any], record: bool | None = None,
    said: Said = unsaid,
) -> Samples:  # fmt: skip
    """The samples that the actor makes of states that begin."""
    record = needs_steps(session, None) if record is None else record
    made = rollout(env, session.actor, state, rng, record=record, said=said)
    return Samples(env, session.reward, made, told)


def labelled(env: Env, n: int, rng: torch.Generator, label: str | int) -> State:
    """Episodes that begin with data of a label.

    Raises:
        UserError: for a label that there is not, and where labels are not seen.
    """
    names = env.spec.class_names
    if not isinstance(env, ChoosesData) or not names:
        raise UserError("label: this run was not asked for labels; train with env.condition=label.")
    wanted = names.index(str(label)) if str(label) in names else label
    if not isinstance(wanted, int) or not 0 <= wanted < len(names):
        raise UserError(f"label: there is no {label}; {nearest(str(label), names)}")
    able = (env.labels == wanted).nonzero().squeeze(1)
    require(len(able) > 0, f"label: no data of this split has {label}.")
    chosen: Tensor = able[torch.randint(len(able), (n,), generator=rng, device=able.device)]
    return env.start_from(chosen, rng)


def write_samples(
    session: Session, split: str, n: int, seed: int, formats: list[str] | None, out: Path, said: Said = unsaid,
) -> dict[str, Any]:  # fmt: skip
    """N samples on the data of `split` in `formats` (null: the usual ones), and their scores, which are returned,
    too."""
    made = make_samples(session, split, n, seed, needs_steps(session, formats), said)
    made.save(out, formats)
    return made.record
