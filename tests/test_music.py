"""Music: what tokens mean, what rules and scores say by hand-worked examples, and that composing can be learned."""

import json
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from rlgen_cli.agents.backups import NextValues, PriorBackup
from rlgen_cli.agents.maximum_likelihood import tempered
from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Env, TeachesSequences
from rlgen_cli.core.returns import soft_value
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Observation, Transition, View
from rlgen_cli.core.tree import join
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music import scores
from rlgen_cli.domains.music.datasets.melodies import Melodies
from rlgen_cli.domains.music.datasets.midi import MidiFolder
from rlgen_cli.domains.music.datasets.oracle import Oracle
from rlgen_cli.domains.music.datasets.tunes import TUNES
from rlgen_cli.domains.music.datasets.windows import semitones_to_tonic, transposed
from rlgen_cli.domains.music.encodings import Chorale, Melody, Notes, Tokens, pieces, pitch_name, pitch_number
from rlgen_cli.domains.music.environment import Composition, CompositionState
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.domains.music.notes import Note, Piece
from rlgen_cli.domains.music.repetition import Correlation, LongestRepetition, RepeatedFraction
from rlgen_cli.domains.music.theory import RULES, Moment, MusicTheory, correlations
from rlgen_cli.evaluation.evaluate import evaluate
from rlgen_cli.generators.losses import AdversarialLoss, R1R2Penalty
from rlgen_cli.policies.anchor import adopt
from rlgen_cli.policies.distributions import Categorical
from rlgen_cli.policies.note_rnn import note_rnn, note_rnn_weights
from rlgen_cli.policies.policy_network import PolicyNetwork
from rlgen_cli.policies.precision import Precision
from rlgen_cli.rewards.adversarial import Adversarial, FakeSamples
from rlgen_cli.rewards.controller import Controller, Gains
from rlgen_cli.rewards.discriminators import SequenceDiscriminator
from rlgen_cli.rewards.prior import PriorLikelihood
from rlgen_cli.rewards.reward import Term, WeightedSum
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.pretrain import held_out, pretrain
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.trainer import train
from tests.conftest import SHARED, needs_shared, session, slow, small, write_note_rnn, write_oracle, write_tunes
from tests.resuming import resumes

CPU, META = torch.device("cpu"), torch.device("meta")
C, D, E, F, G, A, B = 14, 16, 18, 19, 21, 23, 25  # codes of the octave from middle C
LOW = 48
ENCODINGS: dict[str, Any] = {
    "melody": Melody(low=48, high=83, grid=1),
    "notes": Notes(low=48, high=83, longest=16, dynamics=4),
    "chorale": Chorale(ranges=[[60, 81], [52, 74], [46, 69], [36, 66]], grid=2),
    "tokens": Tokens(low=48, high=83, names=None, separator=" "),
}


def composition(
    encoding: str = "melody", device: torch.device = CPU, split: Literal["train", "test"] = "train", **changes: Any
) -> Composition:
    """An environment of 16 tokens a piece, in bars of 8 sixteenths."""
    chosen: dict[str, Any] = {
        "length": 16, "bar": 8, "tempo": 100.0, "key": "C", "scale": "chromatic", "prime": "random", "given_tokens": 0,
        "harmonise": False, "history": 4, "time_encoding": "fraction",
    } | changes  # fmt: skip
    return Composition(
        data=melodies(encoding, chosen["length"], chosen["bar"]).to(device), split=split, device=device,
        encoding=ENCODINGS[encoding], **chosen,
    )  # fmt: skip


def melodies(encoding: str, length: int = 16, bar: int = 8) -> Splits:
    return Melodies(count=12, bars=8, tonic=0, transpose=[0]).load(ENCODINGS[encoding], length, bar)


def random_action(env: Composition, state: CompositionState, rng: torch.Generator) -> torch.Tensor:
    """One of the allowed ones."""
    mask = env.action_mask(state)
    if mask is None:
        return env.spec.action.sample(len(state.step), rng, env.device)
    return torch.multinomial(mask.float(), 1, generator=rng).squeeze(1)


def finished(tokens: torch.Tensor, **context: torch.Tensor) -> View:
    """What rewards see of whole sequences [N, T, F]."""
    return View(tokens, context, {"num_tokens": torch.full((len(tokens),), tokens.shape[1])})


def values(rule: str, *codes: int, length: int = 32) -> list[float]:
    """What a rule says at each of the given steps."""
    tokens = torch.full((1, length), -1)
    tokens[0, : len(codes)] = torch.tensor(codes)
    found = []
    for step in range(len(codes)):
        at = torch.tensor([step])
        past = torch.arange(length) < step
        known = torch.where(torch.arange(length) <= step, tokens, -1)
        found.append(float(RULES[rule](Moment(known, at, tokens[:, step], past.unsqueeze(0), length, LOW, 60))))
    return [round(value, 4) for value in found]


def test_key():
    assert values("key", 0, 1, C, C + 1, D, E + 2, 37, 2) == [0, 0, 0, -1, 0, -1, 0, 0]


def test_tonic():
    assert values("tonic", C, C, C) == [3, 0, 0]
    end = [D] * 28
    assert values("tonic", *end, C, 1, 1, 0)[28:] == [3, 3, 3, 3]
    assert values("tonic", *end, 1, C, C, C)[28:] == [0, 0, 0, 0]
    assert values("tonic", *end, C, 0, 0, 1)[28:] == [3, 0, 3, 3]


def test_repetition():
    assert values("repetition", C, C, C, C, C, C) == [0] * 5 + [-100]  # the sixth: five stood before
    assert values("repetition", 0, 0, 0, 0) == [0, 0, -100, -100]
    # With a hold between, a note may stand seven times; another note ends the run.
    assert values("repetition", C, 1, C, C, C, C, C, C, C)[-2:] == [0, -100]
    assert values("repetition", C, C, C, C, C, D, C) == [0] * 7
    assert values("repetition", 1, 1, 1, 1, 1, 1) == [0] * 5 + [-100]


