"""The look of all pictures: colours, grids of panels, legends, heat maps.

A method has one look in every picture and table. Nothing here touches matplotlib's global state, and the same input
gives the same PNG bytes.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray


class Look(NamedTuple):
    """Colour and line style, so that colour is never the only difference."""

    colour: str
    line: tuple[int, tuple[float, ...]]
    """Offset, then lengths of strokes and gaps; none is a solid line."""
    marker: str


SOLID, LONG, SHORT, DOTS = (0, ()), (0, (6.0, 1.5)), (0, (3.0, 1.2)), (0, (1.0, 1.1))

# Hues after Okabe and Ito (2008), which differ with the common forms of colour blindness; darkened a little to be
# read as thin lines on white.
KNOWN_LOOKS = {
    "pf_msmtrec": Look("#0072B2", SOLID, "o"),
    "fedavg": Look("#D55E00", LONG, "s"),
    "local": Look("#00855F", SHORT, "^"),
    "linear": Look("#5B4B8A", DOTS, "v"),
    "joint": Look("#6E6E6E", LONG, "d"),
    "centralized": Look("#6E6E6E", DOTS, "D"),
    "fedprox": Look("#E69F00", SOLID, "v"),
    "fedbn": Look("#C2589B", SOLID, "P"),
    "fedper": Look("#3DA5D9", LONG, "X"),
    "ditto": Look("#8C6D00", SHORT, "<"),
    "oracle": Look("#111111", DOTS, "*"),
}
SPARE_COLOURS = ("#7A4FB5", "#A6261D", "#4C6A2F", "#B58B00", "#1F8A9E", "#9C5A3C")
SPARE_LINES = (SOLID, LONG, SHORT, DOTS)


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return each method's look.

    Methods without one of their own get spare ones in their order.
    """
    unknown = [method for method in methods if method not in KNOWN_LOOKS]
    spare = {
        method: Look(
            SPARE_COLOURS[place % len(SPARE_COLOURS)],
            SPARE_LINES[place // len(SPARE_COLOURS) % len(SPARE_LINES)],
            "h",
        )
        for place, method in enumerate(unknown)
    }
    return {method: KNOWN_LOOKS.get(method) or spare[method] for method in methods}


DPI = 130
INK, FAINT = "#222222", "#E2E2E2"
MOST_NAMED = 12
"""Up to so many clients, every one is named and a matrix's cells hold their numbers."""

Panels = list[list[Axes]]
"""Rows of panels from the top, each from the left."""
Share = Literal["none", "all", "row"]


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

    def data_uri(self) -> str:
        """Return the bytes as an address that a page itself holds."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


def empty_figure(width: float, height: float) -> Figure:
    """Return a white figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panel_grid(figure: Figure, rows: int, columns: int, *, share_x: Share = "none", share_y: Share = "none") -> Panels:
    """Fill a figure with plain panels that have faint grid lines."""
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for axes in grid.flat:
        plain(axes)
        axes.grid(color=FAINT, linewidth=0.6)
    return [list(row) for row in grid]


def plain(axes: Axes) -> None:
    """Take the frame away and set quiet labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.set_axisbelow(True)


def panel_title(axes: Axes, text: str, size: float = 9) -> None:
    """Put a title above a panel's left end."""
    axes.set_title(text, fontsize=size, color=INK, loc="left")


def legend(figure: Figure, looks: Mapping[str, Look]) -> None:
    """Put one legend for all panels below them."""
    handles = [Line2D([], [], color=look.colour, linestyle=look.line, linewidth=2) for look in looks.values()]
    figure.legend(
        handles, list(looks), loc="outside lower center", ncols=min(len(looks), 6), frameon=False, fontsize=9,
        handlelength=3.2,
    )  # fmt: skip


def heat_map(
    axes: Axes,
    matrix: NDArray[np.float64],
    names: Sequence[str],
    colours: str,
    span: tuple[float, float],
    *,
    form: str,
    size: float,
    widest: int,
    named_rows: bool = True,
) -> AxesImage:
    """Draw a matrix over pairs of clients. Legend: S clients.

    Args:
        matrix: [S, S]; nan where there is no value.
        names: [S]; of more than MOST_NAMED only some are printed, and no numbers.
        span: values of the first and the last colour; the first is 0 or the last's negative.
        form: of the numbers, such as `.2f`.
        size: of the numbers, in points.
        widest: letters of a name that fit below a column; longer names stand upright.
        named_rows: whether the rows are named too.
    """
    image = axes.imshow(matrix, cmap=colours, vmin=span[0], vmax=span[1])
    plain(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    places = range(0, len(names), math.ceil(len(names) / MOST_NAMED))
    shown = [names[place] for place in places]
    axes.set_xticks(places, shown, fontsize=8, rotation=0 if max(map(len, shown)) <= widest else 90)
    axes.set_yticks(places, shown if named_rows else [""] * len(shown), fontsize=8)
    if len(names) <= MOST_NAMED:
        for row, column in np.ndindex(matrix.shape):
            value = matrix[row, column]
            if np.isfinite(value):
                # Dark are high values, and where colours diverge from 0 also low ones.
                colour = "white" if abs(value) > 0.6 * span[1] else INK
                text = f"{value:z{form}}"
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    return image


def colour_bar(figure: Figure, image: AxesImage, panels: Sequence[Axes]) -> None:
    """Show the values behind the colours, at the right of the panels."""
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=25, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def finish(figure: Figure, name: str, caption: str) -> Picture:
    """Render to PNG bytes without a date or version in them."""
    FigureCanvasAgg(figure)
    figure.suptitle(caption, fontsize=10.5, color=INK, wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name, caption, buffer.getvalue())
