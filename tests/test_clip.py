"""Pictures against a prompt: what transformers itself says of them, gradients, training, and what can go wrong."""

import builtins
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import Discrete, EnvSpec, PictureSpec, View, image
from rlgen_cli.rewards.clip import Clip
from tests.conftest import session, small, write_clip
from tests.resuming import resumes

transformers = pytest.importorskip("transformers")
MEAN, STD = torch.tensor([0.4815, 0.4578, 0.4082]), torch.tensor([0.2686, 0.2613, 0.2758])  # the published ones


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip")


def spec(channels: int = 3, size: int = 12) -> EnvSpec:
    seen = {"canvas": image(channels, size, size)}
    return EnvSpec(observation=seen, action=Discrete(2), sample=PictureSpec(channels, size, size), max_steps=1)


def term(folder: Path | str, prompt: str = "a star", **more: int) -> Clip:
    return Clip(spec=spec(**more), device=torch.device("cpu"), model=str(folder), prompt=prompt)


def view(sample: torch.Tensor) -> View:
    return View(sample, {}, {})


def pictures(n: int, channels: int = 3, size: int = 12) -> torch.Tensor:
    """Each of a colour and of some noise, in values that files can hold: k / 255."""
    rng = torch.Generator().manual_seed(1)
    colours = torch.randint(20, 180, (n, channels, 1, 1), generator=rng)
    return (colours + torch.randint(60, (n, channels, size, size), generator=rng)) / 255


def words(folder: Path, *more: str) -> list[str]:
    return [*more, "reward=clip", f"reward.terms.clip.model={folder}", "reward.terms.clip.prompt=a star"]


