"""Every benchmark runs, with tiny sizes and synthetic files, and writes its tables."""

import dataclasses
import importlib
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, harness, parts
from benchmarks.agents import interquartile_mean, interval
from benchmarks.report import table, with_interval
from rlgen_cli.core import checkpoint
from rlgen_cli.core.returns import lambda_returns

FOLDER = Path(harness.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8"))
NUMBER = re.compile(r"[−-]?\d[\d,]*(?:\.\d+)?")


@pytest.fixture(autouse=True)
def _as_before():
    """Benchmarks set the number of threads that a run asks for."""
    yield
    torch.set_num_threads(1)


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a page: rows of cells, the head left out."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [block[2:] for block in rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_writes_its_tables_from_a_quick_run(name):
    """Rows, each with a finite number, and the pictures that the page shows; nothing below docs/results changes."""
    pytest.importorskip("matplotlib", reason="needs rlgen[benchmarks]")
    if name == "vs_sb3":
        pytest.importorskip("stable_baselines3", reason="needs rlgen[benchmarks]")
    before = {path: path.stat().st_mtime_ns for path in harness.RESULTS.iterdir()}
    importlib.import_module(f"benchmarks.{name}").main(["quick=true"])
    results = Path("outputs/benchmarks/quick") / name / "results"
    pages = list(results.glob("*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = tables(text)
        assert found
        assert all(found), "a table without rows"
        for row in [row for block in found for row in block]:
            numbers = [number for cell in row[1:] for number in NUMBER.findall(cell)]
            assert numbers, row
            assert all(math.isfinite(float(number.replace(",", "").replace("−", "-"))) for number in numbers)
            assert not re.search(r"\b(nan|inf)\b", " ".join(row)), row
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # a model's text may look like a link
        for link in re.findall(r"\]\(([^)]+)\)", prose):
            assert (results / link).is_file(), link
    assert {path: path.stat().st_mtime_ns for path in harness.RESULTS.iterdir()} == before
    assert not (Path("outputs/benchmarks") / name).exists(), "only a full run notes that its table is complete"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which the full form would measure")
def test_without_a_gpu_its_benchmark_says_so_and_writes_nothing(capsys):
    before = {path: path.stat().st_mtime_ns for path in harness.RESULTS.iterdir()}
    with pytest.raises(SystemExit) as ended:
        gpu.main(["once=true"])
    assert not ended.value.code
    assert capsys.readouterr().out.splitlines() == [gpu.NO_GPU]
    assert {path: path.stat().st_mtime_ns for path in harness.RESULTS.iterdir()} == before
    assert not Path("outputs/benchmarks/gpu/complete.json").exists()


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (torch.tensor([1000.0]), torch.tensor([1000.5]), True),
        (torch.tensor([1000.0]), torch.tensor([1002.0]), False),
        (torch.tensor([0.0]), torch.tensor([torch.nan]), False),
        (torch.tensor([-torch.inf]), torch.tensor([-torch.inf]), True),
        (torch.tensor([-torch.inf]), torch.tensor([0.0]), False),
        (torch.tensor([7], dtype=torch.uint8), torch.tensor([8], dtype=torch.uint8), True),
        (torch.tensor([7]), torch.tensor([8]), False),
        (torch.tensor([True]), torch.tensor([False]), False),
    ],
)
def test_two_devices_agree_within_tolerance(one, other, agree):
    exact = torch.zeros(3)
    assert gpu.apart({"a": one, "b": exact}, {"a": other, "b": exact}).agrees is agree


def test_a_measurement_that_fails_or_finds_no_time_says_so():
    def fails() -> list[object]:
        raise RuntimeError("out of memory | 1\nmore")

    now, cpu = time.monotonic(), torch.device("cpu")
    assert gpu.Place(cpu, now + 60).attempt(fails, 2) == ["failed (out of memory / 1)", gpu.NOTHING]
    assert gpu.Place(cpu, now - 1).attempt(fails, 2) == ["no time left", gpu.NOTHING]


@pytest.mark.slow
def test_the_libraries_train_as_many_parameters_as_often():
    """In the table of returns, each algorithm's rows agree in the columns that say so."""
    pytest.importorskip("matplotlib", reason="needs rlgen[benchmarks]")
    pytest.importorskip("stable_baselines3", reason="needs rlgen[benchmarks]")
    importlib.import_module("benchmarks.vs_sb3").main(["quick=true", "speed=false"])
    (found,) = tables(Path("outputs/benchmarks/quick/vs_sb3/results/vs_sb3.md").read_text(encoding="utf-8"))
    for algorithm in ("DQN", "A2C", "PPO"):
        rows = [row for row in found if row[0] == algorithm]
        assert {row[1] for row in rows} >= {"rlgen", "Stable-Baselines3", "plain PyTorch"}
        assert len({(row[2], row[3]) for row in rows}) == 1, rows


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dqn", "a2c", "ppo"])
def test_a_pause_changes_nothing_in_a_training_of_stable_baselines(algorithm):
    """Its schedules are those of the whole training, however often it rests."""
    pytest.importorskip("stable_baselines3", reason="needs rlgen[benchmarks]")
    vs_sb3 = importlib.import_module("benchmarks.vs_sb3")
    compared = vs_sb3.Comparison(harness.called("vs_sb3", {"quick": "true", "steps": "1000"}))
    weights = []
    for pieces in ([768], [192, 576]):
        peer = vs_sb3.StableBaselines(compared.task(algorithm, 1, 768, 192))
        for steps in pieces:
            peer.train(steps)
        weights.append(peer.model.policy.state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_a_library_that_is_not_installed_is_left_out_with_one_line(monkeypatch, capsys):
    pytest.importorskip("stable_baselines3", reason="needs rlgen[benchmarks]")
    vs_sb3 = importlib.import_module("benchmarks.vs_sb3")
    monkeypatch.setattr(vs_sb3, "find_spec", lambda name: None)
    settings = {"quick": "true", "steps": "1000"}
    compared = vs_sb3.Comparison(harness.called("vs_sb3", settings))
    assert "TorchRL" not in compared.libraries
    assert capsys.readouterr().out.splitlines() == [
        "TorchRL is left out, since it is not installed; `pip install torchrl` adds it."
    ]


@pytest.mark.parametrize("count", [3, 5, 12])
def test_the_ring_gives_with_each_observation_the_one_that_followed(count):
    """Also after it has begun anew; each environment's own, and never the newest."""
    plain = importlib.import_module("benchmarks.peers.plain")
    ring = plain.Ring(5, {"seen": torch.zeros(2, 1)})
    for step in range(count):
        seen = torch.tensor([[step], [100 + step]], dtype=torch.float32)
        ring.add({"seen": seen}, torch.tensor([step, -step]), seen[:, 0], torch.tensor([False, True]))
    batch = ring.sample(200)
    seen = batch.observation["seen"][:, 0]
    torch.testing.assert_close(batch.after["seen"][:, 0], seen + 1)
    torch.testing.assert_close(batch.reward, seen)
    assert torch.equal(batch.done, seen >= 100)
    steps = {float(value) % 100 for value in seen}
    assert steps == set(range(max(count - 5, 0), count - 1))
    assert torch.equal(batch.action, torch.where(batch.done, 100 - seen, seen).long())


def test_the_plain_loops_advantages_are_those_of_the_library():
    plain = importlib.import_module("benchmarks.peers.plain")
    rng = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(6, 4, generator=rng) for _ in range(2))
    done, last = (torch.rand(6, 4, generator=rng) < 0.3).float(), torch.randn(4, generator=rng)
    following = torch.cat([value[1:], last.unsqueeze(0)])
    returns = lambda_returns(reward.T, following.T, done.bool().T, 0.9, 0.8).T
    found = plain.generalised_advantages(reward, value, done, last, 0.9, 0.8)
    torch.testing.assert_close(found, returns - value)


def test_make_runs_every_benchmark():
    """The Makefile's lists name all modules that have a main, each once."""
    text = (harness.ROOT / "Makefile").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:TIMED|TRAINED) := ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    assert len(lists) == 2
    assert sorted(" ".join(lists).replace("\\\n", " ").split()) == NAMES


