"""SeqGAN's oracle: likelihood under the oracle against diversity, for maximum likelihood at several temperatures, for a
policy gradient with a discriminator, and for a better density.

python -m benchmarks.seqgan                    trains what is missing (about half an hour on one core)
python -m benchmarks.seqgan folder=FOLDER      goes on in FOLDER, or only reports it

NLL_oracle is the oracle's mean −log p of a token of 10 000 samples (lower is likelier), NLL_gen the model's of 2 000
fresh sequences from the oracle (lower covers more). Sampling at a temperature trades one for the other, so a method is
better only where its curve lies below another's.
"""

import sys
from pathlib import Path

import torch

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, curves, finished, new_run, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.domains.music.datasets.oracle import Oracle
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

PATH = SHARED / "seqgan" / "oracle.npz"
DATA = ["experiment=seqgan_mle", f"data.path={PATH}", "threads=1"]
SMALL = "agent.network={spread: 0.57, body: {embed: 32, spread: 0.1}, memory: {width: 32}}"  # as published
PLAIN = [
    SMALL, "agent.network={dropout: 0.0, body: {dropout: 0.0}}", "agent.weight_decay=0.0",
    "agent.batch_size=64", "agent.learning_rate={start: 1.0e-2, end: 1.0e-2}", "epochs=28", "patience=null",
    "keep=last",
]  # fmt: skip
METHODS = {
    "maximum likelihood, 28 epochs": PLAIN,
    "maximum likelihood, stopped by held-out data": [*PLAIN, "keep=best", "patience=3"],
    "maximum likelihood, regularised": [],
}
ADVERSARIAL = "policy gradient with a discriminator"
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
COUNT, FRESH = 10_000, 2_000
PUBLISHED = [
    ["maximum likelihood (SeqGAN paper)", 9.038], ["SeqGAN", 8.736], ["RankGAN", 8.247], ["LeakGAN", 7.038],
    ["RelGAN", 6.680], ["the oracle itself", 5.750],
]  # fmt: skip


def slug(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")


def imitated(folder: Path, name: str) -> Path:
    """The run of a model trained by maximum likelihood."""
    run = folder / slug(name)
    if not finished(run):
        pretrain(build(composed("pretrain", [*DATA, *METHODS[name]])), run)
    return run


def fought(folder: Path, prior: Path) -> Path:
    """The run of a policy gradient that begins with the plain model."""
    run = folder / slug(ADVERSARIAL)
    if not finished(run):
        words = ["experiment=seqgan", f"data.path={PATH}", f"agent.anchor.prior={prior}", "threads=1", SMALL]
        train(build(composed("train", words)), run)
    return run


def model(run: Path, name: str) -> Session:
    """A run's policy as a likelihood model, whatever trained it."""
    words = METHODS.get(name, PLAIN)
    session = build(composed("pretrain", [*DATA, *words, "data.count=100"]), fresh=False)
    saved = checkpoint.load_newest(run, "cpu", frozenset(["agent"]))
    session.agent.actor.net.load_state_dict(saved["agent"]["network"])
    return session


@torch.no_grad()
def measured(session: Session, oracle: Oracle, fresh: torch.Tensor) -> list[list[float]]:
    """(temperature, NLL_oracle, NLL_gen, % different of 4 000, different pairs of neighbours) at each temperature."""
    env, rows = session.envs["test"], []
    for temperature in TEMPERATURES:
        session.agent.temperature = temperature
        rng = stream(0, "seqgan")
        parts = [
            rollout(env, session.agent, env.reset(1000, rng), rng).final.tokens.long() for _ in range(COUNT // 1000)
        ]
        made = torch.cat(parts).squeeze(2)
        seen = torch.cat([session.agent.nll(part.unsqueeze(2), rng).mean(0) for part in fresh.split(250)])
        pairs = len(torch.stack([made[:, :-1], made[:, 1:]], 2).flatten(0, 1).unique(dim=0))
        rows.append([temperature, float(oracle.nll(made).mean()), float(seen.mean()), 100 * unique(made[:4000]), pairs])
    return rows


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given["folder"]) if "folder" in given else new_run("seqgan")
    runs = {name: imitated(folder, name) for name in METHODS}
    if given.get("adversarial", "true") == "true":
        runs[ADVERSARIAL] = fought(folder, runs["maximum likelihood, 28 epochs"])
    oracle = Oracle(PATH)
    fresh = oracle.sample(FRESH, 20, stream(1, "seqgan fresh"))
    head: list[object] = ["method", "temperature", "NLL_oracle", "NLL_gen", "different of 4 000, %", "different pairs"]
    rows, lines, cost = [head], {}, [["method", "minutes"]]
    for name, run in runs.items():
        found = measured(model(run, name), oracle, fresh)
        lines[name] = [(row[2], row[1]) for row in found]
        rows += [[name, f"{t:g}", f"{o:.3f}", f"{g:.3f}", f"{u:.1f}", f"{p:,.0f}"] for t, o, g, u, p in found]
        cost.append([name, f"{seconds_until(run, 10**9) / 60:.1f}"])
    curves(RESULTS / "seqgan.png", {"lower and further left is better": lines}, "NLL_gen (the y axis is NLL_oracle)")
    own = float(oracle.nll(oracle.sample(COUNT, 20, stream(2, "seqgan own"))).mean())
    parts = [
        str(__doc__).split("\n\n")[0],
        f"The oracle's own samples have {own:.3f} (published 5.750).",
        "![curves](seqgan.png)", table(rows), table([["published", "NLL_oracle"], *PUBLISHED]), table(cost),
    ]  # fmt: skip
    write("seqgan", "SeqGAN's oracle", parts)


if __name__ == "__main__":
    main()
