"""Films, as a player reads them."""

import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import rlgen_cli
from rlgen_cli.evaluation.media.pictures import timed
from rlgen_cli.evaluation.media.video import FILMS, write_film
from tests.conftest import small

av = pytest.importorskip("av")


def frames(path):
    """A film's pictures [T, H, W, 3], and its frames a second."""
    with av.open(str(path)) as film:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
        return shown, film.streams.video[0].average_rate


def heard(path):
    """A film's sound as samples at its rate."""
    with av.open(str(path)) as film:
        parts = [frame.to_ndarray().reshape(-1) for frame in film.decode(audio=0)]
        return np.concatenate(parts), film.streams.audio[0].rate


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_shows_its_frames_and_is_the_same_each_time(kind, tmp_path):
    """Greys that rise by five a frame; sides that are odd get another row and column."""
    given = [torch.full((3, 21, 15), 5 * i, dtype=torch.uint8) for i in range(30)]
    for name in ("a", "b"):
        write_film(tmp_path / f"{name}.{kind}", iter(given), 12)
    shown, rate = frames(tmp_path / f"a.{kind}")
    assert shown.shape == (30, 22, 16, 3)
    assert rate == 12
    assert np.abs(shown.astype(int) - 5 * np.arange(30).reshape(-1, 1, 1, 1)).max() <= 3
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_is_heard(kind, tmp_path):
    still, rate = torch.zeros(3, 16, 16, dtype=torch.uint8), 22050
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    write_film(tmp_path / f"a.{kind}", [still] * 50, 25, (tone, rate))
    assert len(frames(tmp_path / f"a.{kind}")[0]) == 50
    sound, rate = heard(tmp_path / f"a.{kind}")
    assert rate == 48000
    assert len(sound) / rate == pytest.approx(2, abs=0.05)
    assert np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound) == pytest.approx(440, abs=1)


def test_steps_are_spread_evenly_over_the_seconds():
    """Two seconds of 4 frames: of three steps 2, 3 and 3 frames, and of 16 every second one; then a rest of 1.5 s."""
    assert list(timed(iter("abc"), 3, 2.0, 4)) == list("aabbbccc") + ["c"] * 6
    assert list(timed(iter(range(16)), 16, 2.0, 4)) == [*range(1, 16, 2)] + [15] * 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film") / "run"
    rlgen_cli.train(*small("env=pixel", "brush=pen", "agent=random", "reward=target"), folder=folder)
    return folder


def test_a_drawing_is_filmed_as_sharp_as_it_is_asked_for(run, rlgen, tmp_path):
    words = ["sample", f"run={run}", "format=[png,mp4]", "film.fps=10", "film.seconds=1"]
    assert rlgen(*words, "n=1", "scale=8", "out=one")[0] == 0
    shown, rate = frames(tmp_path / "one" / "timelapse.mp4")
    assert shown.shape == (25, 96, 96, 3)
    assert rate == 10
    assert shown[0].max() < 20  # nothing is drawn yet
    with Image.open(tmp_path / "one" / "000.png") as png:
        assert np.abs(shown[-1].astype(int) - np.asarray(png.convert("RGB"), int)).mean() < 2
    assert rlgen(*words, "n=3", "columns=3", "scale=4", "out=three")[0] == 0
    # Three pictures of 48 pixels, and two pixels of the canvas around each.
    assert frames(tmp_path / "three" / "timelapse.mp4")[0].shape[1:3] == (2 * 8 + 48, 4 * 8 + 3 * 48)
    assert rlgen(*words, "n=1", "out=plain")[0] == 0
    assert frames(tmp_path / "plain" / "timelapse.mp4")[0].shape[1:3] == (480, 480)  # large enough to be seen


def test_without_pyav_it_says_what_to_install(run, rlgen, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = rlgen("sample", f"run={run}", "n=1", "format=webm", "out=none")
    assert code == 2
    assert "format: mp4 and webm are written with PyAV; pip install 'rlgen[video]'." in err
    assert not (tmp_path / "none").exists()


def test_a_rate_that_cannot_be(run, rlgen):
    code, _, err = rlgen("sample", f"run={run}", "film.fps=0")
    assert code == 2
    assert "film.fps: must be a whole number from 1 to 120, got 0." in err


def test_music_is_filmed_with_its_sound(rlgen, tmp_path):
    """The roll as the PNG has it, but for the line; a film as long as the wav."""
    words = ["env=music", "encoding=chorale", "agent=random", "reward=harmony"]
    rlgen_cli.train(*small(*words), folder=tmp_path / "run")
    words = ["sample", f"run={tmp_path / 'run'}", "n=1", "format=[png,wav,mp4,webm]", "film.fps=10", "tempo=60"]
    assert rlgen(*words, "out=song")[0] == 0
    with wave.open(str(tmp_path / "song" / "000.wav")) as wav:
        seconds = wav.getnframes() / wav.getframerate()
    with Image.open(tmp_path / "song" / "000.png") as png:
        roll = np.asarray(png.convert("RGB"), int)
    for kind in FILMS:
        shown, _ = frames(tmp_path / "song" / f"000.{kind}")
        assert len(shown) == round(10 * seconds)
        assert np.abs(shown[5, : roll.shape[0], : roll.shape[1]].astype(int) - roll).mean() < 4
        assert not np.array_equal(shown[0], shown[-1])
        sound, rate = heard(tmp_path / "song" / f"000.{kind}")
        assert len(sound) / rate == pytest.approx(seconds, abs=0.1)
        assert np.abs(sound).max() > 0.3