def test_autocorrelation():
    codes = [C, E, C, E]  # mean 16: x = −2, 2, −2, 2; variance 4; ρ₁ = −12/4/4, ρ₂ = 8/4/4, ρ₃ = −4/4/4
    rho = correlations(torch.tensor([codes]), torch.tensor([4]))
    assert rho[0].tolist() == pytest.approx([-0.75, 0.5, -0.25])
    assert values("autocorrelation", *codes)[-1] == pytest.approx(-3 * 1.5)
    assert values("autocorrelation", C, C, C) == [0, 0, 0]


def test_motif_and_its_repetition():
    bar = [C, D, E, 1, C, D, E, 1]
    assert values("motif", *bar) == [0] * 7 + [3.0]
    assert values("motif", C, D, E, F, 1, 1, 1, 1)[-1] == pytest.approx(3.3)
    assert values("motif", C, D, 1, 0, C, D, 1, 0)[-1] == 0
    assert values("repeated_motif", *bar, *bar) == [0] * 15 + [4.0]
    assert values("repeated_motif", *bar, G, *bar)[-1] == 4.0
    assert values("repeated_motif", C, D, E, F, 1, 1, 1, 1, C, D, E, F, 1, 1, 1, 1)[-1] == 5.0


def test_intervals():
    assert values("interval", C, G, 1, 0) == [0, 0.5, 1.5, 0.75]  # a fifth from C; hold and rest after the fifth
    assert values("interval", C, E, 1, 0) == [0, 0.75, 0.375, 0.25]  # a third from C; hold and rest after E
    assert values("interval", D, D + 4, D + 4 - 2) == [0, 0.45, 0.4]
    assert values("interval", D, D + 5, D + 5 - 9, D + 5 - 9 + 11, D + 5 - 9 + 11 - 13) == [0, 0.35, 0.25, -1.5, -5]
    assert values("interval", A, A + 7, A + 7 - 12, A + 7 - 12) == [0, 0.1, 0, 0]
    assert values("interval", 1, 0, C) == [0, 0, 0]


def test_leaps():
    up = C + 12
    gentle = [up, up - 2, up - 3, up - 5, up - 7, up - 9, up - 10]
    assert values("leap_resolved", C, *gentle, C) == [0] * 8 + [5.0]  # back where it began, by steps
    assert values("leap_resolved", C, G, C) == [0, 0, 0]  # back at once: no resolution, and none is open any more
    assert values("leap_resolved", C, G, 1, 1, 1, 1, 1, 1, 1, C)[-1] == 5.0  # seven steps later
    assert values("leap_resolved", C, G, 1, 1, 1, 1, 1, 1, C)[-1] == 0.0  # six
    assert values("leap_doubled", C, G, G + 7, G + 14) == [0, 0, -5.0, -5.0]
    assert values("leap_doubled", C, G, C, G) == [0, 0, 0, 0]
    down = [up, C, D, 0, 1, E, G, up - 2]  # a leap down, and nearly back by steps, a rest and a hold
    assert values("leap_resolved", *down) == [0] * 8
    assert values("leap_resolved", *down[:6], 1, G, G + 2, up) == [0] * 9 + [5.0]
    assert values("leap_resolved", *down, C, E, G, up) == [0] * 11 + [5.0]  # a second leap leaves the first one open
    assert values("leap_doubled", *down, C, E, G, up) == [0] * 8 + [-5.0, 0, 0, 0]
    assert values("leap_doubled", 2, 120, 129) == [0, 0, -5.0]  # from the lowest to the highest note of all


def test_a_leap_is_told_from_the_steps_before_alone():
    """Melodies that are judged at different steps together, as each by itself."""
    codes = torch.tensor([[C, G, G + 7, C], [C, G, C + 1, C], [C, G, C, G]]).repeat_interleave(4, 0)
    step = torch.arange(4).repeat(3)
    past = torch.arange(4) < step.unsqueeze(1)
    code = codes.gather(1, step.unsqueeze(1)).squeeze(1)
    found = {"leap_resolved": [0.0] * 7 + [5.0] + [0.0] * 4, "leap_doubled": [0.0, 0.0, -5.0] + [0.0] * 9}
    for rule, expected in found.items():
        assert RULES[rule](Moment(codes, step, code, past, 4, LOW, 60)).tolist() == expected


def test_extremes():
    rest = [D, E] * 14 + [D, E]
    assert values("unique_highest", *rest, C, G)[-1] == 3.0
    assert values("unique_lowest", *rest, C, G)[-1] == 3.0
    assert values("unique_highest", *rest, G, G)[-1] == 0.0
    assert values("unique_lowest", *rest, C, 0)[-1] == 3.0  # a rest is no note
    assert values("unique_highest", *rest[:10]) == [0.0] * 10


def theory(rule: Any, env: Composition) -> MusicTheory:
    return MusicTheory(spec=env.spec, rule=rule, tonic=60)


def test_a_rules_score_is_the_sum_of_its_gains():
    env, rng = composition(length=24), stream(0, "x")
    reward = WeightedSum({
        rule: Term(theory(rule, env), 1.0, "potential") for rule in RULES
    })  # fmt: skip
    state = env.reset(50, rng)
    total = {name: torch.zeros(50) for name in reward.terms}
    for _ in range(24):
        before, state = env.view(state), env.step(state, random_action(env, state, rng))
        after = env.view(state)
        for name, value in reward(before, after, env.done(state)).terms.items():
            total[name] += value
    for name, score in reward.score(env.view(state)).items():
        torch.testing.assert_close(total[name], score, rtol=1e-4, atol=1e-3)


def decoded(encoding: Any, piece: Piece, length: int) -> Piece:
    """A piece encoded and decoded again."""
    tokens = encoding.windows(piece, length)[0].unsqueeze(0)
    return pieces(encoding.roll(tokens), piece.bar, piece.tempo)[0]


TUNE = (Note(0, 4, 60), Note(4, 2, 64), Note(8, 8, 67), Note(16, 4, 67), Note(20, 12, 60))


