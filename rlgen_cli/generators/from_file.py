"""A generator of the user's own, from a file: it is steered, and does not learn.

What a file can do decides how it is read. Weights (safetensors) beside a config that names a class of the allow-list
can do nothing; an ONNX graph computes and nothing else, and lets no gradient through; a pickle, TorchScript or an
exported program can run anything when it is read (torch.load's documentation says so, and for `.pt2` it is how its
parts are stored), so it is read only where the user names it in `trust`.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError, nearest, require
from rlgen_cli.core.trust import Trust
from rlgen_cli.generators.architectures import ALLOWED, renamed
from rlgen_cli.generators.directions import draw_latents, most_visible

log = logging.getLogger(__name__)
PROBES = 16  # latents around which directions are looked for


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
        content = file.read_bytes()
        kind = kind_of(file)
        if kind == "weights":
            contents = from_weights(file, content, device)
        elif kind == "onnx":
            contents = from_onnx(file, classes, range)
        else:
            allow(path, kind, trust)
            contents = Contents(from_code(file, kind, device), None, classes, 0, *range)
        length = contents.latent or latent
        if length is None:
            raise UserError(f"latent: {path} does not say how long z is; give env.generator.latent.")
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
        z = draw_latents(PROBES, latent, device)
        label = torch.arange(PROBES, device=device) % max(self.classes, 1)
        self.register_buffer("learned", most_visible(lambda z: self(z, label).flatten(1), z))

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

    @torch.no_grad()
    def _probe(self) -> tuple[int, ...]:
        """C, H, W of its pictures; some files want z as [N, latent, 1, 1]."""
        (contents,) = self.contents
        plain = contents.make
        for make in (plain, lambda z, *label: plain(z[:, :, None, None], *label)):
            self.contents = (contents._replace(make=make),)
            try:
                made = [self(torch.zeros(n, self.latent, device=self.device), self._no_label(n)) for n in (2, 3)]
            except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
                reason = " ".join(str(error).split())[:160]
                continue
            if made[0].dim() == 4 and [len(x) for x in made] == [2, 3]:
                return tuple(made[0].shape[1:])
            reason = f"it gives {list(made[0].shape)} for two"
        raise UserError(
            f"path: {self.path} makes no pictures [N, C, H, W] of latents [N, {self.latent}] ({reason}); "
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
    require(place.is_file(), f"path: there is no {path}.")
    return place


def kind_of(file: Path) -> Literal["weights", "onnx", "program", "script", "pickle"]:
    """What a file is, by its name and, for an archive, by what lies in it."""
    if file.suffix == ".safetensors":
        return "weights"
    if file.suffix == ".onnx":
        return "onnx"
    if file.suffix == ".pt2":
        return "program"
    if zipfile.is_zipfile(file):
        names = zipfile.ZipFile(file).namelist()
        return "script" if any("/code/" in name for name in names) else "pickle"
    return "pickle"


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
    require(beside.is_file(), f"path: there is no {beside}, which says what class the weights are of.")
    try:
        config: Any = json.loads(beside.read_text())
        name, arguments = config["class"], dict(config["arguments"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"path: {beside} must be JSON with class and arguments ({error!r}).") from None
    try:
        weights = load_tensors(content)
    except SafetensorError as error:
        raise UserError(f"path: {file} cannot be read ({error}).") from None
    name, arguments, weights = renamed(name, arguments, weights)
    require(name in ALLOWED, f"path: {beside}: class {name} is not allowed; {nearest(str(name), list(ALLOWED))}")
    try:
        net: Any = ALLOWED[name](**arguments)
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"path: {file} and its config.json do not make a {name} ({reason}).") from None
    net = net.to(device).eval().requires_grad_(False)
    return Contents(net, net.latent, net.classes, net.coordinates, 0.0, 1.0)


def from_onnx(file: Path, classes: int, range: list[float]) -> Contents:
    """A graph whose first input is z and, with classes, whose second is the label; run on the CPU, by onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"path: {file} needs onnxruntime; install it with pip install 'rlgen[onnx]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common class
        raise UserError(f"path: {file} is no ONNX graph that can run ({' '.join(str(error).split())[:160]}).") from None
    names, (_, *size) = [entry.name for entry in session.get_inputs()], session.get_inputs()[0].shape
    length = size[0] if size and isinstance(size[0], int) else None

    def make(*inputs: Tensor) -> Tensor:
        arrays = [part.detach().cpu().numpy() for part in inputs]
        try:
            made = session.run(None, dict(zip(names, arrays, strict=True)))[0]
        except Exception as error:
            raise ValueError(str(error)) from None
        return torch.from_numpy(made).to(inputs[0].device)

    return Contents(make, length, classes, 0, *range)


def from_code(file: Path, kind: str, device: torch.device) -> nn.Module:
    """What the user trusts."""
    try:
        if kind == "program":
            return torch.export.load(file).module().to(device)
        if kind == "script":
            net: Any = torch.jit.load(str(file), map_location=device)
        else:
            net = torch.load(file, map_location=device, weights_only=False)
    except Exception as error:  # whatever it runs may fail in any way
        raise UserError(f"path: {file} cannot be read ({' '.join(str(error).split())[:160]}).") from None
    require(isinstance(net, nn.Module), f"path: {file} holds a {type(net).__name__}, not a module.")
    for parameter in net.parameters():  # one by one, since a script cannot do it at once
        parameter.requires_grad_(False)
    return net.eval()
