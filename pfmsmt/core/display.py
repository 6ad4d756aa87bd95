"""Tables for people: one type, as Markdown and as terminal text.

`report.page` prints the same tables as HTML. A table holds values, not texts: a column's heading says how its values
are written, so that all forms agree.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

UNDEFINED = "\N{EN DASH}"
"""Printed for a value that is None; `-` in a terminal."""

Value = str | int | float | None


class Cell(NamedTuple):
    """One value, and what is known about it."""

    value: Value
    deviation: float | None = None
    """Standard deviation over repetitions, in the value's unit."""
    note: str = ""
    """More about the value, such as its interval; a terminal has no room for it."""
    best: bool = False


class Row(NamedTuple):
    """One line of a table; its first cell names it."""

    cells: tuple[Cell, ...]
    reference: bool = False
    """Shown to compare with, and fainter where colours are at hand."""


class Heading(NamedTuple):
    """One column: its name and the form of its values."""

    name: str
    group: str = ""
    """Heading above neighbouring columns of the same group."""
    form: str = ""
    """Format specification of numbers, such as `.4f`; texts stay as they are."""
    align: Literal["left", "right"] = "right"

    @property
    def full_name(self) -> str:
        """The name after its group's."""
        return f"{self.group} {self.name}".strip()

    def text(self, value: Value) -> str:
        """Return a value in this column's form."""
        if value is None:
            return UNDEFINED
        return value if isinstance(value, str) else format(value, self.form)

    def remarks(self, cell: Cell) -> tuple[str, ...]:
        """Return what stands behind a value: its deviation, its note."""
        deviation = f"± {self.text(cell.deviation)}" if cell.deviation is not None else ""
        return tuple(text for text in (deviation, cell.note) if text)


class DisplayTable(NamedTuple):
    """Rows under headings, with what a reader must know about them."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    title: str = ""
    explanation: str = ""
    notes: tuple[str, ...] = ()
    """Footnotes: why a value is undefined, say."""

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Each group's name and number of columns, from the left.

        A column without a group is one by itself, without a name.
        """
        found: list[tuple[str, int]] = []
        for heading in self.headings:
            if heading.group and found and found[-1][0] == heading.group:
                found[-1] = (heading.group, found[-1][1] + 1)
            else:
                found.append((heading.group, 1))
        return tuple(found)

    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Return the values of all rows in their columns' form."""
        return tuple(
            tuple(heading.text(cell.value) for heading, cell in zip(self.headings, row.cells, strict=True))
            for row in self.rows
        )


def plain_row(*values: Value) -> Row:
    """Return a row of values with nothing more to say about them."""
    return Row(tuple(Cell(value) for value in values))


def text_table(names: Sequence[str], rows: Sequence[Sequence[Value]], right: Sequence[str] = ()) -> DisplayTable:
    """Return a table of left-aligned columns, except for those in `right`."""
    headings = tuple(Heading(name, align="right" if name in right else "left") for name in names)
    return DisplayTable(headings, tuple(plain_row(*row) for row in rows))


def markdown_table(table: DisplayTable) -> str:
    """Return the rows as GitHub's Markdown, the best values in bold.

    Title, explanation and notes are left to the caller.
    """
    rules = [{"left": "---", "right": "---:"}[heading.align] for heading in table.headings]
    lines = [[_in_cell(heading.full_name) for heading in table.headings], rules]
    for row in table.rows:
        cells = zip(table.headings, row.cells, strict=True)
        lines.append([_in_cell(" ".join([_marked(h, cell), *h.remarks(cell)])) for h, cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _marked(heading: Heading, cell: Cell) -> str:
    text = heading.text(cell.value)
    return f"**{text}**" if cell.best else text


def _in_cell(text: str) -> str:
    return markdown_text(text).replace("|", r"\|").replace("\n", " ")


def markdown_text(text: str) -> str:
    """Keep a text with names in it from being read as HTML."""
    return text.replace("<", "&lt;")


GAP = 2
"""Blanks between two columns of a terminal; the first becomes an asterisk behind a best value."""


def terminal_table(table: DisplayTable, width: int | None = None) -> str:
    """Return the rows as plain text.

    An asterisk marks the best values and `-` an undefined one. A row with deviations has a second line for them.
    Notes of cells are left out, as there is no room for them.

    Args:
        width: characters of a line. A wider table goes on below, with its first column again; a group of columns is
            never torn apart. None: no limit.
    """
    lines = _printed_lines(table)
    widths = _widths(table, lines)
    texts = []
    for columns in _blocks(table, widths, width):
        if any(table.headings[column].group for column in columns):
            texts.append(_group_line(table, columns, widths))
        for line in lines:
            texts.append("".join(_padded(line[c], widths[c], table.headings[c].align) for c in columns).rstrip())
    return "\n".join(texts)


def terminal_notes(table: DisplayTable, width: int) -> str:
    """Return the footnotes for a terminal, wrapped."""
    notes = (textwrap.wrap(note, width, initial_indent="- ", subsequent_indent="  ") for note in table.notes)
    return "\n".join(line for lines in notes for line in lines)


class _Printed(NamedTuple):
    text: str
    mark: str = ""


def _printed_lines(table: DisplayTable) -> list[list[_Printed]]:
    lines = [[_Printed(heading.name) for heading in table.headings]]
    if not any(heading.name for heading in table.headings):
        lines.clear()
    for row in table.rows:
        cells = list(zip(table.headings, row.cells, strict=True))
        lines.append([_Printed("-" if c.value is None else h.text(c.value), "*" if c.best else "") for h, c in cells])
        if any(cell.deviation is not None for cell in row.cells):
            deviations = ["" if cell.deviation is None else h.text(cell.deviation) for h, cell in cells]
            lines.append([_Printed("  std"), *map(_Printed, deviations[1:])])
    return lines


def _widths(table: DisplayTable, lines: Sequence[Sequence[_Printed]]) -> list[int]:
    """Return each column's width; a group's last makes room for its name."""
    widths = [max((len(line[c].text) for line in lines), default=0) for c in range(len(table.headings))]
    for name, columns in _runs(table):
        widths[columns[-1]] += max(0, len(name) - _room(columns, widths))
    return widths


def _runs(table: DisplayTable) -> Iterator[tuple[str, range]]:
    start = 0
    for name, count in table.groups:
        yield name, range(start, start + count)
        start += count


def _blocks(table: DisplayTable, widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Cut the columns into blocks that fit, each begun by the first."""
    blocks = [[0]]
    for _, columns in _runs(table):
        own = [column for column in columns if column > 0]
        # One more, for the asterisk that may stand behind the last column.
        if width is not None and len(blocks[-1]) > 1 and _room([*blocks[-1], *own], widths) + 1 > width:
            blocks.append([0])
        blocks[-1] += own
    return blocks


def _room(columns: Sequence[int], widths: Sequence[int]) -> int:
    """Return the width of columns side by side."""
    return sum(widths[column] for column in columns) + GAP * (len(columns) - 1)


def _group_line(table: DisplayTable, columns: Sequence[int], widths: Sequence[int]) -> str:
    line = ""
    for name, own in _runs(table):
        if own[-1] in columns:
            room = _room(own, widths)
            line += (f"{name:-^{room}}" if name else " " * room) + " " * GAP
    return line.rstrip()


def _padded(printed: _Printed, width: int, align: str) -> str:
    text = printed.text.rjust(width) if align == "right" else printed.text.ljust(width)
    return text + printed.mark.ljust(GAP)
