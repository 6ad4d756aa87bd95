"""Predictions for the rows of a Parquet file of any size."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pfmsmt.core.errors import SchemaError, ServingError
from pfmsmt.core.files import new_file
from pfmsmt.data.schema import refuse_encoded
from pfmsmt.models.saved import check_scored
from pfmsmt.serving.arrow import read_batch
from pfmsmt.serving.rows import RowReader
from pfmsmt.serving.scorer import load_scorer
from pfmsmt.tracking import registry

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store


class Predicted(NamedTuple):
    """A finished prediction of a file."""

    version: str
    rows: int
    filled: Mapping[str, int]
    """optional column -> cells that were not given"""


def predict_file(
    tracking: "Store",
    scenario: str,
    source: Path,
    target: Path,
    *,
    which: str = registry.CHAMPION,
    calibrated: bool = True,
    optional: Sequence[str] = (),
    keep: Sequence[str] = (),
    rows_at_once: int = 8192,
) -> Predicted:
    """Write probabilities for each row of `source`, in its order.

    Args:
        which: version or alias.
        optional: columns that may be missing, or null, further to those with a fill in training.
        keep: columns of `source` that are copied to `target`.

    Raises:
        ServingError: a file cannot be read or written, or a kept column is missing or has a task's name.
        SchemaError: a column is missing, or a value does not fit; row numbers count from the start of the file.
        TrackingError: no such scenario or version.
    """
    version = registry.find_version(tracking, scenario, which).version
    scorer = load_scorer(tracking, scenario, version, calibrated)
    reader = RowReader(scorer.schema, optional)
    if not source.is_file():
        raise ServingError(f"{source} is no file, or not there")
    if source.resolve() == target.resolve():
        raise ServingError(f"{target} is the file that is read; name another one to write")
    try:
        with pq.ParquetFile(source) as file, new_file(target) as temporary:
            names = file.schema_arrow.names
            refuse_encoded(names, str(source), f"raw ones are in {source.with_name('example.parquet')}")
            _check_kept(keep, names, scorer.tasks, source)
            wanted = [name for name in names if name in {*reader.schema.columns, *keep}]
            fields = [file.schema_arrow.field(name) for name in keep]
            form = pa.schema([*fields, *(pa.field(task, pa.float64()) for task in scorer.tasks)])
            notes = {"scenario": scenario, "model_version": version, "calibrated": str(scorer.calibrated).lower()}
            done, filled = 0, Counter[str]()
            with pq.ParquetWriter(temporary, form.with_metadata(notes), compression="zstd") as writer:
                for batch in _batches(file, source, rows_at_once, wanted):
                    try:
                        rows = read_batch(batch, reader)
                        encoded = rows.encode(scorer.encoder)
                        found = scorer.score(encoded).probabilities
                        check_scored(found, encoded, scorer.schema)
                    except SchemaError as error:
                        raise SchemaError(f"{source}: {_shifted(str(error), done)}") from None
                    kept = [batch[name] for name in keep]
                    tasks = [pa.array(found[:, place]) for place in range(len(scorer.tasks))]
                    writer.write_batch(pa.RecordBatch.from_arrays([*kept, *tasks], schema=writer.schema))
                    done += batch.num_rows
                    filled.update(rows.filled)
    except pa.ArrowException as error:
        raise ServingError(f"{source} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return Predicted(version, done, filled)


def _batches(file: pq.ParquetFile, source: Path, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(rows, columns=columns)
    except OSError as error:
        raise ServingError(f"{source} is damaged ({str(error).splitlines()[0]}); obtain the file again") from None


def _shifted(text: str, rows: int) -> str:
    """Count the row in an error from the start of the file."""
    return re.sub(r"(?<=, row )\d+(?=:)", lambda found: str(int(found[0]) + rows), text, count=1)


def _check_kept(keep: Sequence[str], names: Sequence[str], tasks: Sequence[str], source: Path) -> None:
    for name in keep:
        if name not in names:
            raise ServingError(f"{source} has no column {name!r} to keep; it has {', '.join(names[:20])}")
        if name in tasks or keep.count(name) > 1:
            raise ServingError(f"column {name!r} cannot be kept: the predictions would have it twice")
