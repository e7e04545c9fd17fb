"""What a run leaves to read, metrics.jsonl and status.json: the first byte says which."""

import json
import tempfile
from pathlib import Path

from rlgen_cli.runs.records import record_of
from rlgen_cli.runs.states import state_of

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_records_")


def target(data: bytes) -> None:
    if data[:1] == b"s":
        (Path(PLACE.name) / "status.json").write_bytes(data[1:])
        state = state_of(Path(PLACE.name))
        assert state is None or state.status != "running"  # no process is at work there
    else:
        for line in data[1:].splitlines():
            record = record_of(line)
            assert record is None or record["step"] + record["seconds"] is not None


def seeds() -> list[bytes]:
    status = {"status": "running", "step": 80, "total_steps": 160, "seconds": 0.7, "updated": 1, "best": None}
    lines = [{"step": 40, "seconds": 0.5, "return": 1.5, "agent/loss": None}, {"stage": "gan", "step": 1, "seconds": 1}]
    return [b"s" + json.dumps(status).encode(), b"m" + "\n".join(map(json.dumps, lines)).encode()]
