"""The files of MovieLens 100K and 1M (Harper and Konstan 2015).

Where they are, and their rows as checked columns.
"""

import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.sheet import Sheet
from pfmsmt.data.tables.zips import ZIP_DAMAGE

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
LARGEST_FILE = 2**28
"""Bytes; the largest real one has 24 MB."""

_SEPARATOR = "\x1f"
"""Takes the place of the files' own, as one of them has two characters."""


class ArchiveForm(NamedTuple):
    """The layout of one text file; none has a header."""

    file: str
    separator: bytes
    columns: tuple[str, ...]


class Variant(NamedTuple):
    """One published form of the data set."""

    name: str
    """Name of the zip, without .zip, and of the folder in it."""
    ratings: ArchiveForm
    users: ArchiveForm
    items: ArchiveForm


_RATINGS = ("user_id", "item_id", "rating", "timestamp")
VARIANTS = {
    "100k": Variant(
        "ml-100k",
        ArchiveForm("u.data", b"\t", _RATINGS),
        ArchiveForm("u.user", b"|", ("user_id", "age", "gender", "occupation", "zip_code")),
        ArchiveForm("u.item", b"|", ("item_id", "title", "release_date", "video_date", "imdb_url", "unknown", *GENRES)),
    ),
    "1m": Variant(
        "ml-1m",
        ArchiveForm("ratings.dat", b"::", _RATINGS),
        ArchiveForm("users.dat", b"::", ("user_id", "gender", "age", "occupation", "zip_code")),
        ArchiveForm("movies.dat", b"::", ("item_id", "title", "genres")),
    ),
}


class ArchiveTable:
    """One file's columns as text [B], and checks that gather faults."""

    def __init__(self, sheet: Sheet, values: pa.Table, numbers: NDArray[np.int64], faults: Sequence[Fault]) -> None:
        """Hold the columns.

        `numbers` [B] are those of the rows in the file, `faults` the rows that are no rows.
        """
        self.name, self.rows, self.numbers = sheet.file, values.num_rows, numbers
        self.bad = np.zeros(values.num_rows, np.bool_)
        """[B], the rows at fault"""
        self._sheet, self._values, self._faults = sheet, values, list(faults)

    def text(self, column: str) -> pa.ChunkedArray:
        """Return a column as it stands in the file."""
        return self._values.column(column)

    def integers(self, column: str, lowest: int, highest: int) -> NDArray[np.int64]:
        """Return a column of whole numbers [B].

        A value that is none, or out of range, is a fault, and `lowest` in the result.
        """
        what = f"is not a whole number from {lowest} to {highest}"
        text = self.text(column)
        whole = pc.match_substring_regex(text, "^[0-9]{1,15}$")
        values = as_numpy(pc.cast(pc.if_else(whole, text, str(lowest)), pa.int64()))
        wrong = ~as_numpy(whole) | (values < lowest) | (values > highest)
        self.refuse(wrong, column, what)
        return np.where(wrong, lowest, values)

    def positions(self, column: str, valid: Sequence[str]) -> NDArray[np.int64]:
        """Return each value's position among the valid ones, [B].

        A value that is none of them is a fault, and 0 in the result.
        """
        found = pc.index_in(self.text(column), value_set=pa.array(valid, pa.string()))
        self.refuse(as_numpy(pc.is_null(found)), column, f"is none of {', '.join(valid)}")
        return as_numpy(pc.cast(pc.fill_null(found, 0), pa.int64()))

    def refuse(
        self, wrong: NDArray[np.bool_], column: str, what: str, more: Callable[[int], str] = lambda at: ""
    ) -> None:
        """Note the rows that are wrong [B] and were not before.

        `more` is said of one, and not counted.
        """
        for at in np.flatnonzero(wrong & ~self.bad):
            value = self.text(column)[int(at)].as_py()
            shown = repr(value) if value else "the value is empty and"
            self._faults.append(self._sheet.fault(self.numbers[at], column, f"{shown} {what}{more(int(at))}", what))
        self.bad |= wrong

    def settle(self, faults: Faults) -> NDArray[np.bool_]:
        """Hand the faulty rows over, and say which are good [B].

        Raises:
            DataError: what `faults` refuses, or no row is good.
        """
        faults.take(sorted(self._faults, key=lambda fault: fault.row))
        if self.bad.all():
            raise DataError(f"{self.name} holds no good row; obtain the file again")
        return ~self.bad