def full_call(name: str, count: list[int], *words: str) -> None:
    """A benchmark that measures nothing, and says so in `count`."""
    harness.run(name, lambda call: count.append(len(call.seeds())), list(words), seeds="1,2")


def test_a_complete_table_is_skipped_until_the_code_or_the_settings_change(monkeypatch):
    measured: list[int] = []
    full_call("example", measured, "once=true")
    full_call("example", measured, "once=true")
    assert measured == [2]
    full_call("example", measured, "once=true", "seeds=1")
    assert measured == [2, 1]
    full_call("example", measured)
    assert measured == [2, 1, 2], "without once=true it is measured again"
    monkeypatch.setattr(harness, "version", lambda *folders: "another")
    full_call("example", measured, "once=true")
    assert measured == [2, 1, 2, 2]
    stamp = json.loads(Path("outputs/benchmarks/example/complete.json").read_text())
    assert stamp["version"] == "another"
    assert "commit" in stamp


def test_an_interrupted_benchmark_is_not_complete():
    def interrupted(call: harness.Call) -> None:
        raise SystemExit(parts.STOPPED)

    with pytest.raises(SystemExit):
        harness.run("example", interrupted, [])
    assert not Path("outputs/benchmarks/example/complete.json").exists()


def test_an_unknown_setting_is_named_with_the_valid_ones():
    with pytest.raises(
        SystemExit, match=r"sedes=1: is no setting of benchmarks\.example; it has quick, once, folder, s"
    ):
        full_call("example", [], "sedes=1")


