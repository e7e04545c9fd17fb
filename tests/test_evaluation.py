"""Numbers of sets of samples by hand: music statistics, distances to a corpus, novelty, and the scripted baselines."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from rlgen_cli.agents.planners.best_of import BestOf
from rlgen_cli.agents.planners.cem import CEM
from rlgen_cli.config.compose import composed
from rlgen_cli.core.specs import EnvSpec, SequenceSpec, View
from rlgen_cli.domains.music.encodings import Chorale, Melody, MusicEncoding, Notes
from rlgen_cli.domains.music.statistics import LENGTHS, features, lengths, rl_tuner_statistics
from rlgen_cli.evaluation.distances import density, divergence, from_corpus, overlap, scott
from rlgen_cli.evaluation.novelty import nearest, nearest_known
from rlgen_cli.evaluation.real import real_view
from rlgen_cli.runs.baselines import asked, env_steps, settings
from rlgen_cli.runs.evaluate_run import evaluate_run
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.trainer import train
from tests.conftest import session, small, write_chorales

LOW = 48
CODE = {name: code for code, name in enumerate("C.D.EF.G.A.B", 14)}  # of the octave from middle C
REST, HOLD = 0, 1


def spec_of(encoding: MusicEncoding, length: int) -> EnvSpec:
    sample = SequenceSpec(length, encoding.vocabulary, encoding, 8)
    return EnvSpec({}, action=None, sample=sample, max_steps=length, kinds=encoding.kinds)  # type: ignore[arg-type]


def melody(*rows: list[int]) -> tuple[View, EnvSpec]:
    tokens = torch.tensor(rows).unsqueeze(2)
    spec = spec_of(Melody(low=LOW, high=83, grid=1), tokens.shape[1])
    return View(tokens, {}, {"num_tokens": torch.full((len(rows),), tokens.shape[1])}), spec


def test_features_of_a_melody_by_hand():
    """C for two steps, G for two, C, a rest, C# for two: 60, 67, 60, 61."""
    view, spec = melody([CODE["C"], HOLD, CODE["G"], HOLD, CODE["C"], REST, CODE["C"] + 1, HOLD])
    found = {name: rows[0].tolist() for name, rows in features(view.sample, spec).items()}
    assert found["pitch_count"] == [3.0]
    assert found["pitch_classes"] == [0.5, 0.25, *[0.0] * 5, 0.25, *[0.0] * 4]
    assert found["pitch_range"] == [7.0]
    assert found["pitch_interval"] == [pytest.approx((7 + 7 + 1) / 3)]
    assert found["note_count"] == [4.0]
    assert found["inter_onset"] == [2.0]  # steps 0, 2, 4, 6
    assert found["note_lengths"] == [0.25, 0.75, *[0.0] * 6]
    moves = {0 * 12 + 7: 1 / 3, 7 * 12 + 0: 1 / 3, 0 * 12 + 1: 1 / 3}
    assert found["pitch_transitions"] == pytest.approx([moves.get(i, 0.0) for i in range(144)])
    moves = {1 * 8 + 1: 1 / 3, 1 * 8 + 0: 1 / 3, 0 * 8 + 1: 1 / 3}  # an eighth is LENGTHS[1], a sixteenth LENGTHS[0]
    assert found["length_transitions"] == pytest.approx([moves.get(i, 0.0) for i in range(64)])


def test_a_piece_without_notes_has_features_of_zero():
    view, spec = melody([REST] * 8)
    assert all(rows.abs().sum() == 0 for rows in features(view.sample, spec).values())


def test_lengths_are_told_apart_by_their_ratio():
    """Notes of 5 and 7 sixteenths count as a dotted quarter (6) and a half (8): √(4·6) < 5 and √(6·8) < 7."""
    encoding = Notes(low=48, high=83, longest=16, dynamics=4)
    tokens = torch.tensor([[[10, 4, 0], [11, 6, 0], [0, 3, 0], [12, 15, 0], *[[0, 0, 0]] * 5]])
    roll = encoding.roll(tokens)  # 5, 7, a rest of 4, 16: none is cut
    assert lengths(roll)[roll.onset].tolist() == [5, 7, 16]
    shares = features(tokens, spec_of(encoding, 9))["note_lengths"][0].tolist()
    assert [length for length, share in zip(LENGTHS, shares, strict=True) if share] == [6, 8, 16]


def test_transitions_stay_in_their_voice():
    """Two voices: C then D above, C then C below: no note of one follows a note of the other."""
    encoding = Chorale(ranges=[[60, 79], [48, 67]], grid=1)
    high, low = 60 - 48 + 2, 2
    tokens = torch.tensor([[high, low, high + 2, low]]).unsqueeze(2)
    found = features(tokens, spec_of(encoding, 4))
    moves = found["pitch_transitions"][0]
    assert (float(moves[0 * 12 + 2]), float(moves[0])) == (0.5, 0.5)
    assert float(found["pitch_interval"]) == 1.0
    assert float(found["note_count"]) == 4.0


