"""`rlgen doctor`: whether this machine is fit to train, and what is missing."""

import os
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch

from rlgen_cli.core.checkpoint import cache_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.policies.precision import FASTER_IN_BFLOAT16

NOT_INSTALLED = "not installed"
PACKAGES = (
    "rlgen",
    "torch",
    "hydra-core",
    "omegaconf",
    "numpy",
    "tensorboard",
    "pillow",
    "safetensors",
    "tqdm",
)
EXTRA = re.compile(r"""([\w.-]+).*;\s*extra\s*==\s*["']([\w-]+)["']""")  # a requirement of an extra, as metadata has it


def examine() -> None:
    """Print one line a fact; a fault that would stop a training is an error."""
    print(f"python       {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        print(f"{package:12} {_version(package)}")
    print(f"torch build  {'CUDA ' + str(torch.version.cuda) if torch.version.cuda else 'CPU only'}")
    print(f"device       {_device()}")
    kinds = FASTER_IN_BFLOAT16["cuda" if torch.cuda.is_available() else "cpu"]
    print(f"precision    auto is float32{f', bfloat16 for {sorted(kinds)}' if kinds else ''} here")
    print(f"threads      torch uses {torch.get_num_threads()} of {os.cpu_count()} cores")
    for extra, packages in extras().items():
        missing = ", ".join(name for name in packages if _version(name) == NOT_INSTALLED)
        print(f"extra {extra:10} {f'lacks {missing}: pip install rlgen[{extra}]' if missing else 'complete'}")
    faults = [fault for folder in (Path("outputs"), cache_folder()) if (fault := _unwritable(folder))]
    if faults:
        raise UserError(" ".join(faults))
    print("writable     outputs and cache: yes")


def extras() -> dict[str, list[str]]:
    """The packages of each extra, as the installed package declares them."""
    found: dict[str, list[str]] = {}
    for line in requires("rlgen") or []:
        if match := EXTRA.fullmatch(line):
            found.setdefault(match[2], []).append(match[1])
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def _device() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} (driver fits)"
    if torch.version.cuda:
        return "cpu: this torch is built for CUDA, but no GPU or no fitting driver was found"
    return "cpu"


def _unwritable(folder: Path) -> str:
    """What keeps files from being written there; empty when nothing does."""
    place = folder
    while not place.exists():
        place = place.resolve().parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{folder}: cannot be written ({error.strerror}); choose another folder or mend its rights."
