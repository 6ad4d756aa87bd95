"""The user's own log, CSV or Parquet, as params.yaml declares it.

Its scenarios are in one column.
"""

import glob
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from pfmsmt.config import Data, Tabular
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import Task
from pfmsmt.data.sources.base import Dataset, Opening, Source, record_schema, with_block_values
from pfmsmt.data.sources.delivery import Delivery, table_form
from pfmsmt.data.sources.leaks import refuse_outcomes
from pfmsmt.data.sources.spool import Spool
from pfmsmt.data.sources.tabular.log_rows import ROWS_APART, Layout, TableReader, lay_out
from pfmsmt.data.sources.tabular.time_split import Cut
from pfmsmt.data.tables.faults import Faults
from pfmsmt.data.tables.raw_files import SUFFIXES, is_table

ONLY = "all"
"""Name of the scenario where no column names any."""


def _obtain(config: Data, seed: int, delivery: Delivery) -> None:
    """Take the tables at `data.tabular.path`, or download the one at `data.tabular.url`.

    Raises:
        ConfigError: neither or both are set, or params.yaml does not say what the columns are.
        DataError: there are no tables, or the server cannot be reached.
    """
    block = config.tabular
    _check_block(config)
    if (block.path is None) == (block.url is None):
        raise ConfigError(
            "data.tabular: set either path (a file, a folder or a glob) or url (the address of one file) in params.yaml"
        )
    if block.url is not None:
        name = urlsplit(block.url).path.rsplit("/", 1)[-1]
        if not is_table(Path(name)):
            raise ConfigError(f"data.tabular.url: {block.url} does not end in one of {', '.join(SUFFIXES)}")
        delivery.download(block.url, name, "data.tabular.path", table_form)
        return
    found = _tables(str(block.path))
    for name, file in found.items():
        delivery.take(file, name)
    delivery.progress(f"{len(found)} table{'s' if len(found) > 1 else ''}: {', '.join(list(found)[:5])}")


def _check_block(config: Data) -> None:
    block = config.tabular
    if not block.labels:
        raise ConfigError("data.tabular.labels: name at least one task and its column, as {task: ctr, column: clicked}")
    if not block.categorical and not block.numerical:
        raise ConfigError("data.tabular: name the feature columns under categorical and numerical")
    if block.scenario is None and block.scenarios is not None:
        raise ConfigError("data.tabular.scenarios names scenarios, but data.tabular.scenario names no column of them")
    refuse_outcomes(config, (*block.categorical, *block.numerical), block.outcomes)


def _tables(path: str) -> dict[str, Path]:
    """Return the tables of a file, a folder or a glob.

    The result maps the name in the raw folder to the file. A folder's own folders are searched too.
    """
    given = Path(path).expanduser()
    if given.is_file():
        if not is_table(given):
            raise ConfigError(f"data.tabular.path: {given} does not end in one of {', '.join(SUFFIXES)}")
        return {given.name: given}
    if given.is_dir():
        root, files = given, sorted(given.rglob("*"))
    else:
        parts = given.parts
        first = next((at for at, part in enumerate(parts) if glob.has_magic(part)), None)
        if first is None:
            raise ConfigError(f"data.tabular.path: {given} does not exist")
        root = Path(*parts[:first])
        files = sorted(Path(name) for name in glob.glob(str(given), recursive=True))
    found = {str(file.relative_to(root)): file for file in files if file.is_file() and is_table(file)}
    if not found:
        raise DataError(f"data.tabular.path: {given} holds no table ({', '.join(SUFFIXES)})")
    return found


def _declared(config: Data) -> tuple[str, ...]:
    if config.tabular.scenario is None:
        return (ONLY,)
    return tuple(config.tabular.scenarios or ())


def _open_folder(opening: Opening) -> Dataset:
    """Check all rows, and lay them out by scenario, in one pass.

    They lie in the scratch folder.

    Raises:
        ConfigError: params.yaml does not say what the columns are, or a feature is an outcome.
        DataError: see `TableReader`, or a declared scenario has no rows.
    """
    _check_block(opening.config)
    block = opening.config.tabular
    layout = lay_out(opening.raw, block)
    tasks = tuple(
        Task(name=label.task, label=label.column, within=label.within, partial=label.missing == "ignore")
        for label in block.labels
    )
    cuts: dict[str, Cut] = {}
    spool = Spool(opening.scratch, layout.form(tasks))
    try:
        reader = TableReader(layout, block, opening.scenarios, opening.faults)
        for scenario, rows in reader.read():
            cuts.setdefault(scenario, Cut(layout.kind)).add(rows[ROWS_APART] if layout.kind else None)
            arrays = [pa.array(rows[field.name], field.type) for field in layout.form(tasks)]
            spool.write(scenario, pa.RecordBatch.from_arrays(arrays, schema=layout.form(tasks)))
    finally:
        spool.close()
    if reader.skipped:
        opening.progress(f"{reader.skipped:,} rows of scenarios that data.tabular.scenarios does not name left out")
    scenarios = opening.scenarios or tuple(sorted(spool.rows))
    _check_scenarios(block, scenarios, reader)
    for cut in cuts.values():
        cut.settle(block.test_fraction)

    def why_empty(scenario: str, part: str) -> str:
        fractions = block.test_fraction, opening.config.validation_fraction
        return cuts[scenario].why_empty(part, block.time or block.split, *fractions)

    return Dataset(
        layout.columns, tasks, scenarios, _reading(layout, tasks, spool, cuts, block, opening.seed), why_empty
    )


def _check_scenarios(block: Tabular, scenarios: tuple[str, ...], reader: TableReader) -> None:
    missing = [name for name in scenarios if name not in reader.found]
    if missing:
        if block.scenario is None:
            raise DataError("the tables hold no good rows")
        raise DataError(
            f"scenario {missing[0]} has no rows: no value of column {block.scenario} stands for it; values there: "
            + ", ".join(sorted(reader.values)[:20])
        )


def _reading(
    layout: Layout, tasks: tuple[Task, ...], spool: Spool, cuts: dict[str, Cut], block: Tabular, seed: int
) -> Callable[[str, str, Faults], Iterator[pa.RecordBatch]]:
    form = record_schema(layout.columns, tasks)

    def read(scenario: str, split: str, faults: Faults) -> Iterator[pa.RecordBatch]:
        for batch in spool.read(scenario):
            groups = batch.column(layout.columns.group).to_numpy()
            apart = batch.column(ROWS_APART).to_numpy() if layout.kind else None
            test, place = cuts[scenario].divide(groups, apart, block.test_fraction, seed)
            chosen = test == (split == "test")
            columns = {name: batch.column(name) for name in batch.schema.names}
            if layout.columns.place is not None:
                columns[layout.columns.place] = pa.array(np.where(test, 0.0, place))
            kept = pa.RecordBatch.from_arrays([columns[field.name] for field in form], schema=form)
            yield kept if chosen.all() else kept.filter(pa.array(chosen))

    return read


def _alone(config: Data, scenario: str) -> Data:
    block = config.tabular
    if block.scenario is None or block.scenarios is None:
        return config
    own = {scenario: block.scenarios[scenario]} if isinstance(block.scenarios, dict) else (scenario,)
    return with_block_values(config, "tabular", scenarios=own)


TABULAR = Source(name="tabular", scenarios=_declared, obtain=_obtain, open=_open_folder, alone=_alone)