def test_rl_tuners_rows_by_hand():
    """Of two melodies of eight steps one is all C, the other C, F#, C, D, E, F, G, B."""
    view, spec = melody([CODE["C"]] * 8, [CODE["C"], CODE["F"] + 1, *(CODE[name] for name in "CDEFGB")])
    found = rl_tuner_statistics(view, spec, tonic=60)
    assert found["repeated_too_often"] == pytest.approx(3 / 16)  # the sixth C and later stand more than four times
    assert found["not_in_key"] == pytest.approx(1 / 16)
    assert found["starts_with_tonic"] == 1.0
    assert found["unique_highest"] == found["unique_lowest"] + 0.5 == 0.5  # the B stands once; both Cs stand twice
    assert found["in_motif"] == pytest.approx(1 / 16)  # the last step of the second: eight steps, seven notes
    assert found["in_repeated_motif"] == 0.0
    assert found["leaps_resolved"] == 0.0  # no interval is as large as a fifth, so that there is no leap
    codes = torch.tensor([0.0, 6, 0, 2, 4, 5, 7, 11]) - 35 / 8
    assert found["autocorrelation_2"] == pytest.approx(float((codes[2:] * codes[:-2]).sum() / codes.square().sum()))


def test_densities_and_what_they_share_by_hand():
    at = torch.linspace(-8, 10, 4001, dtype=torch.double)
    p, q = density(torch.tensor([0.0]), at, 1.0), density(torch.tensor([2.0]), at, 1.0)
    step = float(at[1] - at[0])
    assert float(p.max()) / step == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-3)
    # Two normal densities two deviations apart share 2 Φ(−1), and KL is (2 − 0)² / 2.
    assert overlap(p, q) == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=1e-3)
    assert divergence(p, q) == pytest.approx(2.0, abs=1e-3)
    assert overlap(p, p) == pytest.approx(1.0)
    assert divergence(p, p) == pytest.approx(0.0)
    both = density(torch.tensor([0.0, 2.0]), at, 1.0)
    torch.testing.assert_close(both, (p + q) / 2)
    assert scott(torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0])) == pytest.approx(math.sqrt(10) * 5**-0.2)


def test_a_set_like_its_corpus_overlaps_with_it():
    rng = torch.Generator().manual_seed(0)
    corpus, like, unlike = (torch.randn(100, 3, generator=rng) + shift for shift in (0, 0, 20))
    area, kl = from_corpus(like, corpus)
    assert area > 0.9
    assert kl < 0.05
    area, kl = from_corpus(unlike, corpus)
    assert area < 0.01
    assert kl > 5
    assert from_corpus(torch.ones(5, 1), torch.ones(6, 1)) == (1.0, 0.0)
    same = from_corpus(torch.full((5, 1), 3.0), torch.ones(6, 1))  # all distances within are 0, all across 2
    assert same[0] < 1e-6


def test_the_nearest_by_hand():
    made, real = torch.tensor([[0.0, 0.0], [5.0, 5.0]]), torch.tensor([[3.0, 4.0], [9.0, 9.0], [5.0, 5.0]])
    away, index = nearest(made, real)
    assert away.tolist() == [5.0, 0.0]
    assert index.tolist() == [0, 2]
    seen, known = torch.tensor([[[[1.0, 0.0]]]] * 2), torch.tensor([[[[True, False]]], [[[False, False]]]])
    pictures = torch.tensor([[[[1.0, 1.0]]], [[[0.8, 0.0]]]])
    assert nearest_known(seen, known, pictures).tolist() == [0, 1]  # by what is known; by all where nothing is
    assert nearest_known(seen, None, pictures).tolist() == [1, 1]


def test_real_data_is_drawn_from_all_of_a_split():
    built = session(*small("env=pixel", "agent=random"), "data.per_class=20")
    assert built.data is not None
    data = built.data.train
    one, other = (real_view(built.envs["train"], data, 40, seed) for seed in (0, 1))
    assert one is not None
    assert other is not None
    assert not torch.equal(one.sample, other.sample)
    rows = {row.numpy().tobytes() for row in data.images.float() / 255}
    assert all(row.numpy().tobytes() in rows for row in one.sample)
    found = [int((data.images.float() / 255 == row).flatten(1).all(1).nonzero()[0]) for row in one.sample]
    assert max(found) > len(data.images) // 2  # the data lies label by label


def evaluated(run: Path, *words: str) -> dict:
    return json.loads(evaluate_run(composed("eval", [f"run='{run}'", "n=60", "updates=3", *words])).read_text())


def test_baselines_at_their_budgets(tmp_path):
    train(session(*small("env=pixel", "brush=stroke", "reward=target", "agent=random")), tmp_path / "run")
    record = evaluated(tmp_path / "run", "baselines=all", "budget=8")
    columns = record["columns"]
    assert list(columns) == ["samples", "real", "random", "best_of", "cem", "nearest"]
    assert record["left_out"] == [
        "baseline greedy: cannot act here, where an action is a continuous action of 9 numbers."
    ]
    assert columns["random"] == {"n": 60, "env_steps": 6, "network_passes": 0}
    assert columns["best_of"]["env_steps"] == columns["cem"]["env_steps"] == 6 * (8 + 1)
    score = record["numbers"]["score/target"]
    assert score["samples"] < score["best_of"]
    assert score["random"] < score["cem"]
    assert score["nearest"] > score["random"]
    assert score["real"] == 0.0
    assert record["numbers"]["novelty_pixels"]["nearest"] == 0.0


