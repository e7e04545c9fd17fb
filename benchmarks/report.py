"""What every benchmark does with its numbers: a Markdown table below docs/results, with how it was measured."""

import json
import os
import platform
from pathlib import Path

import torch

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def table(rows: list[list[object]]) -> str:
    """Markdown; the first row is the head."""
    lines = [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("---" for _ in rows[0]), *lines[1:]])


def write(name: str, title: str, parts: list[str]) -> None:
    """Print and keep `docs/results/<name>.md`."""
    threads = (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores {platform.machine()}"
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    text = "\n\n".join([f"# {title}", *parts, f"Measured with {threads}, {device}."]) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def curves(path: Path, panels: dict[str, dict[str, list[tuple[float, float]]]], x: str) -> None:
    """Panels side by side, each a named line (x, y) or more; a line of two equal heights is drawn dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3), layout="constrained", squeeze=False)
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, points in lines.items():
            level = len({y for _, y in points}) == 1
            axis.plot(*zip(*points, strict=True), "--" if level else "o-", label=name, markersize=3)
        axis.set(title=title, xlabel=x)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def bands(path: Path, lines: dict[str, tuple], x: str, y: str) -> None:
    """Named lines (x, middle, low, high), each with the band from low to high."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, (at, middle, low, high) in lines.items():
        axis.plot(at, middle, label=name)
        axis.fill_between(at, low, high, alpha=0.2)
    axis.set(xlabel=x, ylabel=y)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def finished(run: Path) -> bool:
    """Whether a run's training came to its end."""
    path = run / "status.json"
    return path.is_file() and json.loads(path.read_text())["status"] == "finished"


def seconds_until(run: Path, step: int) -> float:
    """Wall time that a run's training took until `step`."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max((line["seconds"] for line in lines if line["step"] <= step), default=0.0)


def runs_named(arguments: list[str]) -> list[Path]:
    """The folders given as run=FOLDER."""
    return [Path(argument.removeprefix("run=")) for argument in arguments if argument.startswith("run=")]


def new_run(name: str) -> Path:
    """A fresh folder for a benchmark's own training."""
    return Path("outputs") / "benchmarks" / f"{name}_{os.urandom(3).hex()}"
