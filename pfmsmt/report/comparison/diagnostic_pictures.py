"""Pictures that explain a run: attention, agreement and the server's steps.

Legend: S clients. A[i, j] is the weight of client j's update in what client i receives.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pfmsmt.report.comparison.inputs import Diagnostics, Results
from pfmsmt.report.drawing import (
    DOTS,
    LONG,
    MOST_NAMED,
    SHORT,
    SOLID,
    SPARE_COLOURS,
    SPARE_LINES,
    Look,
    Picture,
    colour_bar,
    empty_figure,
    finish,
    heat_map,
    legend,
    looks,
    panel_grid,
    panel_title,
)

PANELS_ACROSS = 5
"""Heat maps in a row."""
_COURSES = 4
"""Panels in a row of a course picture, at least."""
_KINDS = {
    "expert": Look("#0072B2", SOLID, "o"),
    "tower": Look("#D55E00", LONG, "s"),
    "gate": Look("#00855F", SHORT, "^"),
    "embedding": Look("#6E6E6E", DOTS, "D"),
}
"""Kinds of groups in the order of the panels; other kinds follow."""


def method_pictures(results: Results) -> tuple[Picture, ...]:
    """Draw each method that mixes clients, by its lowest seed with diagnostics."""
    pictures: list[Picture] = []
    for method in results.methods:
        held = [run.diagnostics for run in results.of(method) if run.diagnostics is not None]
        if held:
            pictures += diagnostic_pictures(method, held[0], results.scenarios)
    return tuple(pictures)


def diagnostic_pictures(name: str, diagnostics: Diagnostics, order: Sequence[str] = ()) -> tuple[Picture, ...]:
    """Draw `listening-<name>`, `cosine-<name>` and `course-<name>`.

    Clients are shown in this order; others follow by name.
    """
    draw = (listening_picture, cosine_picture, course_picture)
    return tuple(picture(name, diagnostics, order) for picture in draw)


def _ordered(clients: Iterable[str], order: Sequence[str]) -> list[str]:
    known = {client: place for place, client in enumerate(order)}
    return sorted(clients, key=lambda client: (known.get(client, len(known)), client))


class _Matrices(NamedTuple):
    clients: tuple[str, ...]
    groups: dict[str, NDArray[np.float64]]
    """group -> [S, S], a mean over rounds; nan where there is none"""
    rounds: str


def listening_picture(name: str, diagnostics: Diagnostics, order: Sequence[str] = ()) -> Picture:
    """Draw each group's A as a heat map, receivers down."""
    found = _late(diagnostics.table, "listening", order)
    top = max(float(np.nanmax(matrix)) for matrix in found.groups.values())
    figure = _heat_maps(found, "Blues", 0.0, top, ("listens", "to"))
    caption = (
        f"{name}: who listens to whom, {found.rounds}. Weight of each client (column) in what another (row) receives."
    )
    return finish(figure, f"listening-{name}", caption)


def cosine_picture(name: str, diagnostics: Diagnostics, order: Sequence[str] = ()) -> Picture:
    """Draw the cosines between clients' updates in each group.

    The diagonal, always 1, is left out.
    """
    found = _late(diagnostics.table, "cosine", order)
    groups = {group: np.where(np.eye(len(matrix)) > 0, np.nan, matrix) for group, matrix in found.groups.items()}
    values = np.nan_to_num(np.abs(np.concatenate([matrix.ravel() for matrix in groups.values()])))
    # A range of its own: cosines of scenarios that have little in common are small, and +-1 would show nothing.
    top = max(float(values.max()), 0.05)
    figure = _heat_maps(found._replace(groups=groups), "RdBu", -top, top, ("", ""))
    caption = (
        f"{name}: cosine of where updates point, {found.rounds}. Blue: clients pull the same way; red: they conflict."
    )
    return finish(figure, f"cosine-{name}", caption)


def _late(table: pd.DataFrame, quantity: str, order: Sequence[str]) -> _Matrices:
    """Average one quantity over the last quarter of the rounds."""
    own = table[table["quantity"] == quantity]
    last = int(own["round"].max())
    late = own[own["round"] > 0.75 * last]
    clients = tuple(_ordered(late["client"].unique(), order))
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
    columns = min(PANELS_ACROSS, len(found.groups))
    rows = math.ceil(len(found.groups) / columns)
    side = min(max(2.0, 0.42 * size + 0.7), 4.0)
    figure = empty_figure(max(side * columns + 1.2, 6.5), (side + 0.3) * rows + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(found.groups) :]:
        axes.set_visible(False)
    for number, (axes, (group, matrix)) in enumerate(zip(grid.flat, found.groups.items(), strict=False)):
        first = number % columns == 0
        image = heat_map(
            axes, matrix, found.clients, colours, (low, high), form=".2f", size=7.5, widest=4, named_rows=first
        )
        panel_title(axes, group, 10)
        axes.set_ylabel(labels[0] if first else "", fontsize=9)
        axes.set_xlabel(labels[1] if number + columns >= len(found.groups) else "", fontsize=9)
    colour_bar(figure, image, [*grid.flat])
    return figure


