"""data=mnist with one of its four files changed: the first byte says which, and whether gzip packed it."""

import gzip
import tempfile
from pathlib import Path

from rlgen_cli.data.mnist import FILES, IdxImages
from tests.conftest import write_idx

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_idx_")
GOOD = {path.name: path.read_bytes() for path in write_idx(Path(PLACE.name), images=12, side=4).iterdir()}


def target(data: bytes) -> None:
    which = data[0] if data else 0
    name, packed = FILES[which % 4], which & 4
    for other in FILES:
        (Path(PLACE.name) / other).write_bytes(GOOD[other])
        (Path(PLACE.name) / f"{other}.gz").unlink(missing_ok=True)
    (Path(PLACE.name) / name).unlink()
    (Path(PLACE.name) / (f"{name}.gz" if packed else name)).write_bytes(data[1:])
    IdxImages("mnist", PLACE.name, "https://127.0.0.1:9", {}, list("0123456789"), None).load(8, 1)


def seeds() -> list[bytes]:
    plain = [bytes([i]) + GOOD[name] for i, name in enumerate(FILES)]
    return plain + [bytes([seed[0] | 4]) + gzip.compress(seed[1:], mtime=0) for seed in plain]
