"""`rlgen train profile=true`."""

import gzip
import json
from pathlib import Path

import pytest

from rlgen_cli.runs.trainer import train
from tests.conftest import session, small

LONG = ["total_steps=6400", "num_envs=8", "eval_interval=100000", "log_interval=800", "eval_episodes=2"]
RUNS = {
    "dqn": ["env=tiny", "agent=dqn", "agent.learning_starts=64", "agent.batch_size=8", "threads=1", *LONG],
    "ppo": ["env=tiny", "agent=ppo", "threads=1", *LONG],
    "random": ["env=tiny", "agent=random", "threads=1", *LONG],
    "adversarial": [*small("agent=actor_critic", "reward=target", "+reward/term=adversarial"), *LONG],
}
PARTS = {
    "dqn": ["act", "observe", "step", "view", "reward", "renew", "add", "check_numbers", "agent learns", "agent observes"],
    "ppo": ["act", "agent learns"],
    "random": ["plan", "step"],
    "adversarial": ["adversarial learns", "adversarial observes", "agent learns"],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_the_table_names_the_parts_of_the_loop(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = session(*RUNS[name], "profile=true")
    assert train(run, tmp_path / "run") == "finished"
    table = (tmp_path / "run" / "profile" / "table.txt").read_text()
    found = {line[2:34].strip(): float(line[34:44]) for line in table.splitlines() if line.startswith("  ")}
    assert set(PARTS[name]) <= set(found)
    per_step = float(table.partition(", ")[2].partition(" ms")[0])
    assert all(0 <= each <= per_step for each in found.values())
    assert any(operation.startswith("aten::") for operation in found)
    events = json.loads(gzip.decompress((tmp_path / "run" / "profile" / "trace.json.gz").read_bytes()))["traceEvents"]
    assert {f"rlgen/{part}" for part in PARTS[name]} <= {event.get("name") for event in events}
    assert "trace.json.gz" in "".join(capsys.readouterr())


def test_what_is_watched_is_the_same_training(tmp_path: Path) -> None:
    records = []
    for words in ([], ["profile=true"]):
        folder = tmp_path / f"run{len(words)}"
        train(session(*RUNS["dqn"], *words), folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        records.append([{key: line[key] for key in line if "second" not in key} for line in lines])
    assert records[0] == records[1]
    assert any("agent/loss" in record for record in records[0])


def test_a_training_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*RUNS["dqn"], "profile=true", "total_steps=16"]
    train(session(*words), tmp_path / "run")
    assert "profile: the training was over before enough of it could be watched." in "".join(capsys.readouterr())
    assert not (tmp_path / "run" / "profile").exists()
