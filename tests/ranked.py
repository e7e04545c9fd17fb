"""What the tests of several ranks run in processes of their own, beside the same in one process."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from rlgen_cli.core import ranks
from rlgen_cli.core.specs import Metrics, Transition
from rlgen_cli.core.tree import map_tensors, named_tensors
from rlgen_cli.generators.gan import GAN
from rlgen_cli.policies.distributions import SquashedGaussian
from rlgen_cli.rewards.adversarial import Adversarial
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.trainer import Loop, train
from tests.conftest import compose, session, small

Numbers = dict[str, Tensor]
COUNT = 2  # ranks
ENVS = 8  # of all ranks
GAN_BATCH = 16


class Spy:
    """A learner that keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[Transition] = []

    def observe(self, step: Transition) -> None:
        self.seen.append(step)

    def update(self, progress: float) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EveryWindow:
    """A sampling that draws all windows there are, in order."""

    nbytes = 0

    def draw(self, replay: Any, batch: int, length: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.arange(replay.rows)
        rows = rows[replay.allowed(rows, length)]
        assert len(rows) == batch
        return rows, torch.ones(batch)

    def written(self, replay: Any, rows: Tensor) -> None: ...


def played(words: list[str], steps: int) -> list[Transition]:
    """Steps of all environments, in one process."""
    run, spy = session(*words), Spy()
    loop = Loop(run)
    loop.stepper.learners = {"spy": spy}
    for _ in range(steps):
        decision, stepped = loop.play()
        loop.renew(decision, stepped)
    return spy.seen


def part_of(tree: Any) -> Any:
    """This rank's rows of a tree of [N, …]; all rows, where there is one rank."""
    return map_tensors(lambda field: field.chunk(ranks.count())[ranks.rank()], tree)


def fed(run: Session, steps: list[Transition]) -> Any:
    """The agent, once it has seen this rank's part of the steps and learned from them."""
    agent: Any = run.agent
    for step in steps:
        agent.observe(Transition(*(part_of(field) for field in step)))
        agent.update(0.25)
    return agent


def of_agent(words: list[str], steps: int, weights: bool = True) -> Callable[[], Numbers]:
    """The last gradients of an agent that has learned from some steps, and its weights, where noise does not turn the
    sign of a gradient that is almost 0, by which Adam goes."""
    seen = played(words, steps)

    def learned() -> Numbers:
        agent = fed(session(*words), seen)
        found = {"gradients": gradients(agent.optimizer.parameters)}
        return found | ({"weights": flat(agent.policy.state_dict())} if weights else {})

    return learned


def of_pathwise(words: list[str], steps: int) -> Callable[[], Numbers]:
    """The gradients of an agent that acts as its policy's mode, since ranks draw noise of their own."""
    learned = of_agent(words, steps, weights=False)

    def quietly() -> Numbers:
        with mock.patch.object(SquashedGaussian, "draw", lambda self, rng: (self.mode(), self._log_prob(self.mode()))):
            return learned()

    return quietly


def of_dqn(words: list[str], steps: int) -> Callable[[], Numbers]:
    """The same for DQN, on all windows of its replay at once."""
    seen = played(words, steps)

    def learned() -> Numbers:
        run = session(*words)
        agent: Any = run.agent
        agent.replay.sampling, agent.first_calls = EveryWindow(), 10**9
        fed(run, seen)
        rows = torch.arange(agent.replay.rows)
        agent.batch_size = int(agent.replay.allowed(rows, agent.length).sum())
        agent._update(0.25)
        return {"weights": flat(agent.policy.state_dict()), "gradients": gradients(agent.optimizer.parameters)}

    return learned


def of_adversarial(words: list[str], steps: int) -> Callable[[], Numbers]:
    """The gradients of a discriminator in a reward, on all finished samples and as many real ones."""
    seen = played(words, steps)

    def learned() -> Numbers:
        run = session(*words)
        learner: Any = next(each for each in run.learners.values() if isinstance(each, Adversarial))
        for step in seen:
            learner.observe(Transition(*(part_of(field) for field in step)))
        count = int(learner.buffer.samples.count)
        index = part_of(torch.arange(count * ranks.count()))
        real, fake = learner.net.real(learner.data, index), learner.buffer.samples.rows[:count]
        label = torch.zeros(count, dtype=torch.long)
        learner._batch = lambda: (learner.net.embed(real), label, learner.net.embed(fake), label)
        learner.interval = 1
        learner.update(0.25)
        return {"gradients": gradients(learner.optimizer.parameters)}

    return learned


def of_gan(words: list[str]) -> Callable[[], Numbers]:
    """Gradients of a GAN's networks and the moving average's statistics after an update on given latents."""

    def learned() -> Numbers:
        run = assemble(compose(*words))
        gan = run.source
        assert isinstance(gan, GAN)
        z = torch.randn(GAN_BATCH, gan.generator.latent, generator=torch.Generator().manual_seed(1))
        real = gan.real.images[:GAN_BATCH].float() / 255
        label = gan.real.labels[:GAN_BATCH]
        gan.update_on(0.25, part_of(real), part_of(label), part_of(z), part_of(label))
        statistics = {name: value for name, value in gan.generator.network.state_dict().items() if "running" in name}
        trained = [weight for optimizer in gan.optimizers.values() for weight in optimizer.parameters]
        return {"gradients": gradients(trained), "statistics": flat(statistics)}

    return learned


def gradients(parameters: list[Tensor]) -> Tensor:
    """All gradients in a row."""
    found = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
    assert found
    return torch.cat(found)


def flat(state: Any) -> Tensor:
    """All numbers of a state dict in a row."""
    return torch.cat([tensor.flatten().double() for tensor in named_tensors(state).values()])


def words_of(*words: str) -> list[str]:
    return [*small(*words), f"num_envs={ENVS}", "precision=float32"]  # so that results differ by rounding alone


CASES: dict[str, Callable[[], Callable[[], Numbers]]] = {
    "ppo": lambda: of_agent(
        words_of("agent=ppo", "brush=pen", "reward=target", "agent.num_steps=6", "agent.num_minibatches=1",
                 "agent.update_epochs=4", "agent.target_kl=0.01"), 6,
    ),
    "reinforce": lambda: of_agent(
        words_of("agent=policy_gradient", "brush=pen", "reward=target", "env.stop=true", "baseline=mean",
                 "agent.normalize_advantage=true", "agent.num_minibatches=1"), 12,
    ),
    "pathwise": lambda: of_pathwise(
        words_of("agent=pathwise", "brush=stroke", "reward=target", "agent.gradient_steps=1"), 6
    ),
    "dqn": lambda: of_dqn(words_of("agent=dqn", "brush=pen", "reward=target", "env.stop=true"), 20),
    "adversarial": lambda: of_adversarial(words_of("agent=random", "reward=adversarial"), 12),
    "gan": lambda: of_gan(words_of("env=latent_gan", f"env.generator.batch_size={GAN_BATCH}")),
    "gan with a reward": lambda: of_gan(
        words_of("env=latent_gan", "reward=colourfulness", "env.generator.fused_reward.weight=1",
                 f"env.generator.batch_size={GAN_BATCH}"),
    ),
}  # fmt: skip
# Trainings of hundreds of batched steps, after which all ranks have the same weights.
LONG = {
    "ppo, long": ["env=tiny", "agent=ppo", "agent.num_steps=16"],
    "dqn, long": ["env=tiny", "agent=dqn"],
    "reinforce, long": ["env=tiny", "agent=policy_gradient"],
    "adversarial, long": ["agent=actor_critic", "reward=adversarial", "agent.num_steps=8"],
    "joint gan, long": [
        "env=latent_gan",
        "agent=ppo",
        "reward=realism",
        "joint=true",
        "agent.num_steps=6",
        "env.generator.joint_training.interval=4",
    ],
}


def trained(words: list[str]) -> Tensor:
    """All weights of this rank after a training of 300 batched steps."""
    steps = [f"total_steps={300 * ENVS}", "log_interval=4000", "eval_interval=4000", "logger=none"]
    run = assemble(compose(*words_of(*words), *steps))
    assert train(run, Path("run")) == "finished"
    gan = [run.source.generator.state_dict()] if run.joint and run.source is not None else []
    learned = [value.state_dict() for name, value in run.learners.items() if name != "agent" and not gan]
    nets = [state["net"] for state in learned]
    assert run.agent is not None
    return flat([run.agent.policy.state_dict(), *nets, *gan])


def work(what: str, rank: int, port: int, folder: Path) -> None:
    """One rank: every case, and its numbers in a file."""
    os.chdir(folder)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(COUNT), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(COUNT),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0", "RLGEN_CACHE": str(folder / f"cache{rank}"),
    }  # fmt: skip
    torch.set_num_threads(1)
    if what in CASES:
        prepared = CASES[what]()
        with ranks.joined():
            found = prepared()
    else:
        with ranks.joined():
            found = {"weights": trained(LONG[what])}
    torch.save(found, folder / f"{rank}.pt")


def in_ranks(what: str, folder: Path) -> list[Numbers]:
    """The numbers of every rank."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    began = [context.Process(target=work, args=(what, rank, store.port, folder)) for rank in range(COUNT)]
    for process in began:
        process.start()
    for process in began:
        process.join(240)
    assert [process.exitcode for process in began] == [0] * COUNT, "a rank failed; its traceback is above"
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


if __name__ == "__main__":
    print({what: float(CASES[what]()()["gradients"].norm()) for what in sys.argv[1:]})
