"""A generator of sequences and its steering: shapes and gradients by hand, every agent, the joint loop."""

import json
from pathlib import Path

import pytest
import torch

from rlgen_cli.runs.assemble import build
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.encodings import Melody
from rlgen_cli.core.errors import UserError
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.generators.sequences import Composer, Listener, as_pictures, widen
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.trainer import train
from tests.conftest import compose, session, small
from tests.test_train import resumes


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(*more: str, agent: str = "ppo") -> list[str]:
    return small("env=latent_music", f"agent={agent}", f"env.action={'step' if agent == 'dqn' else 'move'}", *more)


@pytest.mark.parametrize("length", [5, 8, 20, 32, 64])
def test_composer_of_every_length(length):
    net = Composer(sample=(1, 7, length), latent=3, classes=0, width=8).eval()
    z = torch.randn(4, 3, generator=rng())
    made = net(z)
    assert made.shape == (4, 1, 7, length)
    assert torch.allclose(made.sum(2), torch.ones(4, 1, length))
    assert set(made.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    tokens = net.finished(made)
    assert tokens.shape == (4, length, 1)
    shift = torch.zeros(4, net.coordinates)
    assert torch.equal(net(z, None, shift), made)
    listener = Listener(sample=(1, 7, length), classes=0, width=4, hidden=6, spectral=True).eval()
    assert torch.allclose(listener(tokens), listener(made), atol=1e-5)


def test_the_choice_is_hard_and_its_gradient_soft():
    net = Composer(sample=(1, 5, 8), latent=3, classes=0, width=8).eval()
    z = torch.randn(2, 3, generator=rng(), requires_grad=True)
    (net(z)[:, 0, 2]).sum().backward()
    assert bool((z.grad != 0).any())


def test_widen_by_hand():
    x = torch.arange(8.0).view(1, 4, 1, 2)  # channels (0, 1), (2, 3), (4, 5), (6, 7)
    assert widen(x)[0, :, 0].tolist() == [[0, 2, 1, 3], [4, 6, 5, 7]]


def test_pictures_of_tokens_and_back():
    encoding = Melody(low=60, high=62, grid=1)  # rest, hold and three notes
    tokens = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]]).unsqueeze(2)
    images = as_pictures(Sequences(tokens, encoding)).images
    assert images.shape == (2, 1, 5, 4)
    assert images[0, 0, :, 1].tolist() == [0, 0, 0, 255, 0]
    assert torch.equal(Composer.finished(images), tokens)


@pytest.mark.parametrize("action", ["step", "move", "place"])
@pytest.mark.parametrize("more", [[], ["encoding=chorale", "reward=harmony"], ["encoding=tokens"]])
def test_contract(action, more):
    env = session(*words(*more, agent="random"), f"env.action={action}").envs["train"]
    state = env.reset(5, rng())
    for step in range(env.spec.max_steps):
        seen, what = env.observe(state), env.view(state)
        assert seen.tokens.shape == (5, env.spec.observation.history, 1)
        assert seen.vector.shape == (5, env.spec.observation.vector)
        assert torch.equal(what.sample, env.gan.finished(env.gan(state.point)))
        assert {name for name, value in what.context._asdict().items() if value is not None} == env.spec.context
        assert not bool(env.done(state).any())
        state = env.step(state, env.spec.action.sample(5, rng(step)))
    assert bool(env.done(state).all())
    after = env.step(state, env.spec.action.sample(5, rng(9)))
    assert all(torch.equal(one, two) for one, two in zip(state, after, strict=True))


