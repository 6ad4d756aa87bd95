"""Partition loses nothing: rows, labels, categories and numbers come out as they went in."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import DataError
from pfmsmt.data.encoder import encode
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS, read_schema
from pfmsmt.data.split import in_validation
from tests.support.raw_files import (
    contents_of,
    item_row,
    make_config,
    quiet,
    tables,
    user_row,
    write_raw,
    write_source_file,
)
from tests.support.shards import read_shard

SEARCH = st.tuples(
    st.integers(-3, 3),  # the user's category
    st.lists(st.tuples(st.integers(0, 2), st.integers(-4, 4)), min_size=1, max_size=3),  # label, item's category
)
LOGS = st.dictionaries(st.integers(-(2**40), 2**40), SEARCH, min_size=3, max_size=8)


def raw_rows(logs):
    users = [user_row(search, user) for search, (user, _) in logs.items()]
    items = [item_row(search, label, item) for search, (_, shown) in logs.items() for label, item in shown]
    return users, items


def expected_rows(logs):
    """(search, user category, item category, number, click, conversion) of each row, from the raw cells' rule."""
    return sorted(
        (search, 102 + user, 219 + item, -0.02 - item, int(label > 0), int(label == 2))
        for search, (user, shown) in logs.items()
        for label, item in shown
    )


def decoded_rows(path, schema, known_only=False):
    """The same six values out of a shard; a category outside the vocabulary is None."""
    shard = read_shard(path)
    own = schema.scenario("NL")
    fields = {field.name: field for field in (*own.categorical, *own.numerical)}

    def category(name):
        return [None if code == 0 else fields[name].vocabulary[code - 1] for code in shard[name]]

    number = fields["numerical_24"]
    values = shard["numerical_24"].astype(float) * number.std + number.mean
    columns = [shard["search_id"], category("categorical_1"), category("categorical_10"), values.round(4)]
    return list(zip(*columns, shard["ctr"], shard["ctcvr"], strict=True))


@pytest.mark.slow(2)
@settings(max_examples=25, deadline=None)
@given(train=LOGS, test=LOGS, seed=st.integers(0, 99))
def test_what_goes_in_comes_out(train, test, seed):
    held_out = {s for s, v in zip(train, in_validation(np.asarray(list(train)), 0.4, seed), strict=True) if v}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = dict(zip(("user_train", "item_train"), raw_rows(train), strict=True))
        parts |= dict(zip(("user_test", "item_test"), raw_rows(test), strict=True))
        write_raw(folder / "raw", parts)
        if len(held_out) in (0, len(train)):
            with pytest.raises(DataError, match="no search's rows fall into"):
                partition(make_config(), seed, folder / "raw", folder / "out", quiet)
            return
        schema = partition(make_config(), seed, folder / "raw", folder / "out", quiet)
        rows = {split: decoded_rows(folder / "out" / "NL" / f"{split}.parquet", schema) for split in SPLITS}
        assert schema == read_schema(folder / "out" / "schema.json")

    logs = {
        "train": {search: log for search, log in train.items() if search not in held_out},
        "val": {search: log for search, log in train.items() if search in held_out},
        "test": test,
    }
    users = {row[1] for row in expected_rows(logs["train"])}
    items = {row[2] for row in expected_rows(logs["train"])}
    varied = len(items) > 1
    for split in SPLITS:
        expected = [
            (search, user if user in users else None, item if item in items else None, number, click, conversion)
            for search, user, item, number, click, conversion in expected_rows(logs[split])
        ]
        key = str
        got = sorted(rows[split], key=key)
        if not varied:  # a constant column carries no number
            expected = [(*row[:3], got[0][3], *row[4:]) for row in expected]
        assert sorted((tuple(map(str, row[:3])), *row[4:]) for row in got) == sorted(
            (tuple(map(str, row[:3])), *row[4:]) for row in expected
        )
        assert sorted(row[3] for row in got) == pytest.approx(sorted(row[3] for row in expected), abs=1e-3)
        counts = schema.counts["NL"][split]
        assert counts.rows == len(expected)
        assert counts.groups == len(logs[split])
        assert counts.positives == {"ctr": sum(row[4] for row in expected), "ctcvr": sum(row[5] for row in expected)}


