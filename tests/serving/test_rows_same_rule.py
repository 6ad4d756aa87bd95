"""The same cells come in by every way: each takes, refuses and converts them as partition does.

Partition reads them from Parquet (and, where a CSV can hold them, from a CSV), `encode` from a frame of pandas, serving
from a JSON body, from an Arrow stream and from the Parquet of `pfmsmt predict`.
"""

import datetime
import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import PfmsmtError
from pfmsmt.data.encoder import Encoded, RowEncoder, encode
from pfmsmt.data.schema import CategoricalField, NumericalField, encoded_column
from pfmsmt.data.shards.writer import ShardWriter
from pfmsmt.data.tables.cells import convert_cells
from pfmsmt.data.tables.faults import Faults
from pfmsmt.data.tables.raw_files import read_table
from pfmsmt.data.tables.values import Column
from pfmsmt.serving import bodies
from pfmsmt.serving.arrow import read_batch
from pfmsmt.serving.guards import Refusal
from pfmsmt.serving.rows import RowReader
from tests.support.shelves import STREAM, as_stream, schema

REFUSED = "refused"
FILLS: dict[str, Any] = {"category": 7, "text": "1000.0", "number": 0.25}
WORDS = ("1000.0", "01000", "1000", "True", "nan", "ä", "x" * 256, "€" * 85, " ")
WHOLE = (-(2**63), -5, 0, 1, 2, 7, 1000, 2**53 - 1, 2**53, 2**62, 2**63 - 1)
FIELDS = {
    "category": CategoricalField(name="cell", federated=True, vocabulary=WHOLE),
    "text": CategoricalField(name="cell", federated=True, text=True, vocabulary=tuple(sorted(WORDS))),
    "number": NumericalField(name="cell", mean=0.5, std=2.0),
}
SCHEMAS = {
    (kind, filled): schema(
        "NL",
        categorical=() if kind == "number" else (field,),
        numerical=(field,) if kind == "number" else (),
        fill={"cell": FILLS[kind]} if filled else {},
    )
    for kind, field in FIELDS.items()
    for filled in (False, True)
}
CELLS = st.one_of(
    st.integers(-9, 1001),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(
        [
            2**53 - 1,
            2**53,
            -(2**53),
            2**63 - 1,
            2**63,
            2**64 - 1,
            2**64,
            -(2**63),
            -(2**63) - 1,
            10**30,
            10**31,
            10**400,
        ]
    ),
    st.booleans(),
    st.sampled_from([0.0, -0.0, 3.0, 0.5, 1000.0, 2.0**53, 2.0**63, 1e30, -1e30, 1.0000000000000002e30, 1e38, 1e300]),
    st.sampled_from([math.nan, math.inf, -math.inf, 5e-324]),
    st.floats(),
    st.sampled_from(["", *WORDS, "x" * 257, "€" * 86, "-0", "1e3", "\t", "a,b", '"', "\ud800"]),
    st.text(max_size=4),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=2),
    st.none(),
    st.sampled_from([[], [1], {"a": 1}, datetime.date(2026, 11, 24), datetime.datetime(2026, 11, 24, 1, 2)]),
)
SMALL = st.integers(0, 100)
FLOATS = st.one_of(st.floats(width=16), st.sampled_from([1000.0, -0.0, 0.5, math.nan, math.inf]))
DOUBLES = st.one_of(st.floats(), st.sampled_from([2.0**53, 1e30, 1.0000000000000002e30, 1000.0, -0.0, math.nan]))
WIDE = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([1000, 2**53, 2**62, 2**63 - 1]))
TEXTS = st.one_of(st.sampled_from(["", *WORDS, "x" * 257, "€" * 86]), st.text(max_size=4))
TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    **dict.fromkeys((pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32()), SMALL),
    pa.int64(): st.one_of(WIDE, WIDE.map(lambda value: -value - 1)),
    pa.uint64(): st.one_of(WIDE, st.sampled_from([2**63, 2**64 - 1])),
    pa.float16(): FLOATS.map(np.float16),
    pa.float32(): st.one_of(FLOATS, st.floats(width=32)),
    pa.float64(): DOUBLES,
    pa.decimal128(12, 2): st.decimals(-(10**9), 10**9, places=2),
    pa.decimal128(38, 0): st.integers(-(10**37), 10**37).map(Decimal),
    pa.decimal256(50, 3): st.decimals(-(10**9), 10**9, places=3),
    pa.bool_(): st.booleans(),
    **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), TEXTS),
    pa.dictionary(pa.int32(), pa.string()): TEXTS,
    pa.dictionary(pa.int8(), pa.int64()): SMALL,
    pa.dictionary(pa.int8(), pa.float64()): DOUBLES,
    pa.null(): st.none(),
    pa.binary(): st.binary(max_size=3),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.time32("s"): st.times().map(lambda time: time.replace(microsecond=0)),
    pa.duration("s"): st.timedeltas(datetime.timedelta(0), datetime.timedelta(9)),
    pa.list_(pa.int64()): st.lists(SMALL, max_size=2),
}
COLUMNS = st.sampled_from(list(TYPES)).flatmap(
    lambda kind: st.lists(st.one_of(TYPES[kind], TYPES[kind], st.none()), min_size=1, max_size=3).map(
        lambda cells: pa.array(cells, kind)
    )
)
MANY = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KIND = st.sampled_from(list(FIELDS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cells")


def outcome(read):
    """A way's result for the rows: the code or number of each, or a refusal."""
    try:
        found = read()
    except (PfmsmtError, Refusal):
        return REFUSED
    return np.concatenate([found.codes.astype(np.float64), found.values.astype(np.float64)], axis=1).ravel().tolist()


def column_of(kind: str, filled: bool) -> Column:
    return Column("cell", kind, fill=FILLS[kind] if filled else None)


def partitioned(path, own, column: Column):
    """Codes and numbers of a table's rows, as partition writes them into a shard."""

    def read():
        faults = Faults()
        blocks = list(read_table(path, [column], faults))
        rows = {"cell": np.concatenate([block.columns["cell"] for block in blocks])}
        count = len(rows["cell"])
        rows |= {"search": np.zeros(count, np.int64), **{task.label: np.zeros(count, np.int8) for task in own.tasks}}
        with ShardWriter(path.with_name("shard.parquet"), own) as writer:
            writer.write(rows)
        shard = pq.read_table(path.with_name("shard.parquet"))[encoded_column("cell")].to_numpy()
        return _encoded(shard, column.kind)

    return outcome(read)


def _encoded(values, kind):
    empty = np.zeros((len(values), 0), np.float32)
    column = values[:, None]
    return Encoded(empty, column) if kind == "number" else Encoded(column, empty)


def served(body: bytes, media: str, own):
    return outcome(lambda: bodies.parse_rows(body, media, RowReader(own), 9).encode(RowEncoder(own)))


@pytest.mark.slow(4)
@MANY
@given(COLUMNS, KIND, st.booleans())
@example(pa.array([2**64 - 1], pa.uint64()), "number", False)
@example(pa.array([math.nan, 1.0]), "category", True)
@example(pa.array(["", "1000.0"], pa.string_view()), "text", True)
@example(pa.array([-0.0]), "category", False)
@example(pa.array([None], pa.null()), "number", True)
def test_columns_with_a_type(folder, array, kind, filled):
    """A column of any Arrow type: Parquet to partition, Arrow and Parquet to serving, pandas to `encode`."""
    own, path, table = SCHEMAS[kind, filled], folder / "cells.parquet", pa.table({"cell": array})
    pq.write_table(table, path)
    expected = partitioned(path, own, column_of(kind, filled))
    stored = pq.read_table(path)

    def batch():
        (rows,) = stored.combine_chunks().to_batches()
        return read_batch(rows, RowReader(own)).encode(RowEncoder(own))

    assert outcome(batch) == expected
    if not pa.types.is_dictionary(array.type):  # a request's dictionaries are refused, whatever they hold
        assert served(as_stream(table), STREAM, own) == expected
    frame = {"cell": pd.Series(array, dtype=pd.ArrowDtype(array.type))}
    assert outcome(lambda: encode(pd.DataFrame(frame), own)) == expected


@pytest.mark.slow(8)
@MANY
@given(st.lists(CELLS, min_size=1, max_size=3), KIND, st.booleans())
@example([1000, 3.0], "category", False)
@example([2**63], "category", False)
@example([2**60 + 1, 2.0], "category", False)
@example([math.nan], "number", True)
@example(["", "01000"], "text", True)
@example(["", "01000"], "text", False)
@example([True], "number", False)
def test_cells_without_a_type(folder, cells, kind, filled):
    """JSON, as rows and as columns, and objects of pandas: each cell as in Parquet of its own type, and as in a CSV."""
    own, column = SCHEMAS[kind, filled], column_of(kind, filled)
    expected = [_of_one(folder, cell, own, column) for cell in cells]
    expected = REFUSED if REFUSED in expected else [value for found in expected for value in found]
    assert outcome(lambda: encode(pd.DataFrame({"cell": pd.Series(cells, dtype=object)}), own)) == expected
    if not any(isinstance(cell, Decimal | datetime.date) for cell in cells):  # of which JSON has none
        for tree in ({"records": [{"cell": cell} for cell in cells]}, {"columns": {"cell": cells}}):
            assert served(json.dumps(tree).encode(), bodies.JSON, own) == expected, tree


def _of_one(folder, cell, own, column: Column):
    """Partition's result for a cell: in Parquet of its own type, and the same in a CSV if it can stand there."""
    if isinstance(cell, bool):
        return REFUSED  # as in a CSV: see `test_truth_values`
    try:
        array = pa.array([cell], pa.uint64() if isinstance(cell, int) and 2**63 <= cell < 2**64 else None)
    except (OverflowError, UnicodeError):
        array = pa.array([float(cell) if abs(cell) < 10**300 else math.inf]) if isinstance(cell, int) else None
    if array is None:
        return REFUSED
    pq.write_table(pa.table({"cell": array}), folder / "cell.parquet")
    found = partitioned(folder / "cell.parquet", own, column)
    text = _in_csv(cell, column)
    if text is not None:
        (folder / "cell.csv").write_text(f"other,cell\n1,{text}\n", encoding="utf-8")
        assert partitioned(folder / "cell.csv", own, column) == found, text
    return found


def _in_csv(cell, column: Column):
    """The cell as it stands in a CSV; None: there it would be something else."""
    if column.kind == "text":
        plain = isinstance(cell, str) and not set(cell) & set('"\r\n\0\ufeff') and cell.isprintable()
        return f'"{cell}"' if plain and cell else None
    if cell is None:
        return ""
    exact = isinstance(cell, float) or (isinstance(cell, int) and abs(cell) < 2**53)  # categories are parsed as floats
    missing = isinstance(cell, float) and math.isnan(cell) and column.fill is not None
    return repr(cell) if exact and not missing else None


def test_truth_values():
    """A column that is boolean as a whole is 0 and 1; True among cells without a type is no number, as in a CSV."""
    table = pa.table({"cell": pa.array([True, False])})
    for kind, expected in (("category", [4.0, 3.0]), ("number", [0.25, -0.25]), ("text", REFUSED)):
        own = SCHEMAS[kind, False]
        assert served(as_stream(table), STREAM, own) == expected
        assert outcome(lambda own=own: encode(table.to_pandas(), own)) == expected
        assert served(b'{"records": [{"cell": true}, {"cell": false}]}', bodies.JSON, own) == REFUSED


@pytest.mark.slow(4)
@MANY
@given(st.lists(CELLS, min_size=1, max_size=4), KIND)
def test_the_fast_way_of_json_is_never_another_way(cells, kind):
    """The slow path reads alike whatever the fast one reads; the rest is left to the slow one."""
    own = SCHEMAS[kind, False]
    reader = RowReader(own)
    fast = reader._usual_records([{"cell": cell} for cell in cells])
    other = reader._usual_columns({"cell": cells}, len(cells))
    assert (fast is None) == (other is None)
    if fast is not None:
        converted = convert_cells(cells, reader.columns["cell"])
        assert not converted.problems
        slow = reader.gather({"cell": converted}, len(cells))
        np.testing.assert_array_equal(other.categories, slow.categories)
        np.testing.assert_array_equal(other.numbers, slow.numbers)
        np.testing.assert_array_equal(fast.categories, slow.categories)
        np.testing.assert_array_equal(fast.numbers, slow.numbers)
