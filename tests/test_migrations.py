"""Runs of earlier formats: a small one of each version of rlgen lies below fixtures/, opens and goes on; migrations are
applied in turn, to copies.

run_0_1_0 was made by rlgen 0.1.0 with `rlgen train env=tiny agent=dqn … total_steps=128 stop_at=64` (its environment.json
has the whole line), without pictures and TensorBoard records.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rlgen_cli.config.instantiate import find
from rlgen_cli.config.saved import read_config
from rlgen_cli.core import checkpoint, migrations
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.migrations import Migration, current_config, current_part, readable
from rlgen_cli.core.trust import Trust
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import Rlgen, session, small

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = sorted(path.name for path in FIXTURES.glob("run_*"))


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run that an earlier version wrote."""
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "outputs" / request.param))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_run_opens_for_sampling_and_stays_as_it_is(run: Path, rlgen: Rlgen) -> None:
    before = contents(run)
    code, _, err = rlgen("sample", f"run={run}", "n=4", "device=cpu")
    assert code == 0, err
    assert list((run / "samples").rglob("*.png"))
    assert {path: content for path, content in contents(run).items() if path in before} == before


def test_an_earlier_run_goes_on(run: Path, rlgen: Rlgen) -> None:
    code, out, err = rlgen("train", f"resume={run}", "device=cpu")
    assert code == 0, err
    assert "finished" in out
    assert json.loads((run / "status.json").read_text())["step"] == 128
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # the records go on where they were
    assert steps[-1] == 128


@pytest.mark.parametrize("name", RUNS)
def test_a_fixture_is_small_and_of_a_format_that_can_be_read(name: str) -> None:
    folder = FIXTURES / name
    assert sum(len(content) for content in contents(folder).values()) <= 150_000
    (saved,) = checkpoint.steps(folder)
    assert readable(json.loads((saved / "manifest.json").read_text())["format"], "checkpoint: here") >= 1


def renamed(config: dict) -> dict:
    """Format 3 calls agent.gamma agent.discount."""
    config["agent"]["discount"] = config["agent"].pop("gamma")
    return config


def halved(config: dict) -> dict:
    """Format 4 counts it in halves."""
    config["agent"]["discount"] *= 2
    return config


