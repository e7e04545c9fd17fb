"""SeqGAN's oracle: likelihood under the oracle against diversity, for maximum likelihood at several temperatures, for a
policy gradient with a discriminator or with a better density as its reward, and for that density.

    python -m benchmarks.seqgan [density=1,2,3] [discriminator=1]

`density` and `discriminator` are the seeds of the policy gradients; each begins with a model of its own seed.

NLL_oracle is the oracle's mean −log p of a token of 10 000 samples (lower is likelier), NLL_gen the model's of 2 000
fresh sequences from the oracle (lower covers more). Sampling at a temperature trades one for the other, so a method is
better only where its curve lies below another's.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.files import ORACLE, published
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, likelihood_cost, likelihood_model, pretrained, trained, training_cost
from benchmarks.report import Line, Row, curves, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.agents.maximum_likelihood import MaximumLikelihood
from rlgen_cli.core.seeding import stream
from rlgen_cli.domains.music.datasets.oracle import Oracle
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.runs.assemble import Session

AS_PUBLISHED = "agent.network={init_scale: 0.57, body: {embed: 32, init_std: 0.1}, recurrent: {width: 32}}"
PLAIN = [
    AS_PUBLISHED, "agent.network={dropout: 0.0, body: {dropout: 0.0}}", "agent.optimizer.weight_decay=0.0",
    "agent.batch_size=64", "agent.optimizer.learning_rate={start: 1.0e-2, end: 1.0e-2}", "epochs=28", "patience=null",
    "keep=last",
]  # fmt: skip
METHODS = {
    "maximum likelihood, 28 epochs": PLAIN,
    "maximum likelihood, stopped by held-out data": [*PLAIN, "keep=best", "patience=3"],
    "maximum likelihood, regularised": [],
}
BEGINS_WITH = "maximum likelihood, 28 epochs"
DENSITY = "maximum likelihood, regularised"
# The reward is the log-probability of a token under the regularised model; with γ = 0 and the whole entropy as a bonus,
# the return's gradient is that of the policy's divergence from it in every state.
LEARNED = {
    "discriminator": [],
    "density": [
        "~reward.terms.adversarial_sequence", "+reward/term=prior", "agent.rollouts=0", "agent.gamma=0.0",
        "agent.normalize_advantage=false", "agent.entropy_coef={start: 1.0, end: 1.0}", "agent.anchor.kl_coef=0.0",
        "agent.num_minibatches=4", "agent.optimizer.learning_rate={start: 2.0e-3, end: 2.0e-5}", "num_envs=512",
        "total_steps=3072000", "eval_interval=614400", "checkpoint_interval=1536000", "log_interval=61440",
    ],
}  # fmt: skip
CALLED = {"discriminator": "policy gradient, discriminator", "density": "policy gradient, density"}
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
PUBLISHED: list[Row] = [
    ["maximum likelihood (SeqGAN paper)", 9.038], ["SeqGAN", 8.736], ["RankGAN", 8.247], ["LeakGAN", 7.038],
    ["RelGAN", 6.680], ["the oracle itself", 5.750],
]  # fmt: skip
SMALL_MODEL = ["epochs=2", "data.count=200", "eval_episodes=4"]
SMALL = [*QUICK, "total_steps=320", "data.count=200", "eval_episodes=50"]


class Measured(NamedTuple):
    """A model at a temperature."""

    temperature: float
    nll_oracle: float
    nll_gen: float
    different: float  # percent of 4 000 samples
    pairs: int  # different pairs of neighbours


def slug(name: str) -> str:
    """A folder's name."""
    return name.replace(" ", "_").replace(",", "")


def words_of(call: Call, name: str, seed: int = 1) -> list[str]:
    """What a model by maximum likelihood is trained with."""
    oracle = [f"data.path={published(call, ORACLE)}", "threads=1", f"seed={seed}"]
    return ["experiment=seqgan_mle", *oracle, *METHODS[name], *call.pick([], SMALL_MODEL)]


def likely(call: Call, name: str, seed: int) -> Path:
    """The run of a model by maximum likelihood."""
    return pretrained(call.parts / f"{slug(name)}_{seed}", words_of(call, name, seed))