def test_encodings_give_back_what_they_were_given():
    piece = Piece(TUNE)
    assert decoded(Melody(low=48, high=83, grid=1), piece, 32).notes == tuple(n._replace(velocity=80) for n in TUNE)
    assert decoded(Melody(low=48, high=83, grid=2), piece, 16).notes == tuple(n._replace(velocity=80) for n in TUNE)
    found = decoded(Notes(low=48, high=83, longest=16, dynamics=4), piece, 6)  # five notes and a rest
    assert [n[:3] for n in found.notes] == [*(n[:3] for n in TUNE[:-1]), (20, 4, 60)]  # 6 tokens have 24 sixteenths
    loud = decoded(Notes(low=48, high=83, longest=16, dynamics=4), Piece((Note(0, 4, 60, 120), Note(4, 4, 62, 20))), 2)
    assert [n.velocity for n in loud.notes] == [111, 15]  # the middles of the highest and the lowest quarter
    names = Tokens(low=48, high=83, names=None, separator=" ")
    assert names.text(torch.stack(names.windows(piece, 5)[:1])) == ["C4 E4 G4 G4 C4"]


def test_a_chorale_goes_voice_by_voice():
    encoding = Chorale(ranges=[[60, 81], [52, 74], [46, 69], [36, 66]], grid=2)
    notes = tuple(Note(0, 8, pitch, 80, voice) for voice, pitch in enumerate((72, 64, 55, 48)))
    notes += (Note(8, 8, 74, 80, 0), Note(8, 8, 65, 80, 1), Note(8, 8, 57, 80, 2), Note(8, 8, 50, 80, 3))
    piece = Piece(notes)
    (tokens,) = encoding.windows(piece, 32)
    assert tokens[:8, 0].tolist() == [72 - 34, 64 - 34, 55 - 34, 48 - 34, 1, 1, 1, 1]
    assert decoded(encoding, piece, 32).notes == notes
    allowed = encoding.allowed(frozenset(range(12)))
    assert [(a.nonzero().max() + 34).item() for a in allowed] == [81, 74, 69, 66]


def test_a_note_that_goes_on_starts_anew_in_a_window():
    encoding = Melody(low=48, high=83, grid=1)
    first, second = encoding.windows(Piece((Note(0, 24, 60), Note(24, 8, 62))), 16)
    assert first[:2, 0].tolist() == [C, 1]
    assert second[:2, 0].tolist() == [C, 1]
    assert second[8, 0] == D


def test_pitch_names():
    assert [pitch_name(p) for p in (60, 61, 48)] == ["C4", "C#4", "C3"]
    assert all(pitch_number(pitch_name(p)) == p for p in range(12, 120))
    assert pitch_number("the") is None


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "melody": ("melody", {}),
    "notes": ("notes", {}),
    "chorale": ("chorale", {}),
    "tokens": ("tokens", {}),
    "given": ("melody", {"given_tokens": 4}),
    "scale": ("melody", {"scale": "major", "key": "D"}),
    "harmonise": ("chorale", {"harmonise": True, "prime": "none"}),
    "one_hot": ("melody", {"time_encoding": "one_hot", "history": 16}),
}


def matches_spec(env: Env, seen: Observation) -> bool:
    """Whether an observation of 8 states is what the spec says."""
    spec = env.spec.observation
    return list(seen) == list(spec) and all(
        seen[name].shape == (8, *part.shape) and seen[name].dtype == part.dtype for name, part in spec.items()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant):
    encoding, changes = VARIANTS[variant]
    env, rng = composition(encoding, **changes), stream(0, "x")
    spec, state = env.spec, env.reset(8, rng)
    assert isinstance(env, TeachesSequences)
    assert ("voice" in spec.observation) == (encoding == "chorale")
    for step in range(spec.max_steps + 2):
        seen, view = env.observe(state), env.view(state)
        assert matches_spec(env, seen)
        assert all(0 <= float(seen[name].min()) <= float(seen[name].max()) <= 1 for name in list(seen)[1:])
        assert set(view.context) == set(spec.context)
        assert set(view.info) == set(spec.info)
        assert view.sample.shape == (8, spec.sequence().length, len(spec.sequence().vocabulary))
        assert (view.info["num_tokens"] == min(step, spec.max_steps)).all()
        assert ((view.sample >= 0).all(2).sum(1) == view.info["num_tokens"]).all()
        assert bool(env.done(state).all()) == (step >= spec.max_steps)
        action = random_action(env, state, rng)
        after, again = env.step(state, action), env.step(state, action)
        assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))
        state = after
    if variant in ("given", "harmonise"):
        given = state.given >= 0
        assert given.any()
        assert torch.equal(state.tokens[given], state.given[given])
    if variant == "scale":
        pitch = env.encoding.roll(env.view(state).sample).pitch
        assert set((pitch[pitch >= 0] % 12).tolist()) <= {2, 4, 6, 7, 9, 11, 1}  # D major


def test_what_is_observed_by_hand():
    env = composition("chorale", history=2, bar=4)
    state = env.reset(1, stream(0, "x"))._replace(prime=torch.tensor([[9]], dtype=torch.int16))
    assert env.observe(state)["tokens"].tolist() == [[[-1], [9]]]
    for code in (30, 20, 10, 5, 31):
        state = env.step(state, torch.tensor([code]))
    seen = env.observe(state)  # of the sixth of 16 tokens: four make a step of two sixteenths
    assert seen["tokens"].tolist() == [[[5], [31]]]
    assert seen["time"].tolist() == [[1 - 5 / 16]]
    assert seen["bar_position"].tolist() == [[0.0, 1.0]]  # the second of the two steps of a bar of four sixteenths
    assert seen["voice"].tolist() == [[0.0, 1.0, 0.0, 0.0]]
    one_hot = composition(time_encoding="one_hot")
    state = one_hot.step(one_hot.reset(1, stream(0, "x")), torch.tensor([3]))
    assert one_hot.observe(state)["time"].tolist() == [[0.0, 1.0] + [0.0] * 14]


def test_teacher_states_are_those_that_the_policy_saw():
    env, rng = composition("chorale"), stream(0, "x")
    state, seen = env.reset(3, rng), []
    for _ in range(env.length):
        seen.append(env.observe(state))
        state = env.step(state, random_action(env, state, rng))
    view = env.view(state)
    replayed = env.observe(env.teacher_states(view.sample, view.context["prime"]))
    for name, value in replayed.items():
        assert torch.equal(value, torch.cat([part[name] for part in seen]))


