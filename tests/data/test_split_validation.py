"""Validation is whole groups, drawn by a hash, or the last part of every group where a source knows the order."""

import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS, Task
from pfmsmt.data.sources.base import RAW_SPLITS, Columns, Dataset, read_rows, record_schema
from pfmsmt.data.sources.movielens.movielens import _COLUMNS
from pfmsmt.data.split import in_validation
from pfmsmt.data.tables.faults import Faults
from tests.support.raw_files import collect, contents_of, make_config, quiet, read_all, tables, write_raw
from tests.support.raw_movielens import SCENARIOS, Form100k, config_for, logs, write_zip
from tests.support.shards import read_shard


def parts(folder, names):
    """The rows of a client's train, val and test shard, in their order, as tuples of the named columns."""
    shards = {split: read_shard(folder / f"{split}.parquet", columns=names) for split in SPLITS}
    return {split: list(shard.itertuples(index=False, name=None)) for split, shard in shards.items()}


# -- where the source knows the order


def movie_log():
    """A complete data set, in whose first age group (users 3, 6, 9) times and sizes are as the tests say.

    User 3 rates ten items, the highest first. User 6 rates five, all in one second. User 9 rates two.
    """
    contents = logs(users=9)
    contents["u.data"] = [row for row in contents["u.data"] if row[0] % 3]
    contents["u.data"] += [[3, item, 4, 1000 - item] for item in range(1, 11)]
    contents["u.data"] += [[6, item, 4, 500] for item in range(1, 6)]
    contents["u.data"] += [[9, item, 4, 2000 + item] for item in (7, 8)]
    return contents


def cut(tmp_path, contents, seed=0, fraction=0.4):
    write_zip(tmp_path / "in", Form100k, contents)
    config = config_for(Form100k, tmp_path / "in").model_copy(update={"validation_fraction": fraction})
    obtain(config, seed, tmp_path / "raw", quiet)
    return partition(config, seed, tmp_path / "raw", tmp_path / "out", quiet)


def test_validation_is_the_last_part_of_each_users_training_rows(tmp_path):
    """Four tenths, rounded down: 3 of user 3's 8 training rows, 1 of user 6's 4, none of user 9's 2."""
    schema = cut(tmp_path, movie_log())
    items = [0, *schema.scenario("age_under_25").categorical[1].vocabulary]
    assert items == list(range(11))  # the other age groups rate them all, so codes are item ids
    assert parts(tmp_path / "out" / "age_under_25", ["user", "item_id"]) == {
        "train": [*((3, item) for item in (10, 9, 8, 7, 6)), (6, 1), (6, 2), (6, 3), (9, 7), (9, 8)],
        "val": [(3, 5), (3, 4), (3, 3), (6, 4)],
        "test": [(3, 2), (3, 1), (6, 5)],
    }
    counts = schema.counts["age_under_25"]
    assert {split: (count.rows, count.groups) for split, count in counts.items()} == {
        "train": (10, 3), "val": (4, 2), "test": (3, 2)
    }  # fmt: skip


def test_every_validation_user_is_known_and_validation_rows_teach_nothing(tmp_path):
    """Item 3 stands in user 3's validation part alone: it is out of vocabulary. Users are numbered 1, 2, 3."""
    contents = movie_log()
    contents["u.data"] = [row for row in contents["u.data"] if row[1] != 3 or row[0] == 3]
    contents["u.data"] += [[6, 6, 4, 500]]  # in place of item 3
    schema = cut(tmp_path, contents)
    assert 3 not in next(field for field in schema.categorical if field.name == "item_id").vocabulary
    shards = parts(tmp_path / "out" / "age_under_25", ["user_id", "item_id"])
    assert [user for user, _ in shards["val"]] == [1, 1, 1, 2]
    assert [item for _, item in shards["val"]] == [4, 3, 0, 4]  # items 5, 4, 3 and user 6's fourth, item 5 -> code 4


def test_neither_the_seed_nor_the_order_of_the_file_moves_the_cut(tmp_path):
    contents = movie_log()
    cut(tmp_path / "a", contents)
    random.Random(1).shuffle(contents["u.data"])
    cut(tmp_path / "b", contents, seed=1)
    assert contents_of(tmp_path / "a" / "out") == contents_of(tmp_path / "b" / "out")


