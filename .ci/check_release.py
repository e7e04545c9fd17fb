"""Whether a release is whole: the list of what is in it (SBOM, CycloneDX) names every package that the wheel needs,
each with a version, and nothing says where it was made. Run with the folder that holds wheel and list.
"""

import json
import re
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ABSOLUTE = re.compile(r"file:|(?<![\w:/.])/(?:home|root|tmp|usr|opt|var|work|Users)/")


def canonical(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(wheel: Path) -> set[str]:
    """The packages that the wheel's metadata names, without those of extras."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        lines = HeaderParser().parsestr(file.read(name).decode()).get_all("Requires-Dist", [])
    return {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines if "extra ==" not in line}


def problems(folder: Path) -> list[str]:
    """What is wrong with a release, a line each."""
    (wheel,) = folder.glob("*.whl")
    text = (folder / "rlgen.cdx.json").read_text()
    named = {canonical(part["name"]) for part in json.loads(text).get("components", []) if part.get("version")}
    missing = sorted(needed(wheel) - named)
    found = [f"the SBOM names no {name}, which the wheel needs" for name in missing]
    return found + [f"the SBOM has a path of this machine: {match[0]}" for match in ABSOLUTE.finditer(text)]


if __name__ == "__main__":
    if said := problems(Path(sys.argv[1])):
        sys.exit("\n".join(said))