def sequence_scores(env: Composition) -> dict[str, Any]:
    """All scores that this environment can have, the learned ones included."""
    kinds, spec = env.spec.kinds, env.spec
    found: dict[str, Any] = {}
    if "music" in kinds:
        names = ("Tonality", "RatioOfSteps", "ScaleConsistency", "PitchEntropy", "Groove")
        found |= {name: getattr(scores, name)(spec=spec) for name in names}
    if "chorale" in kinds:
        found["harmony"] = scores.Harmony(spec=spec, parallels=1.0, crossings=1.0)
    if "melody" in kinds:
        found |= {rule: theory(rule, env) for rule in RULES}
        found |= {"longest": LongestRepetition(), "repeated": RepeatedFraction()}
        gains = Gains(integral=8.0, proportional=3.0, initial_price=0.0, min_price=None)
        found["controller"] = Controller(
            spec=spec, device=env.device, statistic=Correlation(lag=1), reward=Correlation(lag=1), target=0.0,
            scale=1.0, gains=gains, ema_decay=0.5,
        )  # fmt: skip
    encoding = next(name for name, one in ENCODINGS.items() if one is env.encoding)
    real = melodies(encoding, env.length).train.to(env.device)
    found["novelty"] = scores.SequenceNovelty(real=real, limit=10)
    for kind in ("cnn", "gru"):
        found[kind] = Adversarial(
            spec=spec, real=real, rng=stream(0, kind, env.device), device=env.device, noise_std=0.05, batch_size=8,
            net=partial(SequenceDiscriminator, kind=kind, embed=4, width=8, prefixes=0.5),
            loss=AdversarialLoss(kind="nonsaturating", penalty=R1R2Penalty(weight=0.01, interval=1)), interval=1,
            buffer=partial(FakeSamples, buffer_size=100, recent=10, old_fraction=0.5),
            learning_rate=Linear(1e-3, 1e-3, 1.0),
        )  # fmt: skip
    return found


