"""RL Tuner's table: how melodies keep the rules, before and after tuning the Note RNN by Q-, Ψ- and G-learning and PPO.

    python -m benchmarks.rl_tuner [agents=q,psi,g,ppo] [seeds=1,2,3] [train=true]

With train=false, what is missing is left out, and what was cut off is taken as far as it came. Each column is 20 000
compositions of 32 steps a seed, sampled at temperature 1, after a random prime.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.files import NOTE_RNN, SHARED, published
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, music_of, opened, trained, training_cost
from benchmarks.report import Row, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.config.compose import composed
from rlgen_cli.core import checkpoint
from rlgen_cli.core.specs import View
from rlgen_cli.core.trust import Trust
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.domains.music.statistics import rl_tuner_statistics
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.policies.precision import Precision
from rlgen_cli.rewards.prior import PriorLikelihood
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.saved_network import saved_network

# The published Note RNN, Q, Ψ and G (Jaques et al. 2017, tables 1 and 2), then what is best of the tuned ones.
ROWS = {
    "repeated too often, %": ("63.3", "0.0", "0.02", "0.03", "≤ 0.00"),
    "autocorrelation, lag 1": ("-.16", "-.11", "-.10", ".55", "≤ .10 in size"),
    "autocorrelation, lag 2": (".14", ".03", "-.01", ".31", "≤ .01 in size"),
    "autocorrelation, lag 3": ("-.13", ".03", ".01", "", "≤ .01 in size"),
    "not in key, %": ("0.1", "1.00", "0.60", "28.7", "≤ 0.60 (0.1)"),
    "starts with tonic, %": ("0.9", "28.8", "28.7", "0.0", "≥ 28.8"),
    "leaps resolved, %": ("77.2", "91.1", "90.0", "52.2", "≥ 91.1"),
    "unique highest, %": ("64.7", "56.4", "59.4", "37.1", "≥ 64.7"),
    "unique lowest, %": ("49.4", "51.9", "58.3", "56.5", "≥ 58.3"),
    "in motif, %": ("5.9", "75.7", "73.8", "69.3", "≥ 75.7"),
    "in repeated motif, %": (".007", ".11", ".09", ".01", "≥ .11"),
    "mean log p": ("", "", "", "", "≥ -2.5"),
    "mean r_MT": ("", "", "", "", ""),
    "different compositions, %": ("", "", "", "", ""),
}
TONIC = 60  # of the rules, as configs/reward/term/music_theory.yaml has it
SMALL_PPO = [*QUICK, "data.count=40", "env.length=16", "agent.update_epochs=1"]
SMALL_DQN = [
    *QUICK, "data.count=40", "env.length=16", "agent.learning_starts=64", "agent.batch_size=4",
    "agent.replay.buffer_size=2000",
]  # fmt: skip


def words_of(name: str, weights: Path) -> list[str]:
    """What an agent is trained with, from the Note RNN whose weights are named."""
    if name == "ppo":
        return ["experiment=rl_tuner", "agent=ppo", f"agent.anchor.prior={weights}", "threads=1"]
    backup = {"q": [], "psi": ["backup=psi"], "g": ["backup=g", "reward.terms.prior.weight=0"]}[name]
    words = ["experiment=rl_tuner", f"agent.prior.source={weights}", f"reward.terms.prior.source={weights}"]
    return [*words, *backup, "threads=1"]


def small(call: Call, name: str) -> list[str]:
    """What a quick run's training has beside."""
    return call.pick([], SMALL_PPO if name == "ppo" else SMALL_DQN)


def note_rnn(weights: Path = SHARED / NOTE_RNN, more: Sequence[str] = ()) -> Session:
    """A policy that is the Note RNN itself: PPO before its first step."""
    return assemble(composed("train", [*words_of("ppo", weights), "network=note_rnn", *more]))


