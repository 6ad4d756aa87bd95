"""Batches sliced from shards."""

import numpy as np
import pandas as pd
import pytest
import torch

from pfmsmt.core.errors import DataError
from pfmsmt.core.types import Stream
from pfmsmt.data.shards.order import batch_rows
from pfmsmt.data.shards.reader import RowGroups, ShardFile
from pfmsmt.data.shards.resident import load_rows, load_shard
from tests.support.shapes import SCHEMA
from tests.support.shards import write_shard

NL = Stream(0, "NL", 1)


def taken(stream, rows, batch, first, steps):
    return [chosen.tolist() for chosen in batch_rows(stream, rows, batch, first, steps)]


@pytest.mark.parametrize(("rows", "batch"), [(12, 4), (10, 4), (7, 3), (3, 8), (5, 5), (2, 1)])
def test_every_row_once_in_each_epoch(rows, batch):
    """Over lcm(rows, batch) / batch steps the batches make whole epochs."""
    steps = int(np.lcm(rows, batch)) // batch * 2
    chosen = taken(NL, rows, batch, 0, steps)
    assert [len(part) for part in chosen] == [batch] * steps
    flat = [row for part in chosen for row in part]
    epochs = [flat[i : i + rows] for i in range(0, len(flat), rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert rows == 2 or len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize(("rows", "batch"), [(12, 4), (10, 4), (3, 8)])
def test_going_on_from_any_step_gives_the_same_batches(rows, batch):
    whole = taken(NL, rows, batch, 0, 12)
    for first in range(12):
        later = NL._replace(round=first + 5)  # the round has no say: only the step
        assert taken(later, rows, batch, first, 12 - first) == whole[first:]


def test_clients_seeds_and_phases_see_other_orders():
    streams = [NL, NL._replace(client="ES"), NL._replace(seed=1), NL._replace(phase=1)]
    orders = [tuple(taken(stream, 50, 50, 0, 1)[0]) for stream in streams]
    assert len(set(orders)) == 4


def test_rows_of_several_files_come_one_file_after_the_other(tmp_path, frame):
    """As a second training reads them: training rows, then validation rows."""
    write(frame, tmp_path)
    write(frame.head(2).assign(user=[1, 2], price=[7.0, 8.0], ctcvr=[1, 0]), tmp_path, "ES")
    files = [ShardFile(tmp_path, "train", SCHEMA.model_copy(update={"scenario": name})) for name in ("NL", "ES")]
    both, (first, second) = load_rows(RowGroups(files), None), (load_rows(RowGroups([file]), None) for file in files)
    for whole, one, other in zip(both[:3], first[:3], second[:3], strict=True):
        assert torch.equal(whole, torch.cat((one, other)))
    assert both.values[:, 0].tolist() == [0.5, -1.0, 2.0, 7.0, 8.0]
    assert both.labels.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1], [1, 0]]
    assert both.groups.tolist() == [4, 4, 9, 4, 4]


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "search_id": [4, 4, 9], "device": [0, 3, 1], "user": [4, 0, 2], "age": [1, 1, 0],
            "price": [0.5, -1.0, 2.0], "stock": [1.0, 2.0, 3.0], "ctr": [0, 1, 1], "ctcvr": [0, 0, 1],
        }
    )  # fmt: skip


def write(frame, folder, scenario="NL"):
    (folder / scenario).mkdir(exist_ok=True)
    write_shard(frame, folder / scenario / "train.parquet", SCHEMA.columns)


def test_a_shard_comes_in_the_schemas_order(tmp_path, frame):
    write(frame[frame.columns[::-1]], tmp_path)
    loaded = load_shard(tmp_path, "train", SCHEMA)
    assert loaded.codes.tolist() == [[0, 4, 1], [3, 0, 1], [1, 2, 0]]
    assert loaded.values.tolist() == [[0.5, 1.0], [-1.0, 2.0], [2.0, 3.0]]
    assert loaded.labels.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert loaded.groups.tolist() == [4, 4, 9]
    assert (loaded.codes.dtype, loaded.values.dtype, loaded.labels.dtype) == (torch.int32, torch.float32, torch.float32)


def test_a_bad_shard_is_named(tmp_path, frame):
    path = r"NL/train\.parquet cannot be read"
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
    write(frame.drop(columns="user"), tmp_path)
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
    write(frame.assign(price=["a", "b", "c"]), tmp_path)
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
    write(frame.assign(user=[1.0, np.nan, 2.0]), tmp_path)
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
    whole = tmp_path / "NL" / "train.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
