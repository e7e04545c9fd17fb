"""RL Tuner's table: how melodies keep the rules, before and after tuning the Note RNN by Q-, Ψ- and G-learning and PPO.

python -m benchmarks.rl_tuner                     trains what is missing (hours on one core) and writes the table
python -m benchmarks.rl_tuner folder=FOLDER       goes on in FOLDER; with train=false, reports what is there
python -m benchmarks.rl_tuner agents=ppo seeds=1,2,3     some of the columns, some of the seeds

Each column is 20 000 compositions of 32 steps a seed, sampled at temperature 1, after a random prime.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, finished, new_run, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build, saved_network
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.domains.music.theory import correlations
from rlgen_cli.rewards.prior import Prior
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import View

COUNT = 20_000
WEIGHTS = SHARED / "rl_tuner" / "note_rnn.npz"
Q = ["experiment=rl_tuner", f"agent.prior.source={WEIGHTS}", f"reward.terms.prior.source={WEIGHTS}"]
AGENTS = {
    "q": Q,
    "psi": [*Q, "agent.backup=psi"],
    "g": [*Q, "agent.backup=g", "reward.terms.prior.weight=0"],
    "ppo": ["experiment=rl_tuner_ppo", f"agent.anchor.prior={WEIGHTS}"],
}
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


@torch.no_grad()
def statistics(session: Session, count: int, seed: int) -> tuple[dict[str, float], View]:
    """The table's rows for `count` compositions of the session's agent, and these."""
    env, rng = session.envs["test"], stream(seed, "rl_tuner")
    view = env.view(rollout(env, session.agent, env.reset(count, rng), rng).final)
    steps = {name: session.reward.terms[name].score.steps(view) for name in RULES}
    steps["prior"] = Prior(env=env, saved_network=lambda _: untuned(env), source="").steps(view)
    codes = view.sample.squeeze(2)
    varied = (codes != codes[:, :1]).any(1)  # the published mean leaves constant melodies out
    rho = correlations(codes, view.effort)[varied].mean(0).tolist()

    def percent(hit: Any) -> float:
        return 100 * float(hit.float().mean())

    resolved, doubled = float((steps["leap_resolved"] > 0).sum()), float((steps["leap_doubled"] < 0).sum())
    values = [
        percent(steps["repetition"] < 0), *rho, percent(steps["key"] < 0), percent(steps["tonic"][:, 0] > 0),
        100 * resolved / max(resolved + doubled, 1), percent(steps["unique_highest"][:, -1] > 0),
        percent(steps["unique_lowest"][:, -1] > 0), percent(steps["motif"] > 0), percent(steps["repeated_motif"] > 0),
        float(steps["prior"].mean()), float(sum(steps[rule] for rule in RULES).mean()), 100 * unique(view.sample),
    ]  # fmt: skip
    return dict(zip(ROWS, values, strict=True)), view


RULES = ("key", "tonic", "repetition", "autocorrelation", "motif", "repeated_motif", "interval", "leap_resolved",
         "leap_doubled", "unique_highest", "unique_lowest")  # fmt: skip


def untuned(env: Any) -> torch.nn.Module:
    """The Note RNN as it was published."""
    return saved_network(str(WEIGHTS), env=env, trust=[], device=torch.device("cpu"), where="benchmark")


def note_rnn() -> Session:
    """A policy that is the Note RNN itself: PPO before its first step."""
    return build(composed("train", [*AGENTS["ppo"], "network=note_rnn", "threads=1"]))


def trained(folder: Path, name: str, seed: int, missing: bool) -> Path | None:
    """The run of an agent; one that is `missing` or stopped early is trained, or else taken as far as it came."""
    run = folder / f"{name}_{seed}"
    if not missing:
        return run if checkpoint.steps(run) else None
    if not finished(run):
        train(build(composed("train", [*AGENTS[name], "threads=1", f"seed={seed}"])), run)
    return run


def loaded(run: Path) -> Session:
    session = build(OmegaConf.load(run / "config.yaml"), fresh=False)
    session.load(checkpoint.load_newest(run, session.device, frozenset(["agent", "reward"])))
    return session


def shown(values: list[float]) -> str:
    """Mean, and the range over seeds where there are several."""
    digits = 3 if max(abs(value) for value in values) < 1 else 2
    mean = sum(values) / len(values)
    spread = "" if len(values) == 1 else f" [{min(values):.{digits}f}, {max(values):.{digits}f}]"
    return f"{mean:.{digits}f}{spread}"


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given["folder"]) if "folder" in given else new_run("rl_tuner")
    names, seeds = given.get("agents", ",".join(AGENTS)).split(","), given.get("seeds", "1,2,3").split(",")
    columns = {"Note RNN": [statistics(note_rnn(), 5 * COUNT, 0)[0]]}
    cost: list[list[object]] = [["agent", "seed", "steps", "minutes"]]
    for name in names:
        missing = given.get("train", "true") == "true"
        runs = {seed: run for seed in seeds if (run := trained(folder, name, int(seed), missing))}
        found = []
        for i, (seed, run) in enumerate(runs.items()):
            session = loaded(run)
            values, view = statistics(session, COUNT, i)
            found.append(values)
            status = json.loads((run / "status.json").read_text())
            cost.append([name, seed, f"{status['step']:,}", f"{seconds_until(run, 10**9) / 60:.1f}"])
            if i == 0:
                shown_as = medium(session.envs["test"])
                write_png(RESULTS / f"rl_tuner_{name}.png", shown_as.sheet(view, 12))
                write_midi(RESULTS / f"rl_tuner_{name}.mid", shown_as.pieces(view.sample[:1])[0])  # type: ignore[attr-defined]
        columns[f"{name} ({len(found)} seeds)" if len(found) > 1 else name] = found
    head = ["", *(f"{name}, published" for name in ("Note RNN", "Q", "Ψ", "G")), "best published", *columns]
    rows = [
        [row, *ROWS[row], *(shown([values[row] for values in column]) for column in columns.values())] for row in ROWS
    ]
    pictures = [f"{name} ([MIDI of the first](rl_tuner_{name}.mid)): ![{name}](rl_tuner_{name}.png)" for name in names]
    parts = [str(__doc__).split("\n", 1)[0], table([head, *rows]), table(cost), *pictures]
    write("rl_tuner", "RL Tuner", parts)


if __name__ == "__main__":
    main()