@pytest.mark.parametrize("agent", ["dqn", "ppo", "actor_critic", "policy_gradient", "cem", "best_of", "random"])
def test_every_agent_steers_and_resumes_bit_for_bit(agent, tmp_path):
    resumes(words("reward=music_theory", agent=agent), 160, tmp_path)
    made = {path.suffix for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert {".png", ".mid", ".wav", ".json"} <= made


@pytest.mark.parametrize("agent", ["dqn", "ppo", "policy_gradient"])
def test_policy_composer_and_listener_learn_together(agent, tmp_path):
    resumes(words("joint=true", "env.gan.memory=20", agent=agent), 160, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("gan/generator_loss" in record for record in records)


def test_parameters_are_a_space_too(tmp_path):
    resumes([*words(), "env.space=parameters", "env.basis=random"], 160, tmp_path)


def test_pretraining_leaves_melodies(tmp_path):
    built = build(compose(*words(agent="random")), pretrained=False)
    before = built.gan.average(torch.ones(2, 6))
    assert pretrain(built, tmp_path / "run") == "finished"
    assert not torch.equal(built.gan.average(torch.ones(2, 6)), before)
    assert len(list((tmp_path / "run" / "samples" / "final").glob("*.mid"))) == 16
    assert not (tmp_path / "run" / "generator").exists()  # what gan=file reads are pictures


def test_a_fused_rule_is_followed_through_z():
    """Rules have no gradient: what is shaped is struck more often than what the same generator makes of bare z."""
    more = ["reward=pitch_entropy", "env.gan.batch_size=32", "env.gan.steps=300", "env.gan.spread=0.5"]
    built = session(*words(agent="random"), *more, "env.gan.fused=5")
    assert built.gan.smooth is False
    z = torch.randn(256, 6, generator=rng())
    heard = []
    for net in (built.gan, built.gan.average):
        with torch.no_grad():
            view = built.envs["train"].view(built.envs["train"].reset(256, rng()))
            heard.append(built.reward.score(view._replace(sample=built.gan.finished(net(z))))["pitch_entropy"].mean())
    assert heard[0] > heard[1]


def test_training_makes_what_the_data_is_like():
    """Pairs of tokens that occur in the data, before and after."""
    more = ["env.gan.steps=200", "env.gan.batch_size=16", "env.gan.generator.width=32", "data.count=60"]
    built = build(compose(*words(agent="random"), *more), pretrained=False)
    tokens = built.data.train.tokens[:, :, 0]
    known = torch.zeros(38, 38, dtype=torch.bool)
    known[tokens[:, :-1], tokens[:, 1:]] = True

    def share() -> float:
        with torch.no_grad():
            made = built.gan.finished(built.gan(torch.randn(200, 6, generator=rng())))[:, :, 0]
        return float(known[made[:, :-1], made[:, 1:]].float().mean())

    before = share()
    built.gan.train(built.reward)
    assert share() > before + 0.3


def test_a_policy_beats_chance():
    """DQN walks to where more different notes are struck."""
    more = ["reward=pitch_entropy", "env.gan.steps=300", "env.gan.batch_size=16", "env.gan.generator.width=32"]
    more += ["env.directions=0", "env.max_steps=6", "env.stride=1.0", "num_envs=16", "total_steps=6000"]
    more += ["eval_interval=6000", "agent.batch_size=64", "agent.capacity=4000", "agent.network.body.width=64"]
    built = session(*words(agent="dqn"), *more)
    before = evaluate(built, "valid", 64, 0).scores["pitch_entropy"]
    assert train(built, Path("run")) == "finished"
    assert evaluate(built, "valid", 64, 0).scores["pitch_entropy"] > before + 0.1


def test_samples_are_heard(tmp_path):
    write_samples(session(*words(agent="random")), "test", 3, 0, ["midi"], tmp_path)
    assert len(list(tmp_path.glob("*.mid"))) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["gan=r1"], r"env\.gan\.generator: makes pictures, and the data are sequences; use gan=melody"),
        (["encoding=notes", "reward=novelty"], "makes tokens of one part; use encoding=melody"),
        (["env.gan.augment=[colour]"], "augment: changes pictures"),
        (["env.gan.conditional=true"], "needs data with labels"),
        (["env.tempo=5"], "env.tempo: must be from 20"),
        (["env.max_steps=0"], "env.max_steps: must be"),
        (["env.length=1"], "env.length: must be from 2"),
        (["data=glyphs"], "GlyphImages gives pictures|gives pictures, and LatentMusic takes sequences"),
        (["reward=sharpness"], "judges a picture"),
    ],
)
def test_wrong_input_says_what_is_right(more, said):
    given = [*words(agent="random"), *more]
    if "data=glyphs" in more:
        given = [word for word in given if not word.startswith(("data.count", "reward"))]
    with pytest.raises(UserError, match=said):
        build(compose(*given))
