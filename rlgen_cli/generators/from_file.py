"""A generator of the user's own, from a file: it is steered, and does not learn.

What a file can do decides how it is read. Weights (safetensors) beside a config that names a class of the allow-list
can do nothing; an ONNX graph computes and nothing else, and lets no gradient through; a pickle, TorchScript or an
exported program can run anything when it is read (torch.load's documentation says so, and for `.pt2` it is how its
parts are stored), so it is read only where the user names it in `trust`.

When to use it: where a trained generator of pictures is there already.

What to expect: an ONNX file takes agents and search without gradients; weights with a config take all of them
(docs/latent.md has the table).
"""

import hashlib
import io
import json
import logging
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError, nearest, reason_of, require
from rlgen_cli.core.files import MIB, read_bytes
from rlgen_cli.core.trust import Trust
from rlgen_cli.generators.architectures import ALLOWED, renamed
from rlgen_cli.generators.directions import draw_latents, most_visible
from rlgen_cli.generators.onnx_file import open_graph

log = logging.getLogger(__name__)
PROBES = 16  # latents around which directions are looked for
LARGEST_FILE = 2048 * MIB
LARGEST_CONFIG = MIB  # of config.json, and of the header of weights
LARGEST_ARGUMENT, MOST_LAYERS = 1 << 20, 64  # of a class
LARGEST_PICTURE = 1 << 22  # numbers, channels · height · width
LONGEST_LATENT = 4096
LARGEST_JACOBIAN = 1 << 26  # numbers of a latent times numbers of a picture; 4 GiB for all PROBES


class Contents(NamedTuple):
    """What was read, and what it says of itself."""

    make: Callable[..., Tensor]  # of z, and label, shift where it takes them
    latent: int | None
    classes: int
    coordinates: int  # of a space of parameters
    low: float  # the pictures' range
    high: float


