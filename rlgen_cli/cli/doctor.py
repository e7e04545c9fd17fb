"""`rlgen doctor`: whether this machine is fit to train, and what is missing."""

import importlib.util
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rlgen_cli.core.checkpoint import cache_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.policies.precision import FASTER_IN_BFLOAT16

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
EXTRAS = {"dev": ("pytest", "ruff", "mypy", "importlinter"), "benchmarks": ("matplotlib",)}


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
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        print(f"extra {extra:10} {'complete' if not missing else f'missing {missing}: pip install rlgen[{extra}]'}")
    faults = [fault for folder in (Path("outputs"), cache_folder()) if (fault := _unwritable(folder))]
    if faults:
        raise UserError(" ".join(faults))
    print("writable     outputs and cache: yes")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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
