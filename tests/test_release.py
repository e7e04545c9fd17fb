"""What `make release` checks of a release, and the locks: by small files here, for real by .ci/run."""

import importlib.util
import json
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
METADATA = """Metadata-Version: 2.4
Name: rlgen
Requires-Dist: hydra-core<1.4,>=1.3.8
Requires-Dist: Pillow>=10.1
Requires-Dist: gymnasium>=1.1; extra == 'gym'
"""


@pytest.fixture(scope="module")
def check() -> Any:
    """The script, which lies beside what calls it."""
    spec = importlib.util.spec_from_file_location("check_release", ROOT / ".ci" / "check_release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def release(folder: Path, *parts: dict[str, str], more: str = "") -> Path:
    """A wheel of METADATA and an SBOM of these components."""
    with zipfile.ZipFile(folder / "rlgen-0.1.0-py3-none-any.whl", "w") as file:
        file.writestr("rlgen-0.1.0.dist-info/METADATA", METADATA)
    (folder / "rlgen.cdx.json").write_text(json.dumps({"components": parts, "more": more}))
    return folder


HYDRA, PILLOW = {"name": "hydra_core", "version": "1.3.8"}, {"name": "pillow", "version": "13.0.0"}


def test_a_whole_release_has_no_problems(check, tmp_path):
    assert check.problems(release(tmp_path, HYDRA, PILLOW, more="https://example.org/tmp/x and pkg:pypi/pillow")) == []


@pytest.mark.parametrize(
    ("parts", "more", "said"),
    [
        ([HYDRA], "", "the SBOM names no pillow, which the wheel needs"),
        ([HYDRA, {"name": "pillow"}], "", "the SBOM names no pillow, which the wheel needs"),
        ([HYDRA, PILLOW], "file:///here", "the SBOM has a path of this machine: file:"),
        ([HYDRA, PILLOW], "at /home/someone/x", "the SBOM has a path of this machine: /home/"),
    ],
)
def test_what_is_wrong_with_a_release_is_said(parts, more, said, check, tmp_path):
    assert check.problems(release(tmp_path, *parts, more=more)) == [said]


def pinned(name: str) -> dict[str, str]:
    """Versions by package of a lock."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_the_locks_hold_what_the_project_asks_for_at_the_tested_versions(check):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    asked += project["optional-dependencies"]["benchmarks"]
    names = {check.canonical(re.split(r"[^\w.-]", word)[0]) for word in asked}
    locked = {check.canonical(name): version for name, version in pinned("ci").items()}
    assert names - locked.keys() == {"torch"}
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for name, version in tested.items():
        assert locked.get(check.canonical(name), version) == version


@pytest.mark.parametrize("name", ["build", "ci"])
def test_every_line_of_a_lock_has_a_hash_and_none_says_where_it_was_made(name):
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    assert len(entries) == len(pinned(name))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--find-links|(?<!\S)/", text)
