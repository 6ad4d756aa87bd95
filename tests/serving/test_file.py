"""`pfmsmt predict`: Parquet in, Parquet out."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfmsmt.core.errors import PfmsmtError, SchemaError
from pfmsmt.serving.file import predict_file
from tests.support.shards import write_shard
from tests.support.shelves import frame, saved


@pytest.fixture
def rows(shelf):
    table = frame(1000).assign(search=np.arange(1000), text="x")
    table.to_parquet(shelf.root / "in.parquet", row_group_size=300)
    return table


@pytest.mark.slow(1)
def test_predictions_come_row_by_row_in_order(shelf, rows):
    target = shelf.root / "out.parquet"
    done = predict_file(shelf.tracking, "NL", shelf.root / "in.parquet", target, keep=("search",), rows_at_once=64)
    assert done == ("1", 1000, {})
    found = pq.read_table(target)
    assert found.column_names == ["search", "ctr", "ctcvr"]
    assert found.schema.metadata[b"model_version"] == b"1"
    assert found["search"].to_pylist() == list(range(1000))
    expected = saved(shelf, "NL", "1").predict(rows)
    np.testing.assert_allclose(found.to_pandas()[["ctr", "ctcvr"]], expected, rtol=0, atol=1e-6)
    predict_file(shelf.tracking, "NL", shelf.root / "in.parquet", target, which="challenger", calibrated=False)
    raw = saved(shelf, "NL", "2").predict(rows, calibrated=False)
    np.testing.assert_allclose(pq.read_table(target).to_pandas(), raw, rtol=0, atol=1e-6)


@pytest.mark.slow(1)
def test_memory_does_not_grow_with_rows(shelf, rows):
    """Arrow never holds more than one batch more, for ten times as many batches."""
    default, peaks = pa.default_memory_pool(), []
    for repeats in (20, 200):
        pd.concat([rows] * repeats, ignore_index=True).to_parquet(shelf.root / "in.parquet", row_group_size=2000)
        pool = pa.proxy_memory_pool(default)
        pa.set_memory_pool(pool)
        try:
            done = predict_file(
                shelf.tracking, "NL", shelf.root / "in.parquet", shelf.root / "out.parquet", rows_at_once=2000
            )
        finally:
            pa.set_memory_pool(default)
        assert done[:2] == ("1", 1000 * repeats)
        peaks.append(pool.max_memory())
    one_batch = 2000 * 4 * 8
    assert peaks[0] > one_batch
    assert peaks[1] < peaks[0] + one_batch


def test_optional_columns(shelf, rows):
    rows.drop(columns="age").to_parquet(shelf.root / "less.parquet")
    target = shelf.root / "out.parquet"
    with pytest.raises(SchemaError, match="missing columns: age"):
        predict_file(shelf.tracking, "NL", shelf.root / "less.parquet", target)
    done = predict_file(shelf.tracking, "NL", shelf.root / "less.parquet", target, optional=("age",), rows_at_once=300)
    assert done.filled == {"age": 1000}
    expected = saved(shelf, "NL", "1").predict(rows.assign(age=1.0))
    np.testing.assert_allclose(pq.read_table(target).to_pandas(), expected, rtol=0, atol=1e-6)


@pytest.mark.slow(1)
def test_bad_files_are_named_and_leave_nothing(shelf, rows):
    root = shelf.root
    rows.assign(price=rows.price.mask(rows.index == 777)).to_parquet(root / "nan.parquet")
    rows.assign(age="old").to_parquet(root / "text.parquet")
    (root / "broken.parquet").write_bytes((root / "in.parquet").read_bytes()[:-50])
    (root / "folder").mkdir()
    for name, options, text in (
        ("nan.parquet", {}, "nan.parquet: column price, row 777: "),
        ("text.parquet", {}, "column age, row 0: values of type"),
        ("broken.parquet", {}, "broken.parquet cannot be read as Parquet"),
        ("folder", {}, "is no file"),
        ("absent.parquet", {}, "absent.parquet is no file, or not there"),
        ("in.parquet", {"keep": ("colour",)}, "no column 'colour' to keep"),
        ("in.parquet", {"which": "9"}, "no version or alias '9'"),
    ):
        with pytest.raises(PfmsmtError) as caught:
            predict_file(shelf.tracking, "NL", root / name, root / "out.parquet", rows_at_once=100, **options)
        assert text in str(caught.value)
        assert not [path for path in root.iterdir() if "out" in path.name]
    with pytest.raises(PfmsmtError, match="is the file that is read"):
        predict_file(shelf.tracking, "NL", root / "in.parquet", root / "in.parquet")


def test_types_that_training_takes_are_taken(shelf, rows):
    """Categories as pandas writes them, truth values and decimals: the same answers as for plain columns."""
    rows = rows.assign(country=3, user=1, age=1.5)
    rows.to_parquet(shelf.root / "plain.parquet")
    columns = {
        "country": pa.array([3] * 1000).dictionary_encode(), "user": pa.array([True] * 1000),
        "age": pa.array([Decimal("1.5")] * 1000), "price": pa.array(rows.price),
    }  # fmt: skip
    pq.write_table(pa.table(columns), shelf.root / "odd.parquet")
    found = []
    for name in ("plain", "odd"):
        predict_file(shelf.tracking, "NL", shelf.root / f"{name}.parquet", shelf.root / "out.parquet", rows_at_once=300)
        found.append(pq.read_table(shelf.root / "out.parquet"))
    assert found[0].equals(found[1])


def test_a_damaged_page_is_named(shelf, rows):
    whole = bytearray((shelf.root / "in.parquet").read_bytes())
    start = pq.ParquetFile(shelf.root / "in.parquet").metadata.row_group(2).column(2).data_page_offset
    whole[start + 20 : start + 400] = bytes(380)
    (shelf.root / "in.parquet").write_bytes(whole)
    with pytest.raises(PfmsmtError, match=r"in\.parquet (is damaged|cannot be read)"):
        predict_file(shelf.tracking, "NL", shelf.root / "in.parquet", shelf.root / "out.parquet")
    assert not (shelf.root / "out.parquet").exists()


def test_no_rows_are_no_fault(shelf, rows):
    assert saved(shelf, "NL", "1").predict(rows.head(0)).shape == (0, 2)


def test_encoded_rows_are_refused_and_the_raw_ones_named(shelf, rows):
    shard, target = shelf.root / "test.parquet", shelf.root / "out.parquet"
    write_shard(rows, shard, rows.columns)
    with pytest.raises(SchemaError) as caught:
        predict_file(shelf.tracking, "NL", shard, target, optional=tuple(rows.columns))
    assert str(caught.value).startswith(f"{shard} holds encoded rows (column encoded:")
    assert str(caught.value).endswith(f"raw ones are in {shelf.root / 'example.parquet'}")
    assert not target.exists()
