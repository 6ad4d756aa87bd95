"""Matrices over pairs of clients as heat maps, one panel for each group. Legend: S clients."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pfmsmt.report.comparison.results import Diagnostics
from pfmsmt.report.drawing import INK, Picture, finish, plain

ACROSS = 5
"""Panels in a row."""
READABLE = 12
"""Up to so many clients, cells hold their numbers and every client is named."""


class _Matrices(NamedTuple):
    clients: tuple[str, ...]
    groups: dict[str, NDArray[np.float64]]
    """group -> [S, S], a mean over rounds; nan where there is none"""
    rounds: str


def listening_picture(name: str, diagnostics: Diagnostics) -> Picture:
    """Draw A of each group: what each client (row) takes from each (column)."""
    found = _late(diagnostics.table, "listening")
    top = max(float(np.nanmax(matrix)) for matrix in found.groups.values())
    figure = _heat_maps(found, "Blues", 0.0, top, ("listens", "to"))
    caption = (
        f"{name}: who listens to whom, {found.rounds}. Weight of each client (column) in what another (row) receives."
    )
    return finish(figure, f"listening-{name}", caption)


def cosine_picture(name: str, diagnostics: Diagnostics) -> Picture:
    """Draw the cosines of where the clients' updates point in each group; the diagonal, always 1, is left out."""
    found = _late(diagnostics.table, "cosine")
    groups = {group: np.where(np.eye(len(matrix)) > 0, np.nan, matrix) for group, matrix in found.groups.items()}
    values = np.nan_to_num(np.abs(np.concatenate([matrix.ravel() for matrix in groups.values()])))
    # A range of its own: cosines of scenarios that have little in common are small, and +-1 would show nothing.
    top = max(float(values.max()), 0.05)
    figure = _heat_maps(found._replace(groups=groups), "RdBu", -top, top, ("", ""))
    caption = (
        f"{name}: cosine of where updates point, {found.rounds}. Blue: clients pull the same way; red: they conflict."
    )
    return finish(figure, f"cosine-{name}", caption)


def _late(table: pd.DataFrame, quantity: str) -> _Matrices:
    """Average one quantity over the last quarter of the rounds."""
    own = table[table["quantity"] == quantity]
    last = int(own["round"].max())
    late = own[own["round"] > 0.75 * last]
    clients = tuple(sorted(late["client"].unique()))
    means = late.groupby(["group", "client", "other"], observed=True)["value"].mean()
    groups = {
        str(group): means[group].unstack("other").reindex(index=clients, columns=clients).to_numpy(np.float64)
        for group in sorted(late["group"].unique())
    }
    first, kept = int(late["round"].min()), late["round"].nunique()
    span = f"rounds {first} to {last}" if kept == last - first + 1 else f"{kept} of the rounds {first} to {last}"
    return _Matrices(clients, groups, f"mean over {span}" if first < last else f"round {last}")


def _heat_maps(found: _Matrices, colours: str, low: float, high: float, labels: tuple[str, str]) -> Figure:
    size = len(found.clients)
    columns = min(ACROSS, len(found.groups))
    rows = math.ceil(len(found.groups) / columns)
    side = min(max(2.0, 0.42 * size + 0.7), 4.0)
    wide, tall = max(side * columns + 1.2, 6.5), (side + 0.3) * rows + 0.9
    figure = Figure(figsize=(wide, tall), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(found.groups) :]:
        axes.set_visible(False)
    for number, (axes, (group, matrix)) in enumerate(zip(grid.flat, found.groups.items(), strict=False)):
        image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high)
        plain(axes)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(group, fontsize=10, color=INK, loc="left")
        _name(axes, found.clients, first=number % columns == 0)
        axes.set_ylabel(labels[0] if number % columns == 0 else "", fontsize=9)
        axes.set_xlabel(labels[1] if number + columns >= len(found.groups) else "", fontsize=9)
        if size <= READABLE:
            _number(axes, matrix, low, high)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, aspect=25, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _name(axes: Axes, clients: tuple[str, ...], *, first: bool) -> None:
    """Name the clients below, and at the left of the first panel of a row; of many, only some."""
    shown = range(0, len(clients), math.ceil(len(clients) / READABLE))
    names = [clients[place] for place in shown]
    upright = max(map(len, names)) <= 4
    axes.set_xticks(shown, names, fontsize=8, rotation=0 if upright else 90)
    axes.set_yticks(shown, names if first else [""] * len(names), fontsize=8)


def _number(axes: Axes, matrix: NDArray[np.float64], low: float, high: float) -> None:
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        if np.isfinite(value):
            dark = abs(value - (low + high) / 2 * (low < 0)) > 0.6 * high
            axes.text(
                column, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=7.5,
                color="white" if dark else INK,
            )  # fmt: skip