def as_numpy(values: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column [B] without nulls."""
    return np.asarray(values.to_numpy())


def read_archive_table(folder: Path, variant: Variant, form: ArchiveForm) -> ArchiveTable:
    """Read one file of a variant, from its zip or its folder.

    Raises:
        DataError: missing, damaged, empty, too large or not text.
    """
    content, name = _content(folder, variant, form)
    if b"\0" in content:
        row = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise DataError(f"{name}, row {row}: a NUL byte; it must be plain text in latin-1")
    sheet = Sheet(name, form.columns)
    faults: list[Fault] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        problem = f"{row.actual_columns} columns, expected {row.expected_columns}"
        faults.append(sheet.fault(row.number, "", problem, "has another number of columns"))
        return "skip"

    try:
        values = pa_csv.read_csv(
            pa.BufferReader(content.replace(form.separator, _SEPARATOR.encode())),
            # One thread: only then does pyarrow know the number of a faulty row.
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=form.columns, encoding="latin-1"),
            parse_options=pa_csv.ParseOptions(
                delimiter=_SEPARATOR, quote_char=False, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(form.columns, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            raise DataError(f"{name} is empty; obtain the file again") from None
        raise DataError(f"{name} cannot be read: {error}") from None
    skipped = [fault.row - 1 for fault in faults]
    numbers = np.delete(np.arange(1, values.num_rows + len(faults) + 1), skipped)
    return ArchiveTable(sheet, values, numbers, faults)


def _content(folder: Path, variant: Variant, form: ArchiveForm) -> tuple[bytes, str]:
    """Return a file's bytes and what errors call it."""
    packed = folder / f"{variant.name}.zip"
    if not packed.is_file():
        path = folder / variant.name / form.file
        with suppress(FileNotFoundError):
            _check_size(path.stat().st_size, str(path))
            return path.read_bytes(), str(path)
        raise DataError(f"{path} does not exist; run `dvc repro -f download`")
    name = str(packed)
    try:
        with zipfile.ZipFile(packed) as opened:
            entry = _member(opened, form.file, name)
            name = f"{packed}/{entry.filename}"
            _check_size(entry.file_size, name)
            return opened.read(entry), name
    except ZIP_DAMAGE as error:
        raise DataError(f"{name} is damaged or cut short ({error}); obtain the file again") from None


def check_members(folder: Path, variant: Variant) -> None:
    """Look into a variant's zip or folder, without reading its rows.

    Raises:
        DataError: no zip, or a file is missing, too large, encrypted or there twice.
    """
    forms = (variant.ratings, variant.users, variant.items)
    packed = folder / f"{variant.name}.zip"
    if not packed.is_file():
        missing = [form.file for form in forms if not (folder / variant.name / form.file).is_file()]
        if missing:
            raise DataError(f"{folder / variant.name} lacks {', '.join(missing)}; obtain the data set again")
        return
    try:
        with zipfile.ZipFile(packed) as opened:
            for form in forms:
                entry = _member(opened, form.file, str(packed))
                _check_size(entry.file_size, f"{packed}/{entry.filename}")
    except ZIP_DAMAGE as error:
        raise DataError(f"{packed} is damaged or cut short ({error}); obtain the file again") from None


def _member(opened: zipfile.ZipFile, file: str, name: str) -> zipfile.ZipInfo:
    """Return the one member of that file name, in any folder."""
    entries = [entry for entry in opened.infolist() if not entry.filename.startswith("__MACOSX/")]
    found = [entry for entry in entries if PurePosixPath(entry.filename).name == file]
    if len(found) != 1:
        held = ", ".join(entry.filename for entry in entries[:8]) or "nothing"
        raise DataError(f"{name} must hold one {file}, but holds {len(found)}; its members: {held}")
    if found[0].flag_bits & 1:
        raise DataError(f"{name}/{found[0].filename} is encrypted; unpack it and pack it again without a password")
    return found[0]


def _check_size(size: int, name: str) -> None:
    if size > LARGEST_FILE:
        raise DataError(f"{name} has {size:,} bytes, too many for MovieLens 100K or 1M; obtain the file again")
