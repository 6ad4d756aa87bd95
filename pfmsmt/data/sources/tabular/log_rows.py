"""Rows of the user's tables, read as declared, and apart by scenario.

Legend: B rows.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.config import Tabular
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import Task
from pfmsmt.data.sources.base import Columns, record_schema
from pfmsmt.data.sources.spool import MOST_SCENARIOS
from pfmsmt.data.sources.tabular.time_split import PARTS, CutBy
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.raw_files import is_parquet, is_table, read_table, read_types
from pfmsmt.data.tables.sheet import TableRows
from pfmsmt.data.tables.values import Column, is_text

ROWS_APART = "__apart__"
"""In the spool: the time or the part (train, val, test) of a row."""
_LEAVE_OUT = "leave such rows out of the table, or set data.on_bad_rows: quarantine"
_UNLABELLED = (
    "set missing: ignore for it in data.tabular.labels, so that such rows are left out of its task alone, or "
    "data.on_bad_rows: quarantine"
)
_FILL = "say what stands for it, as in data.tabular.fill: {{{0}: {1}}}, or set data.on_bad_rows: quarantine"
_NO_NUMBER = (
    "numerical columns hold one number each: text belongs under categorical, and the parts of a list or vector into "
    "columns of their own"
)
_NO_CATEGORY = "categories are text, or integers: a column of numbers with fractions belongs under numerical"
_NO_LABEL = (
    "a label is 0 or 1: make such a column first, of a watch time as seconds >= 10, of a rating as stars >= 4; weights "
    "of rows are not supported, train.task_weights weighs tasks"
)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")


class Layout(NamedTuple):
    """The files, and the kinds that their columns are read as."""

    files: tuple[Path, ...]
    read: tuple[Column, ...]
    columns: Columns
    kind: CutBy | None
    """The column that cuts the test part; None: whole groups are drawn."""

    def form(self, tasks: tuple[Task, ...]) -> pa.Schema:
        """Return the spool's columns: the records', and the test part's cut."""
        form = record_schema(self.columns._replace(place=None), tasks)
        return form.append(pa.field(ROWS_APART, pa.float64())) if self.kind else form


def lay_out(raw: Path, block: Tabular) -> Layout:
    """Look at the first file's columns.

    Raises:
        ConfigError: a column cannot be what params.yaml says.
        DataError: no tables, of two kinds, damaged, or without a declared column.
    """
    files = tuple(path for path in sorted(raw.rglob("*")) if path.is_file() and is_table(path))
    if not files:
        raise DataError(f"{raw} holds no tables; run `dvc repro -f download`")
    parquet = is_parquet(files[0])
    if any(is_parquet(path) != parquet for path in files):
        raise DataError(f"{raw} holds CSV and Parquet; keep one of them")
    read: dict[str, Column] = {}
    for name in block.numerical:
        read[name] = Column(
            name, "number", fill=block.fill.get(name), if_missing=_FILL.format(name, 0), if_wrong=_NO_NUMBER
        )
    keys = [name for name in (*block.categorical, block.group, block.scenario, block.split) if name is not None]
    types = read_types(files[0], keys) if parquet else {}
    for name in keys:
        if name in read and read[name].kind == "number":
            raise ConfigError(f"data.tabular: {name!r} is numerical, and cannot be a group, a scenario or a split too")
        fill = block.fill.get(name)
        # A column of nulls has no type of its own: its fill decides.
        text = not parquet or is_text(types[name]) or (pa.types.is_null(types[name]) and isinstance(fill, str))
        if fill is not None and text != isinstance(fill, str):
            fill = str(fill) if text else _refuse_fill(name, fill)
        group = name == block.group and keys.count(name) == 1
        if_missing = _FILL.format(name, "unknown" if text else -1) if name in block.categorical else _LEAVE_OUT
        read[name] = Column(
            name, "text" if text else "category", fill=fill, group=group, if_missing=if_missing,
            if_wrong="" if text else _NO_CATEGORY,
        )  # fmt: skip
    if block.time is not None and block.time not in read:
        read[block.time] = Column(block.time, "time", if_missing=_LEAVE_OUT)
    for label in block.labels:
        read[label.column] = Column(
            label.column, "label", booleans=True, optional=label.missing == "ignore", if_missing=_UNLABELLED,
            if_wrong=_NO_LABEL,
        )  # fmt: skip
    kind: CutBy | None = "time" if block.time else "split" if block.split else None
    taken = {*block.categorical, *block.numerical}
    taken |= {name for label in block.labels for name in (label.task, label.column)}
    columns = Columns(
        _free("group", taken),
        block.categorical,
        block.numerical,
        place=_free("place", taken) if kind else None,
        text=tuple(name for name in block.categorical if read[name].kind == "text"),
        untyped=not parquet,
        fill={name: column.fill for name, column in read.items() if name in block.fill and column.fill is not None},
    )
    return Layout(files, tuple(read.values()), columns, kind)


def _refuse_fill(name: str, fill: object) -> Any:
    raise ConfigError(f"data.tabular.fill: {name} holds integers, so {fill!r} cannot stand for a missing value")


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