def two_scenarios(tmp_path):
    """NL and ES; every category of ES is 50 higher than NL's."""
    write_raw(tmp_path / "raw", tables(20))
    shifted = {
        part: [
            [cell if "." in cell or i in (0, 48) else str(int(cell) + 50) for i, cell in enumerate(row)] for row in rows
        ]
        for part, rows in tables(20).items()
    }
    write_raw(tmp_path / "raw", shifted, "ES")
    write_source_file(tmp_path / "raw", ["NL", "ES"])
    return make_config(scenarios=("NL", "ES"))


def test_the_folder_has_its_parts_and_types(tmp_path):
    config = two_scenarios(tmp_path)
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert schema.scenarios == ("NL", "ES")
    assert read_schema(tmp_path / "out" / "schema.json").scenarios == ("NL", "ES")
    parts = [f"{split}.parquet" for split in ("example", "test", "train", "val")]
    assert sorted(contents_of(tmp_path / "out")) == sorted(
        ["schema.json", *(f"{scenario}/{part}" for scenario in ("NL", "ES") for part in parts)]
    )
    shard = read_shard(tmp_path / "out" / "NL" / "train.parquet")
    assert list(shard) == ["search_id", *schema.scenario("NL").columns, "ctr", "ctcvr"]
    types = {name: str(dtype) for name, dtype in shard.dtypes.items()}
    assert types["search_id"] == "int64"
    assert types["categorical_16"] == "int32"
    assert types["numerical_63"] == "float32"
    assert types["ctcvr"] == "uint8"


def test_a_search_is_in_one_part_only(tmp_path):
    schema = partition(two_scenarios(tmp_path), 3, tmp_path / "raw", tmp_path / "out", quiet)
    searches = {split: set(read_shard(tmp_path / "out" / "ES" / f"{split}.parquet")["search_id"]) for split in SPLITS}
    assert searches["train"] | searches["val"] == set(range(1, 21))
    assert not searches["train"] & searches["val"]
    assert schema.counts["ES"]["val"].rows == 3 * len(searches["val"])


def test_federated_vocabularies_are_pooled_and_private_ones_are_not(tmp_path):
    config = two_scenarios(tmp_path).model_copy(update={"private_fields": ("categorical_1",)})
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    fields = {field.name: field for field in schema.categorical}
    assert fields["categorical_2"].vocabulary == (103, 104, 153, 154)
    assert fields["categorical_1"].vocabulary == ()
    assert not fields["categorical_1"].federated
    assert schema.private_vocabularies == {
        "NL": {"categorical_1": (102, 103)},
        "ES": {"categorical_1": (152, 153)},
    }
    assert schema.scenario("ES").categorical[0].vocabulary == (152, 153)
    for scenario in ("NL", "ES"):
        shard = read_shard(tmp_path / "out" / scenario / "train.parquet")
        assert set(shard["categorical_1"]) == {1, 2}
        assert set(shard["categorical_2"]) == ({1, 2} if scenario == "NL" else {3, 4})


def test_rare_categories_are_out_of_vocabulary(tmp_path):
    contents = tables(20)
    training = [s for s in range(1, 21) if not in_validation(np.asarray([s]), 0.4, 0)[0]]
    contents["user_train"][training[0] - 1][1] = "-77"  # 3 rows of one search
    write_raw(tmp_path / "raw", contents)
    for min_count, known in ((3, True), (4, False)):
        schema = partition(make_config(min_count=min_count), 0, tmp_path / "raw", tmp_path / "out", quiet)
        assert (-77 in schema.categorical[0].vocabulary) == known
        shard = read_shard(tmp_path / "out" / "NL" / "train.parquet")
        codes = set(shard.loc[shard["search_id"] == training[0], "categorical_1"])
        assert codes == ({1} if known else {0})


