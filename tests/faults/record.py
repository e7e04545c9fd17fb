"""Counts of what was done to runs, as JSON and as a table."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

COLUMNS = ("injected", "recovered", "lost")
WHERE = " @ "  # in a failure, before what differs between those that are alike
EXAMPLES = 4  # of those, in the table


class Record:
    """How many faults of each kind were injected into which run, how many it recovered from, and what was lost."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # by kind, and environment and agent
        self.places: Counter[str] = Counter()  # where kills hit
        self.failures: dict[str, dict[str, list[str]]] = defaultdict(dict)  # by kind and run, and where each came up

    def add(self, kind: str, run: str, injected: int, lost: int, failures: list[str]) -> None:
        """Faults of a kind into a run: how many, how many of them cost something or were not told as they should have
        been, and what exactly, as `what @ where`."""
        self.counts[kind, run].update(injected=injected, recovered=injected - lost, lost=lost)
        for failure in failures:
            said, _, where = failure.partition(WHERE)
            self.failures[f"{kind}: {run}"].setdefault(said, []).append(where)

    def write(self, path: Path) -> None:
        """`path`, which ends in .json, and a table beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"fault": kind, "run": run, **counts} for (kind, run), counts in self.counts.items()]
        record = {"counts": rows, "kills": dict(self.places), "failures": self.failures}
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(table(record), encoding="utf-8")


def table(record: dict[str, Any]) -> str:
    """The counts for people."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for row in record["counts"]:
        totals[row["fault"]].update({name: row[name] for name in COLUMNS})
    lines = [
        "# Faults",
        "",
        "What `make test-faults` did to small runs on a CPU, and what became of them. *Recovered* means that the run went "
        "on and ended with the same checkpoint, records and samples, to the bit, as one to which nothing was done; where a "
        "fault must end a run or a command, that it ended as it should, with one sentence, and nothing that was saved was "
        "lost.",
        "",
        "| fault | injected | recovered | lost |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {kind} | {' | '.join(str(counts[name]) for name in COLUMNS)} |" for kind, counts in totals.items()),
        "",
        "| where kills hit | kills |",
        "| --- | ---: |",
        *(f"| {place} | {count} |" for place, count in sorted(record["kills"].items(), key=lambda pair: -pair[1])),
        "",
        "| fault | environment and agent | injected | recovered | lost |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {row['fault']} | {row['run']} | {' | '.join(str(row[name]) for name in COLUMNS)} |"
            for row in record["counts"]
        ),
    ]
    if record["failures"]:
        lines += ["", "## What was lost", ""]
    for where, failures in record["failures"].items():
        for failure, places in failures.items():
            some = "; ".join(places[:EXAMPLES]) + (" …" if len(places) > EXAMPLES else "")
            lines.append(f"- {where}: {failure} ({len(places)} times: {some})")
    return "\n".join(lines) + "\n"