class TableReader:
    """Reads all files once, in the order of their names."""

    def __init__(self, layout: Layout, block: Tabular, declared: tuple[str, ...], faults: Faults) -> None:
        """Take only rows of the declared scenarios, or else of all."""
        self._layout, self._block, self._faults = layout, block, faults
        wanted = block.scenarios if isinstance(block.scenarios, dict) else {name: name for name in declared}
        self._names = {str(value): name for name, value in wanted.items()}
        self._rows = 0
        self._times: tuple[str, Path] | None = None
        self.found: set[str] = set()
        """Scenarios that have rows."""
        self.values: set[str] = set()
        """The values of the scenario column."""
        self.skipped = 0
        """Rows of other scenarios than the declared ones."""

    def read(self) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        """Yield (scenario, name -> [B] of `Layout.form`), some rows at a time.

        Raises:
            DataError: see `read_table`; too many scenarios; times of two kinds; or what `faults` refuses: a label that
                is 1 where the one it is nested in is 0, a value that cannot name a scenario, an unknown part.
        """
        for path in self._layout.files:
            for block in read_table(path, self._layout.read, self._faults):
                self._check_times(block, path)
                yield from self._by_scenario(self._nested(block, path), path)

    def _check_times(self, block: TableRows, path: Path) -> None:
        """Refuse numbers after dates.

        They have no order among each other, and a test row could go before training.
        """
        if not block.times or not len(block.rows):
            return
        if self._times is None:
            self._times = block.times, path
        first, where = self._times
        if block.times != first:
            raise DataError(
                f"{path}, from row {block.rows[0]} on, column {self._block.time}: {block.times}, but {first} before, "
                f"as in {where}; write all times in one way"
            )

    def _nested(self, block: TableRows, path: Path) -> TableRows:
        columns = {label.task: label.column for label in self._block.labels}
        for label in self._block.labels:
            if label.within is not None:
                outer = columns[label.within]
                wrong = (block.columns[label.column] == 1) & (block.columns[outer] == 0)
                block = self._without(block, wrong, path, "", f"{label.column} is 1 but {outer} is 0")
        if self._block.split is not None:
            parts = pd.Series(block.columns[self._block.split]).astype("str").str.lower()
            wrong = ~parts.isin(list(PARTS)).to_numpy()
            block = self._without(block, wrong, path, self._block.split, "is none of train, val, test")
        return block

    def _without(self, block: TableRows, wrong: NDArray[np.bool_], path: Path, column: str, kind: str) -> TableRows:
        if not wrong.any():
            return block
        values = block.columns.get(column)
        self._faults.take(
            [
                Fault(
                    str(path), int(block.rows[at]), column, kind if values is None else f"{values[at]!r} {kind}", kind
                )
                for at in np.flatnonzero(wrong)
            ]
        )
        return block.take(~wrong)

    def _by_scenario(self, block: TableRows, path: Path) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        if self._block.scenario is None:
            scenario_of = {"": next(iter(self._names.values()))}
            codes, values = np.zeros(len(block.rows), np.int64), [""]
        else:
            codes, found = pd.factorize(block.columns[self._block.scenario])
            values = [str(value) for value in found]
            scenario_of = self._names if self._names else {value: value for value in values if _NAME.match(value)}
            self.values |= set(values[:MOST_SCENARIOS])
        known = np.array([value in scenario_of for value in values], np.bool_)[codes]
        if not known.all():
            if self._names:
                self.skipped += int((~known).sum())
                good = block.take(known)
            else:
                good = self._without(block, ~known, path, str(self._block.scenario), _UNFIT)
            block, codes = good, codes[known]
        rows = self._named(block)
        for code in np.unique(codes):
            name = scenario_of[values[code]]
            self.found.add(name)
            if len(self.found) > MOST_SCENARIOS:
                raise DataError(
                    f"column {self._block.scenario} has more than {MOST_SCENARIOS} values, and each would be a client; "
                    "is it the right one? Or name those to keep in data.tabular.scenarios"
                )
            chosen = codes == code
            yield name, {column: held[chosen] for column, held in rows.items()}

    def _named(self, block: TableRows) -> dict[str, NDArray[Any]]:
        """Return the block's columns under the names of the records."""
        rows = dict(block.columns)
        held, tabular = block.columns, self._block
        numbers = np.arange(self._rows, self._rows + len(block.rows))
        self._rows += len(block.rows)
        rows[self._layout.columns.group] = numbers if tabular.group is None else group_ids(held[tabular.group])
        if tabular.time is not None:
            rows[ROWS_APART] = held[tabular.time].astype(np.float64)
        elif tabular.split is not None:
            parts = pd.Series(held[tabular.split]).astype("str").str.lower().map(PARTS)
            rows[ROWS_APART] = parts.to_numpy(np.float64)
        return rows


_UNFIT = (
    "cannot name a scenario (letters, digits, . _ - only, at most 64); give it a name in data.tabular.scenarios, as "
    "{name: value}"
)


def group_ids(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return an integer for each group [B].

    It is the value itself, or 64 bits of a hash of its text.
    """
    if values.dtype != object:
        return np.asarray(values, np.int64)
    hashed: NDArray[np.int64] = pd.util.hash_array(values, categorize=True).view(np.int64)
    return hashed
