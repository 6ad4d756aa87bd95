"""What all pictures share: the grid of panels, the legend, PNG bytes. No global drawing state.

One look for each method, in every picture and table.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pfmsmt.report.comparison.results import ORACLE, Results


class Look(NamedTuple):
    """Colour, and a line style so that colour is never the only difference."""

    colour: str
    line: tuple[int, tuple[float, ...]]
    """Offset, then lengths of strokes and gaps; none is a solid line."""
    marker: str


SOLID, LONG, SHORT, DOTS = (0, ()), (0, (6.0, 1.5)), (0, (3.0, 1.2)), (0, (1.0, 1.1))

# Hues after Okabe and Ito (2008), told apart with the common forms of colour blindness; darkened a little to be
# read as thin lines on white.
KNOWN = {
    "pf_msmtrec": Look("#0072B2", SOLID, "o"),
    "fedavg": Look("#D55E00", LONG, "s"),
    "local": Look("#00855F", SHORT, "^"),
    "centralized": Look("#6E6E6E", DOTS, "D"),
    "fedprox": Look("#E69F00", SOLID, "v"),
    "fedbn": Look("#C2589B", SOLID, "P"),
    "fedper": Look("#3DA5D9", LONG, "X"),
    "ditto": Look("#8C6D00", SHORT, "<"),
    ORACLE: Look("#111111", DOTS, "*"),
}
SPARE = ("#7A4FB5", "#A6261D", "#4C6A2F", "#B58B00", "#1F8A9E", "#9C5A3C")
SPARE_LINES = (SOLID, LONG, SHORT, DOTS)


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return each method's look; methods without one of their own get spare ones in their order."""
    unknown = [method for method in methods if method not in KNOWN]
    spare = {
        method: Look(SPARE[place % len(SPARE)], SPARE_LINES[place // len(SPARE) % len(SPARE_LINES)], "h")
        for place, method in enumerate(unknown)
    }
    return {method: KNOWN.get(method) or spare[method] for method in methods}


DPI = 130
INK, FAINT = "#222222", "#E2E2E2"
PANEL_WIDTH = 2.6
"""Inches."""

Grid = list[list[Axes]]
Share = Literal["all", "row"]


class Picture(NamedTuple):
    """A PNG."""

    name: str
    """Without suffix."""
    caption: str
    png: bytes

    def write(self, folder: Path) -> Path:
        """Write `<name>.png` into a folder; return its path."""
        path = folder / f"{self.name}.png"
        path.write_bytes(self.png)
        return path


def panel_grid(
    results: Results, rows: int, *, height: float, share_x: Share = "all", share_y: Share = "all"
) -> tuple[Figure, Grid]:
    """Return a figure with a column of panels per scenario; `height` is a panel's, in inches."""
    columns = len(results.scenarios)
    size = (max(PANEL_WIDTH * columns, 6.5) + 0.4, height * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.08)  # type: ignore[call-arg]  # known to the constrained engine only
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for axes in grid.flat:
        plain(axes)
        axes.grid(color=FAINT, linewidth=0.6)
    return figure, [list(row) for row in grid]


def plain(axes: Axes) -> None:
    """Take the frame away and set quiet labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.set_axisbelow(True)


def panels(results: Results, grid: Grid, tasks: Sequence[str] | None = None) -> Iterator[tuple[Axes, str, str]]:
    """Yield each panel with its scenario and task, titled."""
    for row, task in zip(grid, results.tasks if tasks is None else tasks, strict=True):
        for axes, scenario in zip(row, results.scenarios, strict=True):
            axes.set_title(f"{scenario} {task.upper()}".strip(), fontsize=10, color=INK, loc="left")
            yield axes, scenario, task


def legend(figure: Figure, looks: Mapping[str, Look], *, markers: bool = False) -> None:
    """Put one legend for all panels above them."""
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line, linewidth=2, marker=look.marker if markers else None)
        for look in looks.values()
    ]
    figure.legend(
        handles, list(looks), loc="outside lower center", ncols=min(len(looks), 6), frameon=False, fontsize=9,
        handlelength=3.2,
    )  # fmt: skip


def finish(figure: Figure, name: str, caption: str) -> Picture:
    """Render to PNG bytes without a date or version in them."""
    FigureCanvasAgg(figure)
    figure.suptitle(caption, fontsize=10.5, color=INK, wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name, caption, buffer.getvalue())