class GeneratorFile:
    """A source (generators.GeneratorSource) that reads its generator from a file, which may be

    - a folder with `config.json` and one `.safetensors`, or that `.safetensors`. The config is
      `{"class": NAME, "arguments": {…}}` with the name MappedGenerator (what `rlgen pretrain env=latent_gan` leaves in
      `<run>/generator`), DCGAN or MLPGenerator (architectures.py);
    - an `.onnx`, whose inputs are z and, with classes, the label;
    - where `trust` names it, a pickled module, TorchScript, or a `.pt2`.

    Args:
        device: where everything lies.
        trust: the files that may be read though they can run code.
        path: of the folder or the file.
        latent: how long z is, for a file that does not say.
        classes: labels that it takes, for a file that does not say; 0 for none.
        range: low and high of the pictures, for a file that does not say.

    Raises:
        UserError: for a file that cannot be read, or is none of these, or makes no pictures.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        trust: Trust,
        path: str,
        latent: int | None,
        classes: int,
        range: list[float],
    ) -> None:
        require(len(range) == 2 and range[0] < range[1], f"range: must be two numbers, low and high, got {range}.")
        require(latent is None or latent >= 1, f"latent: must be at least 1, got {latent}.")
        require(classes >= 0, f"classes: must be at least 0, got {classes}.")
        file = the_file(path)
        content = read_bytes(file, LARGEST_FILE, "path")
        kind = kind_of(file, content)
        if kind == "weights":
            contents = from_weights(file, content, device)
        elif kind == "onnx":
            graph = open_graph(file, content, 2 if classes else 1)
            contents = Contents(graph.run, graph.latent, classes, 0, *range)
        else:
            allow(path, kind, trust)
            contents = Contents(from_code(file, content, kind, device), None, classes, 0, *range)
        length = contents.latent or latent
        if length is None:
            raise UserError(f"latent: {path} does not say how long z is; give env.generator.latent.")
        longest = f"and at most {LONGEST_LATENT} are taken"
        require(1 <= length <= LONGEST_LATENT, f"latent: {path} has latents of {length} numbers, {longest}.")
        digest = hashlib.sha256(content).hexdigest()
        self.generator = FileGenerator(
            contents=contents, latent=length, differentiable=kind != "onnx", path=path, digest=digest, device=device
        )


class FileGenerator(nn.Module):
    """A `core.protocols.Generator`: pictures [N, C, H, W] in [0, 1] of z [N, latent], by what a file holds.

    Its state is the digest of the file, which a run does not copy, and the directions.

    Args:
        contents: of the file.
        latent: numbers in z.
        differentiable: gradients flow from the pictures to z.
        path: of the file, for messages.
        digest: SHA-256 of the file, hexadecimal.
        device: where everything lies.
    """

    direction_names = ("learned",)
    learned: Tensor  # [latent, latent]

    def __init__(
        self,
        *,
        contents: Contents,
        latent: int,
        differentiable: bool,
        path: str,
        digest: str,
        device: torch.device,
    ) -> None:
        super().__init__()
        # In a tuple, so that the file's weights are no part of this module's state.
        self.contents = (contents,)
        self.latent, self.classes, self.coordinates = latent, contents.classes, contents.coordinates
        self.differentiable, self.path, self.digest, self.device = differentiable, path, digest, device
        self.shape = self._probe()
        self.register_buffer("learned", self._directions())

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Pictures [N, C, H, W] in [0, 1]."""
        contents = self.contents[0]
        labels = [label] if self.classes else []
        made = contents.make(z, *labels) if shift is None else contents.make(z, label, shift)
        return ((made - contents.low) / (contents.high - contents.low)).clamp(0, 1)

    @staticmethod
    def finished(raw: Tensor) -> Tensor:
        """What rewards see of it: the pictures themselves."""
        return raw

    def directions(self, name: str) -> Tensor:
        """[latent, latent], a direction in each row, from the one that changes the pictures most."""
        return {"learned": self.learned}[name]

    def _directions(self) -> Tensor:
        """[latent, latent], what `directions` gives."""
        size = self.latent * math.prod(self.shape)
        large = f"{list(self.shape)} of {self.latent} numbers, and the product of all may be {LARGEST_JACOBIAN} at most"
        require(size <= LARGEST_JACOBIAN, f"path: {self.path} makes pictures {large}.")
        label = torch.arange(PROBES, device=self.device) % max(self.classes, 1)

        def features(z: Tensor) -> Tensor:
            made = self(z, label).flatten(1)
            if made.device.type != "meta" and not bool(made.isfinite().all()):
                raise ValueError("some numbers are not finite")
            return made

        try:
            return most_visible(features, draw_latents(PROBES, self.latent, self.device))
        except (RuntimeError, ValueError) as error:
            raise UserError(f"path: {self.path} does not make pictures of all latents ({reason_of(error)}).") from None

    @torch.no_grad()
    def _probe(self) -> tuple[int, ...]:
        """C, H, W of its pictures; some files want z as [N, latent, 1, 1]."""
        (contents,) = self.contents
        plain, reasons = contents.make, []
        for make in (plain, lambda z, *label: plain(z[:, :, None, None], *label)):
            self.contents = (contents._replace(make=make),)
            try:
                made = [self(torch.zeros(n, self.latent, device=self.device), self._no_label(n)) for n in (2, 3)]
            except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
                reasons.append(reason_of(error))
                continue
            require(
                made[0][:1].numel() <= LARGEST_PICTURE,
                f"path: {self.path} makes pictures of {list(made[0].shape[1:])}, more than {LARGEST_PICTURE} numbers.",
            )
            if made[0].dim() == 4 and [len(x) for x in made] == [2, 3]:
                return tuple(made[0].shape[1:])
            reasons.append(f"it gives {list(made[0].shape)} for two")
        raise UserError(
            f"path: {self.path} makes no pictures [N, C, H, W] of latents [N, {self.latent}] ({reasons[0]}); "
            f"check env.generator.latent and env.generator.classes."
        )

    def _no_label(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.long, device=self.device)

    def get_extra_state(self) -> dict[str, str]:
        """Which file it was."""
        return {"sha256": self.digest}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Refuse the state of another file's generator."""
        require(
            state["sha256"] == self.digest,
            f"env.generator.path: {self.path} is not the generator that the run was trained with.",
        )


def the_file(path: str) -> Path:
    """The file that a path means: in a folder, its only safetensors."""
    place = Path(path)
    if place.is_dir():
        found = sorted(place.glob("*.safetensors"))
        require(len(found) == 1, f"path: {path} must hold one .safetensors beside config.json, and holds {len(found)}.")
        return found[0]
    require(os.path.lexists(place), f"path: there is no {path}.")
    return place


def kind_of(file: Path, content: bytes) -> Literal["weights", "onnx", "program", "script", "pickle"]:
    """What a file is, by its name and, for an archive, by what lies in it."""
    if file.suffix == ".safetensors":
        return "weights"
    if file.suffix == ".onnx":
        return "onnx"
    if file.suffix == ".pt2":
        return "program"
    return "script" if any("/code/" in entry.filename for entry in entries(content)) else "pickle"


