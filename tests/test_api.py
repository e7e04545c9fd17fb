"""rlgen in Python, and what the command line makes of the same words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlgen_cli
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import ChoosesData, DrawsStrokes, Planner, Trainable
from tests.conftest import session, small, write_picture

COPIES = small("env=pixel", "brush=pen", "agent=dqn", "reward=target", "env.condition=both")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "copies"
    rlgen_cli.train(*COPIES, folder=made)
    return made


def test_train_open_and_sample(folder, tmp_path):
    run = rlgen_cli.open(folder)
    assert run.folder == folder
    assert run.config.env.size == 12
    assert run.metrics["return"].steps == [40.0, 80.0, 120.0, 160.0]
    made = run.sample(6, seed=3)
    assert made.view.sample.shape == (6, 1, 12, 12)
    assert made.scores["target"].shape == (6,)
    assert made.record["scores"]["target"] == pytest.approx(float(made.scores["target"].mean()), abs=1e-6)
    assert torch.equal(run.sample(6, seed=3).view.sample, made.view.sample)
    assert not torch.equal(run.sample(6, seed=4).view.sample, made.view.sample)
    made.save(tmp_path / "made", formats=["png", "svg"])
    assert sorted(path.name for path in (tmp_path / "made").glob("00*")) == [
        f"00{i}.{kind}" for i in range(6) for kind in ("png", "svg")
    ]
    with pytest.raises(UserError, match=r"format: must be of png, gif, svg, .* for this run, got midi"):
        made.save(tmp_path / "made", formats=["midi"])


def test_the_policy_and_the_environment_can_be_used_by_themselves(folder):
    run = rlgen_cli.open(folder)
    rng = torch.Generator().manual_seed(0)
    state = run.env.reset(3, rng)
    assert not isinstance(run.policy, Planner)
    decision = run.policy.act(run.env.observe(state), None, None, explore=False, rng=rng)
    assert run.env.step(state, decision.action).step.tolist() == [1, 1, 1]


def test_all_samples_have_the_label_that_is_asked_for(folder, rlgen, tmp_path):
    run = rlgen_cli.open(folder)
    assert isinstance(run.env, ChoosesData)
    names, there = run.env.spec.class_names, run.env.labels.unique().tolist()
    for label in there:
        assert set(run.sample(8, label=names[label]).view.context["label"].tolist()) == {label}
        assert set(run.sample(8, label=label).view.context["label"].tolist()) == {label}
    with pytest.raises(UserError, match="label: there is no nothing"):
        run.sample(8, label="nothing")
    code, out, _ = rlgen("sample", f"run={folder}", "n=2", f"label={names[there[0]]}", "format=png")
    assert code == 0
    assert out.strip().endswith(f"_{names[there[0]]}")


def test_labels_need_a_run_that_sees_them(tmp_path):
    run = rlgen_cli.train(*small("env=music", "agent=random", "reward=tonality"), folder=tmp_path / "song")
    with pytest.raises(UserError, match="label: this run was not asked for labels"):
        run.sample(2, label=1)
    with pytest.raises(UserError, match="draw: this run sees no picture to draw"):
        run.draw("anything.png")


def test_a_picture_of_ones_own_is_drawn(folder, rlgen, tmp_path):
    picture = np.zeros((24, 48), np.uint8)
    picture[8:16, 4:44] = 255
    Image.fromarray(picture).save(tmp_path / "mine.png")
    run = rlgen_cli.open(folder)
    made = run.draw(tmp_path / "mine.png", n=3)
    target = made.view.context["target"]
    assert target.shape == (3, 1, 12, 12)
    assert (target == target[:1]).all()
    assert target[0, 0].sum(1).argmax() == 6 or target[0, 0].sum(1).argmax() == 5  # the bar lies in the middle
    assert float(target[0, 0, 0].sum()) == 0.0  # beside it lies what its borders have
    # The score is that of a copy of this picture.
    wrong = (made.view.sample - target).square().sum((1, 2, 3)) / target.square().sum((1, 2, 3))
    torch.testing.assert_close(made.scores["target"], -wrong, atol=1e-4, rtol=1e-4)
    code, out, _ = rlgen("draw", f"run={folder}", "image=mine.png", "n=2")
    assert code == 0
    written = Path(out.removeprefix("drawn: ").strip())
    assert written.name.startswith("mine_step_")
    assert {"grid.png", "000.svg", "timelapse.gif", "scores.json"} <= {path.name for path in written.iterdir()}
    assert json.loads((written / "scores.json").read_text())["image"] == "mine.png"


def test_a_learned_term_scores_as_the_checkpoint_has_it(tmp_path):
    words = small("env=pixel", "agent=dqn", "reward=adversarial", "+reward/term=coverage")
    run = rlgen_cli.train(*words, folder=tmp_path / "run")
    learned = run.session.reward.learners()["adversarial"]
    fresh = session(*words).reward.learners()["adversarial"]
    moved = [not torch.equal(one, other) for one, other in zip(weights(learned), weights(fresh), strict=True)]
    assert any(moved)
    assert run.sample(2).scores.keys() == {"adversarial", "coverage"}
    for training in (tmp_path / "run" / "checkpoints").glob("*/training"):
        shutil.rmtree(training)
    assert rlgen_cli.open(tmp_path / "run").sample(2).scores.keys() == {"coverage"}


def weights(learned: Trainable) -> list[torch.Tensor]:
    return list(learned.state_dict()["net"].values())


def test_a_name_on_the_hub_must_be_one():
    with pytest.raises(UserError, match="run: must be hf://USER/NAME or hf://USER/NAME@REVISION, got hf://ann"):
        rlgen_cli.open("hf://ann")


def test_drawing_leaves_the_data_as_it_was(folder, tmp_path):
    run = rlgen_cli.open(folder)
    before = run.sample(4).view.context["target"]
    run.draw(write_picture(tmp_path / "other.png"))
    assert torch.equal(run.sample(4).view.context["target"], before)


def test_a_damaged_picture_is_repaired(tmp_path):
    words = small("env=latent_gan", "agent=ppo", "task=inpaint")
    run = rlgen_cli.train(*words, folder=tmp_path / "repairs")
    made = run.draw(write_picture(tmp_path / "mine.png"), n=2)
    assert made.view.context["damaged"].shape == (2, 1, 16, 16)
    assert "psnr" in made.record


def test_what_is_no_picture_is_named(folder, rlgen, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    code, _, err = rlgen("draw", f"run={folder}", "image=text.png")
    assert code == 2
    assert "image: text.png is no picture that can be read (it is no image of a known format)." in err
    assert rlgen("draw", f"run={folder}", "image=gone.png")[0] == 2


def test_importing_rlgen_loads_nothing_heavy():
    code = "import sys, rlgen_cli; sys.exit('torch' in sys.modules or not hasattr(rlgen_cli, '__version__'))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rlgen_cli.nothing  # noqa: B018


@pytest.mark.parametrize("brush", ["pen", "pixel", "stroke_grid"])
def test_pictures_are_written_large_and_without_their_background(brush, rlgen, tmp_path):
    rlgen_cli.train(*small("env=pixel", f"brush={brush}", "agent=random", "reward=target"), folder=tmp_path / "run")
    env = rlgen_cli.open(tmp_path / "run").env
    assert isinstance(env, DrawsStrokes)
    paper = float(env.background[0])
    words = ["sample", f"run={tmp_path / 'run'}", "n=6", "columns=2"]
    assert rlgen(*words, "out=plain")[0] == rlgen(*words, "scale=5", "transparent=true", "out=large")[0] == 0
    for i in range(6):
        plain, large = (Image.open(tmp_path / folder / f"00{i}.png") for folder in ("plain", "large"))
        assert (plain.size, plain.mode) == ((12, 12), "RGB")
        assert (large.size, large.mode) == ((60, 60), "RGBA")
        ink, alpha = (np.asarray(part, float) / 255 for part in (plain.convert("L"), large.getchannel("A")))
        # What covers the paper is where the plain picture has ink.
        reduced = alpha.reshape(12, 5, 12, 5).mean((1, 3))
        assert np.abs(reduced - np.abs(ink - paper)).mean() < 0.05
    assert 'fill="#000000"/>\n<g' not in (tmp_path / "large" / "000.svg").read_text()
    grid = Image.open(tmp_path / "plain" / "grid.png")
    assert grid.height > grid.width / 2


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("scale=0", "scale: must be a whole number from 1 to 64, got 0."),
        ("columns=0", "columns: must be a whole number from 1 to 10000, got 0."),
        ("smooth=1", "smooth: must be true or false, got 1."),
        ("tempo=90", "soundfont, tempo, instrument: are of music, and this run makes none."),
        ("instrument=violin", "soundfont, tempo, instrument: are of music, and this run makes none."),
    ],
)
def test_a_look_that_there_is_not(word, said, folder, rlgen):
    code, _, err = rlgen("sample", f"run={folder}", word)
    assert code == 2
    assert said in err


def test_a_song_has_no_scale(rlgen, tmp_path):
    rlgen_cli.train(*small("env=music", "agent=random", "reward=tonality"), folder=tmp_path / "song")
    code, _, err = rlgen("sample", f"run={tmp_path / 'song'}", "scale=2")
    assert code == 2
    assert "are of pictures, and this run makes none." in err
