"""Tables with named columns: CSV with a header (also gzip), or Parquet.

Both come out as the same checked rows, some thousands at a time, read ahead by a thread.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfmsmt.core.errors import DataError
from pfmsmt.data.schema import refuse_encoded
from pfmsmt.data.tables.csv import read_blocks
from pfmsmt.data.tables.faults import Faults
from pfmsmt.data.tables.prefetch import ahead
from pfmsmt.data.tables.sheet import Sheet, TableRows, check
from pfmsmt.data.tables.values import Column, fits

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_BATCH_ROWS = 65_536
_PARTS = "a list, vector or map is no single value: write its parts as columns of their own, or take it out"
_HEADER_BYTES = 2**20


def is_table(path: Path) -> bool:
    """Say whether a file's name is one of a table."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith((".", "_"))


def is_parquet(path: Path) -> bool:
    """Say whether a table is Parquet; else it is CSV."""
    return path.name.lower().endswith(".parquet")


def read_table(
    path: Path, columns: Sequence[Column], faults: Faults, missing: Sequence[str] = ()
) -> Iterator[TableRows]:
    """Yield one file's good rows as checked blocks.

    The others go to `faults`.

    In a CSV an empty value is missing, and so is one that is among `missing`.

    Raises:
        DataError: missing, damaged, empty, a column is missing or of a type that does not fit, or what `faults`
            refuses.
    """
    if is_parquet(path):
        yield from ahead(_read_parquet(path, columns, faults))
        return
    header = read_header(path, [column.name for column in columns])
    try:
        with _open(path) as stream:
            blocks = read_blocks(
                stream,
                str(path),
                columns,
                faults,
                header=header,
                delimiter=_delimiter(path),
                quoted=True,
                missing=missing,
            )
            yield from ahead(blocks)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); obtain the file again") from None


def _read_parquet(path: Path, columns: Sequence[Column], faults: Faults) -> Iterator[TableRows]:
    types = read_types(path, [column.name for column in columns])
    for column in columns:
        kind = types[column.name]
        if not fits(column, kind):
            raise DataError(
                f"{path}: column {column.name} is of type {kind}, which does not fit a column of kind {column.kind}"
                + (f"; {_PARTS if pa.types.is_nested(kind) else column.if_wrong}").rstrip("; ")
            )
    row = 1
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows == 0:
            raise DataError(f"{path} has no rows; obtain the file again")
        for group in range(file.num_row_groups):
            sheet = Sheet(f"{path}, row group {group}")
            try:
                for batch in file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=[column.name for column in columns]
                ):
                    values = {column.name: batch.column(column.name) for column in columns}
                    block, found = check(sheet, columns, values, np.arange(row, row + batch.num_rows))
                    faults.take(found)
                    row += batch.num_rows
                    yield block
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{sheet.file}, is damaged ({error}); obtain the file again") from None


def read_types(path: Path, needed: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the types of a Parquet file's columns, dictionaries looked through.

    Raises:
        DataError: missing, damaged, or a needed column is missing or there twice.
    """
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro -f download`") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is no Parquet file, or damaged ({error}); obtain the file again") from None
    _check_names(str(path), schema.names, needed)
    types = {field.name: field.type for field in schema if field.name in needed}
    return {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in types.items()}


def read_header(path: Path, needed: Sequence[str]) -> list[str]:
    """Return the column names of a CSV.

    Raises:
        DataError: no such file, it is empty or not UTF-8, or a needed column is missing or there twice.
    """
    try:
        with _open(path) as stream:
            line = stream.readline(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); obtain the file again") from None
    if not line.strip():
        raise DataError(f"{path} is empty; obtain the file again")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise DataError(f"{path}, row 1: the header is not text in UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}, row 1: a NUL byte; save the file as UTF-8")
    try:
        (header,) = csv.reader([text], delimiter=_delimiter(path), strict=True)
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}, row 1: the header cannot be read ({error}); it must be one line") from None
    _check_names(f"{path}, row 1", header, needed)
    return header


def _check_names(name: str, header: Sequence[str], needed: Sequence[str]) -> None:
    refuse_encoded(header, name, "the source must be the log itself", DataError)
    wrong = [column for column in needed if header.count(column) != 1]
    if wrong:
        fault = "is missing in the header" if wrong[0] not in header else "stands there twice"
        more = f"; {len(wrong) - 1} more are at fault: {', '.join(wrong[1:6])}" if len(wrong) > 1 else ""
        held = ", ".join(header[:40])
        raise DataError(f"{name}: column {wrong[0]} {fault}{more}; the file's columns: {held}")


def _open(path: Path) -> Any:
    try:
        return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro -f download`") from None


def _delimiter(path: Path) -> str:
    return "\t" if ".tsv" in path.name.lower() else ","
