"""One encoded split of one client is written, and counted for schema.json."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.encoder import CategoryEncoder, encode_numbers
from pfmsmt.data.schema import UNLABELLED, ScenarioSchema, SplitCounts, encoded_column
from pfmsmt.data.tables.values import UNKNOWN_LABEL

RawRows = dict[str, NDArray[np.generic]]
"""name -> [B], as a source yields them."""

ROW_GROUP_ROWS = 65_536
"""Rows of each row group but the last: 20 MB of AliExpress, enough to compress, few enough to shuffle in memory."""


class ShardWriter:
    """A Parquet file of encoded rows, written batch by batch.

    It holds codes (int32), standardised numbers (float32) and labels (uint8).

    Its row groups, and so its bytes, do not depend on how rows come in batches.
    """

    def __init__(self, path: Path, schema: ScenarioSchema) -> None:
        """Open the file."""
        self._schema = schema
        self._name = f"{schema.scenario} {path.stem}"
        self._form = pa.schema(
            [
                (schema.group, pa.int64()),
                *((encoded_column(field.name), pa.int32()) for field in schema.categorical),
                *((encoded_column(field.name), pa.float32()) for field in schema.numerical),
                *((task.name, pa.uint8()) for task in schema.tasks),
            ]
        )
        self._encoders = [CategoryEncoder(field) for field in schema.categorical]
        # Of the raw names: the data's fingerprint is about what is held, not about a file's form.
        names = [schema.group, *schema.columns, *(task.name for task in schema.tasks)]
        self._hashes = [
            hashlib.sha256(f"{name}:{field.type};".encode()) for name, field in zip(names, self._form, strict=True)
        ]
        self._waiting: list[NDArray[Any]] = [
            np.empty(ROW_GROUP_ROWS, field.type.to_pandas_dtype()) for field in self._form
        ]
        self._rows = 0
        self._groups: list[NDArray[np.int64]] = []
        self._positives = dict.fromkeys((task.name for task in schema.tasks), 0)
        self._unlabelled = dict(self._positives)
        self._writer = pq.ParquetWriter(
            path,
            self._form,
            compression="zstd",
            use_dictionary=[encoded_column(field.name) for field in schema.categorical],
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Write what waits, unless there was an error, and close the file."""
        if kind is None and self._rows % ROW_GROUP_ROWS:
            self._write_row_group(self._rows % ROW_GROUP_ROWS)
        self._writer.close()

    def write(self, rows: RawRows) -> None:
        """Encode and append raw rows.

        Raises:
            DataError: a number too large for float32 after standardisation.
        """
        groups = np.asarray(rows[self._schema.group], np.int64)
        if not len(groups):
            return
        arrays = [groups, *self._features(rows), *(_labels(rows[task.label]) for task in self._schema.tasks)]
        for start in range(0, len(groups), ROW_GROUP_ROWS):
            self._append([array[start : start + ROW_GROUP_ROWS] for array in arrays])
        self._groups.append(np.unique(groups))
        for task in self._schema.tasks:
            self._positives[task.name] += int(np.count_nonzero(rows[task.label] == 1))
            self._unlabelled[task.name] += int(np.count_nonzero(rows[task.label] == UNKNOWN_LABEL))

    def counts(self) -> SplitCounts:
        """Return what was written so far."""
        groups = len(np.unique(np.concatenate(self._groups))) if self._groups else 0
        labelled = {task: self._rows - count for task, count in self._unlabelled.items() if count}
        return SplitCounts(rows=self._rows, groups=groups, positives=dict(self._positives), labelled=labelled)

    def digest(self) -> bytes:
        """Return a hash of the columns' names, types and values.

        It does not depend on how they were batched or compressed.
        """
        return hashlib.sha256(b"".join(hasher.digest() for hasher in self._hashes)).digest()

    def _append(self, arrays: list[NDArray[Any]]) -> None:
        """Take in at most one row group's worth of encoded rows."""
        held, new = self._rows % ROW_GROUP_ROWS, len(arrays[0])
        fits = min(new, ROW_GROUP_ROWS - held)
        for waiting, hasher, array in zip(self._waiting, self._hashes, arrays, strict=True):
            hasher.update(np.ascontiguousarray(array).data)
            waiting[held : held + fits] = array[:fits]
        if held + fits == ROW_GROUP_ROWS:
            self._write_row_group(ROW_GROUP_ROWS)
            for waiting, array in zip(self._waiting, arrays, strict=True):
                waiting[: new - fits] = array[fits:]
        self._rows += new

    def _write_row_group(self, rows: int) -> None:
        columns = [pa.array(waiting[:rows]) for waiting in self._waiting]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._form), row_group_size=ROW_GROUP_ROWS)

    def _features(self, rows: RawRows) -> list[NDArray[Any]]:
        arrays: list[NDArray[Any]] = [
            encoder(rows[field.name]) for encoder, field in zip(self._encoders, self._schema.categorical, strict=True)
        ]
        for field in self._schema.numerical:
            with np.errstate(over="ignore"):  # reported below, with its column
                encoded = encode_numbers(np.asarray(rows[field.name], np.float64), field)
            if not np.isfinite(encoded).all():
                value = rows[field.name][np.argmin(np.isfinite(encoded))]
                raise DataError(
                    f"{self._name}, column {field.name}: {value:g} is too large, with a training mean of "
                    f"{field.mean:g} and standard deviation {field.std:g}; correct or clip it"
                )
            arrays.append(encoded)
        return arrays


def _labels(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.where(values == UNKNOWN_LABEL, UNLABELLED, values).astype(np.uint8)
