"""Pictures of the scores: AUC, validation over the rounds, ROC, calibration."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pfmsmt.report.comparison.diagnostic_pictures import method_pictures
from pfmsmt.report.comparison.inputs import Results
from pfmsmt.report.comparison.summaries import calibration_table, estimate, first_seeds, mean, rounds_table
from pfmsmt.report.drawing import (
    INK,
    Panels,
    Picture,
    Share,
    empty_figure,
    finish,
    legend,
    looks,
    panel_grid,
    panel_title,
)

PANEL_WIDTH = 2.6
"""Inches."""


def all_pictures(results: Results) -> tuple[Picture, ...]:
    """Return the comparison's pictures, the most telling first."""
    return (
        auc_picture(results),
        rounds_picture(results),
        roc_picture(results),
        calibration_picture(results),
        *method_pictures(results),
    )


def auc_picture(results: Results) -> Picture:
    """Draw each method's AUC with its interval, by scenario and task."""
    figure, grid = _scenario_grid(results, len(results.tasks), height=0.55 + 0.27 * len(results.shown), share_x="row")
    styles = looks(results.shown)
    for axes, scenario, task in _panels(results, grid):
        for place, method in enumerate(results.shown):
            value, _ = estimate(results, method, "auc", [(scenario, task)])
            if value is None:
                axes.annotate("undefined", (0.5, place), xycoords=("axes fraction", "data"), ha="center", fontsize=7)
                continue
            low, high = (
                mean(getattr(tree[scenario][task], bound) for tree in results.scores(method))
                for bound in ("auc_low", "auc_high")
            )
            look = styles[method]
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=look.colour, linewidth=2.2, alpha=0.45)
            axes.plot(value, place, look.marker, color=look.colour, markersize=6)
            axes.annotate(
                f"{value:.3f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=7, color=INK
            )
        axes.set_yticks(range(len(results.shown)), results.shown)
        axes.set_ylim(len(results.shown) - 0.5, -0.75)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
    for axes in grid[-1]:
        axes.set_xlabel("test AUC")
    return finish(figure, "auc", "Test AUC with its bootstrap interval, by scenario and task; right is better.")


def rounds_picture(results: Results) -> Picture:
    """Draw validation AUC over the rounds, by scenario.

    Lines are means over tasks and seeds, bands go from the lowest to the highest seed.
    """
    figure, grid = _scenario_grid(results, 1, height=2.9)
    styles = looks(results.methods)
    table = rounds_table(results)
    over_seeds = table.groupby(["method", "scenario", "round"])["auc"].agg(["mean", "min", "max"]).reset_index()
    for axes, scenario, _ in _panels(results, grid, tasks=("",)):
        for method in results.methods:
            part = over_seeds[(over_seeds["method"] == method) & (over_seeds["scenario"] == scenario)]
            rounds, middle, low, high = (part[name].to_numpy(float) for name in ("round", "mean", "min", "max"))
            look = styles[method]
            axes.plot(rounds, middle, color=look.colour, linestyle=look.line, linewidth=1.7)
            if len(results.of(method)) > 1:
                axes.fill_between(rounds, low, high, color=look.colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("communication round")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    settled = over_seeds.loc[over_seeds["round"] >= 0.1 * over_seeds["round"].max(), "mean"].dropna()
    if len(settled):  # the first tenth of the rounds climbs from 0.5 and would squeeze the others
        lowest, highest = float(settled.min()), float(over_seeds["max"].max())
        room = 0.04 * (highest - lowest) + 1e-3
        grid[0][0].set_ylim(lowest - room, highest + room)
    grid[0][0].set_ylabel("validation AUC, mean over tasks")
    legend(figure, styles)
    spread = " Bands: lowest to highest seed." if results.several_seeds else ""
    return finish(figure, "rounds", f"Validation AUC over the rounds, mean over tasks, by scenario.{spread}")


def roc_picture(results: Results) -> Picture:
    """Draw ROC curves on the test shards, by scenario and task."""
    figure, grid = _scenario_grid(results, len(results.tasks), height=2.6)
    styles = looks(results.methods)
    for axes, scenario, task in _panels(results, grid):
        axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=0.8)
        for run in first_seeds(results):
            part = run.roc[(run.roc["scenario"] == scenario) & (run.roc["task"] == task)]
            look = styles[run.method]
            axes.plot(
                part["false_positive_rate"],
                part["true_positive_rate"],
                color=look.colour,
                linestyle=look.line,
                linewidth=1.4,
            )
        listed = first_seeds(results) if len(results.methods) <= 5 else ()  # more would cover the curves
        for place, run in enumerate(reversed(listed)):
            value = run.scores[scenario][task].auc
            text = f"{run.method}  {value:.3f}" if value is not None else f"{run.method}  undefined"
            colour = styles[run.method].colour
            axes.text(0.97, 0.04 + 0.085 * place, text, color=colour, fontsize=7.5, ha="right", weight="bold")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
    for axes in grid[-1]:
        axes.set_xlabel("false positive rate")
    for row in grid:
        row[0].set_ylabel("true positive rate")
    legend(figure, styles)
    return finish(
        figure, "roc", f"ROC curves on the test shards, by scenario and task, with their AUC{_seed_note(results)}."
    )


