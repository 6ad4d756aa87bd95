"""Stage partition: raw files become encoded shards per client, and their schema."""

import difflib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pfmsmt.config import Data
from pfmsmt.core import files
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.card.remarks import remarks
from pfmsmt.data.prepare.agreement import Agreed, Proposal, Rules, make_proposal
from pfmsmt.data.prepare.download import read_contents
from pfmsmt.data.prepare.fields import FieldLearner, Fields, fill_of
from pfmsmt.data.schema import SPLITS, ScenarioSchema, Schema, SplitCounts
from pfmsmt.data.shards.writer import RawRows, ShardWriter
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import Columns, Dataset, Opening, Source, read_rows
from pfmsmt.data.sources.delivery import Notify
from pfmsmt.data.split import in_last_part, in_validation
from pfmsmt.data.tables.faults import Faults, Known
from pfmsmt.data.tables.prefetch import ahead

EXAMPLE_ROWS = 5
_REPORT_ROWS = 1_000_000


def partition(
    config: Data, seed: int, raw: Path, folder: Path, progress: Notify, agreed: Agreed | None = None
) -> Schema:
    """Validate, split and encode.

    `folder` is replaced as a whole, or left as it was on any error.

    It will hold `<scenario>/{train,val,test}.parquet` (encoded), `<scenario>/example.parquet` (a few raw training
    rows), `schema.json`, and with `data.on_bad_rows: quarantine` the list of rows that were left out and their counts.
    Reads the training files twice (statistics, then encoding), so that memory does not grow with the number of rows.

    Args:
        config: the block `data` of params.yaml.
        seed: draws validation.
        raw: what the stage download left.
        folder: to be written.
        progress: takes lines of text.
        agreed: prepare one site alone, with what all sites agreed on in place of what its own rows say.

    Raises:
        ConfigError: params.yaml and the data do not fit together: `private_fields` names no categorical column, a
            feature is an outcome, a declared column is not there.
        DataError: the raw data is missing or breaks its form, or a part would be empty.
    """
    source = SOURCES[config.source]
    declared = _declared(source, config, raw)
    with files.new_folder(folder) as temporary:
        scratch = temporary / ".scratch"
        scratch.mkdir()
        with closing(Faults(_quarantine(config, temporary))) as faults:
            data = source.open(Opening(config, seed, raw, declared, scratch, faults, progress))
            _check_private(config.private_fields, data.columns)
            if agreed is not None:
                data = _only(data, agreed.scenario)
            work = _Partition(data, config, seed, temporary, progress)
            learned = work.learn(faults)
            fields = learned.result(config.min_count)
            if agreed is not None:
                fields = agreed.in_place_of(fields)
            schema = work.write(source.name, fields, faults)
        for line in (*learned.surprises(), *remarks(schema)):
            progress(line)
        if faults.count:
            progress(f"{faults.count:,} rows left out; quarantine.csv beside the shards lists them")
        shutil.rmtree(scratch)
    return schema


def propose_fields(config: Data, seed: int, raw: Path, scenario: str, progress: Notify) -> Proposal:
    """Return one site's proposal, from its training rows, for a common schema.

    Raises:
        ConfigError, DataError: see `partition`; or the raw data hold no such scenario.
    """
    source = SOURCES[config.source]
    declared = _declared(source, config, raw)
    with tempfile.TemporaryDirectory() as scratch, closing(Faults(_quarantine(config, Path(scratch)))) as faults:
        rows = Path(scratch) / "rows"
        rows.mkdir()
        data = source.open(Opening(config, seed, raw, declared, rows, faults, progress))
        _check_private(config.private_fields, data.columns)
        learned = _Partition(_only(data, scenario), config, seed, Path(scratch), progress).learn(faults)
        learned.result(config.min_count)  # refuses numbers without a finite deviation, which no proposal can hold
    rules = Rules(seed=seed, validation_fraction=config.validation_fraction, min_count=config.min_count)
    return make_proposal(
        scenario, source.name, data.columns, data.tasks, config.private_fields, learned.summary(), rules
    )


def _quarantine(config: Data, folder: Path) -> Path | None:
    return folder if config.on_bad_rows == "quarantine" else None


def _only(data: Dataset, scenario: str) -> Dataset:
    if scenario not in data.scenarios:
        raise DataError(f"the raw data hold no scenario {scenario}; they hold {', '.join(data.scenarios)}")
    return data._replace(scenarios=(scenario,))


def _check_private(private: tuple[str, ...], columns: Columns) -> None:
    for name in private:
        if name in columns.categorical:
            continue
        near = difflib.get_close_matches(name, columns.categorical, n=1, cutoff=0.0)
        fault = "is a numerical column" if name in columns.numerical else "is no column of this source"
        hint = f"the nearest categorical one is {near[0]!r}" if near else "it has no categorical ones"
        raise ConfigError(f"data.private_fields: {name!r} {fault}; {hint}")


def _declared(source: Source, config: Data, raw: Path) -> tuple[str, ...]:
    held = read_contents(raw)
    if held.source != source.name:
        raise DataError(f"{raw} holds {held.source}, but data.source is {source.name}; run `dvc repro download`")
    scenarios = source.scenarios(config)
    missing = [name for name in scenarios if name not in held.scenarios]
    if missing and held.scenarios:
        raise DataError(
            f"{raw} lacks scenarios {', '.join(missing)} of params.yaml; it holds {', '.join(held.scenarios)}; "
            "run `dvc repro download`"
        )
    return scenarios


