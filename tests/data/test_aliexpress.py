"""Both forms of AliExpress are read into the same columns."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.aliexpress.columns import ALIEXPRESS_COLUMNS, ALIEXPRESS_TASKS
from pfmsmt.data.sources.base import Opening, record_schema
from pfmsmt.data.tables.faults import Faults, Known
from tests.support.raw_files import (
    JOINED_HEADER,
    collect,
    csv_bytes,
    item_row,
    joined_rows,
    make_config,
    quiet,
    read_all,
    tables,
    user_row,
    write_joined,
    write_raw,
    zip_bytes,
)
from tests.support.shards import read_shard


def read(raw, scenario, split):
    return read_all("aliexpress", raw, scenario, split)


def test_columns_land_where_the_publication_says(tmp_path):
    """A cell of the user file is 100 + c or c / 100, of the item file 200 + c or -c / 100, c its column from 1."""
    contents = tables() | {"user_test": [user_row(7)], "item_test": [item_row(7, 0), item_row(7, 1), item_row(7, 2)]}
    write_raw(tmp_path, contents)
    rows = collect(read(tmp_path, "NL", "test"))
    assert list(rows) == JOINED_HEADER
    user_categories = [102, 103, 104, 105, 106, 107, 108, 132, 133]
    item_categories = [219, 234, 235, 236, 240, 241, 242]
    assert [rows[f"categorical_{i}"][0] for i in range(1, 17)] == user_categories + item_categories
    item_numbers = [c for c in range(2, 49) if c not in (19, 34, 35, 36, 40, 41, 42)]
    expected = [c / 100 for c in range(9, 32)] + [-c / 100 for c in item_numbers]
    assert [rows[f"numerical_{i}"][0] for i in range(1, 64)] == expected
    assert rows["click"].tolist() == [0, 1, 1]
    assert rows["conversion"].tolist() == [0, 0, 1]


def test_the_join_does_not_need_any_order(tmp_path):
    """Every row must carry its own search's user value, whatever the order and whoever has no item."""
    rng = np.random.default_rng(0)
    searches = rng.permutation(np.arange(-50, 50) * 10**12)
    users = [user_row(search, int(search // 10**12)) for search in searches]
    impressions = rng.choice(searches[:90], 400)
    items = [item_row(search, i % 3, int(search // 10**12)) for i, search in enumerate(impressions)]
    write_raw(tmp_path, tables() | {"user_train": users, "item_train": items})
    rows = collect(read(tmp_path, "NL", "train"))
    assert rows["search_id"].tolist() == impressions.tolist()
    assert (rows["categorical_1"] - 102 == impressions // 10**12).all()
    assert (rows["categorical_10"] - 219 == impressions // 10**12).all()


@pytest.mark.parametrize("folder", ["NL", "AliExpress_NL"])
def test_the_joined_form_is_read_by_header(folder, tmp_path):
    table = [["index", *row[::-1]] for row in joined_rows(2, 2)]
    write_joined(tmp_path, table, joined_rows(), folder)
    rows = collect(read(tmp_path, "NL", "train"))
    assert list(rows) == JOINED_HEADER
    assert rows["search_id"].tolist() == [1, 1, 2, 2]
    assert rows["categorical_16"].tolist() == [16, 17, 16, 17]
    assert rows["numerical_63"].tolist() == [0.63, 1.63, 0.63, 1.63]
    assert rows["click"].tolist() == [0, 1, 0, 1]


def test_both_forms_yield_the_declared_types(tmp_path):
    write_raw(tmp_path / "raw", tables())
    write_joined(tmp_path / "joined", joined_rows(), joined_rows())
    declared = record_schema(ALIEXPRESS_COLUMNS, ALIEXPRESS_TASKS)
    for folder in ("raw", "joined"):
        assert read(tmp_path / folder, "NL", "test")[0].schema == declared
    assert declared.field("search_id").type == pa.int64()
    assert declared.field("categorical_16").type == pa.int64()
    assert declared.field("numerical_1").type == pa.float64()
    assert declared.field("conversion").type == pa.int8()


def test_whole_numbers_with_a_point_crlf_and_capitals_are_understood(tmp_path):
    contents = tables(2, 1)
    contents["user_train"][0][1] = "-3.0"
    text = csv_bytes(contents["user_train"]).replace(b"\n", b"\r\n")
    members = {f"NL_{part}.ZIP": zip_bytes({f"{part}.CSV": csv_bytes(rows)}) for part, rows in contents.items()}
    members["NL_user_train.ZIP"] = zip_bytes({"x/user_train.CSV": text})
    (tmp_path / "aliexpress_NL_datasets.zip").write_bytes(zip_bytes(members))
    assert collect(read(tmp_path, "NL", "train"))["categorical_1"].tolist() == [-3, 102]


def test_bad_rows_are_set_aside_once_and_the_others_joined_as_before(tmp_path):
    """A second user row, one that cannot be read, and so the items of that search; a label; an item of nobody."""
    contents = tables(10)
    contents["user_train"] += [user_row(3, 1)]
    contents["user_train"][4][9] = "x"  # search 5, with rows 13, 14, 15 in the item file
    contents["item_train"][1][48] = "7"  # search 1
    contents["item_train"] += [item_row(99, 1)]
    contents["item_test"][0][1] = "nan"
    write_raw(tmp_path / "raw", contents)
    schema = partition(make_config(on_bad_rows="quarantine"), 0, tmp_path / "raw", tmp_path / "out", quiet)
    listed = pd.read_csv(tmp_path / "out" / "quarantine.csv", keep_default_na=False)
    assert [(file.rsplit("/", 1)[1], row) for file, row in zip(listed["file"], listed["row"], strict=True)] == [
        ("nl_user_train.csv", 5),
        ("nl_user_train.csv", 11),
        ("nl_item_train.csv", 2),
        *(("nl_item_train.csv", row) for row in (13, 14, 15, 31)),
        ("nl_item_test.csv", 1),
    ]
    assert listed["column"].tolist() == ["10 (numerical_2)", "", "49 (label)", "", "", "", "", "2 (numerical_24)"]
    summary = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert summary["rows"] == 8
    assert summary["kinds"]["has no row in the user file"] == 4
    counts = schema.counts["NL"]
    assert (counts["train"].rows + counts["val"].rows, counts["test"].rows) == (30 - 4, 29)
    assert sorted(os.listdir(tmp_path / "out")) == ["NL", "quarantine.csv", "quarantine.json", "schema.json"]
    rows = pd.concat(read_shard(tmp_path / "out" / "NL" / f"{split}.parquet") for split in ("train", "val"))
    assert sorted(rows["search_id"]) == sorted([1, 1, *(s for s in range(2, 11) if s != 5 for _ in range(3))])


def test_the_second_reading_is_the_first(tmp_path):
    """Training rows come from the zip, then from what was kept of it."""
    write_raw(tmp_path / "raw", tables())
    config, scratch = make_config(), tmp_path / "scratch"
    scratch.mkdir()
    data = SOURCES["aliexpress"].open(Opening(config, 0, tmp_path / "raw", ("NL",), scratch, Faults(), quiet))
    first = list(data.read("NL", "train", Faults()))
    (tmp_path / "raw" / "aliexpress_NL_datasets.zip").write_bytes(zip_bytes({}))
    assert list(data.read("NL", "train", Known())) == first
