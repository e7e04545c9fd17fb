"""What records a run beside its own files: every client is written to offline, and read again by its own API or files.

Trackio's is the client itself where it is installed, and small_trackio where it is not.
"""

import importlib.util
import io
import json
import os
import shutil
import socket
import struct
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from rlgen_cli.config.compose import composed
from rlgen_cli.config.saved import read_config
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.runs.records import Curve, curves_of
from rlgen_cli.runs.tracking import name_of, trackers_of
from tests import small_trackio
from tests.conftest import Rlgen, small

TINY = [
    "env=tiny", "agent=random", "threads=1", "num_envs=4", "total_steps=160", "log_interval=40", "eval_interval=80",
    "eval_episodes=4", "checkpoint_interval=40", "keep_checkpoints=9", "hydra.run.dir=run",
]  # fmt: skip
RUN = Path("run")
WORDS = {
    "wandb": ["logger=wandb", "logger.wandb.mode=offline", "logger.wandb.tags=[one,two]"],
    "mlflow": ["logger=mlflow", "logger.mlflow.tags={place: lab}"],
    "trackio": ["logger=trackio", "logger.trackio.group=night"],
}
TRUST = {"mlflow": ["trust=[sqlite]"]}  # as the line says that a stopped run ends with
INSTALLED = importlib.util.find_spec("trackio") is not None


