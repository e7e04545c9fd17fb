"""The published files that benchmarks read; in a quick run, small synthetic ones in the same formats."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import ROOT, Call
from rlgen_cli.data.glyphs import Glyphs
from rlgen_cli.data.images import tensor_to_pil
from rlgen_cli.data.leaves import Leaves
from rlgen_cli.domains.music.datasets.tunes import tonal_melody
from rlgen_cli.domains.music.midi import write_midi

SHARED = ROOT.parent / "shared" / "data"
MNIST, SPRITES, EMOJI, JUDGE = "mnist", "sprites", "emoji", "judge/mnist28.npz"
PHOTOS = "photos/test"
NOTE_RNN, ORACLE = "rl_tuner/note_rnn.npz", "seqgan/oracle.npz"
NOTTINGHAM, CHORALES = "nottingham", "jsb/Jsb16thSeparated.json"


def published(call: Call, name: str) -> Path:
    """Where a published file or folder lies, or what stands in for it in a quick run."""
    if not call.quick:
        return SHARED / name
    path = call.parts / "files" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        STAND_INS[name](path)
    return path


def mnist(call: Call) -> list[str]:
    """The words for the digits."""
    return ["data=mnist", f"data.root={published(call, MNIST)}"]


def write_digits(folder: Path) -> None:
    """MNIST's four files, with the digits of a font."""
    data = Glyphs(characters="0123456789", per_class=40, distortion=1.0).load(28, 1)
    images = np.concatenate([part.images.squeeze(1).numpy() for part in data])
    labels = np.concatenate([part.labels.numpy() for part in data]).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    folder.mkdir()
    for name, index in (("t10k", order[:100]), ("train", order[100:])):
        for kind, array in (("images-idx3", images[index]), ("labels-idx1", labels[index])):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())


def write_sprites(folder: Path) -> None:
    """Pictures of a few coloured squares."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(80):
        picture = np.zeros((16, 16, 3), np.uint8)
        for x, y in rng.integers(0, 12, (4, 2)):
            picture[y : y + 5, x : x + 5] = rng.integers(0, 256, 3)
        Image.fromarray(picture).save(folder / f"{i:03d}.png")


def write_photographs(folder: Path) -> None:
    """Pictures of overlapping shapes, higher than wide and wider than high."""
    folder.mkdir()
    images = Leaves(count=4, shapes=30).load(64, 3).train.images
    for i, image in enumerate(images):
        tensor_to_pil(image[:, 8 * (i % 2) :, 8 * ((i + 1) % 2) :]).save(folder / f"{i}.jpg")


def write_judge(path: Path) -> None:
    """The fixed judge's arrays, with random numbers."""
    shapes: dict[str, tuple[int, ...]] = {
        "c1.weight": (32, 1, 3, 3), "c1.bias": (32,), "c2.weight": (64, 32, 3, 3), "c2.bias": (64,),
        "f1.weight": (64, 3136), "f1.bias": (64,), "f2.weight": (10, 64), "f2.bias": (10,),
    }  # fmt: skip
    write_arrays(path, shapes)


def write_note_rnn(path: Path) -> None:
    """The Note RNN's arrays, with random numbers."""
    width, actions = 100, 38
    shapes: dict[str, tuple[int, ...]] = {
        "lstm_kernel": (actions + width, 4 * width), "lstm_bias": (4 * width,),
        "softmax_kernel": (width, actions), "softmax_bias": (actions,),
    }  # fmt: skip
    write_arrays(path, shapes)


def write_oracle(path: Path) -> None:
    """The SeqGAN oracle's arrays for 30 words, with random numbers."""
    words, width = 30, 4
    shapes: dict[str, tuple[int, ...]] = {"embedding": (words, width), "Wv": (width, words), "bv": (words,)}
    for gate in "ifoc":
        shapes |= {f"W{gate}": (width, width), f"U{gate}": (width, width), f"b{gate}": (width,)}
    write_arrays(path, shapes)


def write_arrays(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """An .npz of normal numbers, as small as first weights are."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(path, allow_pickle=False, **arrays)


def write_tunes(folder: Path) -> None:
    """MIDI files of embedded melodies."""
    rng = random.Random(0)
    folder.mkdir()
    for i in range(12):
        write_midi(folder / f"{i}.mid", tonal_melody(rng, 8))


def write_chorales(path: Path) -> None:
    """Four voices that move every beat, in the form of the JSB chorales."""
    rng = random.Random(0)

    def chorale() -> list[list[int]]:
        bases = rng.choices(range(5), k=32)
        return [[67 + base, 60 + base, 55 + base, 43 + base] for base in bases for _ in range(4)]

    path.write_text(json.dumps({split: [chorale() for _ in range(4)] for split in ("train", "valid", "test")}))


STAND_INS: dict[str, Callable[[Path], None]] = {
    MNIST: write_digits, SPRITES: write_sprites, EMOJI: write_sprites, PHOTOS: write_photographs, JUDGE: write_judge,
    NOTE_RNN: write_note_rnn, ORACLE: write_oracle, NOTTINGHAM: write_tunes, CHORALES: write_chorales,
}  # fmt: skip