def as_transformers_sees(sample: torch.Tensor) -> torch.Tensor:
    """Float [N, 3, 16, 16] by the library's own image processor, from files' pixels."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    process = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    arrays = (sample * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return process([Image.fromarray(np.ascontiguousarray(array)) for array in arrays], return_tensors="pt").pixel_values


@pytest.mark.parametrize("size", [12, 16, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_score_is_what_transformers_says(channels, size, folder):
    sample = pictures(5, channels, size)
    score = term(folder, "a red star", channels=channels, size=size)
    pixels = as_transformers_sees(sample)
    torch.testing.assert_close(score.pixels(sample), pixels, atol=0.016, rtol=0)  # its two passes round to k / 255
    net = transformers.CLIPModel.from_pretrained(folder)
    tokens = transformers.CLIPTokenizer.from_pretrained(folder)("a red star", return_tensors="pt")
    with torch.no_grad():
        expected = net(pixel_values=pixels, **tokens).logits_per_image[:, 0] / net.logit_scale.exp()
    torch.testing.assert_close(score(view(sample)), expected, atol=0.01, rtol=0)
    assert float(expected.std()) > 0.03


def test_it_depends_on_picture_and_prompt_and_keeps_to_its_range(folder):
    star, moon = (term(folder, prompt)(view(pictures(50))) for prompt in ("a star", "the moon"))
    for scores in (star, moon):
        assert scores.shape == (50,)
        assert -1 <= float(scores.min()) < float(scores.max()) - 0.1 < 1
    assert float((star - moon).abs().mean()) > 0.05


def test_grey_is_three_equal_planes(folder):
    grey = pictures(4, channels=1)
    colours = grey.expand(-1, 3, -1, -1)
    assert torch.equal(term(folder, channels=1)(view(grey)), term(folder)(view(colours)))


def test_the_gradient_is_that_of_the_picture_alone(folder):
    score = term(folder)
    for part in (score.vision, score.projection):
        part.double()
    for name in ("prompt_features", "mean", "std"):
        setattr(score, name, getattr(score, name).double())
    sample = pictures(2, 1, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: score(view(x)), sample)
    assert not any(weight.requires_grad for part in (score.vision, score.projection) for weight in part.parameters())


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json", None])
def test_pictures_are_normalised_as_the_folder_says(file, folder):
    mean, std = MEAN, STD
    if file:
        said = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
        mean, std = torch.tensor(said["image_mean"]), torch.tensor(said["image_std"])
        (folder / file).write_text(json.dumps(said if file.startswith("pre") else {"image_processor": said}))
    pixels = term(folder).pixels(torch.full((1, 3, 12, 12), 0.6))
    expected = ((0.6 - mean) / std).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)


def test_edges_do_not_leave_what_a_picture_can_be(folder):
    """Bicubic interpolation alone would say −.07 and 1.07 beside this edge."""
    edge = torch.zeros(1, 3, 12, 12)
    edge[..., 6:] = 1
    score = term(folder)
    shown = score.pixels(edge) * score.std + score.mean
    assert float(shown.min()) == pytest.approx(0, abs=1e-6)
    assert float(shown.max()) == pytest.approx(1, abs=1e-6)


def test_weights_in_half_precision_are_read_as_float32(folder):
    exact = term(folder)(view(pictures(3)))
    transformers.CLIPModel.from_pretrained(folder).half().save_pretrained(folder)
    half = term(folder)(view(pictures(3)))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.01, rtol=0)


def test_a_long_prompt_is_cut_with_a_warning_and_an_empty_one_refused(folder, caplog):
    fitting = term(folder, "a b c d e f g h i j k l")(view(pictures(3)))
    assert not caplog.records
    assert torch.equal(term(folder, "a b c d e f g h i j k l m n o p")(view(pictures(3))), fitting)
    assert "has 18 tokens, and the model reads 14; it is cut after «a b c d e f g h i j k l»" in caplog.text
    for prompt in ("", "  "):
        with pytest.raises(UserError, match=r"prompt: is empty"):
            term(folder, prompt)


STEERED = ["env=latent_gan", "steering=continuous_step", "env.steering.basis=random", "+reward/term=latent_distance"]
RUNS = {
    "canvas": ["env=pixel", "agent=dqn"],
    "colours": ["env=latent_gan", "agent=dqn", "steering=discrete_step", "env.channels=3"],
    "ppo": [*STEERED, "agent=ppo"],
    "pathwise": [*STEERED, "agent=pathwise"],
    "fused": [*STEERED, "agent=ppo", "env.generator.fused_reward.weight=0.3"],
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.mostly_slow(5)
def test_training_runs_and_resumes_bit_for_bit(run, folder, tmp_path):
    resumes(small(*words(folder, *RUNS[run])), 160, tmp_path)
    scores = json.loads((tmp_path / "parts" / "samples" / "final" / "scores.json").read_text())
    assert -1 <= scores["scores"]["clip"] <= 1


def without_file(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def of_another_kind(folder: Path) -> None:
    """As a text encoder alone has it."""
    net = transformers.CLIPModel.from_pretrained(folder)
    kept = {name: weight for name, weight in net.state_dict().items() if not name.startswith("vis")}
    net.save_pretrained(folder, state_dict=kept)


def of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["patch_size"] = 4
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES = {
    "no config": (lambda folder: without_file(folder, "config.json"), r"config\.json"),
    "no tokenizer": (
        lambda folder: without_file(folder, "vocab.json", "merges.txt"),
        "tokenizer's files",
    ),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
    "broken weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"junk" * 9), "header"),
    "half a model": (of_another_kind, r"\d+ weights are missing or of another size, as vis"),
    "other sizes": (of_another_size, r"\(2 weights are missing or of another size, as vision_model"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_no_model_is_named_in_one_sentence(damage, folder):
    spoil, reason = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=rf"^reward\.terms\.clip\.model: the folder .*clip holds no.*{reason}") as error:
        session(*small(*words(folder)))
    assert "\n" not in str(error.value)


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path("trapped").touch, ()


def test_a_pickle_is_not_read(folder):
    without_file(folder, "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"model\.safetensors.*\(no pickle\)"):
        term(folder)
    assert not Path("trapped").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert Path("trapped").exists()  # it would have told


@pytest.mark.parametrize("name", ["/nowhere/clip", "./clip", "models/of/mine"])
def test_a_missing_folder_is_not_asked_of_the_hub(name):
    with pytest.raises(UserError, match=rf"^model: there is no folder {name}; name one, or owner/model"):
        term(name)


def test_a_name_is_asked_of_the_hub_for_safetensors(folder, monkeypatch):
    asked = {}
    expected = term(folder)(view(pictures(2)))
    for kind in (transformers.CLIPModel, transformers.CLIPTokenizer):

        def answer(name, *, kind=kind, real=kind.from_pretrained, **more):
            asked[kind.__name__] = (name, more["local_files_only"], more.get("use_safetensors"))
            return real(folder, **more)

        monkeypatch.setattr(kind, "from_pretrained", answer)
    processors = transformers.image_processing_utils.BaseImageProcessor
    monkeypatch.setattr(processors, "get_image_processor_dict", lambda *_, **__: ({}, {}))
    assert torch.equal(term("someone/clip")(view(pictures(2))), expected)
    assert asked == {"CLIPModel": ("someone/clip", False, True), "CLIPTokenizer": ("someone/clip", False, None)}


def test_a_name_that_the_hub_does_not_give_is_said_in_one_sentence(monkeypatch):
    def refuse(*_, **__):
        raise OSError("nobody/clip is not a local folder\nand is not a valid model identifier.")

    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", refuse)
    wanted = r"^model: there is no folder nobody/clip, and the .* hub .* \(nobody/clip is not .* identifier\); name a"
    with pytest.raises(UserError, match=wanted) as error:
        term("nobody/clip")
    assert "\n" not in str(error.value)


def test_transformers_is_left_as_loud_as_it_was(folder):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    term(folder)
    without_file(folder, "config.json")
    with pytest.raises(UserError):
        term(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_without_the_extra_the_message_says_what_to_install(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'rlgen\[clip\]'"):
        term(folder)


def test_pictures_with_other_channels_are_refused(folder):
    with pytest.raises(UserError, match="4 channels"):
        term(folder, channels=4)
