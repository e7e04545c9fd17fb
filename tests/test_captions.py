"""Captions and their pictures, the rule that checks them, and models that know labels by their words."""

from functools import partial
from typing import Any

import pytest
import torch

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.layers import Blur
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import EnvSpec, Normal, PictureSpec, View
from rlgen_cli.data.captions import COLOURS, RELATIONS, SHAPES, TASKS, Captions, Object, Scene, held_out, parse, scenes
from rlgen_cli.data.images import Images, Splits
from rlgen_cli.generators.diffusion import DiffusionTraining
from rlgen_cli.generators.paths import Flow
from rlgen_cli.generators.unet import DenoisingUNet, Embedding, Words, words_of
from rlgen_cli.policies.precision import Precision
from rlgen_cli.rewards.caption import Caption, colours, components, found
from rlgen_cli.runs.assemble import assemble
from tests.conftest import compose, small
from tests.resuming import resumes

CPU = torch.device("cpu")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Captions(per_class=4).load(32, 3)


def all_of(splits: Splits) -> tuple[torch.Tensor, torch.Tensor]:
    """Every picture, float [M, 3, H, W] in [0, 1], and its label."""
    return torch.cat([part.images for part in splits]).float() / 255, torch.cat([part.labels for part in splits])


def rule(captions: tuple[str, ...], graded: bool = False, size: int = 32) -> Caption:
    spec = EnvSpec({}, Normal((3, size, size)), PictureSpec(3, size, size), 1, class_names=captions)
    return Caption(spec=spec, device=CPU, graded=graded)


def scored(pictures: torch.Tensor, captions: list[str], graded: bool = False) -> torch.Tensor:
    """The score of each picture for its own caption, [N]."""
    known = tuple(dict.fromkeys(captions))
    label = torch.tensor([known.index(caption) for caption in captions])
    return rule(known, graded)(View(pictures, {"label": label}, {}))


def test_captions_are_repeatable_and_apart(splits):
    again = Captions(per_class=4).load(32, 3)
    assert all(torch.equal(one.images, two.images) for one, two in zip(splits, again, strict=True))
    asked = [set(part.labels.tolist()) for part in splits]
    assert not asked[0] & (asked[1] | asked[2])
    assert asked[1] == asked[2]
    assert len(asked[0] | asked[1]) == len(splits.train.classes) == len(scenes())
    assert splits.train.classes == splits.valid.classes == splits.test.classes
    assert all(
        len(part.images) == 4 * len(labels) / share
        for part, labels, share in zip(splits, asked, (1, 2, 2), strict=True)
    )
    assert 0.15 < len(asked[1]) / len(scenes()) < 0.25
    assert {scenes()[label].task for label in asked[1]} == {scenes()[label].task for label in asked[0]} == set(TASKS)


def test_every_word_at_its_place_is_in_a_caption_of_the_training():
    def places(captions: list[str]) -> set[tuple[int, str]]:
        return {place for caption in captions for place in enumerate(caption.split())}

    captions = [str(scene) for scene in scenes()]
    trained = [caption for caption in captions if not held_out(caption)]
    assert places(captions) == places(trained)
    kinds = {(one.colour, one.shape) for caption in trained for one in parse(caption).objects}  # type: ignore[union-attr]
    assert len(kinds) == len(COLOURS) * len(SHAPES)


def test_a_caption_says_its_scene_and_none_says_that_of_another():
    for scene in scenes():
        assert parse(str(scene)) == scene
    said = [frozenset([scene.objects, scene.relation]) for scene in scenes()]
    turned = [
        frozenset([scene.objects[::-1], OPPOSITE.get(scene.relation or "")])
        for scene in scenes()
        if scene.task in ("two", "position")
    ]
    assert len(set(said) | set(turned)) == len(said) + len(turned)
    red, blue = Object("red", "circle"), Object("blue", "square")
    assert parse("a red circle") == Scene("single", (red,))
    assert parse("three blue squares") == Scene("count", (blue, blue, blue))
    assert parse("a red circle and a blue square") == Scene("two", (red, blue))
    assert parse("a red circle left of a blue square") == Scene("position", (red, blue), "left of")


@pytest.mark.parametrize(
    "text",
    ["", "A", "red circle", "a red circles", "five red circles", "a purple circle", "a red circle and a red circle",
     "a red circle near a blue square", "a red circle left of a blue square.", "two red circles and a blue square"],
)  # fmt: skip
def test_what_is_no_caption(text):
    assert parse(text) is None