def test_the_place_is_no_feature(tmp_path):
    schema = cut(tmp_path, movie_log())
    features = [*_COLUMNS.categorical, *_COLUMNS.numerical]
    assert _COLUMNS.place == "place"
    assert "place" not in features
    assert '"place"' not in (tmp_path / "out" / "schema.json").read_text()
    for scenario in SCENARIOS:
        assert list(schema.scenario(scenario).columns) == features
        folder = tmp_path / "out" / scenario
        assert list(pd.read_parquet(folder / "example.parquet")) == features
        for split in SPLITS:
            assert list(read_shard(folder / f"{split}.parquet")) == ["user", *features, "like", "love"]


def test_users_with_too_few_rows_leave_validation_empty(tmp_path):
    """0.1 of the 8 training rows that the fullest user has is less than one."""
    with pytest.raises(DataError, match=r"age_under_25: no user's rows fall into val \(.*validation_fraction is 0.1\)"):
        cut(tmp_path, movie_log(), fraction=0.1)
    assert not (tmp_path / "out").exists()


# -- where it does not


@pytest.mark.slow(0.4)
@pytest.mark.parametrize("name", ["synthetic", "aliexpress"])
def test_without_a_place_whole_groups_are_drawn(name, tmp_path):
    """A row is in validation if its search's hash says so, and the seed moves it."""
    config = make_config(name)
    if name == "synthetic":
        obtain(config, 0, tmp_path / "raw", quiet)
    else:
        write_raw(tmp_path / "raw", tables(20))
    raw = collect(read_all(name, tmp_path / "raw", "NL", "train"))["search_id"]
    drawn = []
    for seed in (0, 1):
        partition(config, seed, tmp_path / "raw", tmp_path / "out", quiet)
        shards = parts(tmp_path / "out" / "NL", ["search_id"])
        held_out = in_validation(raw, 0.4, seed)
        assert [search for (search,) in shards["val"]] == raw[held_out].tolist()
        assert [search for (search,) in shards["train"]] == raw[~held_out].tolist()
        assert not set(shards["val"]) & set(shards["train"])
        drawn.append(set(shards["val"]))
    assert drawn[0] != drawn[1]


# -- the contract


def source_of(places):
    """A data set whose training rows come in batches, all of one group, with these places."""
    columns = Columns("user", ("item",), ("age",), place="order")
    tasks = (Task(name="like", label="liked"),)
    form = record_schema(columns, tasks)

    def read(scenario, split, faults):
        for batch in places:
            rows = {"user": 1, "item": 2, "age": 3.0, "liked": 1}
            yield pa.RecordBatch.from_pydict({n: [v] * len(batch) for n, v in rows.items()} | {"order": batch}, form)

    return Dataset(columns, tasks, ("all",), read)


def test_the_place_stands_between_features_and_labels():
    source = source_of([])
    assert record_schema(source.columns, source.tasks).names == ["user", "item", "age", "order", "liked"]
    assert record_schema(source.columns._replace(place=None), source.tasks).names == ["user", "item", "age", "liked"]


@pytest.mark.parametrize("split", RAW_SPLITS)
def test_a_place_from_0_to_below_1_is_let_through(split):
    batches = [[0.0, 0.5], [], [float(np.nextafter(1.0, 0.0))]]
    rows = list(read_rows(source_of(batches), "all", split, Faults()))
    assert [batch["order"].tolist() for batch in rows] == batches
    assert [batch["user"].tolist() for batch in rows] == [[1, 1], [], [1]]


@pytest.mark.parametrize("value", [1.0, -0.25, float("inf"), float("nan")])
@pytest.mark.parametrize("split", RAW_SPLITS)
def test_another_place_is_refused_with_its_row(value, split):
    rows = read_rows(source_of([[0.0, 0.5], [0.0, value, 2.0]]), "all", split, Faults())
    with pytest.raises(DataError, match=rf"^all {split}, row 4, column order: {value} is not from 0 to below 1;"):
        list(rows)
