"""What a study came to: the best trials on the screen, the best one as an experiment, plots."""

from pathlib import Path
from typing import Any

import yaml

from rlgen_cli.core.errors import printable
from rlgen_cli.core.files import write_atomic
from rlgen_cli.sweeps.table import aligned

BEST, PAGE = "best", "study.html"
SHOWN = 5  # of the best trials
FEWEST = 4  # trials of which plots and importances say anything


def conclude(optuna: Any, study: Any, folder: Path, metric: str) -> None:
    """Print the best trials, and write the best as an overlay and the plots into the study's folder."""
    states = optuna.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    pruned = sum(trial.state == states.PRUNED for trial in trials)
    failed = [trial for trial in trials if trial.state == states.FAIL and "why" in trial.user_attrs]
    done = [trial for trial in trials if trial.state == states.COMPLETE]
    done.sort(key=lambda trial: trial.value, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    if done:
        rows = [["trial", metric, *done[0].params]]
        rows += [[str(t.number), f"{t.value:.5g}", *map(shown, t.params.values())] for t in done[:SHOWN]]
        print(aligned(rows))
        print(f"the best as an experiment: --config-dir {folder} experiment={write_best(folder, done[0], metric)}")
    print(f"{len(done)} trials finished, {pruned} were stopped early, {len(failed)} failed")
    for trial in failed:
        print(f"trial {trial.number}: {printable(trial.user_attrs['why'])}")
    if len(done) >= FEWEST and (figures := figures_of(optuna, study)):
        write_atomic(folder / PAGE, page(figures).encode())
        print(f"plots: {folder / PAGE}")


def shown(value: Any) -> str:
    """A setting as a table has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_best(folder: Path, trial: Any, metric: str) -> str:
    """An experiment's YAML with the settings of a trial; returns its name."""
    node: dict[str, Any] = {}
    for key, value in trial.params.items():
        place = node
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    text = f"# @package _global_\n# The best of a study: trial {trial.number}, {metric} {trial.value:.6g}\n"
    path = folder / "experiment" / f"{BEST}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, (text + yaml.safe_dump(node, sort_keys=False)).encode())
    return BEST


def figures_of(optuna: Any, study: Any) -> list[Any]:
    """Plots of the search, by plotly; none where that is not installed."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        return []
    draw = optuna.visualization
    figures = [draw.plot_optimization_history(study), draw.plot_slice(study), draw.plot_parallel_coordinate(study)]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # needs no other package
    return [*figures, draw.plot_param_importances(study, evaluator=evaluator)]


def page(figures: list[Any]) -> str:
    """One page, which needs no network."""
    parts = [figure.to_html(full_html=False, include_plotlyjs=i == 0) for i, figure in enumerate(figures)]
    return f'<!doctype html><meta charset="utf-8"><title>A study</title>{"".join(parts)}'
