"""`rlgen plot`: learning curves as a figure for a paper."""

from pathlib import Path

from omegaconf import DictConfig

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.report.curves import band, metric_names
from rlgen_cli.report.read import grouped, read_runs

FORMATS = (".png", ".svg", ".pdf")


def plot(config: DictConfig) -> Path:
    """Draw the metrics `config.y` of the runs, a panel each; returns where.

    Raises:
        UserError: where there is no run, a metric that none has, or matplotlib is not installed.
    """
    out = Path(config.out)
    require(out.suffix in FORMATS, f"out: must end in {', '.join(FORMATS)}, got {out.name}.")
    groups = grouped(read_runs(config.run, config.runs))
    wanted = [config.y] if isinstance(config.y, str) else list(config.y)
    known = metric_names([run for runs in groups.values() for run in runs])
    for name in wanted:
        require(name in known, f"y: no run has recorded {name}; there are {', '.join(known) or 'none'}.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("plot: draws with matplotlib; pip install 'rlgen[report]'.") from None
    figure = Figure(figsize=(config.width * len(wanted), config.height), layout="constrained")
    FigureCanvasAgg(figure)
    for name, axis in zip(wanted, figure.subplots(1, len(wanted), squeeze=False)[0], strict=True):
        for label, runs in groups.items():
            line = band(runs, name)
            if line is None:
                continue
            axis.plot(line.steps, line.mean, label=f"{label} ({line.runs})" if len(groups) > 1 else None, linewidth=1.5)
            if line.runs > 1:
                axis.fill_between(line.steps, line.low, line.high, alpha=0.2, linewidth=0)
        axis.set_xlabel("environment steps")
        axis.set_ylabel(name)
        axis.spines[["top", "right"]].set_visible(False)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5), useMathText=True)
    if len(groups) > 1:
        figure.axes[0].legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=200)
    return out
