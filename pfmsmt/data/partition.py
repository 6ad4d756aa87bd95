"""Stage partition: raw files of all scenarios -> one folder of encoded shards per client, and the schema they share."""

import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pfmsmt import atomic
from pfmsmt.config import Data
from pfmsmt.data.download import read_contents
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts
from pfmsmt.data.shards import Rows, ShardWriter
from pfmsmt.data.sources import SOURCES, Columns, Progress, Source
from pfmsmt.data.sources.contract import read_rows
from pfmsmt.data.split import in_last_part, in_validation
from pfmsmt.data.statistics import CategoryCounts, Moments
from pfmsmt.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
EXAMPLE_ROWS = 5
_REPORT_ROWS = 1_000_000


class _Fields(NamedTuple):
    """What the training rows of all clients say about the columns."""

    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]
    private: dict[str, dict[str, tuple[int, ...]]]


def partition(config: Data, seed: int, raw: Path, folder: Path, progress: Progress) -> Schema:
    """Validate, split and encode; `folder` is replaced as a whole, or left as it was on any error.

    It will hold `<scenario>/{train,val,test}.parquet` (encoded), `<scenario>/example.parquet` (a few raw training
    rows) and `schema.json`. Reads the training files twice (statistics, then encoding), so that memory does not grow
    with the number of rows.

    Raises:
        ConfigError: `private_fields` names no categorical column.
        DataError: the raw data is missing or breaks its form, or a part would be empty.
    """
    source = SOURCES[config.source]
    _check_private(config.private_fields, source.columns)
    scenarios = _scenarios(source, config, raw)
    with atomic.new_folder(folder) as temporary:
        fields = _learn_fields(source, config, seed, raw, scenarios, progress)
        schema = Schema(
            source=source.name,
            fingerprint="",
            group=source.columns.group,
            tasks=source.tasks,
            categorical=fields.categorical,
            numerical=fields.numerical,
            private_vocabularies=fields.private,
            counts={scenario: {} for scenario in scenarios},
        )
        fingerprint = hashlib.sha256()
        counts: dict[str, dict[str, SplitCounts]] = {}
        for scenario in scenarios:
            counts[scenario], digest = _write_scenario(source, config, seed, raw, schema, scenario, temporary, progress)
            fingerprint.update(digest)
        schema = schema.model_copy(update={"counts": counts, "fingerprint": fingerprint.hexdigest()})
        # Not write_json, which sorts keys: the order of `counts` is the order of the scenarios.
        atomic.write_text(temporary / "schema.json", schema.model_dump_json(indent=2) + "\n")
    return schema


def _check_private(private: tuple[str, ...], columns: Columns) -> None:
    for name in private:
        if name in columns.categorical:
            continue
        near = difflib.get_close_matches(name, columns.categorical, n=1, cutoff=0.0)
        fault = "is a numerical column" if name in columns.numerical else "is no column of this source"
        raise ConfigError(f"data.private_fields: {name!r} {fault}; the nearest categorical one is {near[0]!r}")


def _scenarios(source: Source, config: Data, raw: Path) -> tuple[str, ...]:
    held = read_contents(raw)
    if held.source != source.name:
        raise DataError(f"{raw} holds {held.source}, but data.source is {source.name}; run `dvc repro download`")
    scenarios = source.scenarios(config)
    missing = [name for name in scenarios if name not in held.scenarios]
    if missing:
        raise DataError(
            f"{raw} lacks scenarios {', '.join(missing)} of params.yaml; it holds {', '.join(held.scenarios)}; "
            "run `dvc repro download`"
        )
    return scenarios


def _read(source: Source, raw: Path, scenario: str, split: str, progress: Progress) -> Iterator[Rows]:
    done = 0
    for rows in read_rows(source, raw, scenario, split):
        yield rows
        count = len(rows[source.columns.group])
        if (done + count) // _REPORT_ROWS > done // _REPORT_ROWS:
            progress(f"{scenario}: {done + count:,} rows of {split} read")
        done += count


