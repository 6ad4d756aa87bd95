"""Pictures of a study: PNG, and HTML that holds its own program and opens offline."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from optuna import Study
from optuna.importance import get_param_importances
from optuna.visualization import matplotlib as static
from optuna.visualization import plot_optimization_history, plot_param_importances, plot_slice

PICTURES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "history": (static.plot_optimization_history, plot_optimization_history),
    "importance": (static.plot_param_importances, plot_param_importances),
    "slice": (static.plot_slice, plot_slice),
}
"""name -> (for PNG, for HTML)"""


def write_pictures(study: Study, folder: Path, value: str) -> str | None:
    """Write each of PICTURES as .png and .html, and importance.csv; return why the importance is missing, if it is.

    Args:
        value: what the trials' values are called.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")
    shares, missing = importances(study)
    for name, (png, html) in PICTURES.items():
        if name == "importance" and missing:
            continue
        _write_png(png(study, target_name=value), folder / f"{name}.png")
        html(study, target_name=value).write_html(folder / f"{name}.html", include_plotlyjs=True)
    if not missing:
        lines = [f"{key},{share:.6f}" for key, share in shares.items()]
        (folder / "importance.csv").write_text("\n".join(["parameter,importance", *lines]) + "\n", encoding="utf-8")
    return missing


def importances(study: Study) -> tuple[dict[str, float], str | None]:
    """Return {dotted key: share}, largest first (PED-ANOVA, Watanabe et al. 2023); or why there are none."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) < 2:
        return {}, "importance needs two complete trials with different values"
    return dict(get_param_importances(study)), None


def _write_png(axes: Any, path: Path) -> None:
    first = axes if hasattr(axes, "figure") else axes.flat[0]
    figure = first.figure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(path, dpi=120, bbox_inches="tight")
    matplotlib.pyplot.close(figure)
