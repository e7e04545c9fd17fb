"""The report's page, the figures, and the live page: what they say, and that a stranger's folder says nothing else."""

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlgen_cli
from rlgen_cli.core.errors import UserError
from rlgen_cli.domains.music.piano_roll import roll_grid
from rlgen_cli.domains.music.scores import SequenceNovelty
from rlgen_cli.evaluation.media.music import MusicMedium
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.novelty import nearest
from rlgen_cli.report import page as pages
from rlgen_cli.report.curves import POINTS, band, metric_names
from rlgen_cli.report.made import drawing, made_by, melody
from rlgen_cli.report.page import page, seen
from rlgen_cli.report.read import Run, differences, grouped, read_run, read_runs
from rlgen_cli.report.watch import server
from rlgen_cli.runs.records import Curve, curves_of
from rlgen_cli.runs.trainer import train
from tests.conftest import session, small

DRAWS = [
    "env=pixel",
    "brush=pen",
    "agent=actor_critic",
    "agent.evaluate=sample",
    "reward=target",
    "env.brush.preview_scale=0",
]
SINGS = ["env=music", "agent=actor_critic", "reward=tonality"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of several kinds."""
    folder = tmp_path_factory.mktemp("runs")
    words = {
        "drawing": small(*DRAWS),
        "again": small(*DRAWS, "seed=2"),
        "other": small(*DRAWS, "agent.gamma=0.5"),
        "melody": small(*SINGS),
    }
    for name, given in words.items():
        train(session(*given), folder / name)
    return {name: folder / name for name in words}


def data_of(text: str) -> dict:
    """The JSON that a page holds."""
    begin = text.index('<script type="application/json" id="data">')
    return json.loads(text[text.index(">", begin) + 1 : text.index("</script>", begin)])


def written(folder: Path, name: str, lines: list[dict]) -> Run:
    """A run with these records, and nothing else."""
    (folder / name).mkdir()
    (folder / name / "config.yaml").write_text("seed: 1\n")
    records = "".join(json.dumps({"seconds": 1.0, **line}) + "\n" for line in lines)
    (folder / name / "metrics.jsonl").write_text(records)
    return read_run(folder / name)


def test_a_run_is_one_page_without_network(runs, rlgen, tmp_path):
    code, out, _ = rlgen("report", f"run={runs['drawing']}", "out=page.html")
    assert code == 0
    assert out == "report: page.html\n"
    text = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in text
    assert "connect-src 'none'" in text
    own = text[: text.index("plotly.js")] + text[text.index("const LIVE") :]  # the library names its own home
    assert "http://" not in own.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in own
    found = data_of(text)
    (run,) = found["runs"]
    assert run["status"] == "finished"
    assert run["step"] == 160
    assert run["results"]["scores"].keys() == {"samples", "random", "real"}
    assert run["results"]["diversity"].keys() == run["results"]["unique"].keys() == {"samples", "random", "real"}
    assert {"return", "eval/total", "eval/diversity"} == set(found["first"])
    assert [sheet["step"] for sheet in run["made"]["sheets"]] == [80, 160]
    assert len(run["made"]["drawings"]) == 12
    assert run["facts"]["torch (version)"]


def test_every_stroke_of_a_drawing_is_there(runs):
    shown = made_by(runs["drawing"])["drawings"][0]
    svg = (runs["drawing"] / "samples" / "final" / "000.svg").read_text()
    assert len(shown["marks"]) == svg.count("<path") > 0
    assert shown["size"] == 12
    assert all(mark["d"] in svg and mark["stroke"] in svg for mark in shown["marks"])


def test_a_melody_is_notes_in_seconds(runs):
    shown = made_by(runs["melody"])["melodies"]
    assert len(shown) == 8
    start, duration, pitch, velocity, voice = shown[0]["notes"][0]
    assert start >= 0
    assert duration > 0
    assert 0 < pitch < 128
    assert 0 < velocity < 128
    assert voice == 0
    assert shown[0]["bar"] == pytest.approx(8 * 60 / 100 / 4)  # eight sixteenths at 100 beats a minute


def test_runs_that_differ_in_their_seed_are_one_group(runs):
    found = [read_run(runs[name]) for name in ("drawing", "again", "other")]
    assert differences(found) == ["agent.gamma"]
    groups = grouped(found)
    assert groups["gamma=0.5"] == found[2:]
    assert [members for members in groups.values() if len(members) == 2] == [found[:2]]
    assert grouped(found[:2]) == {"all": found[:2]}


def test_bands_by_hand(tmp_path):
    one = written(
        tmp_path, "one", [{"step": 0, "return": 1.0}, {"step": 10, "return": 3.0}, {"step": 30, "return": 9.0}]
    )
    two = written(tmp_path, "two", [{"step": 10, "return": 5.0}, {"step": 20, "return": 7.0}])
    line = band([one, two], "return")
    assert line is not None
    # Both have come from step 10 to step 20, where the first has 6 by a straight line.
    assert line == ([10.0, 20.0], [4.0, 6.5], [3.0, 6.0], [5.0, 7.0], 2)
    assert band([one], "eval/total") is None


def test_long_records_are_thinned_and_repeated_steps_count_once(tmp_path):
    lines = [{"step": step, "return": float(step)} for step in range(3 * POINTS)] + [{"step": 0, "return": 7.0}]
    line = band([written(tmp_path, "long", lines)], "return")
    assert line is not None
    assert len(line.steps) == POINTS
    assert (line.steps[0], line.steps[-1]) == (0.0, 3 * POINTS - 1)
    assert line.mean[0] == 7.0


def test_what_is_no_finite_number_is_left_out(tmp_path):
    run = written(tmp_path, "odd", [
        {"step": 1, "a": None, "b": True, "c": "x", "d": 1}, {"step": 2, "stage": "gan", "loss": 0.5},
    ])  # fmt: skip
    (tmp_path / "odd" / "metrics.jsonl").open("a").write('{"step": 3, "seconds": 1, "e": NaN}\n{"torn')
    assert curves_of(run.folder) == {
        "seconds": Curve([1.0, 3.0], [1.0, 1.0]), "d": Curve([1.0], [1.0]), "gan/seconds": Curve([2.0], [1.0]),
        "gan/loss": Curve([2.0], [0.5]),
    }  # fmt: skip


def test_a_score_has_one_name_whatever_version_recorded_it(tmp_path):
    lines = [{"step": 1, "eval/target": 1.0, "eval/total": 3.0, "eval/diversity": 4.0, "eval/unique": 5.0}]
    lines += [{"step": 2, "eval/score/target": 2.0, "eval/total": 6.0, "score/target": 0.5}]
    found = curves_of(written(tmp_path, "old", lines).folder)
    assert found.keys() == {
        "seconds",
        "score/target",
        "eval/score/target",
        "eval/total",
        "eval/diversity",
        "eval/unique",
    }
    assert found["eval/score/target"] == Curve([1.0, 2.0], [1.0, 2.0])


def test_samples_stand_beside_the_nearest_training_pictures(runs, rlgen, tmp_path):
    real = torch.randint(256, (50, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([7, 3, 41])
    near = (real[wanted].int() + 2).clamp(max=255).to(torch.uint8)
    assert torch.equal(nearest(near, real)[1], wanted)
    assert rlgen("report", f"run={runs['drawing']}", "out=page.html", "nearest=6")[0] == 0
    (run,) = data_of((tmp_path / "page.html").read_text())["runs"]
    sheet = Image.open(io.BytesIO(base64.b64decode(run["made"]["nearest"].partition(",")[2])))
    assert sheet.width > sheet.height


def test_melodies_stand_beside_the_nearest_training_melodies(runs, rlgen, tmp_path):
    assert rlgen("report", f"run={runs['melody']}", "out=song.html")[0] == 0
    (run,) = data_of((tmp_path / "song.html").read_text())["runs"]
    sheet = Image.open(io.BytesIO(base64.b64decode(run["made"]["nearest"].partition(",")[2])))
    opened = rlgen_cli.open(runs["melody"])
    made = opened.sample(16).view.sample[:4]  # those that the run itself has left
    real = opened.session.data.train  # type: ignore[union-attr]
    differing = (made.unsqueeze(1) != real.tokens).any(3).sum(2)
    share, index = SequenceNovelty(real=real, limit=len(real.tokens)).nearest(made)
    assert torch.equal(differing.gather(1, index.unsqueeze(1)).squeeze(1), differing.amin(1))
    torch.testing.assert_close(share, differing.amin(1) / made.shape[1])
    shown = medium(opened.env)
    assert isinstance(shown, MusicMedium)
    pairs = torch.stack([made, real.tokens[index]], 1).flatten(0, 1)
    wanted = roll_grid(shown.pieces(pairs), columns=4, voices=shown.voices)
    assert np.array_equal(np.asarray(sheet), wanted.permute(1, 2, 0).numpy())


def test_the_most_telling_metrics_come_first(runs):
    names = metric_names([read_run(runs["drawing"])])
    assert names[:3] == ["return", "eval/total", "eval/diversity"]
    assert names[-2:] == ["seconds", "steps_per_second"]


def test_many_runs_are_found_below_a_pattern(runs, rlgen, tmp_path):
    folder = runs["drawing"].parent
    assert len(read_runs(None, str(folder))) == 4
    assert len(read_runs(None, [str(folder / "dr*"), str(folder / "drawing")])) == 1
    assert rlgen("report", f"runs={folder}", "shown=1")[0] == 0
    found = data_of((tmp_path / "report.html").read_text())
    assert [bool(run["made"]) for run in found["runs"]] == [True, False, False, False]
    with pytest.raises(UserError, match="runs: there is no run's folder at nowhere"):
        read_runs(None, "nowhere")


def test_an_unfinished_run_has_a_page(tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("seed: 1\n")
    found = data_of(page(seen([read_run(tmp_path / "begun")], 1)))
    assert found["runs"][0]["status"] == "unknown"
    assert found["panels"] == []


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_curves_for_a_paper(suffix, runs, rlgen, tmp_path):
    code, out, _ = rlgen("plot", f"runs={runs['drawing'].parent}", "y=[return,eval/total]", f"out=made/curves.{suffix}")
    assert (code, out) == (0, f"plot: made/curves.{suffix}\n")
    content = (tmp_path / "made" / f"curves.{suffix}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "png":
        assert Image.open(tmp_path / "made" / "curves.png").size == (1800, 600)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plot", "y=nothing"], "y: no run has recorded nothing; there are return, "),
        (["plot", "out=curves.jpg"], "out: must end in .png, .svg, .pdf, got curves.jpg."),
        (["report", "shown=-1"], "shown: must be at least 0, got -1."),
        (["report", "nearest=-1"], "nearest: must be at least 0, got -1."),
        (["watch", "port=70000"], "port: must be 0 to 65535, got 70000."),
    ],
)  # fmt: skip
def test_bad_words_are_named(words, said, runs, rlgen):
    code, _, err = rlgen(words[0], f"run={runs['drawing']}", *words[1:])
    assert code == 2
    assert said in err


def test_without_plotly_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"pip install 'rlgen\[report\]'"):
        pages.plotly_script()


def test_what_a_stranger_writes_stays_text(tmp_path):
    folder = tmp_path / "<b>run<b>"
    folder.mkdir()
    evil = "</script><script>alert(1)</script>"
    (folder / "config.yaml").write_text(json.dumps({"seed": 1, "note": evil}))
    (folder / "environment.json").write_text(json.dumps({"command": evil}))
    text = page(seen([read_run(folder)], 1))
    assert evil not in text
    assert "<b>run<b>" not in text
    assert data_of(text)["runs"][0]["facts"]["command"] == evil


@pytest.mark.parametrize(
    "wrong",
    [
        "no xml", "<svg/>",
        '<svg xmlns="http://www.w3.org/2000/svg"><svg width="9"><rect fill="red"/><g/></svg></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><svg width="9"><rect fill="#000000"/><g>'
        '<path d="M0 0" stroke="url(x)" stroke-width="1"/></g></svg></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><svg width="9"><rect fill="#000000"/><g><script>1</script></g></svg></svg>',
    ],
    ids=["text", "empty", "a colour by name", "another path", "a script"],
)  # fmt: skip
def test_only_drawings_of_ours_are_shown(wrong, tmp_path):
    (tmp_path / "000.svg").write_text(wrong)
    assert drawing(tmp_path / "000.svg") is None


def test_a_damaged_melody_is_left_out(tmp_path):
    (tmp_path / "000.mid").write_bytes(b"MThd but not really")
    assert melody(tmp_path / "000.mid") is None


def test_the_live_page_is_for_this_machine_alone():
    asked = []

    def data() -> str:
        asked.append(1)
        return json.dumps({"title": "a run", "n": len(asked)})

    with server(data, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        assert serving.server_address[0] == "127.0.0.1"
        home = f"http://127.0.0.1:{serving.server_address[1]}"
        text = urllib.request.urlopen(f"{home}/").read().decode()
        assert "connect-src 'self'" in text
        assert "const LIVE = true;" in text
        assert json.loads(urllib.request.urlopen(f"{home}/data.json").read())["n"] == 2  # asked anew
        stranger = urllib.request.Request(f"{home}/data.json", headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(stranger)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{home}/config.yaml")
        with pytest.raises(UserError, match=r"port: \d+ cannot be listened at"):
            server(data, serving.server_address[1])
        serving.shutdown()
