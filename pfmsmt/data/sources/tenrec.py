"""Tenrec (Yuan et al., NeurIPS 2022): four scenarios, tasks click and like.

The scenarios are logs of two apps.

Its files have no times, but the rows of a user stand in order: the last of them are the test part, and the last of
what is left is validation.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.config import Data, Tenrec
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import Task
from pfmsmt.data.sources.base import Columns, Dataset, Opening, Source, record_schema, with_block_values
from pfmsmt.data.sources.delivery import Delivery, table_form
from pfmsmt.data.sources.leaks import refuse_outcomes
from pfmsmt.data.sources.spool import Spool
from pfmsmt.data.statistics import CategoryCounts
from pfmsmt.data.tables.faults import Faults
from pfmsmt.data.tables.raw_files import read_header, read_table
from pfmsmt.data.tables.sheet import TableRows
from pfmsmt.data.tables.values import Column

_HOME = "https://tenrec0.github.io"
USER = "user_id"
IDS = (USER, "item_id")
"""Columns that have a value in every row."""
_TASKS = (Task(name="click", label="clicked"), Task(name="like", label="liked"))
LABELS = {"clicked": "click", "liked": "like"}
"""Label -> what the files call it."""
MISSING = "\\N"
"""The files' word for a category that is not known."""
NO_CATEGORY = -1
"""Stands for it: a category of its own, as the files' own are not negative."""
OUTCOMES = ("click", "like", "follow", "share", "favorite", "watching_times", "read", "read_percentage", "read_time")


def _file_name(scenario: str) -> str:
    """Return the name of a scenario's file."""
    return f"{scenario}.csv"


def _obtain(config: Data, seed: int, delivery: Delivery) -> None:
    """Take the files from `data.tenrec.path`, or download them from `data.tenrec.url`.

    Raises:
        ConfigError: both are set, the path does not exist, or a feature is an outcome.
        DataError: neither is set, files are missing, or the server cannot be reached.
    """
    block = config.tenrec
    _check_features(config)
    names = [_file_name(scenario) for scenario in block.scenarios]
    if block.path is not None and block.url is not None:
        raise ConfigError("params.yaml sets both data.tenrec.path and data.tenrec.url; set one to null")
    if block.path is not None:
        folder = Path(block.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"data.tenrec.path: {folder} is no folder")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"data.tenrec.path: {folder} lacks {', '.join(missing)}; get them from {_HOME}, or take them out of "
                "data.tenrec.scenarios"
            )
        for name in names:
            delivery.take(folder / name, name)
    elif block.url is not None:
        for name in names:
            delivery.download(f"{block.url.rstrip('/')}/{name}", name, "data.tenrec.path", table_form)
    else:
        raise DataError(
            f"the Tenrec data set must be fetched by hand: its home, {_HOME}, wants a signed licence.\n"
            f"Download and unpack it, put {', '.join(names)} into one folder and set data.tenrec.path in params.yaml "
            "to that folder (or data.tenrec.url to an address under which you keep these files)."
        )
    for name in names:
        delivery.progress(f"{name}: {(delivery.folder / name).stat().st_size / 2**20:,.1f} MiB")


def _check_features(config: Data) -> None:
    block = config.tenrec
    features = (*block.categorical, *block.numerical)
    for name, label in LABELS.items():
        if name in features or label in features:
            raise ConfigError(f"data.tenrec: {label!r} is a label, and cannot be a feature")
    for name in ("user", "place"):
        if name in features:
            raise ConfigError(f"data.tenrec: {name!r} is a column of what is written; give the feature another name")
    twice = sorted(set(block.categorical) & set(block.numerical))
    if twice:
        raise ConfigError(f"data.tenrec: {twice[0]!r} is both categorical and numerical; keep one of them")
    if not features:
        raise ConfigError("data.tenrec: name the feature columns under categorical and numerical")
    unknown = sorted(set(block.rename) - set(block.scenarios))
    if unknown:
        raise ConfigError(f"data.tenrec.rename: {unknown[0]!r} is none of data.tenrec.scenarios")
    for scenario, names in block.rename.items():
        refuse_outcomes(config, (names[name] for name in features if name in names), OUTCOMES)
        lost = sorted(set(names) - {USER, *LABELS.values(), *features})
        if lost:
            raise ConfigError(
                f"data.tenrec.rename.{scenario}: {lost[0]!r} is neither a feature nor user_id, click, like"
            )
    refuse_outcomes(config, features, OUTCOMES)


def _columns(block: Tenrec) -> Columns:
    fill = {name: NO_CATEGORY for name in block.categorical if name not in IDS}
    return Columns("user", block.categorical, block.numerical, place="place", fill=fill)


