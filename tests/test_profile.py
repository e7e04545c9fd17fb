"""`rlgen train profile=true`: a table and a trace of some steps, of the same training."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.tree import named_tensors
from rlgen_cli.runs import profile
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import session, small

LONG = ["total_steps=480", "num_envs=8", "eval_interval=80", "log_interval=80", "eval_episodes=2", "threads=1"]
DQN = ["env=tiny", "agent=dqn", "agent.learning_starts=64", "agent.batch_size=8", *LONG]
RUNS = {
    "dqn": DQN,
    "ppo": ["env=tiny", "agent=ppo", *LONG],
    "random": ["env=tiny", "agent=random", *LONG],
    "music": [*small("env=music", "agent=actor_critic", "+reward/term=adversarial_sequence"), *LONG],
}
LOOP = ["act", "step", "view", "reward", "renew", "tally", "check numbers", "records", "evaluation", "the rest"]
PARTS = {
    "dqn": ["observe", "agent observes", "agent updates"],
    "ppo": ["observe", "agent observes", "agent updates"],
    "random": [],
    "music": ["observe", "agent observes", "agent updates", "adversarial_sequence observes",
              "adversarial_sequence updates"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a trace takes seconds for every hundred thousand operations."""
    monkeypatch.setattr(profile, "LEAST", 10)


def section(table: str, head: str) -> dict[str, float]:
    """The shares of the lines below a heading, in percent; names of parts within others begin with blanks."""
    lines = table.split(f"{head} ", 1)[1].splitlines()[1:]
    lines = lines[: lines.index("")]
    return {line[:40].rstrip(): float(line[52:].rstrip("%")) for line in lines}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.slow
def test_the_table_and_the_trace_name_the_parts_of_the_loop(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(session(*RUNS[name], "profile=true"), tmp_path / "run") == "finished"
    folder = tmp_path / "run" / "profile"
    table = (folder / "table.txt").read_text()
    assert table in capsys.readouterr().out
    assert f"The trace is {folder / 'trace.json.gz'}; open it at" in table.splitlines()[-1]
    assert profile.LEAST <= int(table.split()[0]) <= profile.MOST
    shares = section(table, "part")
    assert {*LOOP, *PARTS[name]} <= set(shares)
    outer = {part: share for part, share in shares.items() if not part.startswith(" ")}
    assert sum(outer.values()) == pytest.approx(100, abs=0.1 * len(outer))
    assert all(0 <= share <= 100 for share in shares.values())
    assert all(part.startswith("aten::") for part in section(table, "operation of torch"))
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    ours = {f"rlgen/{part}" for part in [*LOOP[:-1], *PARTS[name]]}
    assert ours <= {event.get("name") for event in events}


@pytest.mark.slow
def test_a_part_within_another_is_counted_in_it_alone(tmp_path: Path) -> None:
    train(session(*RUNS["dqn"], "profile=true"), tmp_path / "run")
    lines = (tmp_path / "run" / "profile" / "table.txt").read_text().splitlines()
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("agent updates")) + 1 :]
    within = [line[:40].strip() for line in after[: next(i for i, line in enumerate(after) if line[0] != " ")]]
    assert "observe" in within  # of the states that were replayed


@pytest.mark.parametrize("name", ["dqn", "ppo", "music"])
@pytest.mark.slow
def test_what_is_watched_is_the_same_training(name: str, tmp_path: Path) -> None:
    records, weights = [], []
    for words in ([], ["profile=true"]):
        folder = tmp_path / f"run{len(words)}"
        train(session(*RUNS[name], *words), folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        records.append([{key: line[key] for key in line if "second" not in key} for line in lines])
        newest = checkpoint.newest(folder)
        saved = [checkpoint.load(newest, part, "cpu") for part in ("policy", "training")]
        weights.append({key: value.tolist() for part in saved for key, value in named_tensors(part).items()})
    assert records[0] == records[1]
    assert any(key.startswith("agent/") for record in records[0] for key in record)
    assert weights[0] == weights[1]
    assert not (tmp_path / "run0" / "profile").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["total_steps=16"], "the training ended before agent had learned."),
        (["total_steps=96", "agent.learning_starts=8"], "before the 20 steps of the warm-up were over."),
    ],
)
def test_a_training_that_is_too_short_says_so(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(session(*DQN, "profile=true", *words), tmp_path / "run") == "finished"
    out = capsys.readouterr().out
    assert "profile: nothing was watched, since " in out
    assert said in out
    assert not (tmp_path / "run" / "profile").exists()


@pytest.mark.slow
def test_a_training_that_ends_within_the_period_shows_what_was_seen(tmp_path: Path) -> None:
    train(session(*DQN, "profile=true", "total_steps=200"), tmp_path / "run")
    table = (tmp_path / "run" / "profile" / "table.txt").read_text()
    assert 0 < int(table.split()[0]) < profile.LEAST
    assert "agent updates" in section(table, "part")


@pytest.mark.slow
def test_a_period_that_is_too_long_ends_and_names_what_did_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "MOST", 4)
    train(session(*RUNS["ppo"], "profile=true", "agent.num_steps=40"), tmp_path / "run")
    table = (tmp_path / "run" / "profile" / "table.txt").read_text()
    assert table.startswith("4 steps of 8 environments, ")
    assert table.splitlines()[0].endswith("; agent did not learn in them")


@pytest.mark.slow
def test_a_failure_within_the_period_leaves_the_profiler_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sweep, whose jobs share a process."""
    failed = session(*DQN, "profile=true")
    step, calls = failed.envs["train"].step, []

    def fails_late(state: Any, action: Any) -> Any:
        calls.append(1)
        if len(calls) == 25:
            raise UserError("env: it failed.")
        return step(state, action)

    monkeypatch.setattr(failed.envs["train"], "step", fails_late)
    with pytest.raises(UserError, match="it failed"):
        train(failed, tmp_path / "failed")
    assert failed.envs["train"].step is fails_late
    train(session(*DQN, "profile=true"), tmp_path / "run")
    assert (tmp_path / "run" / "profile" / "table.txt").exists()


@pytest.mark.slow
def test_a_run_that_goes_on_can_be_watched(tmp_path: Path) -> None:
    train(session(*DQN, "stop_at=160"), tmp_path / "run")
    assert resume(tmp_path / "run", {"profile": True, "stop_at": None}) == "finished"
    assert (tmp_path / "run" / "profile" / "trace.json.gz").exists()


def test_a_training_that_is_not_watched_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError("a part was named")

    monkeypatch.setattr(profile, "named", refused)
    monkeypatch.setattr(profile, "record_function", refused)
    assert train(session(*DQN, "total_steps=320"), tmp_path / "run") == "finished"
