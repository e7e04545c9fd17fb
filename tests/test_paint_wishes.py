"""What `rlgen paint` moves strokes towards beside the likeness: a style, a text, what is shown."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from rlgen_cli.config.compose import composed
from rlgen_cli.config.locate import choices
from rlgen_cli.core.specs import View
from rlgen_cli.runs.paint import opened
from rlgen_cli.runs.wishes import Wishes, wished
from tests.combinations import outcome, wrong
from tests.conftest import write_clip
from tests.test_paint import cat, painter  # noqa: F401

QUICK = ["strokes=30", "width=64", "refine=25", "format=png"]


def picture(folder):
    made = Image.open(folder / "my cat.png").convert("RGB")
    return torch.from_numpy(np.asarray(made).copy()).permute(2, 0, 1).unsqueeze(0).float() / 255


@pytest.fixture
def stripes(tmp_path):
    """Black and yellow, of three pixels each."""
    dark = (np.arange(64) // 3 % 2 == 0)[None, :, None] & np.ones((64, 1, 1), bool)
    Image.fromarray(np.where(dark, [0, 0, 0], [255, 230, 0]).astype(np.uint8)).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"


def score(name, run, words, sample, target):
    """A term's score of a picture."""
    config = composed("paint", ["files=x", f"run={run}", *words])
    wishes = Wishes({name: wished(config)[name]}, opened(config, 24))
    wishes.of_side(min(sample.shape[2:]))
    (((_, scored),),) = wishes.built.values()
    return float(scored(View(sample, {"target": target}, {})))


def test_a_finish_in_a_style_comes_nearer_to_it(painter, cat, stripes, rlgen, tmp_path):  # noqa: F811
    style = [f"style={stripes}", "terms.style.weight=0.2", "terms.style.updates=4"]
    for out, words in (("plain", []), ("styled", style)):
        code, _, error = rlgen("paint", str(cat), f"run={painter}", *QUICK, f"out={out}", *words)
        assert code == 0, error
    plain, styled = picture(tmp_path / "plain"), picture(tmp_path / "styled")
    before, after = (score("style", painter, style, made, plain) for made in (plain, styled))
    assert after > before + 0.05


def test_likeness_of_what_is_shown_may_be_mixed_in(painter, cat, rlgen, tmp_path):  # noqa: F811
    mixed = ["terms.perceptual.weight=0.1", "terms.perceptual.updates=4"]
    for out, words in (("plain", []), ("mixed", mixed)):
        code, _, error = rlgen("paint", str(cat), f"run={painter}", *QUICK, f"out={out}", *words)
        assert code == 0, error
    target = torch.from_numpy(np.asarray(Image.open(cat).resize((64, 43), Image.Resampling.LANCZOS)).copy())
    target = target.permute(2, 0, 1).unsqueeze(0).float() / 255
    before, after = (score("perceptual", painter, mixed, picture(tmp_path / out), target) for out in ("plain", "mixed"))
    assert after > before


def test_a_text_moves_the_strokes(painter, cat, rlgen, tmp_path):  # noqa: F811
    pytest.importorskip("transformers", reason="needs rlgen[clip]")
    write_clip(tmp_path / "clip")
    text = ["prompt=star", f"terms.clip.model={tmp_path / 'clip'}", "terms.clip.weight=1"]
    for out, words in (("plain", []), ("wished", text)):
        code, _, error = rlgen("paint", str(cat), f"run={painter}", *QUICK, f"out={out}", *words)
        assert code == 0, error
    plain, made = picture(tmp_path / "plain"), picture(tmp_path / "wished")
    before, after = (score("clip", painter, text, shown, plain) for shown in (plain, made))
    assert after > before


@pytest.fixture(scope="module")
def session(painter):  # noqa: F811
    return opened(composed("paint", ["files=x", f"run={painter}"]), 24)


# A style and a text are wished for above.
@pytest.mark.parametrize("term", [name for name in choices("reward/term") if name not in ("style", "clip")])
def test_each_score_is_taken_or_refused_in_a_sentence(term, session):
    """Of a picture there is its target, and nothing else."""
    added = "terms.perceptual.weight=0.1" if term == "perceptual" else f"+reward/term@terms.{term}={term}"
    config = composed("paint", ["files=x", added])
    if "updates" in config.terms[term]:
        config.terms[term].updates = 4  # features take a minute to fit

    def scored():
        made = torch.rand(2, 3, 32, 32, requires_grad=True)
        wish = Wishes(wished(config), session).of_side(32)
        assert wish is not None
        assert wish(made, torch.rand(2, 3, 32, 32)).shape == (2,)

    assert wrong(outcome(scored)) is None


WRONG = {
    "style=nowhere.png": r"terms\.style\.reference: .*nowhere\.png",
    "style=cat.png refine=0": r"refine: must be above 0, since terms\.style counts in the finish alone\.",
    "terms.style.weight=-1": r"terms\.style\.weight: must be a number from 0 to",
    "+reward/term@terms.jpeg_size=jpeg_size": r"terms\.jpeg_size: has no gradient, which the finish needs; take it out\.",
}


@pytest.mark.parametrize("words", WRONG)
def test_wishes_that_cannot_be_are_said(words, painter, cat, rlgen, tmp_path):  # noqa: F811
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    code, _, error = rlgen("paint", str(cat), f"run={painter}", "strokes=9", "width=48", *words.split())
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(WRONG[words], error), error
