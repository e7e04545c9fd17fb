"""Gymnasium sees the environments and rewards that rlgen has, and nothing else."""

import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch

from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Continuous, Factored, Mixed
from tests.conftest import DIFFUSION, ENVS, GAN, session

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env, data_equivalence  # noqa: E402
from gymnasium.vector import AutoresetMode  # noqa: E402
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics  # noqa: E402

from rlgen_cli.gymnasium import action_space, as_tensor  # noqa: E402

ACTIONS = [
    "brush=pixel",
    "brush=pen env.brush.patch_size=5",
    "brush=pen_grid env.brush.grid=4",
    "brush=stroke",
    "brush=stroke_grid env.brush.grid=4",
    "brush=spiral env.brush.grid=4",
    "brush=spiral_continuous",
]
PIXEL = list(ACTIONS)
VARIANTS = [
    "env.channels=3 env.colours=4", "env.noise=2", "env.stop=true brush=pixel", "start=random",
    "reward=adversarial", "reward=coverage +reward/term=ink_cost", "experiment=resketch data=glyphs",
]  # fmt: skip
SONGS = [
    "",
    "encoding=notes reward=tonality",
    "encoding=chorale reward=harmony",
    "encoding=tokens reward=sequence_novelty",
]
STEERED = ["", "steering=continuous_step env.steering.space=parameters"]
SHIPPED = (
    [("tiny", "")]
    + [("pixel", words) for words in PIXEL + VARIANTS]
    + [("music", words) for words in SONGS]
    + [("latent_gan", words) for words in STEERED]
    + [("latent_music", ""), ("diffusion", "")]
)


def overrides(env: str, words: str = "") -> list[str]:
    """Small and fast."""
    fitted = [*GAN, "env.steering.directions=4"] if env.startswith("latent") else []
    fitted = DIFFUSION if env == "diffusion" else fitted
    return ["threads=1", *ENVS.get(env, []), *fitted, *words.split()]


def single(env: str, words: str = "", **more: Any) -> Any:
    return gymnasium.make(f"rlgen/{env}-v0", overrides=overrides(env, words), **more).unwrapped


def vector(env: str, words: str = "", n: int = 3, **more: Any) -> Any:
    return gymnasium.make_vec(f"rlgen/{env}-v0", num_envs=n, overrides=overrides(env, words), **more)


def test_every_environment_has_an_id_and_is_checked_here():
    assert {f"rlgen/{name}-v0" for name in choices("env")} <= set(gymnasium.registry)
    assert {env for env, _ in SHIPPED} == set(choices("env")), "add the new environment to SHIPPED"


@pytest.mark.filterwarnings("ignore:.*Box (observation|action) space.*infinity")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")  # normal actions have none
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("env", "words"), SHIPPED)
@pytest.mark.mostly_slow(4)
def test_gymnasium_accepts_it(env, words):
    check_env(single(env, words, render_mode="rgb_array"))


@pytest.mark.parametrize(("env", "words"), SHIPPED)
@pytest.mark.mostly_slow(4)
def test_a_vector_keeps_its_spaces_through_several_episodes(env, words):
    envs = vector(env, words)
    observation, _ = envs.reset(seed=1)
    envs.action_space.seed(1)
    ended = 0
    for _ in range(18):
        assert observation in envs.observation_space
        assert not any(0 in field.shape for field in observation.values())
        observation, reward, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert np.isfinite(reward).all()
        assert not truncated.any()
        assert ("final_obs" in infos) == terminated.any()
        ended += terminated.sum()
    assert ended


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("tiny", ""),
        ("pixel", ""),
        ("pixel", "brush=stroke"),
        ("pixel", "brush=spiral"),
        ("pixel", "brush=pixel +reward/term=ink_cost"),
        ("music", ""),
        ("music", "encoding=notes reward=tonality"),
    ],
)
def test_it_is_the_plain_environment(env, words):
    """Same seed and actions: the same observations, rewards, terms and ends, to the bit."""
    run = session("agent=random", f"env={env}", *overrides(env, words))
    plain, rng, policy = run.envs["train"], stream(5, "env"), stream(5, "policy")
    envs = vector(env, words, n=4)
    state = plain.reset(4, rng)
    seen, _ = envs.reset(seed=5)
    for _ in range(plain.spec.max_steps):
        observed = plain.observe(state)
        assert observed.keys() == seen.keys()
        assert all(
            np.array_equal(seen[name], (field if field.dtype == torch.int64 else as_unit(field)).numpy())
            for name, field in observed.items()
        )
        action = plain.spec.action.sample(4, policy)
        after = plain.step(state, action)
        with torch.no_grad():
            scored = run.reward(plain.view(state), plain.view(after), plain.done(after))
        seen, reward, terminated, _, infos = envs.step(action.numpy())
        assert np.array_equal(reward, scored.total.numpy())
        assert np.array_equal(terminated, plain.done(after).numpy())
        assert all(np.array_equal(infos[f"term/{name}"], value.numpy()) for name, value in scored.terms.items())
        state = after
    assert terminated.all()


def test_single_and_vector_agree_and_a_seed_repeats_all_episodes():
    envs, env, actions = vector("pixel", n=1), single("pixel"), torch.randint(98, (20,), generator=stream(0, "policy"))
    for _ in range(2):
        (many, _), (one, _) = envs.reset(seed=3), env.reset(seed=3)
        for action in actions.tolist():
            assert data_equivalence({name: field[0] for name, field in many.items()}, one, exact=True)
            many, rewards, terminations, _, infos = envs.step([action])
            one, reward, terminated, _, info = env.step(action)
            assert (reward, terminated) == (rewards[0], terminations[0])
            assert info == {name: infos[name][0] for name in info}
            if terminated:
                assert data_equivalence(infos["final_obs"][0], one, exact=True)
                one, _ = env.reset()


