"""`python -m tests.fuzz.campaign SECONDS [TARGET …]` runs targets one after the other, each for so long, and writes what
came of it to docs/results/fuzz.md. It fails when a target does."""

import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.run import TARGETS

CHUNK = 60  # seconds
PAGE = Path("docs") / "results" / "fuzz.md"
ROW = re.compile(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (.*) \|$", re.MULTILINE)
HEAD = """# What fuzzing found

`make fuzz` feeds each target with changed files (or words) for so many seconds; the last run of each target. A fault is
anything but a sentence for the user: another exception, a hang of 10 seconds, or 2 GiB of memory. What earlier runs
found is mended, and kept as a test.

| target | seconds | executions | most memory, MB | fault |
|---|---|---|---|---|
"""


def main() -> int:
    seconds, names = sys.argv[1], sys.argv[2:] or TARGETS
    rows = {row[0]: row for row in ROW.findall(PAGE.read_text())} if PAGE.exists() else {}
    failed = False
    for name in names:
        rows[name] = row = campaign(name, int(seconds))
        failed |= row[-1] != "none"
        print(" ".join(row), flush=True)
        PAGE.write_text(HEAD + "".join(f"| {' | '.join(row)} |\n" for row in sorted(rows.values())))
    return int(failed)


def campaign(name: str, seconds: int) -> tuple[str, str, str, str, str]:
    """A target's row. A process ends after CHUNK seconds and the next goes on with what it found, since the fuzzer's own
    memory grows with every execution."""
    done, memory = 0, 0
    for begun in range(0, seconds, CHUNK):
        command = [sys.executable, "-m", "tests.fuzz.run", name, str(min(CHUNK, seconds - begun))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        done += number(r"executed_units: +(\d+)", ended.stdout)
        memory = max(memory, number(r"peak_rss_mb: +(\d+)", ended.stdout))
        if ended.returncode:
            fault = " ".join(ended.stdout.split())[-200:].replace("|", "/")
            return name, str(begun + CHUNK), str(done), str(memory), fault
    return name, str(seconds), str(done), str(memory), "none"


def number(pattern: str, text: str) -> int:
    """What libFuzzer said last; 0 where it did not."""
    return int(([*re.findall(pattern, text)] or ["0"])[-1])


if __name__ == "__main__":
    sys.exit(main())
