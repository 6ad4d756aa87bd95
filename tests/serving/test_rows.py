"""Rows of requests are encoded to the same bits as in training."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.encoder import RowEncoder, encode
from pfmsmt.data.schema import CategoricalField, NumericalField, encoded_column
from pfmsmt.serving.arrow import read_stream
from pfmsmt.serving.rows import RowReader
from tests.support.shelves import as_stream, schema

FIELDS = {
    "small": (3, 7),
    "edges": (-(2**63), 0, 2**63 - 1),
    "wide": (-5, 12, 2**40),
    "empty": (),
    "one": (2**63 - 1,),
    "low": (-(2**63), -(2**63) + 1),
}
WHOLE = schema(
    "NL",
    categorical=(
        *(CategoricalField(name=name, federated=True, vocabulary=known) for name, known in FIELDS.items()),
        CategoricalField(name="brand", federated=True, text=True, vocabulary=("acme", "zeta", "ä")),
    ),
    numerical=(NumericalField(name="x", mean=0.3, std=1e-3), NumericalField(name="constant", mean=2.0, std=0.0)),
)
READER, ENCODER = RowReader(WHOLE), RowEncoder(WHOLE)
WHOLE_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([v for known in FIELDS.values() for v in known]),
    st.integers(-9, 9),
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(FIELDS, WHOLE_NUMBERS)
        | {"brand": st.one_of(st.sampled_from(["acme", "zeta", "ä", " "]), st.text(min_size=1, max_size=3))}
        | {name: st.floats(-1e9, 1e9) for name in ("x", "constant")}
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow(4)
@settings(max_examples=150, deadline=None)
@given(RECORDS)
def test_every_form_is_encoded_as_in_training(records):
    frame = pd.DataFrame(records).astype(dict.fromkeys(FIELDS, "int64"))
    expected = encode(frame, WHOLE)
    table = pa.table({name: pa.array(list(frame[name])) for name in WHOLE.columns})
    for rows in (
        READER.from_records(records),
        READER.from_columns({name: [record[name] for record in records] for name in WHOLE.columns}, len(records)),
        read_stream(as_stream(table), READER, 10),
    ):
        found = rows.encode(ENCODER)
        assert (found.codes.dtype, found.values.dtype) == (expected.codes.dtype, expected.values.dtype)
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.values, expected.values)


GOOD = {"small": 3, "edges": 0, "wide": 12, "empty": 1, "one": 1, "low": 0, "brand": "acme", "x": 0.3, "constant": 2.0}


def test_text_where_numbers_belong_and_the_other_way_round():
    for name, value, text in (("brand", 3, "column brand, row 1: 3 is not text"),
                              ("small", "3", "column small, row 1: '3' is not an integer category")):  # fmt: skip
        with pytest.raises(SchemaError, match=text):
            READER.from_records([GOOD, {**GOOD, name: value}])
    for name, kind in (("brand", pa.int64()), ("small", pa.string())):
        table = pa.table({key: pa.array([value]) for key, value in GOOD.items()})
        table = table.set_column(table.schema.names.index(name), name, pa.array([None], kind))
        with pytest.raises(SchemaError, match=f"column {name}, row 0"):
            read_stream(as_stream(table), READER, 10)


def test_optional_text_is_out_of_vocabulary():
    reader = RowReader(WHOLE, ("brand",))
    left_out = {key: value for key, value in GOOD.items() if key != "brand"}
    rows = reader.from_records([GOOD, left_out, {**GOOD, "brand": None}])
    assert rows.filled == {"brand": 2}
    assert rows.encode(ENCODER).codes[:, -1].tolist() == [1, 0, 0]
    table = pa.Table.from_pylist([GOOD, {**GOOD, "brand": None}])
    assert read_stream(as_stream(table), reader, 10).encode(ENCODER).codes[:, -1].tolist() == [1, 0]


def test_a_fill_of_text_has_its_code_and_one_without_code_is_out_of_vocabulary():
    left_out = {key: value for key, value in GOOD.items() if key not in ("brand", "small")}
    fills = {"brand": "zeta", "small": 3}, {"brand": "never seen", "small": 1234}
    codes = []
    for fill in fills:
        reader = RowReader(WHOLE.model_copy(update={"fill": fill}))
        rows = reader.from_records([GOOD, left_out])
        assert rows.filled == {"brand": 1, "small": 1}
        codes.append(rows.encode(ENCODER).codes[1])
    # WHOLE's vocabularies: 3 is the first of `small`, zeta the second of `brand`.
    assert [codes[0][0], codes[0][-1]] == [1, 2]
    assert [codes[1][0], codes[1][-1]] == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.5, 2.0**63])
def test_floats_that_are_no_category(value):
    table = pa.Table.from_pylist([GOOD, GOOD]).set_column(0, "small", pa.array([3.0, value]))
    with pytest.raises(SchemaError, match="column small, row 1"):
        read_stream(as_stream(table), READER, 10)


def test_unsigned_beyond_the_range_is_no_category():
    table = pa.Table.from_pylist([GOOD]).set_column(0, "small", pa.array([2**64 - 1], pa.uint64()))
    with pytest.raises(SchemaError, match="column small, row 0"):
        read_stream(as_stream(table), READER, 10)


def test_arrow_takes_what_holds_integers_floats_or_text():
    table = pa.Table.from_pylist([{**GOOD, "x": 0.5}] * 2)
    expected = read_stream(as_stream(table), READER, 10).encode(ENCODER)
    odd = {
        "one": pa.array([True, True]), "empty": pa.array([Decimal(1), Decimal(1)]),
        "x": pa.array([Decimal("0.5"), Decimal("0.5")]), "brand": pa.array(["acme", "acme"], pa.string_view()),
    }  # fmt: skip
    for name, values in odd.items():
        table = table.set_column(table.schema.names.index(name), name, values)
    found = read_stream(as_stream(table), READER, 10).encode(ENCODER)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.values, expected.values)


def test_dictionaries_are_refused_among_the_columns_and_ignored_beside_them():
    table = pa.Table.from_pylist([GOOD, GOOD])
    colours = pa.array(["red"] * 500 + ["blue"]).dictionary_encode().take(pa.array([0, 500]))
    beside = table.append_column("colour", colours)
    found = read_stream(as_stream(beside), READER, 2).encode(ENCODER)
    np.testing.assert_array_equal(found.codes, read_stream(as_stream(table), READER, 2).encode(ENCODER).codes)
    packed = pa.BufferOutputStream()
    with pa.ipc.new_stream(packed, beside.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(beside)
    with pytest.raises(SchemaError, match="compressed"):
        read_stream(packed.getvalue().to_pybytes(), READER, 2)
    place = table.schema.names.index("brand")
    with pytest.raises(SchemaError, match="column brand, row 0: dictionaries are not taken, string is"):
        read_stream(as_stream(table.set_column(place, "brand", table["brand"].dictionary_encode())), READER, 2)


@pytest.mark.parametrize("column", ["small", "x", "brand"])
@pytest.mark.parametrize("fill", [False, True])
def test_columns_with_a_gap_are_as_good_as_those_without(column, fill):
    """The other rows' cells are what they are without the gap."""
    reader = RowReader(WHOLE, (column,))
    records = [{**GOOD, "small": v, "x": v / 7, "brand": "zeta"} for v in (3, 7, 99)]
    expected = reader.from_records(records)
    with_gap = [*records, {**GOOD, column: None} if fill else {k: v for k, v in GOOD.items() if k != column}]
    found = reader.from_records(with_gap)
    np.testing.assert_array_equal(found.categories[:3], expected.categories)
    np.testing.assert_array_equal(found.numbers[:3], expected.numbers)
    assert found.filled == {column: 1}


@pytest.mark.parametrize("optional", [(), WHOLE.columns])
def test_encoded_columns_are_refused_in_every_form(optional):
    """They have the same names behind a prefix, and must not count as columns that were left out."""
    reader = RowReader(WHOLE, optional)
    columns = {encoded_column(name): [1, 2] for name in WHOLE.columns}
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    forms = (
        lambda: reader.from_records(records),
        lambda: reader.from_columns(columns, 2),
        lambda: read_stream(as_stream(pd.DataFrame(columns)), reader, 10),
    )
    for form in forms:
        with pytest.raises(SchemaError, match=r"holds encoded rows \(column encoded:brand\).*example\.parquet"):
            form()