def test_finished_episodes_begin_again_in_the_same_step():
    envs = vector("pixel", "brush=pixel env.stop=true")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    stop = envs.single_action_space.n - 1
    before, _ = envs.reset(seed=1)
    before, *_ = envs.step(np.array([7, 7, 7]))
    after, _, terminated, _, infos = envs.step(np.array([8, stop, 8]))
    assert terminated.tolist() == infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True, False]
    assert infos["final_obs"][0] is None
    assert np.array_equal(infos["final_obs"][1]["canvas"], before["canvas"][1]), "stopping marks nothing"
    assert infos["final_obs"][1] in envs.single_observation_space
    assert infos["final_info"]["term/target"][1] == infos["term/target"][1]
    assert after["time"][1, 0] == 1, "all its time is left"
    assert after["time"][0, 0] < before["time"][0, 0]


def test_gymnasiums_wrappers_understand_the_infos():
    envs = DictInfoToList(RecordEpisodeStatistics(vector("tiny", n=2)))
    envs.reset(seed=1)
    for _ in range(4):
        _, _, terminated, _, infos = envs.step(np.array([1, 2]))
    assert terminated.all()
    assert [info["episode"]["l"] for info in infos] == [4, 4]
    assert [set(info["final_obs"]) for info in infos] == [{"canvas", "target", "time"}] * 2


def test_pictures():
    for words in ("", "env.channels=3 env.colours=4"):
        envs = vector("pixel", f"brush=pixel {words}", render_mode="rgb_array")
        observation, _ = envs.reset(seed=1)
        observation, *_ = envs.step(np.array([200, 210, 220]))
        frames = envs.render()
        assert [(frame.shape, frame.dtype) for frame in frames] == [((12, 12, 3), np.uint8)] * 3
        drawn = observation["canvas"].transpose(0, 2, 3, 1) * 255
        assert np.allclose(np.stack(frames), drawn)
    assert vector("tiny").render() is None


def test_the_discriminator_learns_along_with_known_progress():
    words = "reward=adversarial reward.terms.adversarial.interval=1 reward.terms.adversarial.learning_rate={start:1e-3,end:1e-4}"
    envs = vector("pixel", words, n=4, total_steps=80)
    score = envs.episodes.learners["adversarial"]
    before = {name: value.clone() for name, value in score.net.state_dict().items()}
    envs.reset(seed=1)
    for _ in range(11):
        envs.step(envs.action_space.sample())
    assert score.updates == 11 - envs.episodes.env.spec.max_steps
    assert any(not torch.equal(value, before[name]) for name, value in score.net.state_dict().items())
    assert score.optimizer.learning_rate == pytest.approx(1e-3 - 0.9e-3 * 40 / 80)


def test_held_out_data():
    train, test = (vector("pixel", n=32, split=split).reset(seed=1)[0]["target"] for split in ("train", "test"))
    assert not np.array_equal(train, test)
    with pytest.raises(UserError, match=r"^split: must be train or valid or test, got 'tset'"):
        single("pixel", split="tset")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("env.size=1000", r"env\.size: must be from 8 to 128, got 1000"),
        ("env.colour=3", r"env\.colour: .*did you mean colours"),
        ("reward=beauty", r"reward=beauty: there is no such choice"),
        ("env.condition=none", r"reward\.terms\.target: needs target"),
    ],
)
def test_wrong_overrides_are_refused_as_on_the_command_line(words, message):
    for make in (single, vector):
        with pytest.raises(UserError, match=message):
            make("pixel", words)


@pytest.mark.parametrize("make", [single, vector])
def test_wrong_arguments(make):
    with pytest.raises(UserError, match="total_steps: must be at least 1"):
        make("tiny", total_steps=0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        make("tiny").step(np.array([1, 2, 3]) if make is vector else 1)


def test_a_program_under_hydra_keeps_its_own():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        single("tiny")
        assert GlobalHydra.instance().hydra is mine


def test_actions_of_several_decisions():
    factored, device = Factored((2, 5)), torch.device("cpu")
    space: Any = action_space(factored)
    assert space.nvec.tolist() == [2, 5]
    assert as_tensor(factored, np.array([[1, 4]]), device).tolist() == [[1, 4]]
    mixed = Mixed(factored, Continuous(2))
    assert action_space(mixed) == gymnasium.spaces.Box(0, 1, (4,), np.float32)
    given = np.array([[0.0, 0.0, 0.3, 0.7], [0.49, 0.39, 0, 0], [0.5, 0.4, 0, 0], [1.0, 1.0, 1, 1]], np.float32)
    made = as_tensor(mixed, given, device)
    assert made[:, :2].tolist() == [[0, 0], [0, 1], [1, 2], [1, 4]]
    assert np.array_equal(made[:, 2:].numpy(), given[:, 2:])


def test_without_gymnasium_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "rlgen_cli.gymnasium")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"^rlgen_cli\.gymnasium needs Gymnasium: pip install 'rlgen\[gym\]'\.$"):
        importlib.import_module("rlgen_cli.gymnasium")


def test_a_generator_learns_along_where_joint_is_true():
    """The generator's and the discriminator's weights change under Gymnasium as they do in a training."""
    envs = vector("latent_gan", "joint=true", n=4, total_steps=80)
    gan = envs.episodes.learners["generator"].gan
    before = {name: value.clone() for name, value in gan.network.state_dict().items()}
    envs.reset(seed=1)
    for _ in range(4):
        envs.step(envs.action_space.sample())
    assert any(not torch.equal(value, before[name]) for name, value in gan.network.state_dict().items())