class Recorded(NamedTuple):
    """What a tracker knows of its one run."""

    run_id: str
    name: str
    config: dict[str, Any]  # by dotted key, as text
    curves: dict[str, Curve]
    pictures: dict[int, np.ndarray]  # [H, W, 3], of the name `samples`, by step
    sounds: dict[int, bytes]  # WAV files, of the name `sample`, by step


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Path) -> None:
    """Clients that say little, keep what is theirs here, and reach no other machine."""
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "wandb_home"))
    monkeypatch.setenv("WANDB_DIR", str(store.parent))  # the client reads it once
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if not INSTALLED:
        monkeypatch.setitem(sys.modules, "trackio", small_trackio)
    shutil.copy(store, "mlflow.db")
    connect = socket.socket.connect

    def near(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", near)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, which takes a second to make; and the place of Trackio's."""
    folder = tmp_path_factory.mktemp("store")
    if "wandb" in sys.modules:  # by a test before these, with another place for its files
        sys.modules["wandb"].teardown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
        if INSTALLED:  # which reads this when it is imported
            patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
            importlib.import_module("trackio")
    return folder / "mlflow.db"


def words_of(client: str) -> list[str]:
    """The choice of a client, in a project of the test's own."""
    own = {"trackio": [f"logger.trackio.project={Path.cwd().name}"], "mlflow": [f"logger.mlflow.tracking_uri={uri()}"]}
    return [*WORDS[client], *own.get(client, [])]


def uri() -> str:
    """Of the test's own database: the client keeps one open for each address."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def dotted(node: dict[str, Any], path: str = "") -> dict[str, str]:
    """The values of nested dicts by dotted key, as text."""
    found: dict[str, str] = {}
    for key, value in node.items():
        inner = f"{path}.{key}" if path else str(key)
        found |= dotted(value, inner) if isinstance(value, dict) else {inner: str(value)}
    return found


def pixels(content: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content) if isinstance(content, bytes) else content).convert("RGB"))


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: after 7 bytes, blocks of 32 KiB of pieces, each with its size and whether it is a
    record's only, first, middle or last one."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too short for another piece
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack_from("<4xHB", content, at)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read_wandb() -> Recorded:
    """All that its files hold of the run, in the order of writing."""
    folder = Path(os.environ["WANDB_DIR"]) / "wandb"
    run_id = json.loads((RUN / "trackers" / "wandb.json").read_text())["id"]
    names, config = set(), dict[str, Any]()
    axes, rows = dict[str, str](), list[dict[str, Any]]()
    for file in sorted(folder.glob(f"offline-run-*-{run_id}/*.wandb")):
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.run_id == run_id
                names.add(record.run.display_name)
                assert record.run.project == "rlgen"
                assert list(record.run.tags) in ([], ["one", "two"])
            elif kind == "config":
                config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "metric":
                axes[record.metric.name] = record.metric.step_metric
            elif kind == "history":
                row = dict[str, Any]()
                for item in record.history.item:
                    name, *inner = item.nested_key
                    value = json.loads(item.value_json)
                    row[name] = row.get(name, {}) | {inner[0]: value} if inner else value
                rows.append(row)
    (name,) = names
    curves, pictures, sounds = dict[str, Curve](), dict[int, np.ndarray](), dict[int, bytes]()
    for row in rows:
        for key, value in row.items():
            if key not in axes:  # an axis, or a row's own number
                continue
            step = row[axes[key]]
            if isinstance(value, dict):
                path = next(folder.glob(f"*-{run_id}/files/{value['path']}"))
                if value["_type"] == "image-file":
                    pictures[step] = pixels(path)
                else:
                    sounds[step] = path.read_bytes()
                continue
            curve = curves.setdefault(key, Curve([], []))
            curve.steps.append(step)
            curve.values.append(value)
    return Recorded(run_id, name, dotted(config), curves, pictures, sounds)


def read_mlflow() -> Recorded:
    from mlflow import MlflowClient

    api = MlflowClient(tracking_uri=uri())
    experiment = api.get_experiment_by_name("rlgen")
    assert experiment is not None
    (run,) = api.search_runs([experiment.experiment_id])
    assert run.data.tags["place"] == "lab"
    curves = {}
    for name in run.data.metrics:
        history = sorted(api.get_metric_history(run.info.run_id, name), key=lambda metric: metric.step)
        curves[name] = Curve([metric.step for metric in history], [metric.value for metric in history])
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    assert "total_steps: 160" in (root / "config.yaml").read_text()
    images = (root / "images").glob("samples+step+*.png")
    pictures = {int(path.name.split("+")[2]): pixels(path) for path in images}
    sounds = {int(path.stem.rpartition("_")[2]): path.read_bytes() for path in (root / "sounds").glob("sample_*.wav")}
    return Recorded(run.info.run_id, run.info.run_name, dict(run.data.params), curves, pictures, sounds)


def read_trackio() -> Recorded:
    project = Path.cwd().name
    if INSTALLED:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import MEDIA_DIR

        (run,) = trackio.Api().runs(project)
        config, rows = run.config, SQLiteStorage.get_logs(project, run.name, run_id=run.id)
        group = config["_Group"]
    else:
        (run,) = (run for run in small_trackio.RUNS if run.project == project)
        config, rows, group = run.config, run.rows, run.group
    assert group == "night"
    curves, pictures, sounds = dict[str, Curve](), dict[int, np.ndarray](), dict[int, bytes]()
    for row in rows:
        for key in row.keys() - {"step", "timestamp"}:
            value, step = row[key], row["step"]
            if isinstance(value, dict):
                path = MEDIA_DIR / value["file_path"]
                if value["_type"] == "trackio.image":
                    pictures[step] = pixels(path)
                else:
                    sounds[step] = path.read_bytes()
            elif isinstance(value, small_trackio.Image):
                pictures[step] = value.value
            elif isinstance(value, small_trackio.Audio):
                sounds[step] = wav(value.value, value.sample_rate)
            else:
                curve = curves.setdefault(key, Curve([], []))
                curve.steps.append(step)
                curve.values.append(value)
    return Recorded(run.id, run.name, dotted(config), curves, pictures, sounds)


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


READ: dict[str, Callable[[], Recorded]] = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}
clients = pytest.mark.parametrize("client", list(READ))


def recorded_here() -> dict[str, Curve]:
    """The run's own records, of which several may be of one step."""
    curves = {}
    for name, curve in curves_of(RUN).items():
        first = dict(reversed(list(zip(*curve, strict=True))))
        steps = sorted(first)
        curves[name] = Curve(steps, [first[step] for step in steps])
    return curves


def check_curves(found: dict[str, Curve], timed: bool = True) -> None:
    """They are the run's own, and nothing comes twice; how long it took is as it was when it was first recorded."""
    own = recorded_here()
    assert set(found) == set(own)
    for name, curve in found.items():
        assert curve.steps == own[name].steps, name
        if timed or not name.endswith(("seconds", "steps_per_second")):
            assert curve.values == pytest.approx(own[name].values), name


@clients
@pytest.mark.slow
def test_a_training_arrives_with_its_stages_pictures_and_settings(client: str, rlgen: Rlgen) -> None:
    words = small("env=pixel", "agent=random", "reward=classifier")
    code, _, err = rlgen("train", *words, *words_of(client), "hydra.run.dir=run")
    assert code == 0, err
    found = READ[client]()
    check_curves(found.curves)
    assert any(name.startswith("classifier/") for name in found.curves)  # the stage's, over its own steps
    assert found.name == "run"
    assert found.config["total_steps"] == "160"
    assert found.config["reward.terms.classifier.updates"] == "5"
    assert sorted(found.pictures) == [80, 160]
    for step, picture in found.pictures.items():
        assert np.array_equal(picture, pixels(RUN / "samples" / f"step_{step:09d}.png"))
    assert not found.sounds
    assert not (RUN / "tensorboard").exists()


@clients
def test_a_melody_can_be_heard(client: str, rlgen: Rlgen) -> None:
    words = small("env=music", "agent=random")
    code, _, err = rlgen("train", *words, *words_of(client), "hydra.run.dir=run")
    assert code == 0, err
    found = READ[client]()
    assert sorted(found.pictures) == sorted(found.sounds) == [80, 160]
    with wave.open(io.BytesIO(found.sounds[160])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 22050)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    assert 0.79 <= np.abs(samples).max() / 32767 <= 0.81  # the loudest sample of any piece is 0.8


@clients
def test_a_run_goes_on_in_the_same_run_and_nothing_comes_twice(client: str, rlgen: Rlgen) -> None:
    assert rlgen("train", *TINY, *words_of(client), "stop_at=120")[0] == 0
    before = READ[client]()
    assert before.curves["return"].steps == [40, 80, 120]
    shutil.rmtree(RUN / "checkpoints" / "step_000000120")  # as if it had been killed after its newest records
    time.sleep(1.0 if client == "wandb" else 0.0)  # an offline sitting's folder has the second in its name
    code, _, err = rlgen("train", "resume=run", *TRUST.get(client, []))
    assert code == 0, err
    after = READ[client]()
    assert (after.run_id, after.name) == (before.run_id, before.name)
    check_curves(after.curves, timed=False)
    assert after.curves["return"].steps == [40, 80, 120, 160]
    assert sorted(after.pictures) == [80, 160]


@clients
def test_what_is_pretrained_is_recorded_by_the_names_of_its_stages(client: str, rlgen: Rlgen) -> None:
    words = small("env=music", "agent=maximum_likelihood")
    words = [word for word in words if not word.startswith("agent=")]
    code, _, err = rlgen("pretrain", *words, *words_of(client), "epochs=2", "hydra.run.dir=run")
    assert code == 0, err
    found = READ[client]()
    check_curves(found.curves)
    assert "model/nll/valid" in found.curves
    assert "nll/test" in found.curves


@clients
def test_a_client_that_is_missing_is_named_before_anything_is_written(
    client: str, rlgen: Rlgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, client, None)
    code, _, err = rlgen("train", *TINY, *words_of(client))
    assert code == 2
    assert err == f"rlgen: logger.{client}._target_: needs {client}: pip install 'rlgen[{client}]'.\n"
    assert not RUN.exists()


# Failures

OWN = '''
"""Prints, and fails where it is told to."""


class Own:
    rewinds = False

    def __init__(self, *, fails: str, at: int) -> None:
        self.fails, self.at = fails, at

    def open(self, run):
        self._maybe("open", self.at)
        self.file = (run.folder / "own.txt").open("a")
        self._say("open", run.name, run.run_id, run.config["total_steps"])
        return "mine"

    def begin(self, stage, step):
        self._say("begin", stage, step)

    def scalars(self, step, values):
        self._maybe("scalars", step)
        self._say("scalars", step, *sorted(values))

    def picture(self, step, name, image):
        self._say("picture", step, name, tuple(image.shape)[0])

    def sound(self, step, name, wave, rate):
        self._say("sound", step, name, rate)

    def close(self, status):
        self._maybe("close", self.at)
        self._say("close", status)
        self.file.close()

    def _say(self, *words):
        print(*words, file=self.file, flush=True)

    def _maybe(self, what, step):
        if (what, step) == (self.fails, self.at):
            raise ConnectionError("no route to host")
'''
OWN_YAML = (
    "# @package logger.own\n# Prints\n_target_: own_logger.Own\nfails: never  # in which method\nat: 80  # the step\n"
)
CHOSEN = ["--config-dir", "mine", "logger=[own,tensorboard]"]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A logger of the user's own."""
    Path("mine/logger").mkdir(parents=True)
    Path("mine/own_logger.py").write_text(OWN)
    Path("mine/logger/own.yaml").write_text(OWN_YAML)
    path = list(sys.path)
    yield
    sys.path[:] = path


def test_a_users_own_logger_is_one_file_and_one_yaml(rlgen: Rlgen, own: None) -> None:
    code, out, err = rlgen("train", *TINY, *CHOSEN, "stop_at=80")
    assert code == 0, err
    assert 'rlgen train resume=run --config-dir mine "trust=[own_logger]"' in out
    assert (RUN / "tensorboard").is_dir()
    assert (RUN / "own.txt").read_text().splitlines() == [
        "open run None 160",
        "begin None 0",
        "scalars 40 return score/target seconds steps_per_second",
        "scalars 80 return score/target seconds steps_per_second",
        "scalars 80 eval/diversity eval/score/target eval/total eval/unique",
        "picture 80 samples 3",
        "close stopped",
    ]
    assert rlgen("sample", "run=run", "n=2")[0] == 0  # which no logger is needed for
    code, _, err = rlgen("train", "resume=run")
    assert code == 2
    assert "this saved config names 'own_logger.Own', which is no part of rlgen" in err
    (RUN / "own.txt").unlink()
    code, out, err = rlgen("train", "resume=run", "--config-dir", "mine", "trust=[own_logger]")
    assert code == 0, err
    assert (RUN / "own.txt").read_text().splitlines()[:2] == ["open run mine 160", "begin None 80"]
    assert rlgen("list", "logger=own", "--config-dir", "mine")[1].splitlines()[0] == "logger=own  Prints"


@pytest.mark.parametrize("fails", ["scalars", "close"])
def test_a_client_that_fails_does_not_end_the_training(fails: str, rlgen: Rlgen, own: None) -> None:
    code, out, err = rlgen("train", *TINY, *CHOSEN, f"logger.own.fails={fails}")
    assert code == 0, err
    said = "logger.own has failed (ConnectionError: no route to host); the run goes on without it"
    assert out.count(said) == 1
    assert (RUN / "train.log").read_text().count(said) == 1
    assert json.loads((RUN / "status.json").read_text())["status"] == "finished"
    assert list(curves_of(RUN)["return"].steps) == [40, 80, 120, 160]
    recorded = (RUN / "own.txt").read_text()
    assert ("scalars 160" in recorded) == (fails == "close")
    assert "close" not in recorded
    assert tensorboard_steps(RUN / "tensorboard", "return") == [40, 80, 120, 160]


def test_a_client_that_cannot_begin_ends_a_new_run_and_no_old_one(rlgen: Rlgen, own: None) -> None:
    code, _, err = rlgen("train", *TINY, *CHOSEN, "logger.own.fails=open")
    assert code == 2
    assert err.startswith("rlgen: logger.own: cannot begin (ConnectionError: no route to host); ")
    assert not (RUN / "metrics.jsonl").exists()
    shutil.rmtree(RUN)
    assert rlgen("train", *TINY, *CHOSEN, "stop_at=80")[0] == 0
    text = (RUN / "config.yaml").read_text()
    (RUN / "config.yaml").write_text(text.replace("fails: never", "fails: open"))
    code, out, err = rlgen("train", "resume=run", "--config-dir", "mine", "trust=[own_logger]")
    assert code == 0, err
    assert out.count("logger.own has failed (ConnectionError: no route to host)") == 1
    assert "logger.own has failed" in (RUN / "train.log").read_text()


def test_a_run_that_fails_is_closed_as_one(rlgen: Rlgen, own: None) -> None:
    Path("score.py").write_text("def score(x):\n    raise ValueError('no')\n")
    words = ["reward=function", "reward.terms.function.path=score.py:score"]
    assert rlgen("train", *TINY, *CHOSEN, *words)[0] != 0
    assert (RUN / "own.txt").read_text().splitlines()[-1] == "close failed"


@pytest.mark.parametrize("content", ["", "[1]", '{"id": 3, "steps": {}}', '{"id": "x", "steps": [1]}'])
def test_what_was_kept_for_a_tracker_may_be_damaged(content: str, rlgen: Rlgen, own: None) -> None:
    """Then its run begins anew."""
    assert rlgen("train", *TINY, *CHOSEN, "stop_at=80")[0] == 0
    (RUN / "trackers" / "own.json").write_text(content)
    code, _, err = rlgen("train", "resume=run", "--config-dir", "mine", "trust=[own_logger]")
    assert code == 0, err
    assert "open run None 160" in (RUN / "own.txt").read_text().splitlines()[6:]
    assert json.loads((RUN / "trackers" / "own.json").read_text())["id"] == "mine"


def test_a_name_that_another_run_of_trackios_has_got_meanwhile_is_not_gone_on_in(rlgen: Rlgen) -> None:
    words = [*words_of("trackio"), "logger.trackio.name=mine"]
    assert rlgen("train", *TINY, *words, "stop_at=80")[0] == 0
    first = json.loads((RUN / "trackers" / "trackio.json").read_text())["id"]
    assert rlgen("train", *TINY, *words, "hydra.run.dir=other")[0] == 0
    other = json.loads(Path("other/trackers/trackio.json").read_text())["id"]
    code, _, err = rlgen("train", "resume=run")
    assert code == 0, err
    assert json.loads((RUN / "trackers" / "trackio.json").read_text())["id"] not in (first, other)


def test_mlflow_begins_anew_where_the_run_is_gone(rlgen: Rlgen) -> None:
    from mlflow import MlflowClient

    assert rlgen("train", *TINY, *words_of("mlflow"), "stop_at=80")[0] == 0
    before = read_mlflow().run_id
    MlflowClient(tracking_uri=uri()).delete_run(before)
    code, _, err = rlgen("train", "resume=run", *TRUST["mlflow"])
    assert code == 0, err
    after = read_mlflow()
    assert after.run_id != before
    assert after.curves["return"].steps == [120, 160]


# What a stranger's run may not do


@pytest.mark.parametrize(
    ("logger", "word"),
    [
        ("mlflow", "logger.mlflow.tracking_uri=http://example.org:5000"),
        ("trackio", "logger.trackio.space_id=some/space"),
    ],
)
def test_where_records_are_sent_is_not_for_a_saved_run_to_say(logger: str, word: str, rlgen: Rlgen) -> None:
    assert rlgen("train", *TINY, *words_of(logger), "stop_at=80")[0] == 0
    key, _, value = word.partition("=")
    config = composed("train", [*TINY, *words_of(logger), word])
    from omegaconf import OmegaConf

    (RUN / "config.yaml").write_text(f"format: 5\n{OmegaConf.to_yaml(config, resolve=True)}")
    code, _, err = rlgen("train", "resume=run")
    assert code == 2
    assert f"{key}: this saved config names {value!r}, which is no part of rlgen" in err
    assert rlgen("sample", "run=run", "n=2")[0] == 0
    assert key.rpartition(".")[2] in read_config(RUN / "config.yaml", Trust([value])).logger[logger]


# The config, and TensorBoard


def tensorboard_steps(folder: Path, name: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [event.step for event in found.Scalars(name)]


def test_tensorboard_has_each_step_once_and_stages_apart(rlgen: Rlgen) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [word for word in small("env=pixel", "agent=random", "reward=classifier") if "checkpoint" not in word]
    assert rlgen("train", *words, "stop_at=120", "checkpoint_interval=40", "hydra.run.dir=run")[0] == 0
    shutil.rmtree(RUN / "checkpoints" / "step_000000120")
    assert rlgen("train", "resume=run")[0] == 0
    assert tensorboard_steps(RUN / "tensorboard", "return") == [40, 80, 120, 160]
    assert tensorboard_steps(RUN / "tensorboard" / "classifier", "classifier/loss")[-1] == 5
    found = EventAccumulator(str(RUN / "tensorboard"))
    found.Reload()
    assert {event.step for event in found.Images("samples")} == {80, 160}
    assert b"total_steps: 160" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_none_leaves_the_runs_own_records_alone(rlgen: Rlgen) -> None:
    assert rlgen("train", *TINY, "logger=none")[0] == 0
    assert not (RUN / "tensorboard").exists()
    assert not (RUN / "trackers").exists()
    assert curves_of(RUN)["return"].steps == [40, 80, 120, 160]


def test_several_loggers_are_a_list_and_a_sweep_takes_one_after_the_other() -> None:
    assert set(composed("train", ["logger=[tensorboard,mlflow]"]).logger) == {"tensorboard", "mlflow"}
    assert composed("pretrain", ["logger=none"]).logger == {}
    with pytest.raises(UserError, match=r"^logger: cannot be null; valid are: mlflow, none, tensorboard"):
        composed("train", ["logger=null"])
    with pytest.raises(UserError, match=r"^logger=wanbd: there is no such choice; did you mean wandb"):
        composed("train", ["logger=wanbd"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("logger.wandb.mode=never", r"^logger\.wandb\.mode: must be online or offline or null, got 'never'"),
        ("logger.wandb.tags=one", r"^logger\.wandb\.tags: must be a list, each text, got 'one'"),
        ("+logger.wandb.tag=one", r"^logger\.wandb\.tag: is no key here; did you mean tags"),
        ("+logger.mine=3", r"^logger\.mine: is no logger; the YAML of one begins with `# @package logger\.NAME`"),
    ],
)
def test_a_wrong_value_is_one_sentence(word: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(UserError, match=said):
        trackers_of(composed("train", ["logger=wandb", word]))


def test_a_run_is_called_as_its_folder_and_a_sweeps_job_by_its_number() -> None:
    assert name_of(Path("outputs/pixel/dqn/2026-01-02_030405_abcdef")) == "2026-01-02_030405_abcdef"
    assert name_of(Path("outputs/sweeps/2026-01-02_030405_abcdef/3")) == "2026-01-02_030405_abcdef_3"
