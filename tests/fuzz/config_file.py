"""A stranger's config.yaml: what is read holds no reference and no component that the package's YAMLs do not name."""

import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rlgen_cli.config.saved import components, read_config
from rlgen_cli.core.trust import Trust
from tests.conftest import compose

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_config_")
CHOSEN = (["env=tiny"], ["agent=ppo", "brush=stroke"], ["env=music", "agent=ppo"], ["env=latent_gan", "agent=cem"])


def target(data: bytes) -> None:
    path = Path(PLACE.name) / "config.yaml"
    path.write_bytes(data)
    check(OmegaConf.to_container(read_config(path, Trust()), resolve=True))


def check(node: Any) -> None:
    if isinstance(node, dict):
        assert node.get("_target_") is None or node["_target_"] in components()
        node = list(node.values())
    for value in node if isinstance(node, list) else []:
        check(value)
    assert not isinstance(node, str) or "${" not in node


def seeds() -> list[bytes]:
    return [OmegaConf.to_yaml(compose(*words), resolve=True).encode() for words in CHOSEN]
