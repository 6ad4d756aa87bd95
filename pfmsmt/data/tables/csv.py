"""A CSV, read in blocks by two threads; faulty rows become faults.

pyarrow parses the blocks. It cannot say which row it stumbles over, so that a block it refuses is read again, cell by
cell, in csv_faults.py. Values may stand in quotes and hold line ends; then a quote that is not closed, or closed too
late, would swallow rows without a word. So the quotes are found here first, and such a file is refused.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.tables.csv_faults import BOOLEANS, could_be_row, parse_cells
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.prefetch import in_order
from pfmsmt.data.tables.sheet import Sheet, TableRows, check
from pfmsmt.data.tables.values import Column

BLOCK_BYTES = 16 * 2**20
_CACHED_BYTES = 2**19
"""A block is parsed in pieces that stay in the processor's cache: three times as fast as at once."""
QUOTE = b'"'
_END = ord("\n")
_ADVICE = 'correct that row (a quote within a quoted value is written twice: "")'
_TYPES = {"id": pa.int64(), "text": pa.string(), "time": pa.string()}


class _Text(NamedTuple):
    """Some whole lines of a file."""

    first_row: int
    data: bytes


def read_blocks(
    stream: IO[bytes],
    name: str,
    columns: Sequence[Column],
    faults: Faults,
    *,
    header: Sequence[str] | None = None,
    delimiter: str = ",",
    quoted: bool = False,
    missing: Sequence[str] = (),
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[TableRows]:
    """Yield a CSV's good rows as checked blocks.

    The others go to `faults`.

    `name` is what errors call the file. Without `header` the file has exactly `columns`, in order; with it, its
    first line is `header` and the columns are picked by name. A row must fit into `block_bytes`. Values may stand in
    quotes, with delimiters and line ends in them, if `quoted`. An empty value is missing, and so is one that is among
    `missing`.

    Raises:
        DataError: no rows, a row that fits into no block, a quote that is not closed, a quoted value that swallows
            rows, or what `faults` refuses: a row of another width, or a value that is empty, not finite or not of its
            kind.
    """
    sheet = Sheet(name, [column.name for column in columns] if header is None else list(header))
    parse = pa_csv.ParseOptions(
        delimiter=delimiter,
        quote_char=QUOTE.decode() if quoted else False,
        newlines_in_values=quoted,
        ignore_empty_lines=False,
    )

    def parsed(text: _Text) -> tuple[TableRows, list[Fault]]:
        return _parse(text, sheet, columns, parse, missing)

    read = 0
    for block, found in in_order(
        parsed, _lines(stream, name, header is not None, delimiter if quoted else None, block_bytes)
    ):
        faults.take(found)
        read += len(block.rows) + len(found)
        if len(block.rows):
            yield block
    if not read:
        raise DataError(f"{name} has no rows; obtain the file again")


def _lines(stream: IO[bytes], name: str, headed: bool, quoted_by: str | None, block_bytes: int) -> Iterator[_Text]:
    """Cut the file into pieces of whole lines.

    They are those that end in its first `block_bytes`, in the next, and so on.

    `quoted_by` is the delimiter, if values may stand in quotes.
    """
    row, rest, skip = 1, b"", headed
    read = stream.read(block_bytes)
    if not read:
        raise DataError(f"{name} is empty; obtain the file again")
    while read:
        data = rest + read
        read = stream.read(block_bytes)
        end, rows, open_row = _whole_lines(data, quoted_by)
        if not read:
            if open_row is not None:
                raise DataError(
                    f"{name}, row {row + open_row}: a quote opens there and is never closed, so that it swallows all "
                    f"that follows; {_ADVICE}"
                )
            end = len(data)  # a last line without an end belongs to the block before it
        data, rest = data[:end], data[end:]
        if len(rest) > block_bytes:
            raise DataError(
                f"{name}, row {row + rows}: longer than {block_bytes:,} bytes; "
                f"line ends are missing{', or a quote is not closed' if quoted_by else ''}"
            )
        first = row
        row += rows
        if skip and data:
            data, first, skip = data[data.index(b"\n") + 1 if b"\n" in data else len(data) :], 2, False
        if data:
            yield _Text(first, data)


def _whole_lines(data: bytes, quoted_by: str | None) -> tuple[int, int, int | None]:
    """Return the last whole line's end, the line count, an open quote.

    The quote is given by its line, or None where all are closed.
    """
    if quoted_by is None or QUOTE not in data:
        return data.rfind(b"\n") + 1, data.count(b"\n"), None
    quotes = find_quotes(data, quoted_by)
    end = int(quotes.ends[-1]) + 1 if quotes.ends.size else 0
    return end, len(quotes.ends), None if quotes.open_at is None else quotes.row(quotes.open_at)


def _parse(
    text: _Text, sheet: Sheet, columns: Sequence[Column], parse: pa_csv.ParseOptions, missing: Sequence[str]
) -> tuple[TableRows, list[Fault]]:
    if parse.newlines_in_values:
        _refuse_swallowed(text, sheet, columns, parse.delimiter, missing)
    types = {column.name: _TYPES.get(column.kind, pa.float64()) for column in columns}
    truths = {column.name: pa.bool_() for column in columns if column.booleans}
    for kinds in (types, types | truths) if truths else (types,):
        try:
            table = _read(text, sheet, kinds, parse, missing)
        except pa.ArrowInvalid:
            continue
        values = {name: table.column(name).combine_chunks() for name in kinds}
        values |= {name: values[name].cast(pa.int8()) for name in truths if kinds[name] == pa.bool_()}
        return check(sheet, columns, values, np.arange(text.first_row, text.first_row + table.num_rows))
    return parse_cells(text.data, text.first_row, sheet, columns, parse, missing)


def _read(
    text: _Text, sheet: Sheet, types: Mapping[str, pa.DataType], parse: pa_csv.ParseOptions, missing: Sequence[str]
) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(text.data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_CACHED_BYTES, column_names=sheet.names),
        parse_options=parse,
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=["", *missing],
            strings_can_be_null=True,
            true_values=[name for name, label in BOOLEANS.items() if label == "1"] + ["1"],
            false_values=[name for name, label in BOOLEANS.items() if label == "0"] + ["0"],
        ),
    )