def moved(policy: dict) -> dict:
    """Format 3 keeps the weights below `net`."""
    policy["policy"] = {"net": policy["policy"]["q_network"]}
    return policy


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two formats to come."""
    monkeypatch.setattr(migrations, "FORMAT", 4)
    monkeypatch.setitem(migrations.MIGRATIONS, 2, Migration(config=renamed, parts={"policy": moved}))
    monkeypatch.setitem(migrations.MIGRATIONS, 3, Migration(config=halved))


def test_migrations_are_applied_in_turn_to_copies(later: None) -> None:
    saved = {"agent": {"gamma": 0.5, "batch_size": 8}}
    assert current_config(saved, 2) == {"agent": {"discount": 1.0, "batch_size": 8}}
    assert saved == {"agent": {"gamma": 0.5, "batch_size": 8}}
    assert current_config({"agent": {"discount": 0.5}}, 3) == {"agent": {"discount": 1.0}}
    assert current_config({"agent": {"discount": 0.5}}, 4) == {"agent": {"discount": 0.5}}


def test_a_weight_of_entropy_in_nats_becomes_one_in_bits() -> None:
    target = "rlgen_cli.domains.music.scores.PitchEntropy"
    saved = {"reward": {"terms": {"pitch_entropy": {"_target_": target, "weight": 2.0}, "other": {"weight": 2.0}}}}
    terms = migrations.current_config(saved, 4)["reward"]["terms"]
    assert terms["pitch_entropy"]["weight"] == pytest.approx(1.3863, abs=1e-4)  # 2 nats are 2.885 bits
    assert terms["other"]["weight"] == 2.0


def test_a_classifier_of_an_earlier_run_keeps_its_smoothed_labels() -> None:
    term = {"_target_": "rlgen_cli.rewards.classifier.Classifier"}
    found = migrations.current_config({"reward": {"terms": {"classifier": term, "other": {"weight": 2.0}}}}, 6)
    assert found["reward"]["terms"] == {"classifier": term | {"label_smoothing": 0.05}, "other": {"weight": 2.0}}


def test_what_damages_pictures_has_moved() -> None:
    env = {"_target_": "rlgen_cli.domains.latent.environment.LatentPictures", "start": "mean"}
    hole = {"_target_": "rlgen_cli.domains.latent.damage.CentreHole", "side": 0.4}
    error = {"_target_": "rlgen_cli.domains.latent.scores.HiddenRegionError", "weight": 20.0}
    other = {"_target_": "rlgen_cli.domains.latent.scores.LatentPrior", "weight": 1.0}
    saved = {"env": env | {"damage": hole}, "reward": {"terms": {"error": error, "other": other}}}
    found = migrations.current_config(saved, 7)
    env["time_encoding"] = "fraction"  # of format 9
    assert found["env"] == env | {"damage": hole | {"_target_": "rlgen_cli.data.damage.CentreHole"}}
    moved = error | {"_target_": "rlgen_cli.rewards.restoration.HiddenRegionError"}
    assert found["reward"]["terms"] == {"error": moved, "other": other}
    denoising = {"_target_": "rlgen_cli.domains.diffusion.environment.Diffusion"}
    assert migrations.current_config({"env": denoising}, 7)["env"] == denoising | {"damage": None}
    for target in migrations.MOVED.values():
        assert find(target, "here")


@pytest.mark.parametrize("target", sorted(migrations.STEERED))
def test_what_dqn_and_a_steered_generator_did_before(target: str) -> None:
    agent, env = {"_target_": "rlgen_cli.agents.dqn.DQN"}, {"_target_": target}
    assert find(target, "here")
    found = migrations.current_config({"agent": agent, "env": env}, 8)
    assert found == {"agent": agent | {"huber_delta": 1.0}, "env": env | {"time_encoding": "fraction"}}
    chosen = {"agent": agent | {"huber_delta": None}, "env": env | {"time_encoding": "one_hot"}}
    assert migrations.current_config(chosen, 8) == chosen
    other = {"agent": {"_target_": "other"}, "env": {"_target_": "other"}}
    assert migrations.current_config(other, 8) == other


def test_a_part_of_a_checkpoint_is_migrated_and_its_tensors_are_shared(later: None) -> None:
    weight = torch.ones(2)
    saved = {"policy": {"q_network": {"weight": weight}}}
    found = current_part("policy", saved, 2)
    assert found["policy"]["net"]["weight"] is weight
    assert saved == {"policy": {"q_network": {"weight": weight}}}
    assert current_part("training", saved, 2) == saved
    assert current_part("policy", saved, 3) == saved


@pytest.mark.parametrize("name", RUNS)
def test_a_fixture_goes_through_migrations_to_come(name: str, later: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(migrations.MIGRATIONS, 3, Migration())  # its discount is a schedule, which has no half
    (saved,) = checkpoint.steps(FIXTURES / name)
    assert set(checkpoint.load(saved, "policy", "cpu")["policy"]) == {"net"}
    config = read_config(FIXTURES / name / "config.yaml", Trust())
    assert "gamma" not in config.agent
    assert config.agent.discount.start > 0


def test_a_run_says_its_format_and_another_is_refused(tmp_path: Path) -> None:
    train(session(*small("agent=random"), "total_steps=8"), tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    assert text.startswith(f"format: {migrations.FORMAT}\n")
    path.write_text(text.replace(f"format: {migrations.FORMAT}", "format: 99"))
    with pytest.raises(
        UserError, match=r"^run: .*config\.yaml was written by format 99 of rlgen, this version reads up to"
    ):
        resume(tmp_path / "run", {})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (10, r"checkpoint: here was written by format 10 of rlgen, this version reads up to 9; update rlgen\.$"),
        (1, r"checkpoint: here was written by format 1 of rlgen, this version reads 2 to 9; open it with an earlier"),
        ("2", r"checkpoint: here is damaged \(it says format '2', which is no number from 1\)\.$"),
        (None, r"checkpoint: here is damaged \(it says format None"),
        (True, r"checkpoint: here is damaged"),
        (0, r"checkpoint: here is damaged"),
    ],
)
def test_a_format_that_cannot_be_read_is_refused_with_its_number(found: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        readable(found, "checkpoint: here")


def test_what_is_read_begins_where_migrations_lead_on_without_a_gap(later: None) -> None:
    assert [readable(found, "run: here") for found in (2, 3, 4)] == [2, 3, 4]
    with pytest.raises(UserError, match=r"format 1 of rlgen, this version reads 2 to 4"):
        readable(1, "run: here")
    del migrations.MIGRATIONS[3]
    with pytest.raises(UserError, match=r"format 2 of rlgen, this version reads 4 alone"):
        readable(2, "run: here")


def test_what_says_no_format_can_be_read() -> None:
    assert migrations.oldest() <= migrations.UNNAMED <= migrations.FORMAT