def test_captions_at_other_sizes_and_in_grey():
    assert Captions(per_class=2).load(12, 1).train.images.shape[1:] == (1, 12, 12)
    with pytest.raises(UserError, match="per_class: must be at least 2"):
        Captions(per_class=1)


@pytest.mark.parametrize(
    ("std", "blurred", "least"), [(0.0, False, 1.0), (0.05, False, 0.99), (0.0, True, 0.95), (0.05, True, 0.95)]
)
def test_drawn_pictures_show_what_their_captions_say(splits, std, blurred, least):
    x, label = all_of(splits)
    x = Blur(3)(x) if blurred else x
    x = (x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    accepted = rule(splits.train.classes)(View(x, {"label": label}, {}))
    for task in TASKS:
        own = torch.tensor([scene.task == task for scene in scenes()])[label]
        assert float(accepted[own].mean()) >= least, task


def wrong(scene: Scene, how: str) -> Scene | None:
    """Something else than what is there; None where the scene has no such thing."""
    first, rest = scene.objects[0], scene.objects[1:]
    colour = list(COLOURS)[(list(COLOURS).index(first.colour) + 1) % len(COLOURS)]
    shape = SHAPES[(SHAPES.index(first.shape) + 1) % len(SHAPES)]
    other = {"colour": Object(colour, first.shape), "shape": Object(first.colour, shape)}
    if how in other:
        changed = (other[how],) * len(scene.objects) if scene.task == "count" else (other[how], *rest)
        return scene._replace(objects=changed) if len(set(changed)) == len(set(scene.objects)) else None
    if how == "relation":
        return scene._replace(relation=OPPOSITE[scene.relation]) if scene.relation else None
    if how == "another relation":
        return (
            scene._replace(relation="above" if scene.relation in ("left of", "right of") else "left of")
            if scene.relation
            else None
        )
    if how == "exchanged":
        return scene._replace(objects=scene.objects[::-1]) if scene.relation else None
    more = {1: 2, 2: 3, 3: 4, 4: 2}[len(scene.objects)]
    return Scene("count", (first,) * more) if scene.task in ("single", "count") else None


@pytest.mark.parametrize("how", ["colour", "shape", "count", "relation", "another relation", "exchanged"])
def test_hardly_any_shows_what_a_wrong_caption_says(splits, how):
    x, label = all_of(splits)
    x, label = x[::2], label[::2]
    asked = [wrong(scenes()[i], how) for i in label.tolist()]
    kept = torch.tensor([scene is not None for scene in asked])
    assert kept.sum() >= 100
    accepted = scored(x[kept], [str(scene) for scene in asked if scene is not None])
    assert float(accepted.mean()) <= 0.001


def picture(*shapes: tuple[int, int, str, str]) -> torch.Tensor:
    """A picture [1, 3, 32, 32] with shapes of ten pixels a side, each with its left, top, colour and shape."""
    x = torch.full((1, 3, 32, 32), 0.05)
    place = torch.arange(10) - 4.5
    v, u = torch.meshgrid(place, place, indexing="ij")
    masks = {
        "square": torch.ones(10, 10), "circle": (u.square() + v.square() <= 25).float(),
        "triangle": (2 * u.abs() <= v + 5).float(), "cross": ((u.abs() < 2) | (v.abs() < 2)).float(),
    }  # fmt: skip
    for left, top, colour, shape in shapes:
        rgb = torch.tensor({**COLOURS, "white": (1, 1, 1)}[colour]).view(3, 1, 1)
        part = x[0, :, top : top + 10, left : left + 10]
        part.copy_(torch.where(masks[shape] > 0, 0.9 * rgb, part))
    return x


RED, BLUE = (2, 8, "red", "circle"), (18, 10, "blue", "square")
# Number, colours, shapes, both together, and the relation where one is asked for.
GRADED = [
    ([RED], "a red circle", 1.0),
    ([RED], "two red circles", (0 + 1 / 2 + 1 / 2 + 1 / 2) / 4),
    ([RED], "a blue circle", (1 + 0 + 1 + 0) / 4),
    ([RED, BLUE], "a red circle", (0 + 1 / 2 + 1 / 2 + 1 / 2) / 4),
    ([RED, BLUE], "a blue circle and a red square", (1 + 1 + 1 + 0) / 4),
    ([RED, BLUE], "a red circle left of a blue square", 1.0),
    ([RED, BLUE], "a blue square right of a red circle", 1.0),
    ([RED, BLUE], "a red circle right of a blue square", 4 / 5),
    ([RED, BLUE], "a red circle above a blue square", 4 / 5),
    ([RED], "a red circle left of a blue square", (0 + 1 / 2 + 1 / 2 + 1 / 2 + 0) / 5),
    ([RED, (18, 10, "white", "square")], "a red circle", (0 + 1 / 2 + 1 / 2 + 1 / 2) / 4),
    ([RED, (18, 10, "blue", "cross")], "a red circle and a blue square", (1 + 1 / 2 + 1 / 2 + 1 / 2) / 4),
    ([], "a red circle", 0.0),
]


@pytest.mark.parametrize(("shapes", "caption", "expected"), GRADED)
def test_the_share_of_conditions_by_hand(shapes, caption, expected):
    x = picture(*shapes)
    assert scored(x, [caption], graded=True).item() == pytest.approx(expected)
    assert scored(x, [caption]).item() == float(expected == 1.0)


def test_small_blotches_are_not_seen_and_larger_ones_are():
    x = picture(RED)
    x[:, 2, 20:23, 20:24] = 1  # twelve blue pixels
    assert scored(x, ["a red circle"]).item() == 1
    x[:, 2, 23, 20] = 1
    assert scored(x, ["a red circle"]).item() == 0


def test_where_objects_are_found():
    seen = found(picture((2, 8, "red", "square"), (18, 10, "red", "square")))
    kind = list(COLOURS).index("red") * len(SHAPES) + SHAPES.index("square")
    assert seen.counts.sum() == seen.counts[0, kind] == 2
    assert seen.strange.item() == 0
    assert (32 * seen.centre[0, kind]).tolist() == pytest.approx([15.0, 14.0])  # between (7, 13) and (23, 15)


def test_colours_by_hand():
    rows = [(0.9, 0.1, 0.1), (0.5, 0.45, 0.05), (0.4, 0.05, 0.0), (0.8, 0.8, 0.8), (0.1, 0.2, 0.6)]
    pixels = torch.tensor(rows).T.view(1, 3, 1, 5)
    names = [*COLOURS, "grey"]
    assert colours(pixels).flatten().tolist() == [
        names.index("red"),
        names.index("yellow"),
        -1,
        names.index("grey"),
        names.index("blue"),
    ]


def test_connected_pixels():
    drawn = ["110011", "010010", "011110", "000000", "102020"]
    colour = torch.tensor([[int(pixel) for pixel in line] for line in drawn]).unsqueeze(0)
    place = components(colour)[0]
    horseshoe = place[colour[0] == 1][:-1]  # but for the pixel of the last line
    assert set(horseshoe.tolist()) == {2 * 6 + 4}
    assert [place[4, column].item() for column in (0, 2, 4)] == [24, 26, 28]
    corners = components(torch.eye(4, dtype=torch.long).unsqueeze(0))[0]
    assert corners.diagonal().tolist() == [0, 5, 10, 15]


def test_words_by_hand():
    table = words_of(["a red dot", "two dots"])
    known = ["a", "dot", "dots", "red", "two"]
    assert table.shape == (2, 3 * len(known))
    assert table.nonzero().tolist() == [[0, 0], [0, 5 + known.index("red")], [0, 10 + known.index("dot")],
                                        [1, known.index("two")], [1, 5 + known.index("dots")]]  # fmt: skip


def test_no_label_has_no_words():
    encoder = Words(words_of(["a red dot", "two dots"]), 6)
    torch.nn.init.normal_(encoder.out.weight)
    given = encoder(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert given[0].tolist() == [0.0] * 6
    assert given[1].abs().min() > 0
    assert not Words(words_of(["a", "b"]), 6)(torch.eye(2)).any(), "a label counts nothing at first"


def test_labels_by_index_are_a_place_each():
    embedding = Embedding(5, None, 8)
    assert {name: tuple(weight.shape) for name, weight in embedding.named_parameters()} == {
        "hidden.weight": (8, 32), "hidden.bias": (8,), "out.weight": (8, 8), "out.bias": (8,), "label.weight": (8, 5),
    }  # fmt: skip


def corners() -> Images:
    """Four classes, a bright square in a corner of an 8 × 8 picture, of which three have a picture."""
    names = ("top left", "top right", "bottom left", "bottom right")
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    for i in range(3):
        images[i, :, 4 * (i // 2) : 4 * (i // 2) + 4, 4 * (i % 2) : 4 * (i % 2) + 4] = 255
    return Images(images, torch.arange(3), names)


def training(**changes: Any) -> DiffusionTraining:
    settings: dict[str, Any] = {
        "real": corners(), "rng": stream(1, "generator", CPU), "device": CPU, "cache_key": "small", "precision": Precision("float32"), "seed": None, "damage": None,
        "network": partial(DenoisingUNet, width=8), "path": Flow(), "conditional": True, "label_dropout": 0.1,
        "label_encoding": "words", "learning_rate": Linear(5e-3, 1e-3, 1.0), "batch_size": 32, "updates": 250,
        "ema_decay": 0.9, "ode_steps": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionTraining(**settings | changes)


def test_a_model_that_knows_words_makes_what_it_was_trained_on():
    made = training()
    for i in range(made.num_updates):
        made.update(i / made.num_updates)
    label = torch.arange(30) % 3
    samples = made.generator.finished(
        made.generator(torch.randn(30, 64, generator=torch.Generator().manual_seed(0)), label)
    )
    bright = samples.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((1, 3, 5)).flatten(1).argmax(1)
    assert torch.equal(bright, label)


def test_words_need_labels():
    nameless = Images(corners().images, torch.zeros(3, dtype=torch.long))
    with pytest.raises(UserError, match="label_encoding: words needs data with labels"):
        training(real=nameless, conditional=False)


WORDS = [
    "data=captions", "reward=caption", "network=denoiser", "env.channels=3", "env.generator.conditional=true",
    "env.generator.label_encoding=words",
]  # fmt: skip


def test_an_agent_trains_on_captions_and_resumes_bit_for_bit(tmp_path):
    made_small = small("env=diffusion", "agent=policy_gradient", *WORDS)
    words = [word for word in made_small if word != "env.size=12"]
    resumes([*words, "env.size=24", "agent.anchor.prior=env"], 160, tmp_path)
    assert (tmp_path / "parts" / "samples" / "final" / "grid.png").is_file()


def test_held_out_captions_are_asked_for_in_the_test_split():
    words = [word for word in small("env=diffusion", "agent=random", *WORDS[:2], *WORDS[3:]) if word != "env.size=12"]
    run = assemble(compose(*words, "env.size=24"))
    for split in ("train", "test"):
        env = run.envs[split]
        label = env.view(env.reset(20, torch.Generator().manual_seed(0))).context["label"].tolist()
        assert {held_out(env.spec.class_names[i]) for i in label} == {split == "test"}
    assert run.source is not None
    names = dict(run.source.generator.network.named_parameters())  # type: ignore[attr-defined]
    assert names["embedding.label.hidden.weight"].shape[1] == words_of(run.envs["train"].spec.class_names).shape[1]


REFUSED = {
    "env=diffusion reward=caption data=glyphs": r"reward\.terms\.caption\._target_: the data's label '0' is no caption",
    "env=diffusion reward=caption data=captions env.channels=1": r"reward\.terms\.caption\._target_: captions name colours",
    "env=diffusion reward=caption data=captions env.size=20": r"reward\.terms\.caption\._target_: shapes of 20 × 20 pixels",
    "env=diffusion reward=caption data=captions env.condition=none": r"reward\.terms\.caption: needs label",
    "env=music reward=caption data=melodies": r"reward\.terms\.caption: scores pictures",
    "env=diffusion data=captions env.generator.label_encoding=letters": r"env\.generator\.label_encoding: must be",
}


@pytest.mark.parametrize(("words", "said"), REFUSED.items())
def test_what_cannot_be_is_said(words, said):
    few = ["data.per_class=2"] if "music" not in words else []
    with pytest.raises(UserError, match=said):
        assemble(compose(*words.split(), *few, "device=cpu"))


def test_the_rule_knows_all_relations():
    """From where each of the four puts the first object."""
    for relation, (x, y) in RELATIONS.items():
        shown = picture((11 + 9 * x, 11 + 9 * y, "red", "circle"), (11 - 9 * x, 11 - 9 * y, "blue", "square"))
        for other in RELATIONS:
            assert scored(shown, [f"a red circle {other} a blue square"]).item() == float(other == relation)


def test_every_label_is_worth_what_the_rule_says_by_itself():
    """A batch of several captions: each picture is compared with its own."""
    x = torch.cat([picture(RED), picture(RED, BLUE)])
    assert scored(x, ["a red circle", "a red circle and a blue square"]).tolist() == [1, 1]
    assert scored(x.flip(0), ["a red circle", "a red circle and a blue square"]).tolist() == [0, 0]