def course_picture(name: str, diagnostics: Diagnostics, order: Sequence[str] = ()) -> Picture:
    """Draw the server's steps over the rounds.

    A row of each client's coefficients and one of its drift, with a panel for each kind of group; below, conflicts
    and cosines of all kinds, and bytes.
    """
    group = diagnostics.table["group"]
    kind_of = {name: name.split("/")[0] for name in group.unique()}
    table = diagnostics.table.assign(kind=group.map(kind_of).astype("str"))
    kinds = _ordered(table["kind"].unique(), list(_KINDS))
    clients = _ordered(diagnostics.traffic["client"].unique(), order)
    columns = max(_COURSES, len(kinds))
    figure = empty_figure(2.8 * columns, 7.6)
    grid = panel_grid(figure, 3, columns)
    styles = {client: _look(place) for place, client in enumerate(clients)}
    for row, (quantity, title) in enumerate((("coefficients", "coefficient"), ("drift", "drift |W - G| / |G|"))):
        for axes, kind in zip(grid[row], kinds, strict=False):
            own = table[(table["quantity"] == quantity) & (table["kind"] == kind)]
            _lines(axes, _by_round(own, "client"), styles)
            panel_title(axes, f"{kind}: {title}")
        for axes in grid[row][len(kinds) :]:
            axes.set_visible(False)
    _conflicts(grid[2][0], table, kinds)
    _cosines(grid[2][1], table, kinds)
    _bytes(grid[2][2], diagnostics.traffic, "up", styles)
    _bytes(grid[2][3], diagnostics.traffic, "down", styles)
    for axes in grid[2][4:]:
        axes.set_visible(False)
    if len(clients) <= MOST_NAMED:
        legend(figure, styles)
        many = ""
    else:
        many = " Lines: median over clients; bands: lowest to highest."
    caption = f"{name}: the server's step over the rounds, mean over the groups of a kind.{many}"
    return finish(figure, f"course-{name}", caption)


def _look(place: int) -> Look:
    return Look(SPARE_COLOURS[place % len(SPARE_COLOURS)], SPARE_LINES[place % len(SPARE_LINES)], "h")


def _by_round(table: pd.DataFrame, lines: str) -> pd.DataFrame:
    """Return means: a row for each round, a column for each line."""
    return table.groupby(["round", lines], observed=True)["value"].mean().unstack(lines)


def _lines(axes: Axes, values: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """Draw each column's running mean, with its rounds faintly behind.

    Of more than MOST_NAMED columns their median and range.
    """
    # Running: single rounds are noisy, and lines of several clients would cover each other.
    smooth = values.rolling(max(1, len(values) // 12), center=True, min_periods=1).mean()
    if len(values.columns) > MOST_NAMED:
        axes.fill_between(smooth.index, smooth.min(axis=1), smooth.max(axis=1), color="#0072B2", alpha=0.2, linewidth=0)
        axes.plot(smooth.index, smooth.median(axis=1), color="#0072B2", linewidth=1.6)
    else:
        for name in values.columns:
            look = styles[name]
            axes.plot(values.index, values[name], color=look.colour, linewidth=0.6, alpha=0.3)
            axes.plot(smooth.index, smooth[name], color=look.colour, linestyle=look.line, linewidth=1.6, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _conflicts(axes: Axes, table: pd.DataFrame, kinds: list[str]) -> None:
    _lines(axes, _by_round(table[table["quantity"] == "conflicts"], "kind")[kinds], looks(kinds) | _KINDS)
    panel_title(axes, "share of pairs in conflict")
    # Room for the legend above the lines.
    axes.set_ylim(-0.03, 1.03 + 0.17 * math.ceil(len(kinds) / 2))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("communication round", fontsize=8)
    axes.legend(fontsize=7, frameon=False, handlelength=3.2, ncols=2, loc="upper left")


def _cosines(axes: Axes, table: pd.DataFrame, kinds: list[str]) -> None:
    cosines = table[table["quantity"] == "cosine"]
    pairs = cosines[cosines["client"].astype("str") != cosines["other"].astype("str")]
    axes.axhline(0.0, color="#888888", linewidth=0.8)
    if len(pairs):
        _lines(axes, _by_round(pairs, "kind")[kinds], looks(kinds) | _KINDS)
    panel_title(axes, "cosine of updates, mean over pairs")
    axes.set_xlabel("communication round", fontsize=8)


def _bytes(axes: Axes, traffic: pd.DataFrame, direction: str, styles: Mapping[str, Look]) -> None:
    """Draw each client's KiB in a round, both directions to one scale."""
    columns = ["bytes_up", "bytes_down"]
    sizes = traffic.groupby("client")[columns].mean().loc[list(styles)] / 1024
    own = sizes[f"bytes_{direction}"]
    places = range(len(own))
    colours = [styles[client].colour for client in own.index] if len(own) <= MOST_NAMED else "#0072B2"
    axes.barh(places, own, color=colours, height=0.7)
    panel_title(axes, f"KiB a round, {direction}")
    axes.set_xlim(0, 1.3 * max(float(sizes.max().max()), 1e-3))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if len(own) <= MOST_NAMED:
        axes.set_yticks(places, own.index)
        for place, size in zip(places, own, strict=True):
            axes.annotate(f"{size:,.1f}", (size, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
    else:
        axes.set_yticks([])
    axes.invert_yaxis()
