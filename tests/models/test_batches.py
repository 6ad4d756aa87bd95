"""Batches sliced from shards, and shards pooled."""

import numpy as np
import pandas as pd
import pytest
import torch
from shapes import SCHEMA

from pfmsmt.data.batches import ClientData, Shard, batch_rows, load_shard, pool, private_shifts
from pfmsmt.errors import DataError
from pfmsmt.types import Stream

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


def shard(rows, seed, users=5):
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(n, size=rows) for n in (4, users, 2)], axis=1)
    labels = (rng.random((rows, 2)) < 0.5).astype(np.float32)
    values = rng.normal(size=(rows, 2)).astype(np.float32)
    return Shard(torch.from_numpy(codes), torch.from_numpy(values), torch.from_numpy(labels), np.arange(rows))


def test_pool_shifts_private_codes_and_appends_the_scenario():
    """NL has 5 user codes, ES 3: user u of ES is row 5 + u of the pooled table; federated codes stay."""
    users = SCHEMA.categorical[1].model_copy(update={"vocabulary": (1, 2)})
    other = SCHEMA.model_copy(
        update={"scenario": "ES", "categorical": (SCHEMA.categorical[0], users, SCHEMA.categorical[2])}
    )
    clients = {
        "ES": ClientData(shard(3, 1, users=3), {"ES": shard(2, 2, users=3)}),
        "NL": ClientData(shard(4, 3), {"NL": shard(5, 4)}),
    }
    originals = {k: client.train.codes.clone() for k, client in clients.items()}
    np.testing.assert_array_equal(private_shifts([SCHEMA, other]), [[0, 0, 0], [0, 5, 0]])
    pooled = pool(clients, [SCHEMA, other])
    nl, es = clients["NL"].train, clients["ES"].train
    expected = [[a, b, c, 0] for a, b, c in nl.codes.tolist()] + [[a, b + 5, c, 1] for a, b, c in es.codes.tolist()]
    assert pooled.train.codes.tolist() == expected
    assert torch.equal(pooled.train.values, torch.cat([nl.values, es.values]))
    assert torch.equal(pooled.train.labels, torch.cat([nl.labels, es.labels]))
    assert pooled.train.rows == 7
    validation = clients["ES"].validation["ES"].codes.tolist()
    assert pooled.validation["ES"].codes.tolist() == [[a, b + 5, c, 1] for a, b, c in validation]
    assert pooled.validation["NL"].codes[:, 3].unique().tolist() == [0]
    assert all(torch.equal(clients[k].train.codes, codes) for k, codes in originals.items())


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "search_id": [4, 4, 9], "device": [0, 3, 1], "user": [4, 0, 2], "age": [1, 1, 0],
            "price": [0.5, -1.0, 2.0], "stock": [1.0, 2.0, 3.0], "ctr": [0, 1, 1], "ctcvr": [0, 0, 1],
        }
    )  # fmt: skip


def write(frame, folder):
    (folder / "NL").mkdir(exist_ok=True)
    frame.to_parquet(folder / "NL" / "train.parquet")


def test_a_shard_comes_in_the_schemas_order(tmp_path, frame):
    write(frame[frame.columns[::-1]], tmp_path)
    loaded = load_shard(tmp_path, "train", SCHEMA)
    assert loaded.codes.tolist() == [[0, 4, 1], [3, 0, 1], [1, 2, 0]]
    assert loaded.values.tolist() == [[0.5, 1.0], [-1.0, 2.0], [2.0, 3.0]]
    assert loaded.labels.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert loaded.groups.tolist() == [4, 4, 9]
    assert (loaded.codes.dtype, loaded.values.dtype, loaded.labels.dtype) == (torch.int64, torch.float32, torch.float32)


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
    whole = tmp_path / "NL" / "train.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=path):
        load_shard(tmp_path, "train", SCHEMA)
