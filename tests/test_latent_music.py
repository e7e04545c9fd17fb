"""A generator of sequences and its steering: shapes and gradients by hand, every agent, the joint loop."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.latent.sequences import LatentSequences
from rlgen_cli.domains.latent.steering import ContinuousStep, DiscreteStep, SetCoordinate, SetLatent
from rlgen_cli.domains.music.encodings import Melody
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.generators.gan import GAN
from rlgen_cli.generators.sequences import (
    SequenceDiscriminatorNetwork,
    SequenceGeneratorNetwork,
    as_pictures,
    pixel_shuffle_1d,
)
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.trainer import train
from rlgen_cli.testing import check_env
from tests.conftest import compose, session, slow, small
from tests.resuming import resumes
from tests.small_gan import LATENT, make_gan, rng

CPU = torch.device("cpu")
ENCODING = Melody(low=60, high=62, grid=1)  # rest, hold and three notes


def words(*more: str, agent: str = "ppo") -> list[str]:
    """A session of seconds, with a steering in which the agent can act."""
    steering = "steering=discrete_step" if agent in ("dqn", "random") else "steering=continuous_step"
    return small("env=latent_music", f"agent={agent}", steering, *more)


def sequences(device: str = "cpu", length: int = 8) -> Sequences:
    """Random melodies."""
    return Sequences(torch.randint(0, 5, (20, length, 1), generator=rng()), ENCODING).to(device)


def sequence_gan(device: str = "cpu", **changes: Any) -> GAN:
    """A GAN of melodies, built by hand."""
    networks: dict[str, Any] = {
        "network": partial(SequenceGeneratorNetwork, width=8),
        "discriminator": partial(SequenceDiscriminatorNetwork, width=4, hidden=6, spectral_norm=False),
    }
    return make_gan(device, real=sequences(device), **networks | changes)


@pytest.mark.parametrize("length", [5, 8, 20, 32, 64])
def test_networks_of_every_length(length):
    net = SequenceGeneratorNetwork(sample=(1, 7, length), latent=3, classes=0, width=8).eval()
    z = torch.randn(4, 3, generator=rng())
    made = net(z)
    assert made.shape == (4, 1, 7, length)
    assert torch.allclose(made.sum(2), torch.ones(4, 1, length))
    assert set(made.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    tokens = net.finished(made)
    assert tokens.shape == (4, length, 1)
    shift = torch.zeros(4, net.coordinates)
    assert torch.equal(net(z, None, shift), made)
    judge = SequenceDiscriminatorNetwork(sample=(1, 7, length), classes=0, width=4, hidden=6, spectral_norm=True).eval()
    assert torch.allclose(judge(tokens), judge(made), atol=1e-5)


def test_the_choice_is_hard_and_its_gradient_soft():
    net = SequenceGeneratorNetwork(sample=(1, 5, 8), latent=3, classes=0, width=8).eval()
    z = torch.randn(2, 3, generator=rng(), requires_grad=True)
    (net(z)[:, 0, 2]).sum().backward()
    assert z.grad is not None
    assert bool((z.grad != 0).any())


def test_channels_become_time_steps_by_hand():
    x = torch.arange(8.0).view(1, 4, 1, 2)  # channels (0, 1), (2, 3), (4, 5), (6, 7)
    assert pixel_shuffle_1d(x)[0, :, 0].tolist() == [[0, 2, 1, 3], [4, 6, 5, 7]]


def test_pictures_of_tokens_and_back():
    tokens = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]]).unsqueeze(2)
    images = as_pictures(Sequences(tokens, ENCODING)).images
    assert images.shape == (2, 1, 5, 4)
    assert images[0, 0, :, 1].tolist() == [0, 0, 0, 255, 0]
    assert torch.equal(SequenceGeneratorNetwork.finished(images), tokens)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("steering", ["discrete_step", "continuous_step", "set_coordinate", "set_latent"])
@pytest.mark.parametrize("space", ["latent", "parameters"])
def test_contract(steering, space, device):
    if space == "parameters" and steering == "set_latent":
        return
    gan = sequence_gan(device)
    steps: dict[str, Any] = {
        "device": gan.device,
        "space": space,
        "basis": "auto",
        "directions": 4,
        "limit": 3.0,
    }
    steerings: dict[str, Any] = {
        "discrete_step": lambda: DiscreteStep(generator=gan.generator, stride=0.7, **steps),
        "continuous_step": lambda: ContinuousStep(generator=gan.generator, stride=0.7, **steps),
        "set_coordinate": lambda: SetCoordinate(generator=gan.generator, levels=5, **steps),
        "set_latent": lambda: SetLatent(generator=gan.generator, limit=3.0),
    }
    data = sequences(device)
    env = LatentSequences(
        data=Splits(data, data, data), device=gan.device, generator=gan.generator, steering=steerings[steering](),
        encoding=ENCODING, length=8, bar=4, tempo=100.0, max_steps=3, start="prior", time_encoding="fraction",
    )  # fmt: skip
    assert set(env.spec.observation) == {"tokens", "time", space}
    assert set(env.spec.context) == {"prime", "start_latent"}
    assert set(env.spec.info) == {"num_tokens", "latent"}
    if device == "meta":
        check_env(env, device=torch.device("meta"))
        return
    check_env(env, device=CPU)
    state = env.step(env.reset(5, rng()), env.spec.action.sample(5, rng(1)))
    shift = None if space == "latent" else state.point
    raw = gan.generator(env.view(state).info["latent"], None, shift)
    assert torch.equal(env.view(state).sample, gan.generator.finished(raw))
    assert env.view(state).info["num_tokens"].tolist() == [8] * 5


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_update_and_its_directions(device):
    gan = sequence_gan(device)
    metrics = gan.update(0.0)
    assert metrics["generator_loss"].device.type == device
    gan.stage().finish()
    assert gan.generator.directions("learned").shape == (LATENT, LATENT)


def test_sequences_are_not_augmented():
    with pytest.raises(UserError, match=r"^augment: changes pictures"):
        sequence_gan(augment=["colour"])


@pytest.mark.parametrize("more", [["encoding=chorale", "reward=harmony"], ["encoding=tokens"]])
def test_other_encodings(more):
    env = session(*words(*more, agent="random")).envs["train"]
    check_env(env, device=CPU)


@pytest.mark.parametrize("agent", ["dqn", "ppo", *slow("actor_critic", "policy_gradient", "cem", "best_of", "random")])
@pytest.mark.slow
def test_every_agent_steers_and_resumes_bit_for_bit(agent, tmp_path):
    resumes(words("reward=music_theory", agent=agent), 160, tmp_path)
    made = {path.suffix for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert {".png", ".mid", ".wav", ".json"} <= made


@pytest.mark.parametrize("agent", ["dqn", *slow("ppo", "policy_gradient")])
def test_policy_generator_and_discriminator_learn_together(agent, tmp_path):
    more = ["joint=true", "env.generator.joint_training.buffer_size=20"]
    resumes([*words(agent=agent), *more], 160, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("generator/generator_loss" in record for record in records)


def test_parameters_are_a_space_too(tmp_path):
    resumes([*words(), "env.steering.space=parameters"], 160, tmp_path)


def test_pretraining_leaves_melodies(tmp_path):
    built: Any = assemble(compose(*words(agent="random")))
    made = built.source.generator
    before = made(torch.ones(2, LATENT))
    assert pretrain(built, tmp_path / "run") == "finished"
    assert not torch.equal(made(torch.ones(2, LATENT)), before)
    assert len(list((tmp_path / "run" / "samples" / "final").glob("*.mid"))) == 16
    assert not (tmp_path / "run" / "generator").exists()  # what generator=file reads are pictures


def test_a_fused_rule_is_followed_through_z():
    """Rules have no gradient: more different notes are struck than in what the same generator makes of bare z."""
    more = ["reward=pitch_entropy", "env.generator.batch_size=32", "env.generator.updates=300"]
    more += ["env.generator.fused_reward.weight=5", "env.generator.fused_reward.noise_std=0.5"]
    built: Any = session(*words(agent="random"), *more)
    assert built.source.fused_reward.has_gradient is False
    made, z, env = built.source.generator, torch.randn(256, LATENT, generator=rng()), built.envs["train"]
    scores = []
    for net in (made, made.network):
        with torch.no_grad():
            view = env.view(env.reset(256, rng()))._replace(sample=made.finished(net(z)))
            scores.append(built.reward.score(view)["pitch_entropy"].mean())
    assert scores[0] > scores[1]


def test_training_makes_what_the_data_is_like():
    """Pairs of tokens that occur in the data, before and after."""
    more = ["env.generator.updates=200", "env.generator.batch_size=16", "env.generator.network.width=32"]
    built: Any = assemble(compose(*words(agent="random"), *more, "data.count=60"))
    source, tokens = built.source, built.data.train.tokens[:, :, 0]
    known = torch.zeros(38, 38, dtype=torch.bool)
    known[tokens[:, :-1], tokens[:, 1:]] = True

    def known_share() -> float:
        with torch.no_grad():
            made = source.generator.finished(source.generator(torch.randn(200, LATENT, generator=rng())))[:, :, 0]
        return float(known[made[:, :-1], made[:, 1:]].float().mean())

    before = known_share()
    for i in range(200):
        source.update(i / 200)
    assert known_share() > before + 0.3


@pytest.mark.slow
def test_a_policy_beats_chance():
    """DQN walks to where more different notes are struck."""
    more = ["reward=pitch_entropy", "env.generator.updates=300", "env.generator.batch_size=16"]
    more += ["env.generator.network.width=32", "env.steering.directions=null", "env.max_steps=6"]
    more += ["env.steering.stride=1.0", "num_envs=16", "total_steps=6000", "eval_interval=6000"]
    more += ["agent.batch_size=64", "agent.replay.buffer_size=4000", "agent.network.body.width=64"]
    built: Any = session(*words(agent="dqn"), *more)

    def entropy() -> float:
        found = evaluate(built.envs["valid"], built.actor, built.reward, episodes=64, seed=0, device=CPU)
        return found.scores["pitch_entropy"]

    before = entropy()
    assert train(built, Path("run")) == "finished"
    assert entropy() > before + 0.1


def test_samples_are_written_as_midi(tmp_path):
    write_samples(session(*words(agent="random")), "test", 3, 0, ["midi"], tmp_path)
    assert len(list(tmp_path.glob("*.mid"))) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["generator=r1"],
            r"env\.generator\.network: makes pictures, and the data are sequences; use generator=melody",
        ),
        (["encoding=notes", "reward=sequence_novelty"], "makes tokens of one part; use encoding=melody"),
        (["env.generator.augment=[colour]"], r"env\.generator\.augment: changes pictures"),
        (["env.generator.conditional=true"], "needs data with labels"),
        (["env.tempo=5"], r"env\.tempo: must be from 20"),
        (["env.max_steps=0"], r"env\.max_steps: must be"),
        (["env.length=1"], r"env\.length: must be from 2"),
        (["data=glyphs"], "gives pictures, and LatentSequences takes sequences"),
        (["reward=sharpness"], "scores pictures"),
    ],
)
def test_wrong_input_says_what_is_right(more, message):
    given = [*words(agent="random"), *more]
    if "data=glyphs" in more:
        given = [word for word in given if not word.startswith(("data.count", "reward"))]
    with pytest.raises(UserError, match=message):
        assemble(compose(*given))


def test_rewards_add_up_to_the_difference_of_scores():
    """Also those of a rule that is a sum over tokens, though a step here changes all tokens at once."""
    built: Any = session(*words("reward=music_theory", agent="random"))
    env, reward = built.envs["train"], built.reward
    state = first = env.reset(5, rng())
    total = torch.zeros(5)
    for i in range(env.spec.max_steps):
        after = env.step(state, env.spec.action.sample(5, rng(i)))
        total += reward(env.view(state), env.view(after), env.done(after)).total
        state = after
    before, now = (reward.static_score(env.view(one)) for one in (first, state))
    assert torch.allclose(total, now - before, atol=1e-4)
