"""Errors about an own table end with what to do."""

import pyarrow as pa
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.prepare.partition import partition
from tests.support.raw_files import quiet
from tests.support.raw_tables import HEADER, config_for, csv_text, parquet_bytes, rows, table, write_raw_folder


def with_cell(column, value):
    """A CSV, one of whose cells is another one."""
    held = rows()
    held[1][HEADER.index(column)] = value
    return "t.csv", csv_text(held)


def with_column(name, values, kind=None):
    """A Parquet file, one of whose columns is another one."""
    held = table()
    place = held.schema.get_field_index(name)
    return "t.parquet", parquet_bytes(held.set_column(place, name, pa.array(values(held.num_rows), kind)))


CASES = {
    "a list": (with_column("item_id", lambda n: [[1, 2]] * n), "list<.*: write its parts as columns of their own"),
    "a vector": (
        with_column("age", lambda n: [[0.5, 0.25]] * n, pa.list_(pa.float32(), 2)), "write its parts as columns"
    ),
    "a list in a CSV": (with_cell("age", "[1, 2]"), r"'\[1, 2\]' is not a number; .* the parts of a list or vector"),
    "text as a number": (with_column("age", lambda n: ["old"] * n), "kind number; .* text belongs under categorical"),
    "a broken category": (
        with_column("item_id", lambda n: [0.5] * n), "0.5 is not an integer category; .* belongs under numerical"
    ),
    "a watch time as label": (with_cell("click", "37"), r"37 is not a label \(0, 1\); .*as seconds >= 10"),
    "a weight as label": (
        with_column("click", lambda n: [0.7] * n), r"0.7 is not a label .* weights of rows are not supported"
    ),
    "a label in text": (with_cell("click", "yes"), "'yes' is not a number; a label is 0 or 1"),
    "labels in text": (with_column("click", lambda n: ["yes"] * n), "does not fit a column of kind label; a label is"),
    "no number": (with_cell("age", ""), r"is empty; .*data\.tabular\.fill: \{age: 0\}"),
    "no category": (with_cell("item_id", ""), r"is empty; .*data\.tabular\.fill: \{item_id: unknown\}"),
    "no time": (with_cell("at", ""), "is empty; leave such rows out"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "message"), CASES.values(), ids=CASES.keys())
def test_an_error_says_what_to_do(tmp_path, file, message):
    write_raw_folder(tmp_path / "raw", "tabular", dict([file]))
    with pytest.raises(DataError, match=message):
        partition(config_for("tabular"), 0, tmp_path / "raw", tmp_path / "clients", quiet)


def test_the_list_of_bad_rows_has_no_advice(tmp_path):
    write_raw_folder(tmp_path / "raw", "tabular", dict([with_cell("click", "37")]))
    config = config_for("tabular", on_bad_rows="quarantine")
    partition(config, 0, tmp_path / "raw", tmp_path / "clients", quiet)
    listed = (tmp_path / "clients/quarantine.csv").read_text().splitlines()[1]
    assert listed.endswith('3 (click),"37 is not a label (0, 1)"')