def test_a_policys_cost_is_counted(tmp_path):
    train(session(*small("env=pixel", "reward=coverage", "agent=actor_critic")), tmp_path / "run")
    record = evaluated(tmp_path / "run", "baselines=[nearest,greedy,cem]")
    assert record["columns"]["samples"] == {"n": 60, "env_steps": 6, "network_passes": 6}
    assert list(record["columns"]) == ["samples", "real", "greedy"]
    assert [line.partition(":")[0] for line in record["left_out"]] == ["baseline cem", "baseline nearest"]
    assert "no target picture" in record["left_out"][1]
    assert evaluated(tmp_path / "run", "baselines=[]")["columns"].keys() == {"samples", "real"}


def test_what_a_search_may_spend_is_what_it_is_given():
    assert (settings("best_of", 1024)["samples"], settings("best_of", 1024)["rounds"]) == (64, 16)
    assert (settings("cem", 1024)["samples"], settings("cem", 1024)["rounds"]) == (64, 16)
    assert (settings("cem", 4)["samples"], settings("cem", 4)["rounds"], settings("cem", 4)["elite"]) == (4, 1, 4)
    assert "rounds" not in settings("greedy", 10)
    built = session(*small("env=pixel", "brush=stroke", "reward=target", "agent=cem"))
    assert isinstance(built.actor, CEM)
    assert env_steps(built.actor, built.envs["test"]) == 6 * (4 * 2 + 1)
    assert not isinstance(built.actor, BestOf)


def test_baselines_by_name():
    assert asked("all") == (["random", "greedy", "best_of", "cem", "nearest"], False)
    assert asked("auto")[1]
    assert asked(["nearest", "random"]) == (["random", "nearest"], False)
    assert asked("greedy") == (["greedy"], False)
    assert asked(None) == ([], False)


def test_a_learned_term_scores_as_at_the_checkpoint(tmp_path):
    built = session(*small("env=pixel", "reward=adversarial", "agent=actor_critic"))
    train(built, tmp_path / "run")
    call = composed("eval", [f"run='{tmp_path / 'run'}'", "n=8", "updates=3"])
    opened = open_run(call).session
    view = real_view(opened.envs["test"], opened.data.test, 8, 0)  # type: ignore[union-attr]
    assert view is not None
    one, other = (found.reward.terms["adversarial"].score(view) for found in (built, opened))
    torch.testing.assert_close(one, other)
    for folder in (tmp_path / "run" / "checkpoints").glob("*/training"):
        shutil.rmtree(folder)
    assert "adversarial" not in open_run(call).session.reward.terms
    assert "score/adversarial" not in evaluated(tmp_path / "run", "baselines=[random]")["numbers"]


def test_a_term_is_not_taken_for_another_number_of_its_name(tmp_path):
    """The term `diversity` is of features, the number `diversity` of pixels."""
    train(session(*small("env=latent_gan", "reward=diversity", "agent=random"), "data.per_class=20"), tmp_path / "run")
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    shown = next(line for line in reversed(last) if "eval/total" in line)
    assert shown["eval/score/diversity"] != shown["eval/diversity"]
    numbers = evaluated(tmp_path / "run")["numbers"]
    assert numbers["score/diversity"]["samples"] != numbers["diversity"]["samples"]


@pytest.mark.parametrize(
    ("words", "there", "missing"),
    [
        (["env=music", "encoding=notes"], "overlap/note_lengths", "rl_tuner/in_motif"),
        (["env=music", "encoding=chorale", "data=jsb", "reward=harmony"], "overlap/pitch_range", "rl_tuner/in_motif"),
        (["env=music", "data=text", "encoding=tokens", "reward=sequence_novelty"], "copies", "groove"),
        (["env=latent_music", "reward=groove"], "rl_tuner/in_motif", "frechet"),
        (["env=tiny"], "unique", "frechet"),
    ],
    ids=["notes", "chorales", "text", "a generator of melodies", "no data"],
)
@pytest.mark.slow
def test_every_kind_of_sample_is_compared(words, there, missing, tmp_path):
    """With the numbers that it can have, of samples and (where there are any) of real data."""
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog " * 99)
    more = {"data=text": ["data.path=text.txt"], "data=jsb": ["env.bar=16", "data.path=jsb.json"]}
    write_chorales(Path("jsb.json"), 400)
    data = next((word for word in words if word in more), None)
    given = [word for word in small(*words, "agent=random") if data is None or not word.startswith("data.")]
    train(session(*given, *more.get(str(data), [])), tmp_path / "run")
    record = evaluated(tmp_path / "run")
    assert there in record["numbers"]
    assert missing not in record["numbers"]
    assert ("real" in record["columns"]) == (words != ["env=tiny"])