def entries(content: bytes) -> list[zipfile.ZipInfo]:
    """What lies in a zip archive; nothing in what is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.infolist()
    except Exception:  # a damaged one raises whatever zipfile stumbles over
        return []


def allow(path: str, kind: str, trust: Trust) -> None:
    """Refuse, or warn of, what can run code."""
    what = {"program": "an exported program", "script": "TorchScript", "pickle": "a pickle"}[kind]
    if not trust.allows(path):
        raise UserError(
            f"path: {path} is {what}, which can run any code when it is read; save its weights as safetensors with a "
            f"config.json, or, if you know who made it, allow it with trust=[{path}]."
        )
    log.warning("%s is %s: reading it can run any code, and trust=[…] allows it.", path, what)


def from_weights(file: Path, content: bytes, device: torch.device) -> Contents:
    """A class of the allow-list, built as `config.json` beside the weights says: `class` and `arguments`."""
    beside = file.parent / "config.json"
    require(os.path.lexists(beside), f"path: there is no {beside}, which says what class the weights are of.")
    name, arguments = described(beside)
    weights = tensors(file, content)
    name, arguments, weights = renamed(name, arguments, weights)
    require(name in ALLOWED, f"path: {beside}: class {name[:80]} is not allowed; {nearest(name[:80], list(ALLOWED))}")
    try:
        net: Any = built(name, arguments, weights)
    except Exception as error:  # a class fails in any way on arguments that it was not made for
        raise UserError(f"path: {file} and its config.json do not make a {name} ({reason_of(error)}).") from None
    net = net.to(device).eval().requires_grad_(False)
    return Contents(net, net.latent, net.classes, net.coordinates, 0.0, 1.0)


def tensors(file: Path, content: bytes) -> dict[str, Tensor]:
    """What a file of safetensors holds, by name."""
    header = int.from_bytes(content[:8], "little")  # its length comes first
    most = f"its header has {header} bytes, more than {LARGEST_CONFIG // MIB} MiB"
    require(header <= LARGEST_CONFIG, f"path: {file} cannot be read ({most}).")
    try:
        return load_tensors(content)
    except Exception as error:  # SafetensorError, or whatever torch says of a kind or shape that it does not have
        raise UserError(f"path: {file} cannot be read ({reason_of(error)}).") from None


def described(file: Path) -> tuple[str, dict[str, Any]]:
    """`class` and `arguments` of a config.json."""
    try:
        config: Any = json.loads(read_bytes(file, LARGEST_CONFIG, "path"), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise UserError(f"path: {file} must be JSON with class and arguments ({reason_of(error)}).") from None
    whole = isinstance(config, dict) and set(config) == {"class", "arguments"}
    if not (whole and isinstance(config["class"], str) and isinstance(config["arguments"], dict)):
        raise UserError(f"path: {file} must be JSON with class and arguments, a name and an object, and nothing else.")
    return config["class"], config["arguments"]


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands there twice")
    return made


def built(name: str, arguments: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The module with its weights. It is made on the meta device first, which takes no memory, so that its size is the
    weights' before it takes any.

    Raises:
        Exception: whatever the class raises; ValueError for weights of other shapes.
    """
    for key, value in arguments.items():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MOST_LAYERS or any(type(x) is not int or not 0 <= x <= LARGEST_ARGUMENT for x in numbers):
            raise ValueError(f"{key} must be a number from 0 to {LARGEST_ARGUMENT}, or a list of at most {MOST_LAYERS}")
    with torch.device("meta"):
        planned: Any = ALLOWED[name](**arguments)
        check_shapes(planned.state_dict(), weights)
        label = torch.zeros(2, dtype=torch.long) if planned.classes else None
        made = planned.eval()(torch.zeros(2, planned.latent), *([] if label is None else [label]))
    if made[:1].numel() > LARGEST_PICTURE:
        raise ValueError(f"its pictures of {list(made.shape[1:])} have more than {LARGEST_PICTURE} numbers")
    net = ALLOWED[name](**arguments)
    net.load_state_dict(weights)
    return net


def check_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise ValueError unless both have the same names, shapes, and sorts of numbers."""
    for name in sorted({*wanted, *found}):
        if name not in wanted or name not in found:
            raise ValueError(f"{'no' if name in wanted else 'there is'} {name} among the weights")
        one, two = wanted[name], found[name]
        if one.shape != two.shape or one.is_floating_point() != two.is_floating_point():
            raise ValueError(f"{name} must be {one.dtype} {list(one.shape)}, and is {two.dtype} {list(two.shape)}")


def from_code(file: Path, content: bytes, kind: str, device: torch.device) -> nn.Module:
    """What the user trusts not to do harm; that it fits into memory is checked."""
    unpacked = sum(entry.file_size for entry in entries(content))
    most = f"{unpacked} bytes, more than {LARGEST_FILE // MIB} MiB"
    require(unpacked <= LARGEST_FILE, f"path: {file} unpacks to {most}.")
    try:
        if kind == "program":
            return torch.export.load(file).module().to(device)
        if kind == "script":
            net: Any = torch.jit.load(str(file), map_location=device)
        else:
            net = torch.load(file, map_location=device, weights_only=False)
    except Exception as error:  # whatever it runs may fail in any way
        raise UserError(f"path: {file} cannot be read ({reason_of(error)}).") from None
    require(isinstance(net, nn.Module), f"path: {file} holds a {type(net).__name__}, not a module.")
    for parameter in net.parameters():  # one by one, since a script cannot do it at once
        parameter.requires_grad_(False)
    return net.eval()
