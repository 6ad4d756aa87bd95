"""The data card's pictures as PNG bytes; the same data give the same bytes. Legend: S scenarios."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pfmsmt.data.card.card import DataCard
from pfmsmt.data.card.drift import NOTABLE, Drift
from pfmsmt.data.schema import SPLITS
from pfmsmt.report.card.card_tables import rate_name, unknown_share, worst_between, worst_in_time
from pfmsmt.report.drawing import FAINT, INK, Picture, finish, plain
from pfmsmt.report.matrices import READABLE

COLOURS = {"train": "#0072B2", "val": "#3DA5D9", "test": "#D55E00"}
MOST = 25
"""Columns in a picture: those that show the most."""


def card_pictures(card: DataCard) -> tuple[Picture, ...]:
    """Return the pictures that the data have something for."""
    pictures = [_rates(card), _drifts(card)]
    if len(card.schema.scenarios) > 1:
        pictures.append(_distances(card))
    if card.schema.categorical:
        pictures.append(_cardinalities(card))
    return tuple(pictures)


def _figure(columns: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(max(width * columns, 6.5), height), layout="constrained", facecolor="white")
    grid = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in grid:
        plain(axes)
        axes.grid(color=FAINT, linewidth=0.6)
    return figure, grid


def _rates(card: DataCard) -> Picture:
    scenarios, tasks = card.schema.scenarios, [task.name for task in card.schema.tasks]
    figure, grid = _figure(len(tasks) + 1, 3.4, 1.6 + 0.42 * len(scenarios))
    places = np.arange(len(scenarios))
    for axes, task in zip(grid, [*tasks, None], strict=True):
        for number, split in enumerate(SPLITS):
            if task is None:
                values = [float(card.profile[s][split].counts.rows) for s in scenarios]
            else:
                values = [100 * card.rate(s, split, task) for s in scenarios]
            axes.barh(places + 0.27 * (number - 1), values, 0.25, color=COLOURS[split], label=split)
        axes.set_title("rows" if task is None else f"{rate_name(task)}, %", fontsize=10, color=INK, loc="left")
        axes.set_yticks(places, scenarios if axes is grid[0] else [""] * len(scenarios))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return finish(figure, "rates", "Share of rows with label 1, and rows, by scenario and split.")


def _drifts(card: DataCard) -> Picture:
    several = len(card.schema.scenarios) > 1 and bool(card.between)
    figure, grid = _figure(1 + several, 5.2, 1.4 + 0.21 * min(MOST, len(card.columns)))
    in_time = {c: list(card.in_time[c].values()) for c in card.columns}
    _dots(grid[0], in_time, lambda c: worst_in_time(card, c)[1], "training to test rows, a dot for each scenario")
    if several:
        between = {c: list(pairs.values()) for c, pairs in card.between.items()}

        def widest(column: str) -> Drift:
            found = worst_between(card, column)
            assert found is not None
            return found[1]

        _dots(grid[1], between, widest, "between training rows, a dot for each pair of scenarios")
    more = f" The {MOST} columns with the largest are shown." if len(card.columns) > MOST else ""
    caption = f"Jensen-Shannon divergence of the columns, in bits; grey dots may be chance, or are small.{more}"
    return finish(figure, "drift", caption)


def _dots(axes: Axes, drifts: dict[str, list[Drift]], worst: Callable[[str], Drift], title: str) -> None:
    shown = sorted(drifts, key=lambda column: -worst(column).divergence)[:MOST]
    for place, column in enumerate(shown):
        for one in drifts[column]:
            colour = "#D55E00" if one.notable else "#999999"
            axes.plot(one.divergence, place, "o", color=colour, markersize=4.5, alpha=0.8)
    axes.axvline(NOTABLE, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown, fontsize=7.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_title(title, fontsize=9, color=INK, loc="left")


def _distances(card: DataCard) -> Picture:
    names, matrix = card.schema.scenarios, card.distances()
    side = max(3.4, 0.55 * len(names) + 1.2)
    figure = Figure(figsize=(max(side + 1.6, 6.5), side + 0.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="Blues", vmin=0.0, vmax=max(float(matrix.max()), 1e-6))
    plain(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) <= 6 else 90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= READABLE:
        for row, column in np.ndindex(matrix.shape):
            dark = matrix[row, column] > 0.6 * matrix.max()
            colour = "white" if dark else INK
            axes.text(column, row, f"{matrix[row, column]:.3f}", ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return finish(
        figure, "distances", "How far scenarios lie apart: mean divergence of the columns' training rows, bits."
    )


def _cardinalities(card: DataCard) -> Picture:
    fields = [field.name for field in card.schema.categorical]
    sizes = {
        name: max(len(card.profile[s]["train"].categorical[name].counts) - 1 for s in card.schema.scenarios)
        for name in fields
    }
    shown = sorted(fields, key=lambda name: -sizes[name])[:MOST]
    figure, (axes,) = _figure(1, 7.0, 1.3 + 0.24 * len(shown))
    axes.barh(range(len(shown)), [sizes[name] for name in shown], color=COLOURS["train"], height=0.65)
    for place, name in enumerate(shown):
        unknown = unknown_share(card, name)
        told = f"{sizes[name]:,}" + (f", {unknown[1]:.1%} unknown in test" if unknown and unknown[1] else "")
        axes.annotate(told, (sizes[name], place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, 6 * max(*sizes.values(), 1))
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("categories in the vocabulary (of a private column: of the client with the most)", fontsize=8)
    return finish(figure, "cardinalities", "Categories of each column, and test rows whose category is not among them.")