@pytest.mark.parametrize("kind", ["cnn", "gru"])
@pytest.mark.parametrize("encoding", ["melody", "notes"])
@pytest.mark.parametrize("rows", [2, 40])  # fewer tokens than there are values, and more
def test_tokens_are_judged_as_their_embeddings(rows, encoding, kind):
    """Logits and the gradients of all parameters, of sequences of several lengths."""
    env = composition(encoding, length=8)
    net = SequenceDiscriminator(spec=env.spec, kind=kind, embed=4, width=8, prefixes=0.5)
    length = torch.arange(rows) % 9
    tokens = torch.stack([torch.randint(size, (rows, 8)) for size in env.encoding.vocabulary], 2)
    tokens = tokens.masked_fill(torch.arange(8).view(1, 8, 1) >= length.view(-1, 1, 1), -1)
    logits = net.score(View(tokens, {}, {"num_tokens": length}), None), net(net.embed(tokens), None)
    torch.testing.assert_close(*logits)
    weight = torch.randn(rows)
    for one, other in zip(
        *(torch.autograd.grad(logit @ weight, list(net.parameters())) for logit in logits), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", [CPU, META], ids=str)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.mostly_slow(4)
def test_everything_runs_on_the_device(encoding, device):
    """Also on the meta device, which has no data: nothing may be asked of it on the host, or stay on the CPU."""
    env, rng = composition(encoding, device, given_tokens=2, length=8), stream(0, "x", device)
    made = {name: Term(score, 1.0, "potential") for name, score in sequence_scores(env).items()}
    reward, state, updates = WeightedSum(made), env.reset(8, rng), 0
    for _ in range(2 * env.length + 2):
        assert matches_spec(env, env.observe(state))
        env.action_mask(state)
        action = env.spec.action.sample(8, rng, device)
        after = env.step(state, action)
        done, views = env.done(after), (env.view(state), env.view(after))
        scored = reward(*views, done)
        assert all(value.shape == (8,) and value.device.type == device.type for value in scored.terms.values())
        step = Transition(state, action, scored.total, scored.static, after, done, next_view=views[1])
        for learner in reward.learners().values():
            learner.observe(step)
            updates += bool(learner.update(0.5))
        state = after
    assert updates
    static_score = reward.static_score(views[1])
    assert static_score is not None
    assert static_score.shape == reward.learned_reward(join(*views), done).shape == (8,)
    states = env.teacher_states(views[1].sample.clamp(min=0), views[1].context["prime"])
    assert env.observe(states)["tokens"].device.type == device.type


def view_of(encoding: str, *notes: Note, length: int) -> tuple[View, Composition]:
    env = composition(encoding, length=length)
    tokens = torch.stack(env.encoding.windows(Piece(tuple(notes), bar=8), length)[:1])
    return finished(tokens), env


def score(name: str, view: View, env: Composition, **more: float) -> float:
    return round(float(getattr(scores, name)(spec=env.spec, **more)(view)), 4)


def test_scores_of_music_by_hand():
    tune = [
        Note(0, 2, 60),
        Note(2, 2, 67),
        Note(4, 2, 68),
        Note(6, 2, 61),
        Note(8, 2, 62),
        Note(10, 2, 62),
        Note(12, 4, 60),
    ]
    view, env = view_of("melody", *tune, length=16)
    # Intervals: 7, 1, −7, 1, 0, −2.
    assert score("Tonality", view, env) == round(2 / 6, 4)
    assert score("RatioOfSteps", view, env) == round(2 / 6, 4)
    # Pitch classes: C twice, G, G#, C#, D twice. A flat major holds all but D: 5 of 7; E flat major C, G, G#, D: 6.
    assert score("ScaleConsistency", view, env) == round(6 / 7, 4)
    p = [2 / 7, 2 / 7, 1 / 7, 1 / 7, 1 / 7]
    assert score("PitchEntropy", view, env) == round(-sum(x * math.log2(x) for x in p), 4)
    # Onsets of the two bars of 8: 0 2 4 6 and 0 2 4: they differ in one step of eight.
    assert score("Groove", view, env) == round(1 - 1 / 8, 4)


def test_harmony_by_hand():
    chord = lambda at, *pitches: [Note(at, 4, pitch, 80, voice) for voice, pitch in enumerate(pitches)]  # noqa: E731
    plain, env = view_of("chorale", *chord(0, 72, 64, 55, 48), *chord(4, 72, 65, 57, 53), length=16)
    # C major then F major: every pair of voices is consonant but C over F's fourths.
    gaps = [8, 17, 24, 9, 16, 7, 7, 15, 19, 8, 12, 4]
    good = sum(gap % 12 in (0, 3, 4, 5, 7, 8, 9) for gap in gaps) / 12
    assert score("Harmony", plain, env, parallels=1.0, crossings=1.0) == round(good, 4)
    bad, env = view_of("chorale", *chord(0, 67, 60, 52, 48), *chord(4, 69, 62, 54, 50), length=16)
    # All voices move up a tone: 67 over 60 is a parallel fifth, 67 over 48 another; 60 over 48 an octave: 3 of 6 pairs.
    clean = sum(gap % 12 in (0, 3, 4, 5, 7, 8, 9) for gap in [7, 15, 19, 8, 12, 4] * 2) / 12
    assert score("Harmony", bad, env, parallels=0.0, crossings=0.0) == round(clean, 4)
    pairs = 3 / 6
    assert score("Harmony", bad, env, parallels=1.0, crossings=0.0) == pytest.approx(clean - pairs, abs=1e-3)
    # The tenor is silent in the first chord: three of its six pairs are none. Later chords are not yet there.
    half = plain.sample.clone()
    half[:, 2::4] = 0
    half[:, 8:] = -1
    assert score("Harmony", plain._replace(sample=half), env, parallels=1.0, crossings=1.0) == 0.5


def test_novelty_is_the_distance_to_the_nearest():
    real = melodies("melody").train
    novelty = scores.SequenceNovelty(real=real, limit=2000)
    tokens = real.tokens[:3].clone()
    tokens[1, :4] = 37
    found = novelty(finished(tokens))
    assert found[[0, 2]].tolist() == [0, 0]
    assert 0 < found[1] <= 4 / 16
    half = tokens.clone()
    half[:, 8:] = -1  # only what stands there is compared
    assert 0 < float(novelty(finished(half))[1]) <= 4 / 8


def test_membership_by_hand():
    assert scores.is_among(torch.tensor([0, 1, 11, 4]), (0, 4, 11)).tolist() == [True, False, True, True]


def note_rnn_of(path: Path, env: Composition) -> PolicyNetwork:
    net = note_rnn(env.spec.observation, env.spec.action, Precision("float32"))
    adopt(net, note_rnn_weights(path, "prior"), "prior")
    return net


def test_the_imported_note_rnn_is_the_cell_it_was(tmp_path):
    """Against the cell's own equations, gate by gate, in the order i, candidate, f, o with 1 added to f."""
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    env = composition(history=1)
    net = note_rnn_of(path, env)
    file = np.load(path)
    hidden, cell, codes, log_probs = np.zeros(100), np.zeros(100), [5, 1, 0, 37], []
    for code in codes:
        gates = np.concatenate([np.eye(38)[code], hidden]) @ file["lstm_kernel"] + file["lstm_bias"]
        i, candidate, f, o = np.split(gates, 4)
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(candidate)
        hidden = sigmoid(o) * np.tanh(cell)
        log_probs.append(torch.tensor(hidden @ file["softmax_kernel"] + file["softmax_bias"]).log_softmax(0).float())
    state, carry = env.reset(1, stream(0, "x")), net.initial_carry(1)
    state = state._replace(prime=torch.tensor([[5]], dtype=torch.int16))
    for step, expected in enumerate(log_probs):
        out = net(env.observe(state), None, carry, torch.zeros(1, 1, dtype=torch.bool))
        torch.testing.assert_close(out.policy.log_p[0], expected, rtol=1e-4, atol=1e-5)
        state, carry = env.step(state, torch.tensor([[*codes, 0][step + 1]])), out.carry


@pytest.mark.slow
@needs_shared("rl_tuner")
def test_the_note_rnn_column():
    """The published statistics of the untuned model: the rules and the sampling are right (4 000 compositions)."""
    from benchmarks.rl_tuner import note_rnn as untuned
    from benchmarks.rl_tuner import statistics

    found, _ = statistics(untuned(), 4000, 0)
    published = {
        "repeated too often, %": (63.3, 2.5), "autocorrelation, lag 1": (-0.16, 0.02),
        "autocorrelation, lag 2": (0.14, 0.02), "autocorrelation, lag 3": (-0.13, 0.02), "not in key, %": (0.87, 0.25),
        "starts with tonic, %": (0.1, 0.2), "leaps resolved, %": (77.1, 3), "unique highest, %": (64.7, 2.5),
        "unique lowest, %": (49.9, 2.5), "in motif, %": (5.9, 0.8), "mean log p": (-0.562, 0.03),
    }  # fmt: skip
    for row, (value, tolerance) in published.items():
        assert found[row] == pytest.approx(value, abs=tolerance), row


@pytest.mark.slow
@needs_shared("seqgan")
def test_the_oracle_finds_its_own_samples_as_likely_as_published():
    oracle = Oracle(SHARED / "seqgan" / "oracle.npz")
    assert float(oracle.nll(oracle.sample(2000, 20, stream(0, "oracle"))).mean()) == pytest.approx(5.749, abs=0.03)


def test_the_oracle_by_hand(tmp_path):
    """Its likelihood is that of its own draws: the most frequent first token is the likeliest."""
    oracle = Oracle(write_oracle(tmp_path / "oracle.npz"))
    made = oracle.sample(20_000, 1, stream(0, "oracle"))
    counts = torch.bincount(made[:, 0], minlength=30) / 20_000
    likely = (-oracle.nll(torch.arange(30).unsqueeze(1))).exp()
    assert float(likely.sum()) == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(counts, likely, atol=0.012, rtol=0)


def without_network(*overrides: str) -> list[str]:
    """A small session whose network keeps its own sizes, as the imported prior has them."""
    return [word for word in small("env=music", "env.prime=random", *overrides) if "agent.network" not in word]


NOTE_RNN = "{_target_: rlgen_cli.policies.note_rnn.note_rnn, _partial_: true}"


def test_a_wider_network_begins_as_its_prior(tmp_path):
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    run: Any = session(
        *without_network("agent=ppo", "env.time_encoding=one_hot"), "env.history=8", "network=lstm",
        "agent.network.body.embed=0", "agent.network.body.lags=[1,8]", "agent.network.recurrent.width=100",
        f"agent.anchor.prior={path}", f"agent.anchor.network={NOTE_RNN}",
    )  # fmt: skip
    env, net, prior = run.envs["train"], run.agent.policy.net, run.agent.anchor.net
    tokens = torch.randint(38, (5, 16, 1))
    state = env.teacher_states(tokens, env.primes(len(tokens), stream(0, "x")))
    start = torch.zeros(16, 5, dtype=torch.bool)
    with torch.no_grad():
        mine, theirs = (n(env.observe(state), None, n.initial_carry(5), start).policy.log_p for n in (net, prior))
    assert net.recurrent.cell.weight_ih.shape[1] > prior.recurrent.cell.weight_ih.shape[1]
    torch.testing.assert_close(mine, theirs)


def test_a_q_network_begins_with_the_priors_logits(tmp_path):
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    run: Any = session(*without_network("agent=dqn"), "env.history=1", "network=note_rnn", f"agent.prior.source={path}")
    env, q_network = run.envs["train"], run.agent.policy.net
    net = note_rnn_of(path, env)
    state = env.teacher_states(torch.randint(38, (5, 16, 1)), env.primes(5, stream(0, "x")))
    start = torch.zeros(16, 5, dtype=torch.bool)
    with torch.no_grad():
        q = q_network(env.observe(state), q_network.initial_carry(5), start).q
        logits = net(env.observe(state), None, net.initial_carry(5), start).policy.log_p
    torch.testing.assert_close(q.log_softmax(1), logits)


def test_soft_values_by_hand():
    q = torch.tensor([[0.0, math.log(3.0)]])
    assert float(soft_value(q, 1.0, mean=False)) == pytest.approx(math.log(4))
    assert float(soft_value(q, 1.0)) == pytest.approx(math.log(2))
    assert float(soft_value(2 * q, 2.0, mean=False)) == pytest.approx(2 * math.log(4))


def test_g_learning_weighs_by_its_prior(tmp_path):
    """The policy is p exp G: with a constant G it is the prior."""
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    run: Any = session(
        *without_network("agent=dqn"), "env.history=1", "network=note_rnn", "backup=g",
        "agent.temperature={start:1.0,end:1.0}", f"agent.prior.source={path}", f"agent.prior.network={NOTE_RNN}",
    )  # fmt: skip
    env, policy = run.envs["train"], run.agent.policy
    torch.nn.init.zeros_(policy.net.out.weight)
    torch.nn.init.constant_(policy.net.out.bias, 2.0)
    state = env.reset(20_000, stream(0, "x"))
    state = state._replace(prime=torch.full_like(state.prime, 5))
    carry, rng = policy.initial_carry(20_000), stream(0, "policy")
    action = policy.act(env.observe(state), None, carry, explore=False, rng=rng).action
    one = CompositionState(*(field[:1] for field in state))
    start = torch.zeros(1, 1, dtype=torch.bool)
    p = policy.prior(env.observe(one), None, policy.prior.initial_carry(1), start).policy.log_p[0].exp()
    counts = torch.bincount(action, minlength=38) / 20_000
    torch.testing.assert_close(counts, p, atol=0.012, rtol=0)


def test_a_prior_backup_by_hand():
    """log Σ p exp G: ¼ · e⁰ + ¾ · 3 = 2.5; twice that at twice the temperature for twice the values."""
    q, log_prior = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.25, 0.75]]).log()
    values = NextValues(q, None, log_prior, [2], 1.0)
    assert float(PriorBackup().value(values)) == pytest.approx(math.log(2.5))
    assert float(PriorBackup().value(values._replace(q=2 * q, temperature=2.0))) == pytest.approx(2 * math.log(2.5))