def test_statistics_come_from_training_rows_of_all_scenarios(tmp_path):
    """numerical_24 is -0.02 - value, value = 0, 1, 2 in turn: population mean and std over both clients' rows."""
    schema = partition(two_scenarios(tmp_path), 0, tmp_path / "raw", tmp_path / "out", quiet)
    own = schema.scenario("NL")
    field = next(field for field in own.numerical if field.name == "numerical_24")
    assert field.mean == pytest.approx(-1.02)
    assert field.std == pytest.approx(np.sqrt(2 / 3))
    train = pd.concat(read_shard(tmp_path / "out" / name / "train.parquet") for name in ("NL", "ES"))
    assert sorted(set(train["numerical_24"].round(4))) == pytest.approx([-1.2247, 0.0, 1.2247], abs=1e-4)


def test_the_example_is_raw_and_encodes_to_the_first_training_rows(tmp_path):
    schema = partition(two_scenarios(tmp_path), 0, tmp_path / "raw", tmp_path / "out", quiet)
    own = schema.scenario("ES")
    example = pd.read_parquet(tmp_path / "out" / "ES" / "example.parquet")
    assert list(example) == list(own.columns)
    assert len(example) == 5
    encoded = encode(example, own)
    train = read_shard(tmp_path / "out" / "ES" / "train.parquet").head(5)
    assert np.array_equal(encoded.codes, train[[field.name for field in own.categorical]])
    assert np.array_equal(encoded.values, train[[field.name for field in own.numerical]])


def test_one_class_in_a_split_is_counted_and_told_not_refused(tmp_path):
    contents = tables(10) | {"item_test": [item_row(1, 1), item_row(2, 1)]}
    write_raw(tmp_path / "raw", contents)
    told = []
    schema = partition(make_config(), 0, tmp_path / "raw", tmp_path / "out", told.append)
    assert schema.counts["NL"]["test"].positives == {"ctr": 2, "ctcvr": 0}
    assert told[-2:] == [
        "NL test: click is 1 in all 2 rows, so ctr has no AUC.",
        "NL test: conversion is 0 in all 2 rows, so ctcvr has no AUC.",
    ]


@pytest.mark.parametrize("private", [(), ("categorical_1",)])
def test_negative_categories_are_kept_and_told(private, tmp_path):
    """Search s, whose user's category is -s where s is odd, in every part."""
    contents = tables(20)
    for part in ("user_train", "user_test"):
        for search, row in enumerate(contents[part], start=1):
            row[1] = str(-search) if search % 2 else row[1]
    write_raw(tmp_path / "raw", contents)
    told = []
    schema = partition(make_config(private_fields=private), 0, tmp_path / "raw", tmp_path / "out", told.append)
    odd = [s for s in range(1, 21, 2) if not in_validation(np.asarray([s]), 0.4, 0)[0]]
    assert schema.scenario("NL").categorical[0].vocabulary == (*sorted(-s for s in odd), 102)
    assert len(odd) <= 5  # more are not shown
    shown = "" if private else f" ({', '.join(str(-s) for s in odd)})"
    question = "taken as any other; do they stand for missing values?"
    assert told[-1] == f"categorical_1 has {len(odd)} negative categories{shown}, {question}"


@pytest.mark.slow(1)
def test_the_same_input_gives_the_same_bytes_and_the_fingerprint_follows_the_content(tmp_path):
    config = two_scenarios(tmp_path)
    first = partition(config, 0, tmp_path / "raw", tmp_path / "a", quiet)
    assert partition(config, 0, tmp_path / "raw", tmp_path / "b", quiet) == first
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b")
    assert partition(config, 1, tmp_path / "raw", tmp_path / "c", quiet).fingerprint != first.fingerprint
    contents = tables(20)
    contents["item_test"][-1][48] = "0"  # was 2: one label of one row
    write_raw(tmp_path / "raw", contents)
    write_source_file(tmp_path / "raw", ["NL", "ES"])
    assert partition(config, 0, tmp_path / "raw", tmp_path / "d", quiet).fingerprint != first.fingerprint


def test_an_earlier_output_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "out" / "FR").mkdir(parents=True)
    (tmp_path / "out" / "FR" / "train.parquet").write_text("stale")
    partition(two_scenarios(tmp_path), 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert sorted(os.listdir(tmp_path / "out")) == ["ES", "NL", "schema.json"]
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]
