"""generator=file with weights and their config: two bytes say how long the config is, then come config and weights."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from rlgen_cli.core.trust import Trust
from rlgen_cli.generators.architectures import ALLOWED
from rlgen_cli.generators.from_file import GeneratorFile

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_generator_")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "MappedGenerator": {"sample": [1, 16, 16], "latent": 2, "classes": 2, "width": 4},
    "DCGAN": {"size": 8, "planes": 1, "latent": 2, "width": 1},
    "MLPGenerator": {"sample": [1, 2, 2], "latent": 2, "widths": [3]},
}


def target(data: bytes) -> None:
    folder, length = Path(PLACE.name), 2 + int.from_bytes(data[:2], "big")
    (folder / "config.json").write_bytes(data[2:length])
    (folder / "model.safetensors").write_bytes(data[length:])
    GeneratorFile(
        device=torch.device("cpu"), trust=Trust(), path=PLACE.name, latent=None, classes=0, range=[-1.0, 1.0]
    ).generator(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))


def seeds() -> list[bytes]:
    found = []
    for name, arguments in ARGUMENTS.items():
        config = json.dumps({"class": name, "arguments": arguments}).encode()
        found.append(len(config).to_bytes(2, "big") + config + save(ALLOWED[name](**arguments).state_dict()))
    return found
