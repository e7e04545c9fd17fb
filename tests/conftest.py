"""Small sessions that every test can afford. Torch runs on one thread, so that results do not depend on the machine."""

import inspect
import json
import logging
import os
import random
import string
import struct
import sys
import typing
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from benchmarks import files
from rlgen_cli.cli import main as cli
from rlgen_cli.config.compose import composed
from rlgen_cli.domains.music.datasets.tunes import tonal_melody
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.stages import fit_cached
from tests.made_once import keep_what_is_made

Rlgen = Callable[..., tuple[int, str, str]]
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
if sys.version_info < (3, 12):  # a newer Python looks attributes of a protocol up without a module's __getattr__
    PROTOCOLS: Any = typing._ProtocolMeta
    lenient = PROTOCOLS.__instancecheck__

    def strictly(protocol: Any, instance: Any) -> bool:
        """isinstance, as Python 3.12 has it."""
        said = bool(lenient(protocol, instance))
        if not said or not getattr(protocol, "_is_protocol", False):
            return said
        missing = object()
        names = typing._get_protocol_attrs(protocol)  # type: ignore[attr-defined]
        return protocol in type(instance).__mro__ or all(
            inspect.getattr_static(instance, name, missing) is not missing for name in names
        )

    PROTOCOLS.__instancecheck__ = strictly
keep_what_is_made()

