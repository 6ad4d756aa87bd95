"""One look for each method, in every picture and table."""

from collections.abc import Sequence
from typing import NamedTuple

from pfmsmt.report.results import ORACLE


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