def untuned(session: Session) -> PriorLikelihood:
    """How likely sequences are to the Note RNN that the session's agent began as."""
    env, agent = session.envs["test"], session.config.agent
    runtime = {"device": session.device, "precision": Precision("float32")}
    opened = partial(saved_network, env=env, trust=Trust(), runtime=runtime, where="benchmark")
    return PriorLikelihood(
        env=env, saved_network=opened, source=agent.prior.source if "prior" in agent else agent.anchor.prior
    )


@torch.no_grad()
def statistics(session: Session, count: int, seed: int) -> tuple[dict[str, float], View]:
    """The table's rows for `count` compositions of the session's agent, and these; `seed` is of the compositions."""
    view = samples(session, count, f"rl_tuner/{seed}", at_once=20_000)
    found = rl_tuner_statistics(view, session.envs["test"].spec, TONIC)
    theory = found.pop("theory_a_step")
    lags = {name: value for name, value in found.items() if name.startswith("autocorrelation")}
    values = [value if name in lags else 100 * value for name, value in found.items()]
    values += [float(untuned(session).log_probs(view).mean()), theory, 100 * unique(view.sample)]
    return dict(zip(ROWS, values, strict=True)), view


def run_of(call: Call, name: str, seed: int) -> Path | None:
    """The run of an agent, trained if it has not been; with train=false, None where there is none."""
    folder = call.parts / f"{name}_{seed}"
    if call.settings["train"] == "true":
        words = [*words_of(name, published(call, NOTE_RNN)), f"seed={seed}", *small(call, name)]
        return trained(folder, words)
    return folder if checkpoint.steps(folder) else None


def keep_samples(call: Call, name: str, session: Session, view: View) -> None:
    """A sheet of the first melodies, and the first as MIDI."""
    shown = music_of(session)
    write_png(call.results / f"rl_tuner_{name}.png", shown.sheet(view, 12))
    write_midi(call.results / f"rl_tuner_{name}.mid", shown.pieces(view.sample[:1])[0])


def cell(values: list[float]) -> str:
    """Mean, and the range over seeds where there are several."""
    digits = 3 if max(abs(value) for value in values) < 1 else 2
    mean = sum(values) / len(values)
    ends = "" if len(values) == 1 else f" [{min(values):.{digits}f}, {max(values):.{digits}f}]"
    return f"{mean:.{digits}f}{ends}"


def measure(call: Call) -> None:
    names, count = call.each("agents"), call.pick(20_000, 50)
    before = note_rnn(published(call, NOTE_RNN), small(call, "ppo"))
    columns = {"Note RNN": [statistics(before, 5 * count, 0)[0]]}
    cost: list[Row] = [["agent", "seed", "steps", "updates", "minutes"]]
    for name in names:
        found: list[dict[str, float]] = []
        runs = {seed: folder for seed in call.seeds() if (folder := run_of(call, name, seed)) is not None}
        for seed, folder in runs.items():
            session = opened(folder)
            values, view = statistics(session, count, seed)
            if not found:
                keep_samples(call, name, session, view)
            found.append(values)
            steps = json.loads((folder / "status.json").read_text())["step"]
            cost.append([name, seed, f"{steps:,}", *training_cost(folder)])
        if found:
            columns[f"{name} ({len(found)} seeds)" if len(found) > 1 else name] = found
    head: Row = ["", *(f"{name}, published" for name in ("Note RNN", "Q", "Ψ", "G")), "best published", *columns]
    rows: list[Row] = [
        [row, *ROWS[row], *(cell([values[row] for values in column]) for column in columns.values())] for row in ROWS
    ]
    shown = [
        f"{name} ([MIDI of the first](rl_tuner_{name}.mid)): ![{name}](rl_tuner_{name}.png)"
        for name in dict.fromkeys(str(line[0]) for line in cost[1:])
    ]
    write(call, "RL Tuner", [summary(__doc__), table([head, *rows]), table(cost), *shown])


def main(arguments: list[str]) -> None:
    run("rl_tuner", measure, arguments, agents="q,psi,g,ppo", seeds="1,2,3", train="true")


if __name__ == "__main__":
    main(sys.argv[1:])
