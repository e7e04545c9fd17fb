import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.domains.canvas.scores import Coverage, InkCost, Target
from rlgen_cli.rewards.function import Function
from rlgen_cli.rewards.reward import Reward, Term
from rlgen_cli.core.types import Context, View
from tests.conftest import session


def view(sample: list, target: list | None = None, effort: int = 0) -> View:
    """One 1 × 2 picture."""
    image = torch.tensor(sample, dtype=torch.float32).view(1, 1, 1, -1)
    goal = None if target is None else torch.tensor(target, dtype=torch.float32).view(1, 1, 1, -1)
    return View(image, Context(target=goal), torch.tensor([effort]))


def test_coverage_by_hand():
    assert Coverage()(view([1.0, 0.5])).item() == 0.75


def test_target_by_hand():
    drawn = view([1.0, 0.5], [1.0, 1.0])
    assert Target(norm="l2", per="target")(drawn).item() == pytest.approx(-0.125)  # .25 / 2
    assert Target(norm="l1", per="target")(drawn).item() == pytest.approx(-0.25)  # .5 / 2
    assert Target(norm="l2", per="pixel")(drawn).item() == pytest.approx(-0.125)
    assert Target(norm="l2", per="target")(view([0.0, 0.0], [1.0, 1.0])).item() == -1.0
    assert torch.isfinite(Target(norm="l2", per="target")(view([0.5, 0.0], [0.0, 0.0]))).all()


def test_ink_cost_counts_marks():
    assert InkCost()(view([0.0, 0.0], effort=3)).item() == -3.0


def test_potential_sums_to_the_final_score_and_terminal_waits():
    steps = [view([0.0, 0.0]), view([1.0, 0.0]), view([1.0, 1.0])]
    done = [torch.tensor([False]), torch.tensor([True])]
    for form, wanted in (("potential", [0.5, 0.5]), ("terminal", [0.0, 1.0])):
        term = Term(Coverage(), 1.0, form)
        got = [term(a, b, d).item() for a, b, d in zip(steps[:-1], steps[1:], done, strict=True)]
        assert got == wanted


def test_weights_apply_to_the_total_and_not_to_the_terms():
    reward = Reward({"a": Term(Coverage(), 2.0, "potential"), "b": Term(InkCost(), 0.1, "potential")})
    scored = reward(view([0.0, 0.0]), view([1.0, 0.0], effort=1), torch.tensor([False]))
    assert scored.total.item() == pytest.approx(2 * 0.5 - 0.1)
    assert scored.terms["a"].item() == 0.5
    assert scored.terms["b"].item() == -1.0
    assert torch.equal(scored.total, scored.settled)
    assert reward.fresh(view([0.0, 0.0]), view([1.0, 0.0]), torch.tensor([False])) is None


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(
        "def redness(x):\n    return x.mean((1, 2, 3))\ndef wrong(x):\n    return x.mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Function(path="my_scores:redness")(view([1.0, 0.0])).item() == 0.5
    with pytest.raises(UserError, match="one number per sample"):
        Function(path="my_scores:wrong")(view([1.0, 0.0]))
    for path in ("my_scores", "my_scores:nothing", "nowhere:redness"):
        with pytest.raises(UserError, match="path"):
            Function(path=path)


@pytest.mark.parametrize("loss", ["nonsaturating", "wgan_gp"])
def test_the_discriminator_learns_to_tell_real_from_drawn(loss):
    run = session(
        "agent=random", "reward=adversarial", "env.size=12", "env.max_steps=4", "env.patch=0", "data.per_class=30",
        "data.characters=01", f"reward.terms.adversarial.loss={loss}", "reward.terms.adversarial.interval=1", "threads=1",
        "reward.terms.adversarial.penalty=1.0", "num_envs=16",
    )  # fmt: skip
    env, term = run.envs["train"], run.reward.terms["adversarial"].score
    state = env.reset(16, run.streams["env"])
    for _ in range(60):
        action = run.agent.act(env, state, None, explore=True, rng=run.streams["policy"]).action
        state = env.step(state, action)
        done = env.done(state)
        metrics = run.reward.learn(env.view(state), done, 0.0)
        if done.all():
            state = env.reset(16, run.streams["env"])
    assert metrics["adversarial/on_real"] > metrics["adversarial/on_fake"] + 0.2
    real = View(run.data.train.images[:40] / 255, Context(label=run.data.train.labels[:40]), torch.zeros(40))
    assert term(real).shape == (40,)


def test_a_trained_term_is_recomputed_and_a_settled_one_is_not():
    run = session(
        "agent=random", "reward=adversarial", "+reward/term=ink_cost", "env.size=12", "env.patch=0", "data.per_class=4",
        "num_envs=4", "threads=1",
    )  # fmt: skip
    env = run.envs["train"]
    before = env.reset(4, run.streams["env"])
    after = env.step(before, run.agent.act(env, before, None, explore=True, rng=run.streams["policy"]).action)
    done = env.done(after)
    scored = run.reward(env.view(before), env.view(after), done)
    fresh = run.reward.fresh(env.view(before), env.view(after), done)
    torch.testing.assert_close(scored.settled + fresh, scored.total)
    torch.testing.assert_close(scored.settled, 0.01 * scored.terms["ink_cost"])
    score = run.reward.terms["adversarial"].score
    with torch.no_grad():
        score.net.out.bias += 1.0
        score.net.out.weight *= 3.0
    assert not torch.allclose(run.reward.fresh(env.view(before), env.view(after), done), fresh)


def test_the_classifier_learns_the_data_and_is_cached(tmp_path):
    overrides = (
        "agent=random", "reward=classifier", "env.size=12", "env.patch=0", "data.per_class=40", "data.characters=01X",
        "reward.terms.classifier.steps=60", "threads=1",
    )  # fmt: skip
    run = session(*overrides)
    term = run.reward.terms["classifier"].score
    images, labels = run.data.valid.images.float() / 255, run.data.valid.labels
    right = [term(View(images, Context(label=torch.full_like(labels, i)), labels)) for i in range(3)]
    assert (torch.stack(right).argmax(0) == labels).float().mean() > 0.9
    assert len(list((tmp_path / "cache" / "classifiers").iterdir())) == 1
    again = session(*overrides).reward.terms["classifier"].score
    torch.testing.assert_close(
        again(View(images, Context(label=labels), labels)),
        torch.stack(right).gather(0, labels.unsqueeze(0))[0],
    )
    linear = session(*overrides, "reward.terms.classifier.scale=linear").reward.terms["classifier"].score
    p = torch.stack([linear(View(images, Context(label=torch.full_like(labels, i)), labels)) for i in range(3)])
    torch.testing.assert_close(p.log(), torch.stack(right))
    torch.testing.assert_close(p.sum(0), torch.ones(len(labels)))