def test_pretraining_learns_stops_and_is_a_prior(tmp_path):
    words = [
        "env=music", "env.length=16", "env.bar=8", "data.count=40", "threads=1", "agent.network.recurrent.width=32",
        "env.history=1", "env.prime=none",
    ]  # fmt: skip
    run: Any = assemble(composed("pretrain/music", [*words, "epochs=12", "patience=2", "keep=best"]))
    before = held_out(run, run.agent, "valid")["nll/valid"]
    folder = tmp_path / "prior"
    assert pretrain(run, folder) == "finished"
    assert held_out(run, run.agent, "valid")["nll/valid"] < 0.6 * before
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [value for line in lines for name, value in line.items() if name.endswith("nll/valid")]
    assert found[-1] == pytest.approx(min(found), abs=1e-4)
    assert (folder / "samples" / "final" / "000.mid").exists()
    tuned: Any = session(
        *words, "agent=ppo", "network=lstm", f"agent.anchor.prior={folder}", "+reward/term=prior",
        f"reward.terms.prior.source={folder}", "num_envs=8",
    )  # fmt: skip
    tokens = tuned.data.valid.tokens[:4]
    log_p = -run.agent.nll(tokens, stream(0, "x")).sum(0)
    whole, prior = finished(tokens, prime=torch.full((4, 1), -1)), tuned.reward.terms["prior"].score
    torch.testing.assert_close(prior(whole), log_p, rtol=1e-4, atol=1e-3)
    at = torch.arange(16).view(1, 16, 1)
    # What the newest token adds is the difference of two scores, since a sequence model reads earlier tokens only.
    for length in (torch.tensor([9, 1, 12, 4]), torch.full((4,), 16)):
        part, earlier = (
            whole._replace(sample=tokens.masked_fill(at >= end.view(4, 1, 1), -1), info={"num_tokens": length})
            for end in (length, length - 1)
        )
        torch.testing.assert_close(prior.gain(part), prior(part) - prior(earlier), rtol=1e-4, atol=1e-4)


