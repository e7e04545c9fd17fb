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
from rlgen_cli.evaluation.judge import Judge, accuracy, judge_of
from rlgen_cli.evaluation.report import PictureNumbers, better, compared, table, within
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
    numbers = PictureNumbers(judge, real, 200, 0)
    label = {"label": torch.arange(200) % 2} if classes else {}
    fresh = stripes(200, 2).images.float() / 255
    good = numbers(View(fresh, label, {}))
    noise = numbers(View(torch.rand(200, 1, 16, 16), label, {}))
    assert noise["frechet"] > 20 * good["frechet"]
    assert good["coverage"] > 0.9
    assert noise["coverage"] < 0.1
    assert noise["precision"] < 0.1
    assert noise["novelty_features"] > 2 * good["novelty_features"]
    assert ("label_accuracy" in good) == bool(classes)
    if classes:
        assert good["label_accuracy"] == 1.0
        assert numbers(View(fresh, {"label": 1 - label["label"]}, {}))["label_accuracy"] == 0.0


def test_the_judge_is_judged_by_pictures_that_it_has_not_seen():
    judge = fitted_judge(stripes(300, 1), 30)
    assert accuracy(judge, stripes(100, 2)) == 1.0
    swapped = Images(stripes(100, 2).images, 1 - stripes(100, 2).labels, ("across", "down"))
    assert accuracy(judge, swapped) == 0.0
    assert 0.3 < accuracy(fitted_judge(stripes(300, 1, ()), 30), stripes(100, 2, ())) < 0.8  # half a turn is unseen


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
    capsys.readouterr()  # what the training said
    out = evaluate_run(asked(tmp_path / "run"))
    assert out == tmp_path / "run" / "eval" / "step_000000160_test_n60_seed0.json"
    record = json.loads(out.read_text())
    shown = {"frechet", "kernel", "precision", "recall", "density", "coverage", "vendi", "novelty_pixels", "unique"}
    assert shown <= record["numbers"].keys() == record["better"].keys()
    assert list(record["columns"])[:3] == ["samples", "real", "random"]
    assert record["columns"]["samples"]["n"] == 60
    assert record["numbers"]["frechet"].keys() == record["columns"].keys()
    printed = capsys.readouterr().out
    assert "↓ frechet" in printed
    assert all(len(line) <= 100 for line in printed.splitlines())
    lines = out.with_suffix(".csv").read_text().splitlines()
    assert lines[0].startswith(",better,samples,real,random")
    assert len(lines) == 4 + len(record["numbers"])
    again = evaluate_run(asked(tmp_path / "run", f"out='{tmp_path / 'b'}'"))
    assert json.loads(again.read_text()) == record  # the same again


def test_a_run_of_music_is_compared_with_its_corpus(tmp_path, capsys):
    train(session(*small("env=music", "agent=random")), tmp_path / "run")
    record = json.loads(evaluate_run(asked(tmp_path / "run", "n=70", "split=train")).read_text())
    assert "judge" not in record
    assert record["numbers"]["copies"]["real"] == 1.0  # of the training split
    assert record["numbers"]["sequence_novelty"]["real"] == 0.0
    assert record["numbers"]["overlap/pitch_range"]["real"] > record["numbers"]["overlap/pitch_range"]["samples"]
    assert {"pitch_entropy", "groove", "scale_consistency", "rl_tuner/not_in_key"} <= record["numbers"].keys()
    assert "frechet" not in capsys.readouterr().out


def test_the_table_names_counts_and_directions():
    record = {
        "n": 9, "run": "r", "split": "test", "seed": 3, "left_out": ["baseline cem: cannot act here."],
        "judge": {"accuracy": 0.975, "knows": "pictures' labels", "chance": 0.1}, "training": 7,
        "columns": {
            "samples": {"n": 9, "env_steps": 4, "network_passes": 4}, "real": {"n": 8, "env_steps": 0, "network_passes": 0},
        },
        "numbers": {"score/ink": {"samples": 0.25}, "frechet": {"samples": 2.0, "real": 1234.56}, "vendi": {"real": 3.0}},
    }  # fmt: skip
    assert [" ".join(line.split()) for line in table(record).splitlines()][1:] == [
        "judge: knows 97.5% of the held-out pictures' labels (chance 10.0%)",
        "compared with 7 training samples",
        "samples real",
        "n 9 8",
        "env_steps 4 0",
        "network_passes 4 0",
        "↑ score/ink 0.2500",
        "↓ frechet 2.0000 1234.6",
        "≈ vendi 3.0000",
        "↑ higher is better ↓ lower is better ≈ better the nearer to real data",
        "baseline cem: cannot act here.",
    ]
    assert (better("score/anything"), better("kl/x"), better("novelty_pixels")) == ("higher", "lower", "as real")


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
        ("baselines=rando", "baselines: there is no rando; did you mean random"),
        ("baselines=[random,cme]", "baselines: there is no cme; did you mean cem"),
        ("budget=1", "budget: must be from 2 to 1000000"),
    ],
)
def test_wrong_input(change, message, run_of_random):
    with pytest.raises(UserError, match=f"^{message}"):
        evaluate_run(asked(run_of_random, change))


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^run: .*nowhere is neither a run's folder nor a checkpoint's"):
        evaluate_run(asked(tmp_path / "nowhere"))
