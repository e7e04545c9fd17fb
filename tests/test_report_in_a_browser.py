"""The page, and an animated drawing, in a real browser: Chromium, where it is installed (CI installs it)."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlgen_cli.domains.canvas.svg import Timing, write_svg
from rlgen_cli.report.page import page, seen
from rlgen_cli.report.read import read_run, read_runs
from tests.test_drawings import CURVE, DOT, LINE, drawing
from tests.test_report_page import runs  # noqa: F401

playwright = pytest.importorskip("playwright.sync_api")
ASKED = os.environ.get("RLGEN_TEST_BROWSER")  # CI asks for one, and fails without
CHROMIUM = shutil.which(ASKED or "chromium") or ASKED
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: make system"),
]
SHOWN = "figure => [...figure.querySelectorAll('svg path')].filter((path) => path.style.display !== 'none').length"
# Every SVG in an SVG has a clock of its own.
STOPPED = "at => document.querySelectorAll('svg').forEach((svg) => { svg.pauseAnimations(); svg.setCurrentTime(at) })"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page with what its console said, and what it asked of others."""

    def __init__(self, chromium, path, **context):
        self.page = chromium.new_context(**context).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("section")

    def _hear(self, message):
        """Errors and warnings, but for those of a driver that draws without a graphics card."""
        if message.type in ("error", "warning") and not message.text.startswith("[.WebGL"):
            self.said.append(message.text)

    def check(self) -> None:
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def saved(tmp_path: Path, folders: list[Path]) -> Path:
    found = [read_run(folder) for folder in folders]
    path = tmp_path / "report.html"
    path.write_text(page(seen(found, 2)))
    return path


def test_a_drawing_is_scrubbed_and_played(chromium, runs, tmp_path):  # noqa: F811
    opened = Opened(chromium, saved(tmp_path, [runs["drawing"]]))
    first = opened.page.locator("figure[data-drawing]").first
    strokes = first.locator("svg path")
    total = strokes.count()
    assert total > 0
    shown = lambda: first.evaluate(SHOWN)  # noqa: E731
    before = first.screenshot()
    slider = first.locator("input[type=range]")
    slider.fill("0")
    assert shown() == 0
    assert first.screenshot() != before
    slider.focus()
    opened.page.keyboard.press("ArrowRight")  # by the keyboard
    assert shown() == 1
    first.get_by_role("button", name="Play").click()
    first.get_by_role("button", name="Pause").wait_for()
    first.get_by_role("button", name="Play").wait_for()  # the end
    assert shown() == total
    opened.check()


def test_samples_over_the_training_are_leafed_through(chromium, runs, tmp_path):  # noqa: F811
    opened = Opened(chromium, saved(tmp_path, [runs["drawing"]]))
    slider = opened.page.get_by_label("Step of the training")
    image = slider.locator("xpath=ancestor::figure").locator("img")
    newest = image.get_attribute("src")
    slider.fill("0")
    assert image.get_attribute("src") != newest
    assert "80" in slider.locator("xpath=..").locator("output").inner_text()
    opened.check()


def test_a_melody_makes_sound(chromium, runs, tmp_path):  # noqa: F811
    opened = Opened(chromium, saved(tmp_path, [runs["melody"]]))
    loudness = opened.page.evaluate("""async () => {
        const sound = await rendered(DATA.runs[0].made.melodies[0]);
        return [sound.length, Math.max(...sound.map(Math.abs))];
    }""")
    assert loudness[0] > 20_000
    assert 0.05 < loudness[1] <= 1.0
    first = opened.page.locator("figure[data-melody]").first
    first.get_by_role("button", name="Play").click()
    first.get_by_role("button", name="Stop").click()
    assert first.locator("svg rect").count() > 0
    opened.check()


def test_curves_are_drawn_and_all_others_on_request(chromium, runs, tmp_path):  # noqa: F811
    opened = Opened(chromium, saved(tmp_path, [runs["drawing"], runs["again"], runs["other"]]))
    opened.page.wait_for_selector(".plot .scatterlayer .trace")
    few = opened.page.locator(".plot").count()
    opened.page.get_by_text("All other metrics").click()
    opened.page.locator(".plot .scatterlayer").nth(few).wait_for(state="attached")
    opened.check()


def test_the_table_of_runs_is_sorted(chromium, runs, tmp_path):  # noqa: F811
    opened = Opened(chromium, saved(tmp_path, [runs["drawing"], runs["again"], runs["other"]]))
    seeds = lambda: [row.locator("td").nth(3).inner_text() for row in opened.page.locator("#runs-table tbody tr").all()]  # noqa: E731
    header = opened.page.locator("#runs-table").get_by_role("button", name="seed")
    header.click()
    down = seeds()
    header.click()
    assert seeds() == down[::-1] == sorted(down)
    assert len(set(down)) == 2
    opened.check()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_fits_a_phone_in_both_colours(colours, chromium, runs, tmp_path):  # noqa: F811
    path = saved(tmp_path, list(runs.values()))
    opened = Opened(chromium, path, viewport={"width": 390, "height": 844}, color_scheme=colours)
    wide = opened.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[colours]
    opened.check()


def test_nothing_runs_that_a_stranger_wrote(chromium, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    evil = "<img src=x onerror=\"document.title='owned'\">"
    (folder / "config.yaml").write_text('{"seed": 1, "note": "' + evil.replace('"', '\\"') + '"}')
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1, "' + evil.replace('"', '\\"') + '": 1.0}\n')
    path = tmp_path / "report.html"
    path.write_text(page(seen(read_runs(str(folder), None), 1)))
    opened = Opened(chromium, path)
    opened.page.get_by_text("All other metrics").click()
    opened.page.wait_for_timeout(300)
    assert "owned" not in opened.page.title()


@pytest.mark.parametrize("loop", [True, False])
def test_the_strokes_of_an_animated_drawing_appear_in_turn(loop, chromium, tmp_path):
    """At a third, at two thirds and at the end: as the still drawings of one, two and three strokes."""
    strokes, seconds = [LINE, CURVE, DOT], 3.0
    write_svg(tmp_path / "moving.svg", drawing(*strokes), 0, timing=Timing(seconds, loop))
    shown = chromium.new_context(viewport={"width": 100, "height": 100}).new_page()

    def pixels():
        with Image.open(io.BytesIO(shown.screenshot())) as image:
            return np.asarray(image.convert("L"), int)

    for drawn in (1, 2, 3):
        write_svg(tmp_path / "still.svg", drawing(*strokes[:drawn]), 0)
        shown.goto(f"file://{tmp_path / 'still.svg'}")
        still = pixels()
        shown.goto(f"file://{tmp_path / 'moving.svg'}")
        shown.evaluate(STOPPED, drawn * seconds / 3 - (0.0001 if drawn < 3 else -0.5))
        difference = np.abs(pixels() - still)
        assert difference.mean() < 1, f"after {drawn} strokes"
        assert drawn < 3 or loop or difference.max() == 0  # a dash's rim differs a little from a line's
        if drawn == 2:
            shown.evaluate(STOPPED, seconds / 2)
            assert 0 < (pixels() > 0).sum() < (still > 0).sum()  # half of the second stroke