def test_a_prior_reads_on_where_it_stopped(tmp_path):
    """What it remembers from one call to the next changes nothing, to the bit, whatever comes in between."""
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    words = small("env=music", "agent=random", "+reward/term=prior", f"reward.terms.prior.source={path}")
    one, other = (session(*words) for _ in range(2))
    env, rng = one.envs["train"], stream(0, "x")
    following, fresh = (run.reward.terms["prior"].score for run in (one, other))
    assert isinstance(following, PriorLikelihood)
    assert isinstance(fresh, PriorLikelihood)
    states = [env.reset(6, rng), env.reset(6, rng)]
    for step in range(env.spec.max_steps):
        for i in range(1 if step < 4 else 2):  # from the fifth step on, two batches take turns
            states[i] = env.step(states[i], env.spec.action.sample(6, rng, CPU))
            fresh.read = None
            assert torch.equal(following.gain(env.view(states[i])), fresh.gain(env.view(states[i])))
    view = env.view(states[0])
    fresh.read = None
    following.gain(view)
    view.sample[2, -2] = (view.sample[2, -2] + 1) % 38
    assert torch.equal(following.gain(view), fresh.gain(view))
    earlier = view._replace(sample=view.sample.clone(), info={"num_tokens": view.info["num_tokens"] - 1})
    earlier.sample[:, -1] = -1
    torch.testing.assert_close(following.gain(view), fresh(view) - fresh(earlier), rtol=1e-4, atol=1e-4)


def test_a_run_with_a_prior_resumes_in_the_middle_of_an_episode(tmp_path):
    path = write_note_rnn(tmp_path / "note_rnn.npz")
    words = [*without_network("agent=ppo"), "network=lstm", "+reward/term=prior", f"reward.terms.prior.source={path}"]
    settings = session(*words).settings
    length = settings.num_envs * session(*words).envs["train"].spec.max_steps
    total = 5 * length + 6 * settings.num_envs
    assert total // 2 % length not in (0, settings.num_envs)
    resumes([*words, f"total_steps={total}"], total, tmp_path)


def test_a_prior_that_is_none_is_named(tmp_path):
    words = small("env=music", "agent=random", "+reward/term=prior")
    with pytest.raises(UserError, match=r"reward\.terms\.prior\.source: there is no run in nowhere"):
        session(*words, "reward.terms.prior.source=nowhere")
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"reward\.terms\.prior\.source: .*x\.npz holds no Note RNN"):
        session(*words, f"reward.terms.prior.source={tmp_path / 'x.npz'}")


WRONG = {
    "env=music env.length=1": r"env\.length: must be from 2 to 4096",
    "env=music env.key=H": r"env\.key: must be one of C, C#",
    "env=music env.harmonise=true": r"env\.harmonise: needs several voices",
    "env=music env.encoding.low=90": r"env\.encoding\.low: must be below high",
    "env=music encoding=chorale reward=harmony env.length=30": r"env\.length: must be a multiple of 4",
    "env=music data=glyphs": r"data: Glyphs gives pictures, and Composition takes sequences",
    "env=pixel data=melodies reward=target": r"data: Melodies gives sequences, and Canvas takes pictures",
    "env=music reward=target": r"reward\.terms\.target: scores pictures, and this environment makes sequences; here there are .*sequence_novelty",
    "env=music encoding=melody reward=harmony": r"reward\.terms\.harmony: scores chorales, and this environment makes sequences",
    "env=music encoding=chorale reward=music_theory": r"reward\.terms\.key: scores melodies",
    "env=music env.bar=7": r"data: none of .* pieces fits; the commonest reason: has bars of 16 sixteenths",
    "env=music env.length=400": r"data: none of .* fits; the commonest reason: is too short",
    "env=music data=midi data.path=nowhere": r"data\.path: there is no folder nowhere",
    "env=music data=text data.path=nowhere encoding=tokens reward=sequence_novelty": r"data\.path: nowhere cannot be read",
    "env=music agent=dqn backup=psi agent.temperature=0": r"agent\.temperature: must be above 0 with an entropy-regularised",
    "env=music agent=dqn backup=g agent.temperature={start:1.0,end:1.0}": r"prior\.source: must name a pretrained",
    "env=music agent=ppo network=lstm agent.network.body.lags=[99]": r"agent\.network\.body\.lags: must be from 1 to env",
    "env=music agent=ppo network=convolutions": r"agent\.network\.body\._target_: convolutions read images, and this",
    "env=music reward=adversarial": r"reward\.terms\.adversarial\.net\.?.*: scores pictures; use reward=adversarial_sequence",
    "env=pixel reward=adversarial_sequence": r"adversarial_sequence.*: scores sequences; use reward=adversarial",
    "env=music encoding=notes reward=tonality env.scale=major": r"env\.scale: must be chromatic with encoding=notes",
}


@pytest.mark.parametrize("words", WRONG)
@pytest.mark.mostly_slow(3)
def test_wrong_input_is_named(words):
    with pytest.raises(UserError, match=WRONG[words]):
        session(*words.split(), "threads=1")