def _refuse_swallowed(
    text: _Text, sheet: Sheet, columns: Sequence[Column], delimiter: str, missing: Sequence[str]
) -> None:
    if QUOTE not in text.data:
        return
    quotes = find_quotes(text.data, delimiter)
    at, sign = swallowed(
        text.data, quotes, delimiter, len(sheet.names or ()), lambda cells: could_be_row(cells, sheet, columns, missing)
    )
    if at >= 0:
        raise DataError(
            f"{sheet.file}, row {text.first_row + quotes.row(at)}: a quote opens there and swallows rows: {sign}; "
            + _ADVICE
        )


class Quotes(NamedTuple):
    """The quotes of a piece of text that begins with a row."""

    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    """The place at which each opened quote is closed; the last may be missing here."""
    ends: NDArray[np.int64]
    """The line ends that do not stand in quotes: those of rows."""
    inner: NDArray[np.int64]
    """The line ends that do."""

    @property
    def open_at(self) -> int | None:
        """The place of a quote that is not closed, or None."""
        return int(self.opens[-1]) if len(self.opens) > len(self.closes) else None

    def row(self, at: int) -> int:
        """Return how many rows end before a place."""
        return int(np.searchsorted(self.ends, at))


def find_quotes(data: bytes, delimiter: str) -> Quotes:
    """Find the quotes that open and close values, as pyarrow does.

    Only at the start of a value a quote opens it.
    """
    text = np.frombuffer(data, np.uint8)
    found, ends = np.flatnonzero(text == QUOTE[0]), np.flatnonzero(text == _END)
    opens, closes = found[::2], found[1::2]
    if not _in_turn(text, opens, closes, delimiter):
        opens, closes = _one_by_one(data, delimiter)
    free = np.searchsorted(opens, ends) == np.searchsorted(closes, ends)
    return Quotes(opens, closes, ends[free], ends[~free])


def _in_turn(text: NDArray[np.uint8], opens: NDArray[np.int64], closes: NDArray[np.int64], delimiter: str) -> bool:
    """Say whether quotes open and close in turn.

    One that is doubled does both, and that changes nothing.
    """
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
    """Find the first quoted value that swallows rows.

    Returns its place (-1: there is none), and the sign that shows it.

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
    """Return for each byte [256] whether quoted values may border on it.

    A quote may, as doubled ones do.
    """
    border = np.zeros(256, np.bool_)
    border[[ord(delimiter), _END, ord("\r"), QUOTE[0]]] = True
    return border