def _select(rows: Rows, mask: NDArray[np.bool_]) -> Rows:
    return {name: values[mask] for name, values in rows.items()}


def _held_out(rows: Rows, columns: Columns, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Say for each training row [B] whether it belongs to validation."""
    if columns.place is not None:
        return in_last_part(rows[columns.place].astype(np.float64), fraction)
    return in_validation(rows[columns.group].astype(np.int64), fraction, seed)


def _learn_fields(
    source: Source, config: Data, seed: int, raw: Path, scenarios: tuple[str, ...], progress: Progress
) -> _Fields:
    """Gather vocabularies and moments from the training rows that are not validation."""
    columns = source.columns
    shared = [name for name in columns.categorical if name not in config.private_fields]
    pooled = {name: CategoryCounts() for name in shared}
    moments = Moments(len(columns.numerical))
    private: dict[str, dict[str, tuple[int, ...]]] = {}
    for scenario in scenarios:
        own = {name: CategoryCounts() for name in config.private_fields}
        for rows in _read(source, raw, scenario, "train", progress):
            training = ~_held_out(rows, columns, config.validation_fraction, seed)
            for name, counts in (*pooled.items(), *own.items()):
                counts.add(rows[name][training].astype(np.int64))
            with np.errstate(over="ignore", invalid="ignore"):  # reported below, with its column
                moments.add(np.stack([rows[name][training].astype(np.float64) for name in columns.numerical]))
        private[scenario] = {name: counts.vocabulary(config.min_count) for name, counts in own.items()}
        progress(f"{scenario}: vocabularies and statistics gathered")
    mean, std = moments.result()
    broken = np.flatnonzero(~np.isfinite(std))
    if broken.size:
        raise DataError(f"column {columns.numerical[broken[0]]}: its numbers are too large for a standard deviation")
    return _Fields(
        tuple(
            CategoricalField(name=name, federated=True, vocabulary=pooled[name].vocabulary(config.min_count))
            if name in pooled
            else CategoricalField(name=name, federated=False)
            for name in columns.categorical
        ),
        tuple(
            NumericalField(name=name, mean=float(m), std=float(s))
            for name, m, s in zip(columns.numerical, mean, std, strict=True)
        ),
        private if config.private_fields else {},
    )


def _write_scenario(
    source: Source, config: Data, seed: int, raw: Path, schema: Schema, scenario: str, folder: Path, progress: Progress
) -> tuple[dict[str, SplitCounts], bytes]:
    """Write one client's folder; return its counts and a hash of its shards."""
    own = schema.scenario(scenario)
    target = folder / scenario
    target.mkdir()
    train, val, test = (ShardWriter(target / f"{split}.parquet", own) for split in SPLITS)
    with train, val, test:
        example: Rows | None = None
        for rows in _read(source, raw, scenario, "train", progress):
            held_out = _held_out(rows, source.columns, config.validation_fraction, seed)
            train.write(_select(rows, ~held_out))
            val.write(_select(rows, held_out))
            if example is None and not held_out.all():
                first = np.flatnonzero(~held_out)[:EXAMPLE_ROWS]
                example = {name: rows[name][first] for name in own.columns}
        for rows in _read(source, raw, scenario, "test", progress):
            test.write(rows)
    counts = {split: shard.counts() for split, shard in zip(SPLITS, (train, val, test), strict=True)}
    group = own.group.removesuffix("_id")
    for split, count in counts.items():
        if count.rows == 0:
            raise DataError(
                f"{scenario}: no {group}'s rows fall into {split} (data.validation_fraction is "
                f"{config.validation_fraction}); change that, or give the scenario more data"
            )
    pq.write_table(pa.table(dict(example or {})), target / "example.parquet")
    progress(f"{scenario}: " + ", ".join(f"{split} {count.rows:,} rows" for split, count in counts.items()))
    return counts, b"".join(shard.digest() for shard in (train, val, test))
