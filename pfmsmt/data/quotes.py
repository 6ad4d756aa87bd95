"""Values of a CSV that stand in quotes: where they open and close, and whether one of them swallows rows."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

QUOTE = b'"'
_END = ord("\n")


class Quotes(NamedTuple):
    """The quotes of a piece of text that begins with a row."""

    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    """Where each opened quote is closed; the last may be not, and then one is missing here."""
    ends: NDArray[np.int64]
    """The line ends that do not stand in quotes: those of rows."""
    inner: NDArray[np.int64]
    """The line ends that do."""

    @property
    def open_at(self) -> int | None:
        """Where the quote stands that is not closed, if there is one."""
        return int(self.opens[-1]) if len(self.opens) > len(self.closes) else None

    def row(self, at: int) -> int:
        """Return how many rows end before a place."""
        return int(np.searchsorted(self.ends, at))


def find_quotes(data: bytes, delimiter: str) -> Quotes:
    """Find the quotes that open and close values, as pyarrow does: only at the start of a value one opens it."""
    text = np.frombuffer(data, np.uint8)
    found, ends = np.flatnonzero(text == QUOTE[0]), np.flatnonzero(text == _END)
    opens, closes = found[::2], found[1::2]
    if not _in_turn(text, opens, closes, delimiter):
        opens, closes = _one_by_one(data, delimiter)
    free = np.searchsorted(opens, ends) == np.searchsorted(closes, ends)
    return Quotes(opens, closes, ends[free], ends[~free])


def _in_turn(text: NDArray[np.uint8], opens: NDArray[np.int64], closes: NDArray[np.int64], delimiter: str) -> bool:
    """Say whether quotes open and close in turn; one that is doubled does both, and that changes nothing."""
    border = _borders(delimiter)
    before, after = opens[opens > 0] - 1, closes[closes < len(text) - 1] + 1
    return bool(border[text[before]].all() and border[text[after]].all())


def _one_by_one(data: bytes, delimiter: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find them where some stand within values, as in 27" monitor."""
    value = re.compile(rb"(?:\A|(?<=[\n\r" + re.escape(delimiter.encode()) + rb']))"[^"]*(?:""[^"]*)*(")?')
    opens, closes = [], []
    for match in value.finditer(data):
        opens.append(match.start())
        if match.end(1) > 0:
            closes.append(match.end(1) - 1)
    return np.asarray(opens, np.int64), np.asarray(closes, np.int64)


def swallowed(
    data: bytes, quotes: Quotes, delimiter: str, width: int, is_row: Callable[[list[bytes]], bool]
) -> tuple[int, str]:
    """Return the place of the first quoted value that swallows rows, and how that shows; -1 if there is none.

    A value may hold line ends. But if text follows its closing quote, or a line of it would be a row by itself
    (`width` cells that `is_row`), then that quote was another value's.
    """
    if not quotes.inner.size:
        return -1, ""
    text = np.frombuffer(data, np.uint8)
    spans = np.searchsorted(quotes.opens, quotes.inner) - 1
    follows = quotes.closes[spans] + 1
    torn = ~_borders(delimiter)[text[np.minimum(follows, len(text) - 1)]] & (follows < len(text))
    if torn.any():
        return int(quotes.opens[spans[np.argmax(torn)]]), "text follows its closing quote, lines further down"
    starts, ends = quotes.inner + 1, np.sort(np.concatenate([quotes.inner, quotes.ends, [len(text)]]))
    stops = ends[np.searchsorted(ends, starts)]
    cuts = np.flatnonzero(text == ord(delimiter))
    as_wide = np.searchsorted(cuts, stops) - np.searchsorted(cuts, starts) == width - 1
    for span, start, stop in zip(spans[as_wide], starts[as_wide], stops[as_wide], strict=True):
        if is_row(data[start:stop].rstrip(b"\r").split(delimiter.encode())):
            return int(quotes.opens[span]), "a line of its value is a whole row"
    return -1, ""


def _borders(delimiter: str) -> NDArray[np.bool_]:
    """Say for each byte [256] whether it may stand beside a quoted value; a quote may, as doubled ones do."""
    border = np.zeros(256, np.bool_)
    border[[ord(delimiter), _END, ord("\r"), QUOTE[0]]] = True
    return border