def calibration_picture(results: Results) -> Picture:
    """Draw predicted against actual rates, by scenario and task."""
    figure, grid = _scenario_grid(results, len(results.tasks), height=2.6, share_x="row", share_y="row")
    styles = looks(results.methods)
    table = calibration_table(results)
    tops = table.groupby("task")[["predicted", "actual"]].max().max(axis=1)
    for axes, scenario, task in _panels(results, grid):
        for run in first_seeds(results):
            part = run.calibration[(run.calibration["scenario"] == scenario) & (run.calibration["task"] == task)]
            look = styles[run.method]
            axes.plot(
                part["predicted"],
                part["actual"],
                color=look.colour,
                linestyle=look.line,
                linewidth=1.1,
                marker=look.marker,
                markersize=3.2,
            )
        _square_root_axes(axes, 1.1 * float(tops.get(task, 0.0)) or 1.0)
    for axes in grid[-1]:
        axes.set_xlabel("predicted rate")
    for row in grid:
        row[0].set_ylabel("actual rate")
    legend(figure, styles)
    return finish(
        figure,
        "calibration",
        "Calibration on the test shards: bins of equal size, square-root axes; below the line it predicts too much"
        f"{_seed_note(results)}.",
    )


def _seed_note(results: Results) -> str:
    return "; the lowest seed of each method" if results.several_seeds else ""


def _square_root_axes(axes: Axes, top: float) -> None:
    """Set square-root axes and draw the diagonal.

    They spread the low rates, where most bins of a rare label lie, and unlike logarithms keep zero on the page.
    """
    axes.plot([0, top], [0, top], color="#AAAAAA", linewidth=0.8, zorder=1)
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("function", functions=(lambda value: np.sqrt(np.maximum(value, 0.0)), np.square))
    nice = [digit * 10.0**power for power in range(-7, 1) for digit in (1, 2, 5)]
    ticks = [0.0, *(tick for tick in nice if top / 20 < tick <= top)]
    labels = [f"{100 * tick:.3g}%" for tick in ticks]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")


def _scenario_grid(
    results: Results, rows: int, *, height: float, share_x: Share = "all", share_y: Share = "all"
) -> tuple[Figure, Panels]:
    """Return a figure with a column of panels for each scenario.

    Args:
        height: of a panel, in inches.
    """
    columns = len(results.scenarios)
    figure = empty_figure(max(PANEL_WIDTH * columns, 6.5) + 0.4, height * rows + 1.1)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.08)  # type: ignore[call-arg]  # known to the constrained engine only
    return figure, panel_grid(figure, rows, columns, share_x=share_x, share_y=share_y)


def _panels(results: Results, grid: Panels, tasks: Sequence[str] | None = None) -> Iterator[tuple[Axes, str, str]]:
    """Yield each panel with its scenario and task, titled."""
    for row, task in zip(grid, results.tasks if tasks is None else tasks, strict=True):
        for axes, scenario in zip(row, results.scenarios, strict=True):
            panel_title(axes, f"{scenario} {task.upper()}".strip(), 10)
            yield axes, scenario, task