def _open_folder(opening: Opening) -> Dataset:
    """Check all rows, and lay them out in the scratch folder.

    Raises:
        ConfigError: a feature is an outcome.
        DataError: a file is missing, damaged, lacks a column, or see `read_table`.
    """
    _check_features(opening.config)
    block = opening.config.tenrec
    for scenario in block.scenarios:
        _names(opening.raw, block, scenario)
    columns = _columns(block)
    form = record_schema(columns._replace(place=None), _TASKS)
    users: dict[str, _Order] = {}
    spool = Spool(opening.scratch, form)
    try:
        for scenario in block.scenarios:
            counts = CategoryCounts()
            for rows in _read(opening.raw, block, scenario, opening.faults):
                counts.add(rows.columns["user"])
                arrays = [pa.array(rows.columns[field.name], field.type) for field in form]
                spool.write(scenario, pa.RecordBatch.from_arrays(arrays, schema=form))
            users[scenario] = _Order(*counts.result())
            opening.progress(f"{scenario}: {spool.rows.get(scenario, 0):,} rows of {len(users[scenario].ids):,} users")
    finally:
        spool.close()
    records = record_schema(columns, _TASKS)

    def read(scenario: str, split: str, faults: Faults) -> Iterator[pa.RecordBatch]:
        ranks = users[scenario].ranks()
        for batch in spool.read(scenario):
            rank, count = ranks.next(batch.column("user").to_numpy())
            training = count - np.floor(count * block.test_fraction + 1e-12).astype(np.int64)
            test = rank >= training
            held = {name: batch.column(name) for name in batch.schema.names}
            held["place"] = pa.array(np.where(test, 0.0, rank / training))
            whole = pa.RecordBatch.from_arrays([held[field.name] for field in records], schema=records)
            yield whole.filter(pa.array(test == (split == "test")))

    def why_empty(scenario: str, part: str) -> str:
        if part != "test":
            return ""
        most = int(users[scenario].counts.max(initial=0))
        return (
            f"(no user has more than {most:,} rows, and data.tenrec.test_fraction, {block.test_fraction}, of them is "
            "less than one); raise it, or give users more rows"
        )

    return Dataset(columns, _TASKS, block.scenarios, read, why_empty)


def _names(raw: Path, block: Tenrec, scenario: str) -> dict[str, str]:
    """Return for each column its name in the scenario's file."""
    names = block.rename.get(scenario, {})
    wanted = {name: names.get(name, name) for name in (USER, *LABELS.values(), *block.categorical, *block.numerical)}
    path = raw / _file_name(scenario)
    try:
        read_header(path, list(wanted.values()))
    except DataError as error:
        if "is missing in the header" not in str(error):
            raise
        raise DataError(
            f"{error}. If it has another name there, say so in data.tenrec.rename, as "
            f"{{{scenario}: {{video_category: category_first}}}}; if that file has none, take it out of "
            "data.tenrec.categorical or data.tenrec.scenarios"
        ) from None
    return wanted


def _read(raw: Path, block: Tenrec, scenario: str, faults: Faults) -> Iterator[TableRows]:
    """Yield good rows under the names of the records."""
    names = _names(raw, block, scenario)
    kinds = {names[name]: Column(names[name], "number") for name in block.numerical}
    for name in (USER, *block.categorical):
        fill = None if name in IDS else NO_CATEGORY
        kinds[names[name]] = Column(names[name], "category", fill=fill, lowest=0)
    kinds |= {names[name]: Column(names[name], "label") for name in LABELS.values()}
    for rows in read_table(raw / _file_name(scenario), list(kinds.values()), faults, [MISSING]):
        columns = {name: rows.columns[names[name]] for name in (*block.categorical, *block.numerical)}
        columns |= {label: rows.columns[names[name]] for label, name in LABELS.items()}
        yield rows._replace(columns=columns | {"user": rows.columns[names[USER]]})


class _Order(NamedTuple):
    """The users of a file."""

    ids: NDArray[np.int64]
    """[users], ascending"""
    counts: NDArray[np.int64]
    """[users], rows of each"""

    def ranks(self) -> "_Ranks":
        """Return a counter that takes the file's rows from its beginning."""
        return _Ranks(self)


class _Ranks:
    """Numbers the rows of each user as they come, from 0."""

    def __init__(self, order: _Order) -> None:
        self._order = order
        self._seen = np.zeros(len(order.ids), np.int64)

    def next(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the next rows' ranks among their user's [B], and totals [B].

        The total is how many rows that user has.
        """
        at = np.searchsorted(self._order.ids, users)
        order = np.argsort(at, kind="stable")
        found, first, count = np.unique(at[order], return_index=True, return_counts=True)
        within = np.empty(len(users), np.int64)
        within[order] = np.arange(len(users)) - np.repeat(first, count)
        rank = self._seen[at] + within
        self._seen[found] += count
        return rank, self._order.counts[at]


def _alone(config: Data, scenario: str) -> Data:
    rename = {name: names for name, names in config.tenrec.rename.items() if name == scenario}
    return with_block_values(config, "tenrec", scenarios=(scenario,), rename=rename)


TENREC = Source(
    name="tenrec",
    scenarios=lambda config: config.tenrec.scenarios,
    obtain=_obtain,
    open=_open_folder,
    alone=_alone,
)
