"""What every benchmark does with its numbers: a Markdown table with how it was measured, and figures."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch

from benchmarks.harness import Call

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571)  # .975 quantiles for 1, 2 … degrees of freedom
NORMAL = 1.95996  # the same for infinitely many

Row: TypeAlias = list[object]
Line: TypeAlias = Sequence[tuple[float, float]]  # (x, y)


class Band(NamedTuple):
    """A line with an interval around it; all of one length."""

    x: Sequence[float]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def table(rows: Sequence[Row]) -> str:
    """Markdown; the first row is the head."""
    lines = [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("---" for _ in rows[0]), *lines[1:]])


def write(call: Call, title: str, parts: Sequence[str], name: str | None = None) -> None:
    """Print the page and keep it as `<name>.md` (the benchmark's own name where none is given)."""
    threads = (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores {platform.machine()}"
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    text = "\n\n".join([f"# {title}", *parts, f"Measured with {threads}, {device}."]) + "\n"
    (call.results / f"{name or call.name}.md").write_text(text, encoding="utf-8")
    print(text)


def with_interval(values: Sequence[float]) -> str:
    """The mean over seeds with half the width of its 95 % interval by Student's t; one value stands alone."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    quantile = student_t(len(values) - 1)
    return f"{mean:.3f} ± {quantile * statistics.stdev(values) / len(values) ** 0.5:.3f}"


def student_t(freedom: int) -> float:
    """The .975 quantile of Student's t, for many degrees of freedom by its expansion about the normal one (Abramowitz
    and Stegun, 26.7.5)."""
    if freedom <= len(STUDENT_T):
        return STUDENT_T[freedom - 1]
    z = NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def summary(doc: str | None) -> str:
    """The first paragraph of a module's docstring, in one line."""
    return " ".join(str(doc).split("\n\n")[0].split())


def curves(path: Path, panels: Mapping[str, Mapping[str, Line]], x: str) -> None:
    """Panels side by side, each with named lines; a line of two equal heights is drawn dashed. Lines that are named
    `METHOD, seed SEED` share their method's colour, and their place in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3), layout="constrained", squeeze=False)
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        methods: list[str] = []
        for name, points in lines.items():
            level = len({y for _, y in points}) == 1
            style = "--" if level and len(points) > 1 else "o-"
            method = name.partition(", seed ")[0]
            label = method if method not in methods else None
            methods += [label] if label else []
            colour = f"C{methods.index(method)}"
            axis.plot([at for at, _ in points], [y for _, y in points], style, color=colour, label=label, markersize=3)
        axis.set(title=title, xlabel=x)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bands(path: Path, lines: Mapping[str, Band], x: str, y: str) -> None:
    """Named lines, each with its interval as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, band in lines.items():
        axis.plot(band.x, band.middle, label=name)
        axis.fill_between(band.x, band.low, band.high, alpha=0.2)
    axis.set(xlabel=x, ylabel=y)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
