"""How a benchmark is called, where its results and its parts lie, and when its table is complete.

    python -m benchmarks.NAME                 measures in full: minutes to hours; goes on where it was interrupted
    python -m benchmarks.NAME quick=true      the same code in seconds, with tiny sizes and synthetic files
    python -m benchmarks.NAME once=true       does nothing if its table is complete for this version of the code
    python -m benchmarks.NAME folder=FOLDER   keeps the parts in FOLDER, whatever version of the code made them

The table and its pictures lie below docs/results; of a quick run, below outputs/benchmarks/quick/NAME/results.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
OUTPUTS = Path("outputs") / "benchmarks"
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call of a benchmark.

    Args:
        name: the module's. settings: what the command line says, or the defaults.
        quick: tiny sizes and synthetic files, for tests.
        results: the folder of tables and pictures. parts: the folder of trainings and other intermediate results.
    """

    name: str
    settings: dict[str, str]
    quick: bool
    results: Path
    parts: Path

    def pick(self, full: T, quick: T) -> T:
        """A size of the full benchmark, or the one that a quick run has instead."""
        return quick if self.quick else full

    def each(self, key: str) -> list[str]:
        """A setting's values, which commas separate."""
        return [value for value in self.settings[key].split(",") if value]

    def seeds(self, key: str = "seeds") -> list[int]:
        """The seeds that a setting lists; of a quick run, the first."""
        return [int(seed) for seed in self.each(key)][: self.pick(None, 1)]


def run(name: str, measure: Callable[[Call], None], arguments: list[str], **defaults: str) -> None:
    """Measure, and note that the table is complete.

    Args:
        name: of the benchmark. measure: what it does. arguments: words `key=value`.
        defaults: the settings that this benchmark has beside quick, once and folder.

    Raises:
        SystemExit: for a word that is no setting, naming those there are.
    """
    settings = {"quick": "false", "once": "false", "folder": "", **defaults}
    for word in arguments:
        key, equals, value = word.partition("=")
        if key not in settings or not equals:
            raise SystemExit(f"{word}: is no setting of benchmarks.{name}; it has {', '.join(settings)}.")
        settings[key] = value
    call = called(name, settings)
    stamp: dict[str, object] = {
        "version": version("rlgen_cli", "configs", "benchmarks"),
        "settings": {key: settings[key] for key in ("folder", *defaults)},
    }
    path = OUTPUTS / name / "complete.json"
    if settings["once"] == "true" and complete(path, stamp):
        print(f"benchmarks.{name}: complete for this version of the code (see {path}).")
        return
    measure(call)
    if not call.quick:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stamp | {"commit": commit()}, indent=1) + "\n")


def called(name: str, settings: dict[str, str]) -> Call:
    """The call with its folders, which then exist; a quick one begins with empty ones."""
    quick = settings["quick"] == "true"
    if quick:
        home = OUTPUTS / "quick" / name
        shutil.rmtree(home, ignore_errors=True)
        results, parts = home / "results", home / "parts"
    else:
        # Trainings of another version of the code are not taken for those of this one.
        results, parts = RESULTS, Path(settings["folder"] or OUTPUTS / name / version("rlgen_cli", "configs"))
    for folder in (results, parts):
        folder.mkdir(parents=True, exist_ok=True)
    return Call(name, settings, quick, results, parts)


def complete(path: Path, stamp: dict[str, object]) -> bool:
    """Whether the table was finished with this stamp."""
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    return all(found.get(key) == value for key, value in stamp.items())


def version(*folders: str) -> str:
    """A digest of the code and the configs in these folders, 12 hex digits. It is not the commit, which changes when a
    table is committed, too."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.yaml")]):
            digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """The commit that the working tree began from, with a mark where it was changed; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
