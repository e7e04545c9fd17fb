"""What goes wrong in a training ends it in one sentence, with what was good before still there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from rlgen_cli.core import checkpoint, files, ranks
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.tree import named_tensors
from rlgen_cli.runs import lock, log, records, stages
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.states import LOCK, PREEMPTED, in_use, run_states, state_of, write_failure
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import Rlgen, compose, session, small
from tests.resuming import PARTS, same

DQN = small("agent=dqn", "reward=coverage")


def many(*values: object) -> list[Any]:
    """Cases that run with the slow tests, beside one of their kind that always runs."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def status(run: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "status.json").read_text())
    return found


def own_reward(body: str, name: str = "score") -> list[str]:
    """Words that make a function of the user's own a reward."""
    Path(f"{name}.py").write_text(f"import sys, torch\ncalls = []\ndef score(x):\n    calls.append(1)\n    {body}\n")
    return [*small("agent=dqn", "reward=[coverage,function]"), f"reward.terms.function.path={name}.py:score"]


# Numbers that go wrong


@pytest.mark.parametrize(
    "body",
    [
        "return x.mean((1, 2, 3)) * (float('nan') if len(calls) > 20 else 1)",
        "y = x.mean((1, 2, 3)); y[0] = float('inf') if len(calls) > 20 else 0; return y",  # one among N
    ],
    ids=["nan in all", "infinite in one"],
)
def test_a_reward_that_is_no_number_is_named_with_its_batch(body, rlgen):
    code, _, err = rlgen("train", *own_reward(body), "checkpoint_interval=20", "hydra.run.dir=run")
    assert code == 2
    assert err.startswith("rlgen: reward.terms.function: gave nan or infinity at step "), err
    assert status()["status"] == "failed"
    kept = checkpoint.load(Path("run/failed"), "batch", "cpu")["batch"]
    assert not kept["rewards"]["function"].isfinite().all()
    assert kept["rewards"]["coverage"].isfinite().all()
    assert len(kept["sample"]) == len(kept["action"]) == 4
    for folder in checkpoint.steps(Path("run")):
        checkpoint.check(folder)


def test_such_a_reward_can_be_skipped(rlgen):
    words = own_reward("y = x.mean((1, 2, 3)); y[0] = float('nan') if len(calls) % 3 == 0 else 0.5; return y")
    code, _, err = rlgen("train", *words, "nonfinite=skip", "hydra.run.dir=run")
    assert code == 0, err
    policy = checkpoint.load(checkpoint.newest(Path("run")), "policy", "cpu")["policy"]
    assert all(weight.isfinite().all() for weight in named_tensors(policy).values())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    run = session(
        *DQN, "agent.optimizer.learning_rate=1e9", "agent.optimizer.max_grad_norm=1e30", "checkpoint_interval=4"
    )
    with pytest.raises(UserError, match=r"(nan or infinity|nan or infinite) at step"):
        train(run, tmp_path / "run")
    assert status(str(tmp_path / "run"))["status"] == "failed"
    for folder in checkpoint.steps(tmp_path / "run"):
        policy = checkpoint.load(folder, "policy", "cpu")["policy"]
        assert all(weight.isfinite().all() for weight in named_tensors(policy).values())


def test_an_update_whose_gradient_is_no_number_is_left_out():
    weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    schedule = Linear(0.1, 0.1, 1.0)
    adam = Adam(
        parameters=[weight], learning_rate=schedule, max_grad_norm=1e6, eps=1e-8, weight_decay=0.0, nonfinite="skip"
    )
    adam.step((weight * torch.tensor([float("nan"), 1.0])).sum(), 0.0)
    assert weight.tolist() == [1.0, -1.0]  # a gradient of 0, and no moment yet
    adam.step(weight.sum(), 0.0)
    # By hand: the second step of Adam after a gradient of 0. m = .1 g, corrected by 1 - .9²; v = .001 g², by 1 - .999².
    step = 0.1 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    assert weight.tolist() == pytest.approx([1.0 - step, -1.0 - step], rel=1e-5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('gone')", "(KeyError: 'gone')"),
        ("sys.exit(0)", "(SystemExit: 0)"),
        ("return x", "must return one number per sample, ["),
        ("return 'much'", "failed on samples torch.float32 [8, 1, 12, 12]"),
        ("return None", "failed on samples"),
    ],
)
def test_a_reward_of_the_users_own_that_fails_is_reported_as_its_own(body, said, rlgen):
    code, _, err = rlgen("train", *own_reward(body), "hydra.run.dir=run")
    assert code == 2
    assert err.startswith("rlgen: reward.terms.function.path: score.py:score "), err
    assert said in err
    assert err.count("\n") == 1
    logged = Path("run/train.log").read_text()
    assert "Traceback" in logged
    assert status()["status"] == "failed"
    if "KeyError" in said:
        assert "raise KeyError('gone')" in logged  # the line of the user's own


