"""How the server's step went over the rounds: coordination, drift, conflicts, bytes. Legend: S clients, R rounds."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pfmsmt.report.comparison.results import Diagnostics
from pfmsmt.report.drawing import (
    DOTS,
    FAINT,
    INK,
    LONG,
    SHORT,
    SOLID,
    SPARE,
    SPARE_LINES,
    Look,
    Picture,
    finish,
    legend,
    looks,
    plain,
)
from pfmsmt.report.matrices import READABLE

COLUMNS = 4
KINDS = {
    "expert": Look("#0072B2", SOLID, "o"),
    "tower": Look("#D55E00", LONG, "s"),
    "gate": Look("#00855F", SHORT, "^"),
    "embedding": Look("#6E6E6E", DOTS, "D"),
}
"""Kinds of groups in the order of the panels; other kinds follow."""


def course_picture(name: str, diagnostics: Diagnostics) -> Picture:
    """Draw each client's coefficient and drift by kind of group, conflicts and cosines of all kinds, and bytes."""
    group = diagnostics.table["group"]
    kind_of = {name: name.split("/")[0] for name in group.unique()}
    table = diagnostics.table.assign(kind=group.map(kind_of).astype("str"))
    order = list(KINDS)
    kinds = sorted(table["kind"].unique(), key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
    clients = sorted(diagnostics.traffic["client"].unique())
    columns = max(COLUMNS, len(kinds))
    figure = Figure(figsize=(2.8 * columns, 7.6), layout="constrained", facecolor="white")
    grid = figure.subplots(3, columns, squeeze=False)
    for axes in grid.flat:
        plain(axes)
        axes.grid(color=FAINT, linewidth=0.6)
    styles = {client: _look(place) for place, client in enumerate(clients)}
    for row, (quantity, title) in enumerate((("coefficients", "coefficient"), ("drift", "drift |W - G| / |G|"))):
        for axes, kind in zip(grid[row], kinds, strict=False):
            own = table[(table["quantity"] == quantity) & (table["kind"] == kind)]
            _lines(axes, _by_round(own, "client"), styles)
            axes.set_title(f"{kind}: {title}", fontsize=9, color=INK, loc="left")
        for axes in grid[row][len(kinds) :]:
            axes.set_visible(False)
    _conflicts(grid[2][0], table, kinds)
    _cosines(grid[2][1], table, kinds)
    _bytes(grid[2][2], diagnostics.traffic, "up", styles)
    _bytes(grid[2][3], diagnostics.traffic, "down", styles)
    for axes in grid[2][4:]:
        axes.set_visible(False)
    if len(clients) <= READABLE:
        legend(figure, styles)
        many = ""
    else:
        many = " Lines: median over clients; bands: lowest to highest."
    caption = f"{name}: the server's step over the rounds, mean over the groups of a kind.{many}"
    return finish(figure, f"course-{name}", caption)


def _look(place: int) -> Look:
    return Look(SPARE[place % len(SPARE)], SPARE_LINES[place % len(SPARE_LINES)], "h")


def _by_round(table: pd.DataFrame, lines: str) -> pd.DataFrame:
    """Return means with one row for each round and one column for each line."""
    return table.groupby(["round", lines], observed=True)["value"].mean().unstack(lines)


def _lines(axes: Axes, values: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """Draw each column's running mean, its rounds faintly behind; of many columns their median and range."""
    # Running: single rounds are noisy, and lines of several clients would cover each other.
    smooth = values.rolling(max(1, len(values) // 12), center=True, min_periods=1).mean()
    if len(values.columns) > READABLE:
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
    _lines(axes, _by_round(table[table["quantity"] == "conflicts"], "kind")[kinds], looks(kinds) | KINDS)
    axes.set_title("share of pairs in conflict", fontsize=9, color=INK, loc="left")
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
        _lines(axes, _by_round(pairs, "kind")[kinds], looks(kinds) | KINDS)
    axes.set_title("cosine of updates, mean over pairs", fontsize=9, color=INK, loc="left")
    axes.set_xlabel("communication round", fontsize=8)


def _bytes(axes: Axes, traffic: pd.DataFrame, direction: str, styles: Mapping[str, Look]) -> None:
    """Draw each client's KiB in a round; both directions to one scale."""
    columns = ["bytes_up", "bytes_down"]
    sizes = traffic.groupby("client")[columns].mean().sort_index() / 1024
    own = sizes[f"bytes_{direction}"]
    places = range(len(own))
    colours = [styles[client].colour for client in own.index] if len(own) <= READABLE else "#0072B2"
    axes.barh(places, own, color=colours, height=0.7)
    axes.set_title(f"KiB a round, {direction}", fontsize=9, color=INK, loc="left")
    axes.set_xlim(0, 1.3 * max(float(sizes.max().max()), 1e-3))
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if len(own) <= READABLE:
        axes.set_yticks(places, own.index)
        for place, size in zip(places, own, strict=True):
            axes.annotate(f"{size:,.1f}", (size, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
    else:
        axes.set_yticks([])
    axes.invert_yaxis()
