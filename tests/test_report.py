"""`rlgen eval`: numbers by hand and by what they must say of real pictures and of noise, and the command itself."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.distances import vendi
from rlgen_cli.evaluation.judge import Judge, judge_of
from rlgen_cli.evaluation.report import compared, judged, table, within
from rlgen_cli.runs.evaluate_run import evaluate_run
from rlgen_cli.runs.trainer import train
from tests.conftest import session, small


def asked(run: Path, *changes: str) -> DictConfig:
    return composed("eval", [f"run='{run}'", "n=60", "updates=3", "device=cpu", *changes])


def stripes(n: int, seed: int, classes: tuple[str, ...] = ("across", "down")) -> Images:
    """Noisy stripes in two directions, which are their labels."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    across = (torch.arange(16) // 2 % 2).float().view(1, 1, 16, 1).expand(n, 1, 16, 16)
    x = torch.where(label.view(-1, 1, 1, 1) == 0, across, across.transpose(2, 3))
    x = (0.7 * x + 0.3 * torch.rand(n, 1, 16, 16, generator=rng)) * 255
    return Images(x.to(torch.uint8), label if classes else torch.zeros_like(label), classes)


def fitted_judge(real: Images, updates: int) -> Judge:
    helpers = Helpers()
    judge, stage = judge_of(real, updates, helpers), helpers.stages[0]
    assert stage.name == "judge"
    for i in range(stage.updates):
        stage.trainable.update(i / stage.updates)
    stage.finish()
    return judge


@pytest.mark.parametrize("classes", [("across", "down"), ()])
def test_the_judge_tells_real_from_noise(classes):
    real, other = stripes(400, 0, classes), stripes(300, 1, classes)
    judge = fitted_judge(other, 30)
    label = {"label": torch.arange(200) % 2} if classes else {}
    fresh = stripes(200, 2).images.float() / 255
    good = judged(judge, View(fresh, label, {}), real, other, 0)["judge"]
    noise = judged(judge, View(torch.rand(200, 1, 16, 16), label, {}), real, other, 0)["judge"]
    assert good["counts"] == {"samples": 200, "real": 200, "reference": 200}
    assert noise["samples"]["frechet"] > 20 * good["samples"]["frechet"]
    assert noise["samples"]["frechet"] > 20 * good["real"]["frechet"]
    assert good["samples"]["coverage"] > 0.9
    assert noise["samples"]["coverage"] < 0.1
    assert noise["samples"]["precision"] < 0.1
    assert ("asked" in good["samples"]) == bool(classes)
    if classes:
        assert good["samples"]["asked"] == good["real"]["asked"] == 1.0
        wrong = judged(judge, View(fresh, {"label": 1 - label["label"]}, {}), real, other, 0)["judge"]
        assert wrong["samples"]["asked"] == 0.0


def test_a_judge_depends_on_its_pictures_and_updates_alone():
    torch.manual_seed(3)
    one = fitted_judge(stripes(100, 0), 3)
    torch.manual_seed(4)
    two, other, longer = (
        fitted_judge(stripes(100, 0), 3),
        fitted_judge(stripes(100, 1), 3),
        fitted_judge(stripes(100, 0), 4),
    )
    x = torch.rand(5, 1, 16, 16)
    assert torch.equal(one.features(x), two.features(x))
    assert not torch.equal(one.features(x), other.features(x))
    assert not torch.equal(one.features(x), longer.features(x))
    assert not any(weight.requires_grad for weight in one.parameters())


def test_within_labels_by_hand():
    """Of label 0 two orthogonal kinds, half and half: 2. Of label 1 all alike: 1. The mean is 1.5."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    assert within(features, torch.tensor([0, 0, 1, 1])) == pytest.approx(1.5, abs=1e-4)
    assert vendi(features[:2]) == pytest.approx(2, abs=1e-4)


def test_of_too_few_nothing_is_said():
    assert compared(torch.rand(49, 4), torch.rand(60, 4)) == {}
    assert compared(torch.rand(50, 4), torch.rand(60, 4)).keys() >= {"frechet", "kernel", "density", "vendi"}


@pytest.mark.parametrize("words", [["env=pixel"], ["env=latent_gan"], ["env=pixel", "reward=adversarial_classifier"]])
def test_a_run_of_pictures(words, tmp_path, capsys):
    train(session(*small(*words, "agent=random"), "data.per_class=20"), tmp_path / "run")
    out = evaluate_run(asked(tmp_path / "run"))
    assert out == tmp_path / "run" / "eval" / "step_000000160_test_n60_seed0.json"
    record = json.loads(out.read_text())
    assert record["judge"]["samples"].keys() >= {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    assert record["judge"]["counts"]["samples"] == 60
    assert "Fréchet distance" in capsys.readouterr().out
    again = evaluate_run(asked(tmp_path / "run", f"out='{tmp_path / 'b'}'"))
    assert json.loads(again.read_text()) == record  # the same again


def test_a_run_of_music_has_no_judge_of_pictures(tmp_path, capsys):
    train(session(*small("env=music", "agent=random")), tmp_path / "run")
    record = json.loads(evaluate_run(asked(tmp_path / "run", "n=7")).read_text())
    assert "judge" not in record
    assert record["n"] == 7
    assert record["scores"]
    assert "Fréchet" not in capsys.readouterr().out


def test_the_table_has_both_columns():
    judge = {"counts": {"samples": 9, "real": 8, "reference": 7}, "samples": {"frechet": 2.0}, "real": {"asked": 0.5}}
    shown = table({"n": 9, "run": "r", "split": "test", "scores": {"ink": 0.25}, "unique": 1.0, "judge": judge})
    assert [line.split() for line in shown.splitlines()][1:] == [
        ["ink", "0.2500"], ["unique", "1.0000", "share", "of", "different", "samples"],
        ["samples", "real", "against", "7", "real", "pictures"], ["n", "9", "8"],
        ["Fréchet", "distance", "2.0000", "lower", "is", "better"],
        ["asked", "label", "recognised", "0.5000", "share"],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run_of_random(tmp_path_factory):
    run = tmp_path_factory.mktemp("random") / "run"
    train(session(*small("env=pixel", "agent=random")), run)
    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("n=0", "n: must be a whole number from 1"),
        ("split=all", "split: must be one of train, valid, test"),
        ("updates=0", "updates: must be at least 1"),
    ],
)
def test_wrong_input(change, message, run_of_random):
    with pytest.raises(UserError, match=f"^{message}"):
        evaluate_run(asked(run_of_random, change))


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^run: .*nowhere is neither a run's folder nor a checkpoint's"):
        evaluate_run(asked(tmp_path / "nowhere"))
