"""Who listens to whom: the rows of the aggregation matrix A as heat maps."""

import math

import numpy as np
from matplotlib.figure import Figure

from pfmsmt.report.drawing import INK, Picture, finish
from pfmsmt.report.results import Listening, Results

ACROSS = 4
"""Panels in a row."""


def listening_pictures(results: Results) -> tuple[Picture, ...]:
    """Draw one picture for each method that mixes clients: the mean of A over rounds, of its lowest such seed."""
    pictures = []
    for method in results.methods:
        held = [run.listening for run in results.of(method) if run.listening is not None and run.listening.groups]
        if held:
            pictures.append(_listening(method, held[0]))
    return tuple(pictures)


def _listening(method: str, listening: Listening) -> Picture:
    columns = min(ACROSS, len(listening.groups))
    rows = math.ceil(len(listening.groups) / columns)
    side = max(2.0, 0.42 * len(listening.clients) + 0.9)
    figure = Figure(figsize=(side * columns + 1.2, (side + 0.35) * rows + 0.7), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    top = max(float(matrix.max()) for matrix in listening.groups.values())
    places = np.arange(len(listening.clients))
    for axes in grid.flat[len(listening.groups) :]:
        axes.set_visible(False)
    for number, (axes, (group, matrix)) in enumerate(zip(grid.flat, listening.groups.items(), strict=False)):
        image = axes.imshow(matrix, cmap="Blues", vmin=0.0, vmax=top)
        axes.set_title(group, fontsize=10, color=INK, loc="left")
        axes.set_xticks(places, listening.clients, fontsize=8)
        axes.set_yticks(places, listening.clients, fontsize=8)
        axes.tick_params(length=0, colors=INK)
        axes.spines[:].set_visible(False)
        if number % columns == 0:
            axes.set_ylabel("listens", fontsize=9)
        if number >= len(listening.groups) - columns:
            axes.set_xlabel("to", fontsize=9)
        for listener, source in np.ndindex(matrix.shape):
            weight = matrix[listener, source]
            colour = "white" if weight > 0.6 * top else INK
            axes.text(source, listener, f"{weight:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, aspect=25, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    caption = f"{method}: who listens to whom. Weight of each client (column) in what another (row) receives."
    return finish(figure, f"listening-{method}", caption)
