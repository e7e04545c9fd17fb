"""The search for settings."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError
from rlgen_cli.tuning import study as studies
from rlgen_cli.tuning.space import Range, first_values, part_of, shipped, space_of, words_of
from rlgen_cli.tuning.trial import Trial
from tests.conftest import small

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)
states = optuna.trial.TrialState

WORDS = [*small("env=pixel", "agent=dqn", "reward=target"), "total_steps=80", "compile=never"]
SPACE = "agent.gamma: {low: 0.8, high: 0.99}\nenv.max_steps: [4, 5]\n"
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
MINIMAL = {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", shipped())
def test_every_space_names_keys_of_its_agent(name):
    space = space_of(None, name)
    assert len(space) > 2
    for value in (
        first_values(space),
        {key: part[-1] if isinstance(part, list) else part.high for key, part in space.items()},
    ):
        composed("train", [f"agent={name}", *words_of(value)])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ([1], "must list at least two"),
        ([1, [2]], "must list at least two"),
        ({"low": 1}, "must be a list, or {low"),
        ({"low": 1, "high": 2, "most": 3}, "must be a list, or {low"),
        ({"low": 2, "high": 1}, "low must be below high, got 2 and 1"),
        ({"low": 0, "high": 1, "log": True}, "low must be above 0 where log is true"),
        ({"low": "a", "high": 1}, "low, high and step must be numbers"),
        (3, "must be a list, or {low"),
    ],
)
def test_what_is_no_space_is_named(node, said):
    with pytest.raises(UserError, match=r"^space: x: ") as caught:
        part_of(node, "space: x")
    assert said in str(caught.value)


def test_a_range_of_whole_numbers_stays_whole():
    assert part_of({"low": 1, "high": 8}, "") == Range(1, 8, False, None)
    study = optuna.create_study()
    value = study.ask().suggest_int("x", 1, 8)
    assert words_of({"n": value, "double": True}) == [f"n={value}", "double=true"]


def test_wrong_words_start_nothing(rlgen):
    line = ["tune", *WORDS]
    assert "tune.trials: must be a whole number from 1" in rlgen(*line, "tune.trials=0")[2]
    assert "tune.space: there is none for nothing" in rlgen(*line, "tune.space=nothing")[2]
    assert "tune.space: there is no file gone.yaml" in rlgen(*line, "tune.space=gone.yaml")[2]
    said = rlgen("tune", "env=tiny", "agent=random")[2]
    assert "tune.space: there is none for random; name a file, or one of actor_critic, dqn" in said
    Path("space.yaml").write_text("agent.gama: [0.5, 0.9]\n")
    assert "agent.gama: is no key here" in rlgen(*line, "tune.space=space.yaml")[2]
    Path("space.yaml").write_text(SPACE)
    said = rlgen(*line, "tune.space=space.yaml", "tune.metric=vendi")[2]
    assert "tune.direction: say whether vendi is to rise (maximize) or to fall (minimize)." in said
    said = rlgen(*line, "tune.space=space.yaml", "tune.storage=postgresql+psycopg://nobody@127.0.0.1:1/none")[2]
    assert "tune.storage: postgresql+psycopg://nobody@127.0.0.1:1/none cannot be used (" in said
    assert not list(Path().rglob("status.json"))


def test_without_optuna_a_line_says_what_to_install(rlgen, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'rlgen[tune]'" in rlgen("tune", *WORDS)[2]


def study_in(folder: str) -> Any:
    storage = studies.storage_of(None, Path(folder) / studies.JOURNAL)
    return optuna.load_study(study_name=Path(folder).name, storage=storage)


@pytest.mark.slow
def test_a_search_keeps_what_failed_and_finds_the_best(rlgen):
    Path("space.yaml").write_text("agent.gamma: {low: 0.8, high: 0.99}\nenv.max_steps: [4, 5, -1]\n")
    line = ["tune", *WORDS, "tune.space=space.yaml", "tune.folder=found", "tune.metric=return"]
    code, out, _ = rlgen(*line, "tune.trials=1")
    assert code == 0
    study = study_in("found")
    assert [trial.number for trial in study.trials] == [0]
    study.enqueue_trial({"agent.gamma": 0.9, "env.max_steps": -1})
    study.enqueue_trial({"agent.gamma": 0.9, "env.max_steps": 5})
    code, out, _ = rlgen(*line, "tune.trials=3")
    assert code == 0
    trials = study_in("found").trials
    assert {trials[1].state, trials[2].state} == {states.FAIL, states.COMPLETE}
    failed = next(trial for trial in trials if trial.state == states.FAIL)
    why = "env.max_steps: must be from 1 to 10000, got -1."
    assert failed.user_attrs["why"] == why
    assert json.loads(Path(f"found/{failed.number:04d}/status.json").read_text())["error"] == why
    assert why in out
    best = study_in("found").best_trial
    recorded = [json.loads(line) for line in Path(f"found/{best.number:04d}/metrics.jsonl").read_text().splitlines()]
    assert best.value == [record["return"] for record in recorded if "return" in record][-1]
    overlay = yaml.safe_load(Path("found/experiment/best.yaml").read_text())
    assert overlay == {
        "agent": {"gamma": best.params["agent.gamma"]},
        "env": {"max_steps": best.params["env.max_steps"]},
    }
    config = composed("train", ["--config-dir", "found", "experiment=best", "env=pixel", "agent=dqn"])
    assert config.env.max_steps == best.params["env.max_steps"]
    assert config.agent.gamma == pytest.approx(best.params["agent.gamma"])


def test_a_trial_that_is_worse_than_others_is_stopped(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    for _ in range(2):
        good = study.ask()
        for step in (10, 20, 30):
            good.report(1.0, step)
        study.tell(good, 1.0)
    lines = [{"step": step, "seconds": 1.0, "eval/total": 0.0} for step in (10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    trial = Trial(study.ask(), tmp_path, "eval/total", warmup=2)
    assert not trial.is_hopeless()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert trial.is_hopeless()
    assert trial.trial.study.trials[-1].intermediate_values == {10: 0.0, 20: 0.0, 30: 0.0}


def test_what_a_killed_worker_left_goes_on_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "LONGEST_START", 0.0)
    study = optuna.create_study()
    lost = study.ask()
    lost.suggest_int("x", 1, 8)
    lost.set_user_attr(studies.FOLDER, str(tmp_path / "0000"))
    assert studies.begun(study, states) == 1
    studies.reclaim(study, states)
    assert [trial.state for trial in study.trials] == [states.FAIL, states.WAITING]
    assert studies.begun(study, states) == 0
    again = study.ask()
    assert again.suggest_int("x", 1, 8) == lost.params["x"]
    assert again.user_attrs[studies.FOLDER] == str(tmp_path / "0000")


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a database of a server of its own, which runs as a user that is not root."""
    if not POSTGRES:
        if os.environ.get("RLGEN_TEST_POSTGRESQL"):
            pytest.fail("there is no PostgreSQL server below /usr/lib/postgresql")
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp())
    user: list[str | Path] = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(home, "postgres")
    tool = POSTGRES[-1]
    data, port = home / "data", 20000 + os.getpid() % 10000
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1"
    subprocess.run([*user, tool / "initdb", "-A", "trust", "-U", "rlgen", "-D", data], check=True, capture_output=True)
    start = [*user, tool / "pg_ctl", "-D", data, "-w", "-o", options, "-l", home / "log", "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run(
            [*user, tool / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "rlgen", "tuning"], check=True
        )
        yield f"postgresql+psycopg://rlgen@127.0.0.1:{port}/tuning"
    finally:
        subprocess.run([*user, tool / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, capture_output=True)
        shutil.rmtree(home)


@pytest.mark.slow
def test_two_workers_share_a_study_in_a_real_postgresql(postgresql):
    Path("space.yaml").write_text(SPACE)
    command = [sys.executable, "-m", "rlgen_cli", "tune", *WORDS, "tune.space=space.yaml", "tune.trials=4"]
    command += ["tune.folder=shared", f"tune.storage={postgresql}", "tune.metric=return"]
    given = {"env": os.environ | MINIMAL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    workers = [subprocess.Popen(command, **given) for _ in range(2)]  # type: ignore[call-overload]
    said = [worker.communicate(timeout=200)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    study = optuna.load_study(study_name="shared", storage=postgresql)
    assert all(trial.state == states.COMPLETE for trial in study.trials)
    assert 4 <= len(study.trials) <= 5  # both may have begun the last one
    begun = [set(re.findall(r"^trial (\d+):", text, re.MULTILINE)) for text in said]
    assert begun[0]
    assert begun[1]
    assert not begun[0] & begun[1]