def learned(call: Call, kind: str, seed: int) -> Path:
    """The run of a policy gradient that begins with the plain model of the same seed."""
    words = [
        "experiment=seqgan", f"data.path={published(call, ORACLE)}", "threads=1", f"seed={seed}", AS_PUBLISHED,
        f"agent.anchor.prior={likely(call, BEGINS_WITH, seed)}", *LEARNED[kind], *call.pick([], SMALL),
    ]  # fmt: skip
    if kind == "density":
        words.append(f"reward.terms.prior.source={likely(call, DENSITY, 1)}")
    return trained(call.parts / f"{kind}_{seed}", words)


def model(call: Call, folder: Path, name: str) -> tuple[Session, MaximumLikelihood]:
    """A run's policy, which can be sampled at a temperature."""
    words = words_of(call, name if name in METHODS else BEGINS_WITH)
    return likelihood_model([*words, "data.count=100"], folder)


@torch.no_grad()
def measured(call: Call, session: Session, agent: MaximumLikelihood, oracle: Oracle, fresh: Tensor) -> list[Measured]:
    """The model at each temperature."""
    found = []
    for temperature in TEMPERATURES:
        agent.temperature = agent.policy.temperature = temperature
        made = samples(session, call.pick(10_000, 50), "seqgan", at_once=1000).sample.squeeze(2)
        rng = stream(0, "seqgan likelihood")
        nll_gen = torch.cat([agent.nll(part.unsqueeze(2), rng).mean(0) for part in fresh.split(250)])
        pairs = len(torch.stack([made[:, :-1], made[:, 1:]], 2).flatten(0, 1).unique(dim=0))
        nll_oracle, different = float(oracle.nll(made).mean()), 100 * unique(made[:4000])
        found.append(Measured(temperature, nll_oracle, float(nll_gen.mean()), different, pairs))
    return found


class Run(NamedTuple):
    """A model of the table."""

    name: str
    seed: int
    folder: Path


def runs_of(call: Call) -> list[Run]:
    """All models, trained."""
    runs = [Run(name, 1, likely(call, name, 1)) for name in METHODS if name != BEGINS_WITH]
    asked = [(kind, seed) for kind in LEARNED for seed in call.seeds(kind)]
    begun = sorted({seed for _, seed in asked})
    runs += [Run(BEGINS_WITH, seed, likely(call, BEGINS_WITH, seed)) for seed in begun]
    return runs + [Run(CALLED[kind], seed, learned(call, kind, seed)) for kind, seed in asked]


def measure(call: Call) -> None:
    oracle, length = Oracle(published(call, ORACLE)), 20
    fresh = oracle.sample(call.pick(2_000, 50), length, stream(1, "seqgan fresh"))
    rows: list[Row] = [
        ["method", "seed", "temperature", "NLL_oracle", "NLL_gen", "different of 4 000, %", "different pairs"]
    ]
    cost: list[Row] = [["method", "seed", "updates", "minutes"]]
    lines: dict[str, Line] = {}
    for name, seed, folder in runs_of(call):
        found = measured(call, *model(call, folder, name), oracle, fresh)
        lines[f"{name}, seed {seed}"] = [(point.nll_gen, point.nll_oracle) for point in found]
        rows += [[name, seed, f"{t:g}", f"{o:.3f}", f"{g:.3f}", f"{d:.1f}", f"{p:,.0f}"] for t, o, g, d, p in found]
        cost.append([name, seed, *(likelihood_cost(folder) if name in METHODS else training_cost(folder))])
    panel = {"lower and further left is better": lines}
    curves(call.results / "seqgan.png", panel, "NLL_gen (the y axis is NLL_oracle)")
    own = oracle.sample(call.pick(10_000, 50), length, stream(2, "seqgan own"))
    write(call, "SeqGAN's oracle", [
        summary(__doc__),
        f"The oracle's own samples have {float(oracle.nll(own).mean()):.3f} (published 5.750).",
        "![curves](seqgan.png)", table(rows), table([["published", "NLL_oracle"], *PUBLISHED]), table(cost),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("seqgan", measure, arguments, density="1,2,3", discriminator="1")


if __name__ == "__main__":
    main(sys.argv[1:])
