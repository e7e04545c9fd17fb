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
from rlgen_cli.generators.architectures import ALLOWED
from rlgen_cli.generators.directions import learned

log = logging.getLogger(__name__)
CHARTED = 16  # latents around which directions are looked for


class Source(NamedTuple):
    """What was read, and what it says of itself."""

    make: Callable[..., Tensor]  # of z, and label, shift where it takes them
    latent: int | None
    classes: int
    coordinates: int  # of a space of parameters
    low: float  # the pictures' range
    high: float


class Own:
    """Pictures [N, C, H, W] in [0, 1] of z [N, latent], by a file.

    Args:
        path: a folder with `config.json` and one `.safetensors`, or that file; `.onnx`; or, where `trust` names it, a
            pickled module, TorchScript or `.pt2`.
        latent, classes: for a file that does not say how long z is, and how many labels it takes; 0 labels for none.
        range: of the pictures of a file that does not say.
        trust: the files that may be read though they can run code.

    Raises:
        UserError: for a file that cannot be read, or is none of these, or makes no pictures.
    """

    trains = False

    def __init__(
        self,
        *,
        device: torch.device,
        trust: list[str],
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
        self.digest, self.path, self.device = hashlib.sha256(content).hexdigest(), path, device
        kind = kind_of(file)
        if kind == "weights":
            source = from_weights(file, content, device)
        elif kind == "onnx":
            source = from_onnx(file, classes, range)
        else:
            allow(path, kind, trust)
            source = Source(from_code(file, kind, device), None, classes, 0, *range)
        length = source.latent or latent
        if length is None:
            raise UserError(f"latent: {path} does not say how long z is; give env.gan.latent.")
        self.source, self.latent, self.classes, self.coordinates = source, length, source.classes, source.coordinates
        self.differentiable = kind != "onnx"
        self.shape = self._probe()
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(CHARTED, self.latent, generator=rng).to(device)
        label = torch.arange(CHARTED, device=device) % max(self.classes, 1)
        self.directions = {"learned": learned(lambda z: self(z, label).flatten(1), z)}

    def __call__(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Pictures [N, C, H, W] in [0, 1]."""
        beside = [label] if self.classes else []
        made = self.source.make(z, *beside) if shift is None else self.source.make(z, label, shift)
        return ((made - self.source.low) / (self.source.high - self.source.low)).clamp(0, 1)

    @torch.no_grad()
    def _probe(self) -> tuple[int, ...]:
        """C, H, W of its pictures; some want z as [N, latent, 1, 1]."""
        plain = self.source.make
        for make in (plain, lambda z, *label: plain(z[:, :, None, None], *label)):
            self.source = self.source._replace(make=make)
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
            f"check env.gan.latent and env.gan.classes."
        )

    def _no_label(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.long, device=self.device)

    def state_dict(self) -> dict[str, Any]:
        """Which file it was; a run does not copy it."""
        return {"sha256": self.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["sha256"] != self.digest:
            raise UserError(f"env.gan.path: {self.path} is not the generator that the run was trained with.")


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


def allow(path: str, kind: str, trust: list[str]) -> None:
    """Refuse, or warn of, what can run code."""
    what = {"program": "an exported program", "script": "TorchScript", "pickle": "a pickle"}[kind]
    if path not in trust:
        raise UserError(
            f"path: {path} is {what}, which can run any code when it is read; save its weights as safetensors with a "
            f"config.json, or, if you know who made it, allow it with trust=[{path}]."
        )
    log.warning("%s is %s: reading it can run any code, and trust=[…] allows it.", path, what)


def from_weights(file: Path, content: bytes, device: torch.device) -> Source:
    """A class of the allow-list, built as `config.json` beside the weights says: `class` and `arguments`."""
    beside = file.parent / "config.json"
    require(beside.is_file(), f"path: there is no {beside}, which says what class the weights are of.")
    try:
        said: Any = json.loads(beside.read_text())
        name, arguments = said["class"], said["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"path: {beside} must be JSON with class and arguments ({error!r}).") from None
    require(name in ALLOWED, f"path: {beside}: class {name} is not allowed; {nearest(str(name), list(ALLOWED))}")
    try:
        net = ALLOWED[name](**arguments)
        net.load_state_dict(load_tensors(content))
    except (RuntimeError, TypeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"path: {file} and its config.json do not make a {name} ({reason}).") from None
    net = net.to(device).eval().requires_grad_(False)
    return Source(net, net.latent, net.classes, net.coordinates, 0.0, 1.0)


def from_onnx(file: Path, classes: int, range: list[float]) -> Source:
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
    names, (_, *size) = [given.name for given in session.get_inputs()], session.get_inputs()[0].shape
    length = size[0] if size and isinstance(size[0], int) else None

    def make(*given: Tensor) -> Tensor:
        arrays = [part.detach().cpu().numpy() for part in given]
        try:
            made = session.run(None, dict(zip(names, arrays, strict=True)))[0]
        except Exception as error:
            raise ValueError(str(error)) from None
        return torch.from_numpy(made).to(given[0].device)

    return Source(make, length, classes, 0, *range)


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