class _Partition:
    """One run of the stage, over an opened raw folder."""

    def __init__(self, data: Dataset, config: Data, seed: int, folder: Path, progress: Notify) -> None:
        self._data, self._config, self._seed = data, config, seed
        self._folder, self._progress = folder, progress

    def _read(self, scenario: str, split: str, faults: Faults) -> Iterator[RawRows]:
        done = 0
        for rows in ahead(read_rows(self._data, scenario, split, faults)):
            yield rows
            count = len(rows[self._data.columns.group])
            if (done + count) // _REPORT_ROWS > done // _REPORT_ROWS:
                self._progress(f"{scenario}: {done + count:,} rows of {split} read")
            done += count

    def _held_out(self, rows: RawRows) -> NDArray[np.bool_]:
        """Say for each training row [B] whether it belongs to validation."""
        columns, fraction = self._data.columns, self._config.validation_fraction
        if columns.place is not None:
            return in_last_part(rows[columns.place].astype(np.float64), fraction)
        return in_validation(rows[columns.group].astype(np.int64), fraction, self._seed)

    def learn(self, faults: Faults) -> FieldLearner:
        """Gather vocabularies and moments from the training rows that are not validation."""
        learner = FieldLearner(self._data.columns, self._config.private_fields, self._data.scenarios)
        for scenario in self._data.scenarios:
            for rows in self._read(scenario, "train", faults):
                learner.add(scenario, rows, ~self._held_out(rows))
            self._progress(f"{scenario}: vocabularies and statistics gathered")
        return learner

    def write(self, source: str, fields: Fields, faults: Faults) -> Schema:
        """Write all clients' folders and schema.json."""
        schema = Schema(
            source=source,
            fingerprint="",
            group=self._data.columns.group,
            tasks=self._data.tasks,
            categorical=fields.categorical,
            numerical=fields.numerical,
            private_vocabularies=fields.private,
            counts={scenario: {} for scenario in self._data.scenarios},
            fill=fill_of(self._data.columns, fields),
        )
        fingerprint = hashlib.sha256()
        counts: dict[str, dict[str, SplitCounts]] = {}
        for scenario in self._data.scenarios:
            counts[scenario], digest = self._write_scenario(schema.scenario(scenario), faults)
            fingerprint.update(digest)
        schema = schema.model_copy(update={"counts": counts, "fingerprint": fingerprint.hexdigest()})
        # Not write_json, which sorts keys: the order of `counts` is the order of the scenarios.
        files.write_text(self._folder / "schema.json", schema.model_dump_json(indent=2) + "\n")
        return schema

    def _write_scenario(self, own: ScenarioSchema, faults: Faults) -> tuple[dict[str, SplitCounts], bytes]:
        """Write one client's folder; return its counts and its shards' hash."""
        target = self._folder / own.scenario
        target.mkdir()
        train, val, test = (ShardWriter(target / f"{split}.parquet", own) for split in SPLITS)
        with train, val, test:
            example: RawRows | None = None
            for rows in self._read(own.scenario, "train", Known()):
                held_out = self._held_out(rows)
                train.write(_select(rows, ~held_out))
                val.write(_select(rows, held_out))
                if example is None and not held_out.all():
                    example = _select(rows, np.flatnonzero(~held_out)[:EXAMPLE_ROWS])
            for rows in self._read(own.scenario, "test", faults):
                test.write(rows)
        counts = {split: shard.counts() for split, shard in zip(SPLITS, (train, val, test), strict=True)}
        group = own.group.removesuffix("_id")
        for split, count in counts.items():
            if count.rows == 0:
                why = self._data.why_empty(own.scenario, split) or (
                    f"(data.validation_fraction is {self._config.validation_fraction}); change that, or give the "
                    "scenario more data"
                )
                left_out = f"; {faults.count:,} faulty rows are left out, the first: {faults.first}"
                raise DataError(
                    f"{own.scenario}: no {group}'s rows fall into {split} {why}{left_out if faults.count else ''}"
                )
            for task in own.tasks:
                if count.labels(task.name) == 0:
                    raise DataError(
                        f"{own.scenario}: no row of {split} has a label of {task.name} (column {task.label}); give it "
                        "some, or leave the scenario out of data.tabular.scenarios"
                    )
        pq.write_table(_example_table(example or {}, own), target / "example.parquet")
        self._progress(
            f"{own.scenario}: " + ", ".join(f"{split} {count.rows:,} rows" for split, count in counts.items())
        )
        return counts, b"".join(shard.digest() for shard in (train, val, test))


def _select(rows: RawRows, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> RawRows:
    return {name: values[chosen] for name, values in rows.items()}


def _example_table(rows: RawRows, schema: ScenarioSchema) -> pa.Table:
    """Return raw rows of the feature columns, in the fields' types."""
    types = {field.name: pa.string() if field.text else pa.int64() for field in schema.categorical}
    columns = {name: pa.array(rows[name]) for name in schema.columns}
    return pa.table({name: array.cast(types.get(name, array.type)) for name, array in columns.items()})
