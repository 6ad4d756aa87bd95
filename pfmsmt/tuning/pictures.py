"""Pictures of a study, as PNG and as HTML that opens offline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot as plt
from optuna import Study
from optuna.importance import get_param_importances
from optuna.visualization import matplotlib as static
from optuna.visualization import plot_optimization_history, plot_param_importances, plot_slice

PLOTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "history": (static.plot_optimization_history, plot_optimization_history),
    "importance": (static.plot_param_importances, plot_param_importances),
    "slice": (static.plot_slice, plot_slice),
}
"""name -> (for PNG, for HTML)"""


SLICE_WIDTH = 3.0
"""Inches of one parameter's slice."""


def write_pictures(study: Study, folder: Path, value: str) -> str | None:
    """Write each of PLOTS as .png and .html, and importance.csv.

    Args:
        value: name of the trials' values.

    Returns:
        Why the importance is missing; None if it is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")
    shares, missing = importances(study)
    for name, (png, html) in PLOTS.items():
        if name == "importance" and missing:
            continue
        _write_png(png(study, target_name=value), folder / f"{name}.png")
        page = html(study, target_name=value)
        page.for_each_xaxis(lambda axis: axis.update(title_text=_short(axis.title.text or "")))
        page.write_html(folder / f"{name}.html", include_plotlyjs=True)
    if not missing:
        lines = [f"{key},{share:.6f}" for key, share in shares.items()]
        (folder / "importance.csv").write_text("\n".join(["parameter,importance", *lines]) + "\n", encoding="utf-8")
    return missing


def importances(study: Study) -> tuple[dict[str, float], str | None]:
    """Return {dotted key: share}, largest first; or why there are none.

    By PED-ANOVA (Watanabe et al. 2023).
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) < 2:
        return {}, "importance needs two complete trials with different values"
    return dict(get_param_importances(study)), None


def _write_png(axes: Any, path: Path) -> None:
    panels = list(np.ravel(axes))
    figure = panels[0].figure
    figure.set_size_inches(max(9.0, SLICE_WIDTH * len(panels)), 5.0)
    for panel in panels:
        panel.set_xlabel(_short(panel.get_xlabel()))
        if len(panels) > 1:
            panel.tick_params(axis="x", which="both", rotation=60, labelsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _short(label: str) -> str:
    """Shorten a dotted key to its last word.

    Whole keys of slices side by side would run into each other.
    """
    return label if " " in label else label.rpartition(".")[2]
