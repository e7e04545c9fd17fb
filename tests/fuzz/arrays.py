"""A Note RNN's weights in an `.npz`."""

import tempfile
from pathlib import Path

from rlgen_cli.policies.note_rnn import note_rnn_weights
from tests.conftest import write_note_rnn

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_arrays_")


def target(data: bytes) -> None:
    path = Path(PLACE.name) / "x.npz"
    path.write_bytes(data)
    note_rnn_weights(path, "prior.source")


def seeds() -> list[bytes]:
    return [write_note_rnn(Path(PLACE.name) / "seed.npz", actions=3, width=2).read_bytes()]
