"""The data card's pictures: rates, drift, distances between scenarios, cardinalities."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pfmsmt.data.card.card import DataCard
from pfmsmt.data.card.drift import NOTABLE, Drift
from pfmsmt.data.schema import SPLITS
from pfmsmt.report.card.card_facts import rate_name, unknown_share, worst_between, worst_in_time
from pfmsmt.report.drawing import Picture, colour_bar, empty_figure, finish, heat_map, panel_grid, panel_title

SPLIT_COLOURS = {"train": "#0072B2", "val": "#3DA5D9", "test": "#D55E00"}
MOST_COLUMNS = 25
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
    """Return a figure with panels side by side.

    Args:
        width: of a panel, in inches.
        height: of the figure, in inches.
    """
    figure = empty_figure(max(width * columns, 6.5), height)
    return figure, panel_grid(figure, 1, columns)[0]


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
            axes.barh(places + 0.27 * (number - 1), values, 0.25, color=SPLIT_COLOURS[split], label=split)
        panel_title(axes, "rows" if task is None else f"{rate_name(task)}, %", 10)
        axes.set_yticks(places, scenarios if axes is grid[0] else [""] * len(scenarios))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return finish(figure, "rates", "Share of rows with label 1, and rows, by scenario and split.")


def _drifts(card: DataCard) -> Picture:
    several = len(card.schema.scenarios) > 1 and bool(card.between)
    figure, grid = _figure(1 + several, 5.2, 1.4 + 0.21 * min(MOST_COLUMNS, len(card.columns)))
    in_time = {c: list(card.in_time[c].values()) for c in card.columns}
    _dots(grid[0], in_time, lambda c: worst_in_time(card, c)[1], "training to test rows, a dot for each scenario")
    if several:
        between = {c: list(pairs.values()) for c, pairs in card.between.items()}

        def widest(column: str) -> Drift:
            found = worst_between(card, column)
            assert found is not None
            return found[1]

        _dots(grid[1], between, widest, "between training rows, a dot for each pair of scenarios")
    more = f" The {MOST_COLUMNS} columns with the largest are shown." if len(card.columns) > MOST_COLUMNS else ""
    caption = f"Jensen-Shannon divergence of the columns, in bits; grey dots may be chance, or are small.{more}"
    return finish(figure, "drift", caption)


def _dots(axes: Axes, drifts: dict[str, list[Drift]], worst: Callable[[str], Drift], title: str) -> None:
    shown = sorted(drifts, key=lambda column: -worst(column).divergence)[:MOST_COLUMNS]
    for place, column in enumerate(shown):
        for one in drifts[column]:
            colour = "#D55E00" if one.notable else "#999999"
            axes.plot(one.divergence, place, "o", color=colour, markersize=4.5, alpha=0.8)
    axes.axvline(NOTABLE, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown, fontsize=7.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    panel_title(axes, title)


def _distances(card: DataCard) -> Picture:
    names, matrix = card.schema.scenarios, card.distances()
    side = max(3.4, 0.55 * len(names) + 1.2)
    figure = empty_figure(max(side + 1.6, 6.5), side + 0.6)
    axes = figure.subplots()
    # The largest may be 0, and colours need a range.
    span = (0.0, max(float(matrix.max()), 1e-6))
    image = heat_map(axes, matrix, names, "Blues", span, form=".3f", size=8, widest=6)
    colour_bar(figure, image, [axes])
    return finish(
        figure, "distances", "How far scenarios lie apart: mean divergence of the columns' training rows, bits."
    )


def _cardinalities(card: DataCard) -> Picture:
    fields = [field.name for field in card.schema.categorical]
    sizes = {
        name: max(len(card.profile[s]["train"].categorical[name].counts) - 1 for s in card.schema.scenarios)
        for name in fields
    }
    shown = sorted(fields, key=lambda name: -sizes[name])[:MOST_COLUMNS]
    figure, (axes,) = _figure(1, 7.0, 1.3 + 0.24 * len(shown))
    axes.barh(range(len(shown)), [sizes[name] for name in shown], color=SPLIT_COLOURS["train"], height=0.65)
    for place, name in enumerate(shown):
        unknown = unknown_share(card, name)
        text = f"{sizes[name]:,}" + (f", {unknown[1]:.1%} unknown in test" if unknown and unknown[1] else "")
        axes.annotate(text, (sizes[name], place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, 6 * max(*sizes.values(), 1))
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("categories in the vocabulary (of a private column: of the client with the most)", fontsize=8)
    return finish(figure, "cardinalities", "Categories of each column, and test rows whose category is not among them.")
