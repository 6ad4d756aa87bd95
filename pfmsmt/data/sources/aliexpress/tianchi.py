"""AliExpress as it was published: users and items in separate files.

They are joined here on the search id.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.data.sources.aliexpress.columns import (
    ALIEXPRESS_COLUMNS,
    ALIEXPRESS_TASKS,
    ITEM_FILE,
    LABEL,
    SEARCH_ID,
    USER_FILE,
)
from pfmsmt.data.sources.base import record_schema
from pfmsmt.data.tables.csv import read_blocks
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.prefetch import ahead
from pfmsmt.data.tables.sheet import TableRows
from pfmsmt.data.tables.zips import open_nested

_FORM = record_schema(ALIEXPRESS_COLUMNS, ALIEXPRESS_TASKS)
_KEPT_FORM = pa.schema(
    [(column.name, {"number": pa.float64(), "label": pa.int8()}.get(column.kind, pa.int64())) for column in ITEM_FILE]
)
_PLACES = {column.name: at for at, column in enumerate(USER_FILE)}
_FLOATS = frozenset(column.name for column in USER_FILE if column.kind == "number")


class Users(NamedTuple):
    """The user rows of one file, on disk, found by search id."""

    path: Path
    """int64 words [searches, user columns], in the order of the file; numbers are the words of their float64"""
    ids: NDArray[np.int64]
    """[searches], ascending"""
    order: NDArray[np.int64] | None
    """[searches], the row of each id; None: the file is in the order of ids"""


def zip_name(scenario: str) -> str:
    """Return the name of a scenario's zip."""
    return f"aliexpress_{scenario}_datasets.zip"


def member_name(scenario: str, part: str, split: str) -> str:
    """Return the name of one of the four zips inside.

    `part` is user or item.
    """
    return f"{scenario.lower()}_{part}_{split}.zip"


def read_users(path: Path, scenario: str, split: str, scratch: Path, faults: Faults) -> Users:
    """Lay the user rows out in a file of `scratch`.

    Memory takes 8 bytes a search, and 16 if ids are not in order.

    Raises:
        DataError: a damaged file, or what `faults` refuses: a faulty value, a search that has a row already.
    """
    target = scratch / f"{scenario}_{split}.users"
    ids, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with open_nested(path, member_name(scenario, "user", split)) as member, target.open("wb") as out:
        for block in ahead(read_blocks(member.stream, member.name, USER_FILE, faults)):
            words = np.empty((len(block.rows), len(USER_FILE)), np.int64)
            for name, at in _PLACES.items():
                words[:, at] = block.columns[name].view(np.int64)
            out.write(words.tobytes())
            ids.append(block.columns[SEARCH_ID])
            rows.append(block.rows)
    found = np.concatenate(ids)
    if (found[1:] > found[:-1]).all():
        return Users(target, found, None)
    order = np.argsort(found, kind="stable")
    found = found[order]
    twice = np.flatnonzero(found[1:] == found[:-1]) + 1
    if twice.size:
        numbers = np.concatenate(rows)[order]
        first = np.searchsorted(found, found[twice])
        kind = "has a row already"
        faults.take(
            [
                Fault(member.name, int(numbers[at]), "", f"search {found[at]} {kind}, row {numbers[before]}", kind)
                for at, before in zip(twice, first, strict=True)
            ]
        )
    kept = np.delete(np.arange(len(found)), twice)
    return Users(target, found[kept], order[kept])


def read_items(
    path: Path, scenario: str, split: str, users: Users, scratch: Path, faults: Faults
) -> Iterator[pa.RecordBatch]:
    """Yield the item rows in their file's order, with their search's columns.

    Training rows, which are read twice, are inflated and parsed once: their good rows are kept in a file of `scratch`.

    Raises:
        DataError: a damaged file, or what `faults` refuses: a faulty value, an item row without a user row.
    """
    kept = scratch / f"{scenario}_{split}.items"
    if kept.exists():
        with pa.OSFile(str(kept)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield _join(users, {name: batch.column(name).to_numpy() for name in batch.schema.names})
        return
    blocks = _read_items(path, scenario, split, users, faults)
    if split == "test":
        yield from (_join(users, block.columns) for block in blocks)
        return
    part = kept.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as file, pa.ipc.new_stream(file, _KEPT_FORM) as stream:
        for block in blocks:
            columns = [pa.array(block.columns[field.name], field.type) for field in _KEPT_FORM]
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=_KEPT_FORM))
            yield _join(users, block.columns)
    part.rename(kept)


def _read_items(path: Path, scenario: str, split: str, users: Users, faults: Faults) -> Iterator[TableRows]:
    """Yield item rows that have a user row."""
    with open_nested(path, member_name(scenario, "item", split)) as member:
        for block in ahead(read_blocks(member.stream, member.name, ITEM_FILE, faults)):
            known = _find(users, block.columns[SEARCH_ID])[1]
            if not known.all():
                kind = "has no row in the user file"
                orphans = zip(block.rows[~known], block.columns[SEARCH_ID][~known], strict=True)
                more = "; do the two files belong together?"
                faults.take(
                    [Fault(member.name, int(row), "", f"search {search} {kind}{more}", kind) for row, search in orphans]
                )
                block = block.take(known)
            yield block


def _find(users: Users, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each search id's place among the users [B], and its presence."""
    if not len(users.ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(users.ids, wanted), len(users.ids) - 1)
    return place, users.ids[place] == wanted


def _join(users: Users, items: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
    user = _user_columns(users, _find(users, items[SEARCH_ID])[0])
    label = items[LABEL]
    labels = {"click": (label >= 1).astype(np.int8), "conversion": (label == 2).astype(np.int8)}
    columns = {**user, **items, **labels}
    return pa.RecordBatch.from_arrays([pa.array(columns[field.name], field.type) for field in _FORM], schema=_FORM)


def _user_columns(users: Users, place: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the user's columns for places [B] of search ids."""
    # Each search once, in the order of the file; mapped anew, as pages that were touched count as memory until then.
    searches, inverse = np.unique(place if users.order is None else users.order[place], return_inverse=True)
    if not len(searches):
        return {name: np.zeros(0, np.float64 if name in _FLOATS else np.int64) for name in _PLACES}
    words = np.memmap(users.path, np.int64, mode="r").reshape(-1, len(USER_FILE))[searches].T.copy()
    return {
        name: (words[at].view(np.float64) if name in _FLOATS else words[at])[inverse] for name, at in _PLACES.items()
    }