def test_the_version_is_that_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "a.yaml"
    path.write_text("one: 1\n")
    before = harness.version("configs")
    (tmp_path / "configs" / "a.md").write_text("no code")
    assert harness.version("configs") == before
    path.write_text("one: 2\n")
    assert harness.version("configs") != before


TINY = ["env=tiny", "agent=ppo", "agent.network.body.width=8", *parts.QUICK, "checkpoint_interval=64"]


def test_a_part_goes_on_where_it_was_cut_off_and_is_skipped_when_it_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "part"
    real_train, calls = parts.train, []

    def cut_off(session, folder, resuming=False):
        """An interrupt after 64 of 256 steps."""
        calls.append(resuming)
        if len(calls) == 1:
            session.settings = dataclasses.replace(session.settings, stop_at=64)
        return real_train(session, folder, resuming=resuming)

    monkeypatch.setattr(parts, "train", cut_off)
    with pytest.raises(SystemExit, match="the same command goes on"):
        parts.trained(folder, TINY)
    assert not parts.finished(folder)
    assert [parts.step_of(saved) for saved in checkpoint.steps(folder)] == [64]
    assert parts.trained(folder, TINY) == folder
    assert parts.finished(folder)
    parts.trained(folder, TINY)
    assert calls == [False, True], "a finished part is not trained again"
    with pytest.raises(SystemExit, match="holds a run with another config"):
        parts.trained(folder, [*TINY, "seed=2"])


def test_a_remembered_measurement_is_made_once(tmp_path):
    calls: list[int] = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"a": 0.5}

    path = tmp_path / "deep" / "numbers.json"
    assert parts.remembered(path, measure) == {"a": 0.5}
    assert parts.remembered(path, measure) == {"a": 0.5}
    assert calls == [1]


def test_records_are_of_the_training_or_of_one_stage(tmp_path):
    lines = [
        {"stage": "generator", "step": 5, "seconds": 7.0}, {"step": 10, "seconds": 1.0, "eval/score/target": -0.5},
        {"step": 20, "seconds": 2.0},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert parts.seconds_until(tmp_path) == 2.0
    assert parts.seconds_until(tmp_path, 15) == 1.0
    assert parts.seconds_until(tmp_path, stage="generator") == 7.0
    assert [line["step"] for line in parts.evaluations(tmp_path, "eval/score/target")] == [10]


def test_a_table_is_markdown():
    assert table([["", "a"], ["x", 1]]) == "|  | a |\n| --- | --- |\n| x | 1 |"


def test_a_mean_over_seeds_has_its_interval():
    assert with_interval([2.0]) == "2.000"
    assert with_interval([1.0, 2.0, 3.0]) == "2.000 ± 2.484"  # 4.303 · 1 / √3


def test_the_interquartile_mean_is_that_of_the_middle_half():
    # Of eight values the middle four; of five, 1.25 are cut off at each end.
    assert interquartile_mean(np.array([9.0, 1, 2, 3, 4, 5, 6, -7])) == pytest.approx(3.5)
    assert interquartile_mean(np.array([0.0, 1, 2, 3, 10])) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)
    low, high = interval(np.array([2.0, 2.0, 2.0]))
    assert low == high == 2.0
