"""Faulty rows: the first is an error, or all are set aside.

Those set aside are counted.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from pfmsmt.core import files
from pfmsmt.core.errors import DataError

LIST_FILE = "quarantine.csv"
SUMMARY_FILE = "quarantine.json"


class Fault(NamedTuple):
    """One row that cannot be used."""

    file: str
    row: int
    """Counted from 1, a header included; the record's number where values hold line ends."""
    column: str
    """The errors' name of the column, as `9 (numerical_1)`; empty where the whole row is at fault."""
    problem: str
    """The value and what is wrong with it."""
    kind: str
    """The problem without the value: what is counted."""
    advice: str = ""
    """What to do; said where the row is an error."""

    def __str__(self) -> str:
        """Say where it is, what is wrong, and what to do."""
        place = f"{self.file}, row {self.row}{self.column and f', column {self.column}'}"
        return f"{place}: {self.problem}{self.advice and f'; {self.advice}'}"


class Faults:
    """Takes the faulty rows of all files: `data.on_bad_rows`.

    Without a folder the first one raises DataError. With one, `quarantine.csv` there lists every row that was left
    out, and `quarantine.json` counts them by kind and by file.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Refuse (no folder), or open the list in `folder`."""
        self._folder = folder
        self._stream: IO[str] | None = None
        self.first: Fault | None = None
        """The first row that was set aside."""
        self._kinds: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        if folder is not None:
            self._stream = (folder / LIST_FILE).open("w", encoding="utf-8", newline="")
            self._list = csv.writer(self._stream, lineterminator="\n")
            self._list.writerow(["file", "row", "column", "problem"])

    @property
    def count(self) -> int:
        """Rows that were set aside."""
        return self._kinds.total()

    def take(self, faults: Sequence[Fault]) -> None:
        """Refuse the first of these rows, or set all of them aside.

        Raises:
            DataError: there is one, and rows are not set aside.
        """
        for fault in faults:
            if self._stream is None:
                raise DataError(str(fault))
            self.first = self.first or fault
            self._list.writerow(fault[:4])
            self._kinds[fault.kind] += 1
            self._files[fault.file] += 1

    def close(self) -> None:
        """Finish the list, and write the counts beside it."""
        if self._stream is not None and self._folder is not None:
            self._stream.close()
            summary = {"rows": self.count, "kinds": dict(self._kinds), "files": dict(self._files)}
            files.write_json(self._folder / SUMMARY_FILE, summary)


class Known(Faults):
    """The same faults at a second reading, not counted again."""

    def take(self, faults: Sequence[Fault]) -> None:
        """Do nothing: these rows are on the list."""