@pytest.mark.parametrize(
    "body",
    ["return x.mean((1, 2, 3)).double()", "return x.mean((1, 2, 3)).requires_grad_()", "return [0.5] * len(x)",
     "return x.mean((1, 2, 3)).numpy()", "return x.mean((1, 2, 3)) > 0.5"],
)  # fmt: skip
def test_other_kinds_of_numbers_are_taken(body, rlgen):
    code, _, err = rlgen("train", *own_reward(body), "hydra.run.dir=run")
    assert code == 0, err


# Two processes


def test_a_run_folder_is_for_one_process(tmp_path):
    folder = tmp_path / "run"
    assert train(session(*DQN, "stop_at=80"), folder) == "stopped"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}
    assert not in_use(folder)
    with FileLock(folder / LOCK):
        assert in_use(folder)
        for begin in (lambda: resume(folder, {}), lambda: train(session(*DQN), folder)):
            with pytest.raises(UserError, match=r"^run: another process is at work in .*; wait until it ends"):
                begin()
    assert before == {path: path.read_bytes() for path in before}
    assert resume(folder, {}) == "finished"


def test_a_lock_goes_with_its_process(tmp_path):
    (tmp_path / "run").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from filelock import FileLock; l = FileLock(sys.argv[1]); l.acquire();"
         "print('held', flush=True); time.sleep(600)", str(tmp_path / "run" / LOCK)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    assert in_use(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not in_use(tmp_path / "run")
    with lock.held(tmp_path / "run"):
        pass


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    place = tmp_path / "checkpoints"
    checkpoint.save(place / "step_000000004", {"policy": {"x": {"a": 1}}})
    shutil.copytree(place / "step_000000004", place / ".old_step_000000004_77")  # the new one came to its name
    shutil.copytree(place / "step_000000004", place / ".old_step_000000008_77")  # the new one did not
    (place / ".partial_step_000000012_77").mkdir()
    (tmp_path / ".status.json.77").write_text("{")
    (tmp_path / ".kept").write_text("the user's own")
    with lock.held(tmp_path):
        pass
    assert sorted(path.name for path in place.iterdir()) == ["step_000000004", "step_000000008"]
    checkpoint.check(place / "step_000000008")
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {"checkpoints", ".kept"}


# Going on


def test_what_was_changed_when_a_run_went_on_holds_the_next_time(tmp_path):
    folder = tmp_path / "run"
    assert train(session(*DQN), folder) == "finished"
    assert resume(folder, {"total_steps": 400, "stop_at": 240}) == "stopped"
    assert resume(folder, {}) == "finished"
    assert status(str(folder))["step"] == 400
    assert (status(str(folder))["status"], status(str(folder))["total_steps"]) == ("finished", 400)


def test_a_stop_on_a_checkpoints_own_step_leaves_it_as_it_is(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    assert train(session(*DQN, "stop_at=80", "checkpoint_interval=80"), folder) == "stopped"
    monkeypatch.setattr(checkpoint, "save", lambda *_: pytest.fail("written again"))
    assert resume(folder, {"stop_at": 80}) == "stopped"


@pytest.mark.parametrize(
    "wrong",
    [b'{"step": 160, "sec', b"\xff\xfe\x00", b"[]", b'{"seconds": 1}', b'{"step": "x", "seconds": 1}', b"[" * 100_000, b"null"],
    ids=["torn", "no text", "a list", "no step", "a step that is no number", "nested", "null"],
)  # fmt: skip
def test_a_damaged_line_of_the_records_is_none(wrong):
    assert records.record_of(wrong) is None
    assert records.record_of(b'{"step": 4, "seconds": 0.5}') == {"step": 4, "seconds": 0.5}


def test_a_damaged_line_of_the_records_does_not_stop_a_run(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(session(*DQN, "stop_at=80"), folder) == "stopped"
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(whole + b'\xff\n{"step": 160, "sec')
    assert resume(folder, {}) == "finished"
    assert "2 lines of" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes().startswith(whole)
    assert all(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    "name", ["status.json", "environment.json", "train.log", "results.json", "metrics.jsonl", "tensorboard"]
)
@pytest.mark.parametrize("fault", [*many("gone", "empty"), "binary"])
def test_no_record_is_needed_to_go_on_or_to_sample(name, fault, tmp_path, rlgen):
    train(session(*DQN, "stop_at=80"), tmp_path / "run")
    path = tmp_path / "run" / name
    if path.is_dir():
        shutil.rmtree(path)
    elif fault == "gone":
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(b"" if fault == "empty" else bytes(range(256)))
    assert rlgen("sample", "run=run", "n=2")[0] == 0
    assert rlgen("train", "resume=run")[0] == 0


# The disk


def failing_writes(monkeypatch: pytest.MonkeyPatch, after: int, below: str) -> None:
    """The disk is full from the `after`-th file on that is written below a folder of this name."""
    real, count = files.write_synced, [0]

    def write(path: Path, content: bytes) -> None:
        count[0] += below in str(path)
        if count[0] > after and below in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    for module in (checkpoint, files):
        monkeypatch.setattr(module, "write_synced", write)


@pytest.mark.parametrize("after", [3, *many(0, 8, 15)])
def test_a_full_disk_is_a_sentence_and_loses_nothing(after, rlgen, monkeypatch):
    code, _, err = rlgen("train", *DQN, "stop_at=40", "hydra.run.dir=run")
    assert code == 0, err
    good = checkpoint.steps(Path("run"))[-1]
    with monkeypatch.context() as patch:
        failing_writes(patch, after, "checkpoints")
        code, _, err = rlgen("train", "resume=run", "checkpoint_interval=40")
    assert code == 2
    assert "cannot be written (No space left on device); the checkpoints before it are whole" in err
    assert status()["status"] == "failed"
    assert not list(Path("run/checkpoints").glob(".partial*"))
    checkpoint.check(good)
    assert rlgen("train", "resume=run")[0] == 0


def test_a_folder_that_is_removed_meanwhile_is_a_sentence(rlgen):
    words = own_reward(
        "import shutil; len(calls) > 20 and shutil.rmtree('run', ignore_errors=True); return x.mean((1, 2, 3))"
    )
    code, _, err = rlgen("train", *words, "checkpoint_interval=20", "hydra.run.dir=run")
    assert code in (1, 2), err
    assert "Traceback" not in err
    assert err.startswith("rlgen: ")
    assert "cannot be written (No such file or directory)" in err


# The cache

CLASSIFIED = small("env=pixel", "agent=random", "reward=classifier", "total_steps=8")


def test_a_cache_that_cannot_be_written_is_said_at_once_and_does_no_harm(tmp_path, monkeypatch, capsys, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "file"))
    assert train(assemble(compose(*CLASSIFIED)), tmp_path / "run") == "finished"
    said = caplog.text
    assert said.index("cannot be written") < said.index("fitting the classifier")
    assert (tmp_path / "run/stages/classifier/result/manifest.json").is_file()


@pytest.mark.parametrize("fault", ["flipped", *many("empty", "gone", "no manifest", "manifest a list")])
@pytest.mark.parametrize("where", ["cache", "run"])
def test_a_damaged_result_is_noticed_named_and_made_anew(fault, where, tmp_path, caplog):
    def new(name: str) -> str:
        return train(assemble(compose(*CLASSIFIED)), tmp_path / name)

    assert new("first") == "finished"
    (entry,) = (tmp_path / "cache" / "classifier").glob("[0-9a-f]*")
    if where == "run":
        shutil.rmtree(entry)
        entry = tmp_path / "first/stages/classifier/result"
    good = checkpoint.load(entry, stages.PART, "cpu")
    damage(entry, fault)
    if where == "cache":
        assert new("second") == "finished"
    else:
        assert resume(tmp_path / "first", {"total_steps": 16}) == "finished"
    assert "The classifier is not taken from there" in caplog.text
    again = checkpoint.load(entry, stages.PART, "cpu")
    same(good["trainable"], again["trainable"], "classifier")


def test_that_a_result_of_the_cache_takes_the_place_of_the_runs_is_said(tmp_path, caplog):
    """Another machine may have fitted it, with other numbers, and a policy belongs to its own."""
    run = tmp_path / "run"
    assert train(assemble(compose(*CLASSIFIED)), run) == "finished"
    caplog.clear()
    session = assemble(compose(*CLASSIFIED), fresh=False)
    stages.load_stages(session, run)
    assert caplog.messages == []
    shutil.rmtree(run / "stages")
    stages.load_stages(session, run)
    (line,) = caplog.messages
    assert line.startswith(f"{run} has no intact stages/classifier/result; that of the cache is taken (")


def damage(folder: Path, fault: str) -> None:
    """One file of a checkpoint is not what it was."""
    file = next(folder.glob("*/*.safetensors"))
    if fault == "flipped":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
    elif fault == "empty":
        file.write_bytes(b"")
    elif fault == "gone":
        file.unlink()
    elif fault == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text("[]")


def test_who_asks_for_a_cache_entry_that_is_being_made_waits(tmp_path, caplog):
    path, order = tmp_path / "kind" / "entry", []
    begun = threading.Event()

    def first() -> None:
        with lock.cache_entry(path):
            begun.set()
            while "waiting for another process" not in caplog.text:
                pass
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with caplog.at_level("INFO"), lock.cache_entry(path):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


# Signals


@pytest.mark.parametrize("name", [*many("SIGINT", "SIGUSR1"), "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_the_run_goes_on_exactly(name, tmp_path, monkeypatch, rlgen):
    """The signal comes in the middle of the 21st call of the reward."""
    body = f"import os, signal; len(calls) == 21 and os.kill(os.getpid(), signal.{name}); return x.mean((1, 2, 3))"
    words = own_reward(body)
    code, out, _ = rlgen("train", *words, "hydra.run.dir=run", "total_steps=156")
    assert code == PREEMPTED
    assert "go on with:\n  rlgen train resume=run" in out
    assert status()["status"] == "preempted"
    assert rlgen("train", "resume=run", "trust=[score.py]")[0] == 0
    words = own_reward("return x.mean((1, 2, 3))", "calm")
    assert rlgen("train", *words, "hydra.run.dir=whole", "total_steps=156")[0] == 0
    for part in PARTS:
        one, two = (checkpoint.load(checkpoint.newest(Path(run)), part, "cpu") for run in ("run", "whole"))
        same(one, two, part)


def test_a_second_signal_ends_at_once(rlgen):
    body = "import os, signal; len(calls) == 21 and [os.kill(os.getpid(), signal.SIGTERM) for _ in 'ab']; return x.mean((1, 2, 3))"
    code, _, err = rlgen("train", *own_reward(body), "hydra.run.dir=run")
    assert (code, err) == (130, "rlgen: interrupted\n")
    assert status()["status"] == "preempted"
    assert not checkpoint.steps(Path("run"))


# Sweeps


def sweep(rlgen: Rlgen, body: str) -> tuple[int, str, str]:
    words = [word for word in own_reward(body) if not word.startswith("threads")]
    return rlgen("train", "-m", *words, "seed=1,2,3", "total_steps=40", "hydra.sweep.dir=sweep")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sys.exit(0)", *many("raise ValueError('no')", "raise MemoryError")])
def test_a_job_that_fails_is_named_and_the_others_go_on(end, rlgen):
    body = f"import torch\n    if open('seen', 'a').write('x') and open('seen').read().count('x') == 3: {end}\n    return x.mean((1, 2, 3))"
    code, out, err = sweep(rlgen, body)
    assert code == 2, err
    assert out.count("job 0 failed: reward.terms.function.path: score.py:score failed on samples") == 1, out
    assert [status(f"sweep/{job}")["status"] for job in range(3)] == ["failed", "finished", "finished"]


@pytest.mark.slow
def test_a_signal_ends_the_whole_sweep(rlgen):
    body = "import os, signal\n    open('seen', 'a').write('x'); open('seen').read().count('x') == 3 and os.kill(os.getpid(), signal.SIGTERM)\n    return x.mean((1, 2, 3))"
    code, _, err = sweep(rlgen, body)
    assert code == PREEMPTED, err
    assert "the sweep ends here" in err
    assert status("sweep/0")["status"] == "preempted"
    assert not Path("sweep/1").exists()


def test_what_cannot_say_itself_that_it_failed_is_marked(tmp_path):
    write_failure(tmp_path / "gone", "killed by SIGKILL")
    assert status(str(tmp_path / "gone")) | {"updated": 0} == {
        "step": 0, "total_steps": 0, "status": "failed", "updated": 0, "error": "killed by SIGKILL",
    }  # fmt: skip
    assert (tmp_path / "gone" / "train.log").read_text() == "killed by SIGKILL\n"
    (tmp_path / "gone" / "status.json").write_text('{"status": "running", "step": 7, "total_steps": 9}')
    write_failure(tmp_path / "gone", "killed by SIGTERM")
    assert status(str(tmp_path / "gone"))["step"] == 7
    assert status(str(tmp_path / "gone"))["error"] == "killed by SIGTERM"
    write_failure(tmp_path / "gone", "it ended with exit code 1")  # what the run said itself stays
    assert status(str(tmp_path / "gone"))["error"] == "killed by SIGTERM"


# What is running


def test_a_run_says_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "HEARTBEAT", 0.0)
    seen: list[dict[str, Any]] = []
    real: Callable[..., None] = log.RunLog.status

    def watched(self: log.RunLog, *arguments: Any, **more: Any) -> None:
        real(self, *arguments, **more)
        seen.append(json.loads((self.folder / "status.json").read_text()))

    monkeypatch.setattr(log.RunLog, "status", watched)
    train(session(*small("agent=random"), "total_steps=40"), tmp_path / "run")
    assert [found["step"] for found in seen[:-1]] == [0, *range(4, 44, 4)]
    assert {found["status"] for found in seen[:-1]} == {"running"}
    assert all(abs(found["updated"] - os.stat(tmp_path / "run" / "status.json").st_mtime) < 600 for found in seen)


def test_runs_are_listed_with_how_they_are(tmp_path, rlgen):
    for name, words in (("done", []), ("half", ["stop_at=80"])):
        train(session(*small("agent=random"), *words), tmp_path / "outputs" / name)
    assert {(state.folder.name, state.status, state.step) for state in run_states(Path("outputs"))} == {
        ("done", "finished", 160), ("half", "stopped", 80)
    }  # fmt: skip
    path = Path("outputs/half/status.json")
    path.write_text(json.dumps(status("outputs/half") | {"status": "running"}))
    with FileLock(Path("outputs/half") / LOCK):
        assert re.search(r"^running +80/160 .*outputs/half$", rlgen("list", "runs")[1], re.MULTILINE)
    code, out, _ = rlgen("list", "runs")
    assert code == 0
    assert re.search(r"^stale +80/160 +\d+ seconds ago +outputs/half$", out, re.MULTILINE)
    assert re.search(r"^finished +160/160 .*outputs/done$", out, re.MULTILINE)
    path.write_text(json.dumps(status("outputs/half") | {"status": "failed", "error": "UserError: no\x1b[2J disk"}))
    assert "UserError: no\\x1b[2J disk" in rlgen("list", "runs")[1]
    path.write_text("[]")
    assert state_of(Path("outputs/half")) is None
    assert "half" not in rlgen("list", "runs", "outputs")[1]
    assert rlgen("list", "runs", "nowhere")[:2] == (0, "no runs below nowhere\n")


def test_states_that_are_no_numbers_are_not_saved(tmp_path, monkeypatch):
    words = small("env=latent_gan", "steering=continuous_step", "agent=random", "reward=coverage", "nonfinite=skip")
    run = session(*words, "checkpoint_interval=40")
    env: Any = run.envs["train"]
    step = env.step

    def lost(state: Any, action: Any) -> Any:
        after = step(state, action)
        return after._replace(point=after.point * float("nan"))

    monkeypatch.setattr(env, "step", lost)
    with pytest.raises(UserError, match=r"^point: the environment's states are nan or infinite at step 40"):
        train(run, tmp_path / "run")
    assert not checkpoint.steps(tmp_path / "run")


def test_of_several_processes_of_a_run_the_first_alone_holds_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_place", ranks.Place(1, 2, 1, 2))
    with (
        lock.held(tmp_path / "run"),
        lock.held(tmp_path / "run"),
        lock.cache_entry(tmp_path / "cache" / "entry") as entry,
    ):
        assert entry is None
    assert not list(tmp_path.iterdir())