def test_your_own_function_takes_the_tokens(tmp_path, monkeypatch):
    (tmp_path / "my_score.py").write_text("def low(x):\n    return (x == 0).float().mean((1, 2))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run: Any = session(
        *small("env=music", "agent=random", "reward=function"), "reward.terms.function.path=my_score:low"
    )
    tokens = torch.zeros(2, 16, 1, dtype=torch.long)
    tokens[1] = 5
    assert run.reward.terms["function"].score(finished(tokens)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("agent", ["dqn", "ppo", *slow("policy_gradient", "actor_critic")])
def test_agents_learn_to_compose(agent, tmp_path):
    """Fifths from note to note, which random melodies hardly have."""
    words = [
        "env=music", "encoding=tokens", "env.length=12", "env.history=2", "reward=tonality", "data.count=40", "threads=1",
        "reward.terms.tonality.weight=10", "num_envs=32", "total_steps=24000", "eval_interval=100000",
        "log_interval=100000", "checkpoint_interval=100000",
    ]  # fmt: skip
    more = {
        "dqn": ["agent.learning_starts=500", "agent.batch_size=64", "agent.replay.buffer_size=10000"],
        "ppo": ["agent.num_steps=12", "agent.objective.entropy_coef.start=0.05"],
        "policy_gradient": ["num_envs=8", "agent.entropy_coef.start=0.02", "agent.gamma=1.0"],
        "actor_critic": [
            "num_envs=8", "agent.num_steps=12", "agent.objective.entropy_coef.start=0.02",
            "agent.optimizer.learning_rate.start=0.005",
        ],
    }  # fmt: skip

    def tonality(run: Session) -> float:
        found = evaluate(run.envs["valid"], run.actor, run.reward, episodes=200, seed=0, device=run.device)
        return found.scores["tonality"]

    run: Any = session(*words, f"agent={agent}", "agent.network.body.width=64", *more[agent])
    random = tonality(session(*words, "agent=random"))
    train(run, tmp_path / "run")
    assert tonality(run) > max(4 * random, 0.3)


def test_pieces_are_transposed_to_one_tonic():
    homes = [semitones_to_tonic(tune, 0) for tune in TUNES]  # in C major; tunes of five notes may fit another key
    assert homes.count(0) >= 0.8 * len(TUNES)
    for tune, home in zip(TUNES, homes, strict=True):
        for shift in range(-5, 6):
            assert (semitones_to_tonic(transposed(tune, shift), 0) + shift - home) % 12 == 0
            assert (semitones_to_tonic(transposed(tune, shift), 2) + shift - home - 2) % 12 == 0
    line = (57, 60, 64, 57, 59, 60, 62, 64, 65, 64, 62, 60, 59, 56, 57)
    scale = Piece(tuple(Note(2 * i, 2, pitch) for i, pitch in enumerate(line)))
    assert semitones_to_tonic(transposed(scale, 3), 0) == -3  # A minor belongs to C


def test_left_out_pieces_are_counted(tmp_path, caplog):
    folder = write_tunes(tmp_path / "tunes", 5)
    (folder / "broken.mid").write_bytes(b"MThd")
    write_midi(folder / "waltz.mid", Piece(TUNE, bar=12))
    with caplog.at_level(logging.INFO, "rlgen_cli"):
        splits = MidiFolder(str(folder), "top", 0, [-2, 0]).load(Melody(low=48, high=83, grid=1), 32, 16)
    assert "read 6 MIDI files, rejected 1" in caplog.text
    assert "broken.mid is cut short" in caplog.text
    assert "1 pieces are left out: each has bars of 12 sixteenths" in caplog.text
    assert splits.train.tokens.shape[1:] == (32, 1)


@pytest.mark.slow
@needs_shared("nottingham")
def test_nottingham_and_chorales_become_sequences():
    run: Any = session(
        "env=music", "data=midi", f"data.path={SHARED / 'nottingham'}", "agent=random", "threads=1", "env.length=64"
    )
    assert len(run.data.train.tokens) > 10_000
    view = finished(run.data.valid.tokens)
    assert float(run.reward.terms["scale_consistency"].score(view).mean()) > 0.9
    assert float(run.reward.terms["groove"].score(view).mean()) > 0.8
    words = ["env=music", "data=jsb", f"data.path={SHARED / 'jsb' / 'Jsb16thSeparated.json'}", "encoding=chorale"]
    run = session(*words, "env.length=64", "reward=harmony", "agent=random", "threads=1")
    view = finished(run.data.valid.tokens)
    assert float(run.reward.terms["harmony"].score(view).mean()) > 0.7


@pytest.mark.parametrize("unit", ["character", "word"])
def test_text_is_read_learned_and_written(unit, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the log " * 30)
    words = [
        "env=music", "encoding=tokens", "data=text", f"data.path={tmp_path / 'text.txt'}", f"data.unit={unit}",
        "env.length=8", "env.history=4", "env.prime=none", "reward=adversarial_sequence", "threads=1", "num_envs=16",
        "total_steps=6400", "eval_interval=6400", "log_interval=6400", "checkpoint_interval=6400",
    ]  # fmt: skip
    run: Any = session(*words, "agent=maximum_likelihood", "agent.network.recurrent.width=32", "agent.batch_size=32")
    train(run, tmp_path / "run")
    write_samples(run, "test", 20, 0, ["txt"], tmp_path / "out")
    lines = (tmp_path / "out" / "samples.txt").read_text().splitlines()
    known = {"the", "cat", "sat", "on", "mat", "and", "dog", "log"}
    spelled = [word for line in lines for word in line.split()[1:-1]]  # the outer ones may be cut
    assert len(lines) == 20
    assert sum(word in known for word in spelled) > 0.8 * len(spelled)


def test_given_tokens_are_those_of_held_out_pieces():
    env = composition(split="test", given_tokens=6)
    state = env.reset(30, stream(0, "x"))
    known = {tuple(row) for row in melodies("melody").test.tokens[:, :6, 0].tolist()}
    assert {tuple(row) for row in state.given[:, :6, 0].tolist()} <= known
    assert (state.given[:, 6:] == -1).all()


def test_repetition_by_hand():
    bar = [C, D, E, 1, C, D, E, 1]

    def view(*codes: int) -> View:
        tokens = torch.full((1, 32), -1)
        tokens[0, : len(codes)] = torch.tensor(codes)
        return View(tokens.unsqueeze(2), {}, {"num_tokens": torch.tensor([len(codes)])})

    longest, repeated = LongestRepetition(), RepeatedFraction()
    assert float(longest(view(*bar))) == 0  # what repeats must not overlap
    assert float(longest(view(*bar, *bar[:4]))) == pytest.approx((4 / 8) ** 2)
    assert float(longest(view(*bar, *bar))) == 1.0
    assert float(longest(view(*bar, *bar, G, G))) == 1.0  # the largest so far
    assert float(longest(view(*[C, D, 1, 1] * 4))) == 0.0  # two notes are no motif
    assert float(repeated(view(*bar, *bar))) == pytest.approx(1 / 32)
    assert float(repeated(view(*bar, G, *bar, A))) == pytest.approx(1 / 32)
    assert float(Correlation(lag=2)(view(C, E, C, E))) == pytest.approx(0.5)


def test_a_temperature_sharpens_what_was_learned():
    sharp: Any = tempered(Categorical(torch.tensor([[0.0, math.log(3.0)]])), 0.5)
    assert sharp.log_p.exp()[0].tolist() == pytest.approx([0.1, 0.9])


def test_a_categorical_draws_what_it_says_and_nothing_forbidden():
    logits = torch.tensor([0.0, -torch.inf, math.log(2.0), -torch.inf]).expand(30_000, 4)
    action, log_prob = Categorical(logits).draw(stream(0, "draw"))
    assert torch.bincount(action, minlength=4).tolist()[1::2] == [0, 0]
    assert (action == 2).float().mean().item() == pytest.approx(2 / 3, abs=0.01)
    assert log_prob.exp().unique().tolist() == pytest.approx([1 / 3, 2 / 3])