SMALL = [
    f"device={os.environ.get('RLGEN_TEST_DEVICE', 'cpu')}",  # whatever the machine has
    f"precision={os.environ.get('RLGEN_TEST_PRECISION', 'auto')}",  # CI forces both
    "threads=1",
    "num_envs=4",
    "total_steps=160",
    "log_interval=40",
    "eval_interval=80",
    "eval_episodes=4",
    "checkpoint_interval=1000",
]
SONG = ["env.length=16", "env.bar=8", "env.history=4", "data.count=12"]
CANVAS = ["env.size=12", "env.max_steps=6", "data.per_class=4"]
LATENT = ["env.size=16", "env.max_steps=3", "data.per_class=4"]
TUNE = ["env.length=16", "env.bar=8", "data.count=12", "env.max_steps=3"]
DENOISED = ["env.size=12", "env.max_steps=3", "data.per_class=4"]
ENVS = {"pixel": CANVAS, "music": SONG, "latent_gan": LATENT, "latent_music": TUNE, "diffusion": DENOISED}
GAN = [
    "env.generator.updates=2", "env.generator.latent=6", "env.generator.batch_size=4", "env.generator.network.width=8",
    "env.generator.discriminator.width=4",
]  # fmt: skip
DIFFUSION = ["env.generator.updates=2", "env.generator.batch_size=4", "env.generator.network.width=8"]
# Rewards that need a helper, and the terms whose helper it is.
HELPED = {"classifier": "classifier", "adversarial_classifier": "classifier", "steer": "classifier"}
HELPED |= {name: name for name in ("style", "perceptual", "novelty", "diversity")}
NETWORK = ["agent.network.body.width=16", "agent.network.maps.channels=4"]
LEARNERS = {
    "dqn": ["agent.learning_starts=16", "agent.batch_size=8", "agent.replay.buffer_size=400", *NETWORK],
    "actor_critic": NETWORK,
    "ppo": NETWORK,
    "ppo_tune": [*NETWORK, "agent.anchor.prior=start"],
    "policy_gradient": NETWORK,
    "pathwise": NETWORK,
    "reward_weighted": [
        "agent.learning_starts=8",
        "agent.buffer_size=16",
        "agent.batch_size=4",
        "agent.updates=1",
        *NETWORK,
    ],
    "nft": ["agent.group_size=2", *NETWORK],
    "grpo": ["agent.baseline.group_size=2", "agent.num_minibatches=2", *NETWORK],
    "trajectory_balance": ["agent.buffer_size=16", "agent.batch_size=4", "agent.updates=1", *NETWORK],
    "cem": ["agent.samples=4", "agent.rounds=2", "agent.elite=2"],
    "best_of": ["agent.samples=4", "agent.rounds=2"],
    "gradient": ["agent.samples=4", "agent.rounds=2"],
    "maximum_likelihood": ["agent.network.recurrent.width=8", "agent.network.body.embed=4", "agent.batch_size=4"],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-case", action="store_true", help="no case is slow for being one of many")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test that is `mostly_slow(n)`, one in n of the cases that are not slow anyway runs with the fast tests,
    whichever their names' sums pick, and so from all over its parameters."""
    cases: dict[tuple[object, int], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("mostly_slow")
        if marker and not item.get_closest_marker("slow") and not config.getoption("every_case"):
            cases.setdefault((getattr(item, "function", None), marker.args[0]), []).append(item)
    for (_, n), several in cases.items():
        by_sum = sorted(several, key=lambda item: zlib.crc32(item.name.encode()))
        for item in by_sum[-(-len(several) // n) :]:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path, monkeypatch):
    """Every test works in a folder of its own, with a cache of its own; modules that it imported from there go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small files in the forms of the published ones, and by their names."""
    folder = tmp_path_factory.mktemp("published")
    for name, write in files.STAND_INS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    return folder


def compose(*overrides: str) -> DictConfig:
    return composed("train", list(overrides))


def session(*overrides: str) -> Session:
    """All objects of a run, its stages fitted."""
    return fitted(compose(*overrides))


def fitted(config: DictConfig) -> Session:
    """The same of a config that is composed already."""
    built = assemble(config)
    for stage in built.stages:
        fit_cached(stage, built)
    return built


def chosen(overrides: tuple[str, ...], group: str, default: str) -> str:
    """What the overrides choose for a group."""
    return next((o.partition("=")[2] for o in reversed(overrides) if o.startswith(f"{group}=")), default)


def small(*overrides: str) -> list[str]:
    """A training of seconds: a small canvas, a short melody, a GAN that is hardly trained."""
    env, agent = chosen(overrides, "env", "pixel"), chosen(overrides, "agent", "dqn")
    reward = chosen(overrides, "reward", "")
    fitted = {"latent_gan": GAN, "latent_music": GAN, "diffusion": DIFFUSION}.get(env, [])
    if "generator/network=unet2d" in overrides:
        fitted = [*DIFFUSION[:2], "env.generator.network.channels=[8,8]"]
    steered = env.startswith("latent") and chosen(overrides, "steering", "discrete_step") != "set_latent"
    mapped = chosen(overrides, "network", "mlp") == "mlp" and "agent.network.maps=null" not in overrides
    learner = LEARNERS.get(agent, [])
    return [
        *overrides,
        *SMALL,
        *ENVS.get(env, []),
        *([] if {"generator=file", "generator=diffusers"} & {*overrides} else fitted),
        *(["env.steering.directions=4"] if steered else []),
        *(word for word in learner if mapped or ".maps." not in word),
        *([f"reward.terms.{HELPED[reward]}.updates=5"] if reward in HELPED else []),
    ]


def write_picture(path: Path, side: int = 20) -> Path:
    """A picture with colours and edges."""
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def write_idx(folder: Path, images: int = 30, side: int = 28) -> Path:
    """Four files in MNIST's format, with random pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("train", "t10k"):
        pixels = rng.integers(0, 256, (images, side, side), dtype=np.uint8)
        labels = (np.arange(images) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


def write_note_rnn(path: Path, actions: int = 38, width: int = 100) -> Path:
    """Random arrays in the form of RL Tuner's Note RNN."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...] | int] = {
        "lstm_kernel": (actions + width, 4 * width),
        "lstm_bias": 4 * width,
        "softmax_kernel": (width, actions),
    }
    shapes |= {"softmax_bias": actions}
    arrays: dict[str, Any] = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(path, **arrays)
    return path


def write_clip(folder: Path) -> Path:
    """A CLIP model of a few units with random weights, which sees 16 × 16 pixels and reads 12 letters."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    letters = string.ascii_lowercase
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    shared = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reads = {"vocab_size": len(words), "max_position_embeddings": 14, "bos_token_id": 52, "eos_token_id": 53}
    sees = {"image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=shared | reads, vision_config=shared | sees, projection_dim=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = transformers.CLIPModel(config)
        for weight in net.parameters():
            if weight.ndim > 1:  # what a training begins with hardly tells pictures apart
                torch.nn.init.normal_(weight)
    net.save_pretrained(folder)
    return folder


def write_diffusers(folder: Path, size: int, labels: int | None = None, channels: int = 1, **scheduler: Any) -> Path:
    """A UNet2DModel of a few units with random weights and a scheduler, as diffusers writes them."""
    diffusers = pytest.importorskip("diffusers")
    kind = getattr(diffusers, scheduler.pop("kind", "DDPMScheduler"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=(8, 16),
            layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"), norm_num_groups=4,
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=labels,
        )  # fmt: skip
    diffusers.DDPMPipeline(net, kind(**scheduler)).save_pretrained(folder)
    return folder


def write_oracle(path: Path, words: int = 30, width: int = 4) -> Path:
    """Random arrays in the form of SeqGAN's oracle."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...] | int] = {"embedding": (words, width), "Wv": (width, words), "bv": words}
    for gate in "ifoc":
        shapes |= {f"W{gate}": (width, width), f"U{gate}": (width, width), f"b{gate}": width}
    arrays: dict[str, Any] = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(path, **arrays)
    return path


def slow(*values: object) -> list[object]:
    """Parameters that run with `make test-all` alone."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]


def write_tunes(folder: Path, count: int = 6) -> Path:
    """MIDI files of embedded melodies."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for i in range(count):
        write_midi(folder / f"{i}.mid", tonal_melody(rng, 8))
    return folder


def write_chorales(path: Path, steps: int = 64) -> Path:
    """Four voices that move every beat, in the JSB form."""
    rng = random.Random(0)
    rows = lambda: [[67 + b, 60 + b, 55 + b, 43 + b] for b in rng.choices(range(5), k=steps // 4) for _ in range(4)]  # noqa: E731
    path.write_text(json.dumps({split: [rows(), rows()] for split in ("train", "valid", "test")}))
    return path


def needs_shared(name: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where the real data is not there."""
    path = SHARED / name
    return pytest.mark.skipif(not path.exists(), reason=f"needs {os.path.join('shared', 'data', name)}")


@pytest.fixture
def rlgen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rlgen:
    """Run the command in this process: (exit code, what it printed, what it complained)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlgen", *words])
        code, handlers = 0, list(logging.getLogger().handlers)
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:  # Hydra's would write to what this test has caught, which is closed in the next
            logging.getLogger().handlers = handlers
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return run
