"""Streamed rows are the rows in memory, to the bit, in any order in which they are asked for."""

import threading
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from pfmsmt.core.errors import DataError
from pfmsmt.core.types import Stream
from pfmsmt.data.schema import Schema, read_schema
from pfmsmt.data.shards.reader import BLOCK_ROWS, RowGroups, ShardFile
from pfmsmt.data.shards.resident import ClientData, load_rows, load_shard
from pfmsmt.data.shards.streamed import THREAD_NAME, ReadingThread, StreamedShard, open_shard
from pfmsmt.training.federation import load_data
from pfmsmt.training.trial import run_trial
from tests.support.shapes import SCHEMA
from tests.support.shards import write_shard

PRIVATE = ("categorical_3", "categorical_9")
ES = Stream(0, "ES", 1)


def cut(source, target, group_rows):
    """Copy shards into row groups of so many rows."""
    for path in source.rglob("*.parquet"):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(path), place, row_group_size=group_rows)
    (target / "schema.json").write_bytes((source / "schema.json").read_bytes())


@pytest.fixture(scope="module")
def folder(make_data, tmp_path_factory):
    target = tmp_path_factory.mktemp("cut")
    cut(make_data(private_fields=PRIVATE) / "data/clients", target, 37)
    return target


@pytest.fixture(scope="module")
def cut_schema(folder) -> Schema:
    return read_schema(folder / "schema.json")


def sources(folder, schema):
    """One client's training rows, and those of all its splits."""
    files = [ShardFile(folder, split, schema.scenario("ES")) for split in ("train", "val", "test")]
    return {"train": RowGroups(files[:1]), "all": RowGroups(files)}


def streamed(source, window):
    return StreamedShard(source, window, ReadingThread())


def wait_for_readers():
    """No thread that reads is left; one may still be reading the window that nobody will ask for."""
    end = time.monotonic() + 10
    while readers := [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]:
        assert time.monotonic() < end, readers
        time.sleep(0.01)


def same(first, second):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))


@pytest.mark.slow(0.4)
@pytest.mark.parametrize("rows", ["train", "all"])
@pytest.mark.parametrize("window", [1, 80, 10_000])
def test_batches_are_those_of_rows_in_memory(folder, cut_schema, rows, window):
    source = sources(folder, cut_schema)[rows]
    held, on_disk = load_rows(source, window), streamed(source, window)
    assert on_disk.rows == held.rows
    assert len(source.sizes) > 3
    steps = 3 * held.rows // 24
    expected = list(held.batches(ES, 24, 0, steps))
    assert all(same(*pair) for pair in zip(on_disk.batches(ES, 24, 0, steps), expected, strict=True))
    # Back and forth, and both phases in turn: as rounds that are repeated or resumed ask for them.
    for first in (steps - 2, 0, 5, 4, steps // 2, 0):
        for stream in (ES, ES._replace(phase=1)):
            pair = (shard.batches(stream, 24, first, 2) for shard in (on_disk, held))
            assert all(same(*both) for both in zip(*pair, strict=True))


@pytest.mark.parametrize("rows", ["train", "all"])
@pytest.mark.parametrize("rows_at_once", [1, 37, 50, 10_000])
def test_blocks_are_those_of_rows_in_memory(folder, cut_schema, rows, rows_at_once):
    source = sources(folder, cut_schema)[rows]
    held, on_disk = load_rows(source, None), streamed(source, 80)
    for expected, found in zip(held.blocks(rows_at_once), on_disk.blocks(rows_at_once), strict=True):
        assert same(expected, found)
    assert torch.equal(on_disk.labels.float(), held.labels)
    np.testing.assert_array_equal(on_disk.groups, held.groups)


def test_blocks_go_on_over_what_is_decoded_at_a_time(tmp_path):
    """A row group of more than BLOCK_ROWS rows, whose numbers tell their place."""
    rows = 2 * BLOCK_ROWS + 5
    frame = pd.DataFrame(dict.fromkeys(("device", "user", "age", "ctr", "ctcvr"), 0), index=range(rows))
    frame = frame.assign(search_id=range(rows), price=np.arange(rows, dtype=np.float32), stock=1.0)
    (tmp_path / "NL").mkdir()
    write_shard(frame, tmp_path / "NL/train.parquet", SCHEMA.columns, row_group_size=rows)
    shard = open_shard(tmp_path, "train", SCHEMA)
    places = [block.values[:, 0].clone() for block in shard.blocks(10_000)]
    assert [len(place) for place in places] == [10_000] * (rows // 10_000) + [rows % 10_000]
    assert torch.equal(torch.cat(places), torch.arange(rows, dtype=torch.float32))
    assert torch.equal(load_shard(tmp_path, "train", SCHEMA).values[:, 0], torch.arange(rows, dtype=torch.float32))
    np.testing.assert_array_equal(shard.groups, np.arange(rows))


def test_calls_are_made_in_order_by_threads_that_end():
    reader, made, go = ReadingThread(), [], threading.Event()

    def call(number):
        go.wait(10)
        made.append((number, threading.current_thread().name))
        if number == 2:
            raise DataError("damaged")
        return number

    futures = [reader.submit(call, number) for number in range(5)]
    assert futures[3].cancel()
    go.set()
    assert futures[4].result(10) == 4
    assert made == [(number, THREAD_NAME) for number in (0, 1, 2, 4)]
    with pytest.raises(DataError, match="damaged"):
        futures[2].result(10)
    wait_for_readers()
    assert reader.submit(call, 7).result(10) == 7
    wait_for_readers()


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["pf_msmtrec", "joint"])
def test_a_whole_training_is_the_same_in_either_mode(folder, cut_schema, make_config, equal_arrays, method):
    config = make_config({"train.shuffle": "row_groups", "train.shuffle_rows": 80, "train.rounds": 3,
                          "data.private_fields": list(PRIVATE)})  # fmt: skip
    device, reader = torch.device("cpu"), ReadingThread()
    held = load_data(config, cut_schema, folder, method)
    assert {part.train.shuffle.window for part in held.values()} == {80}

    def stream(split, name):
        return StreamedShard(RowGroups([ShardFile(folder, split, cut_schema.scenario(name))]), 80, reader)

    on_disk = {name: ClientData(stream("train", name), {name: stream("val", name)}) for name in cut_schema.scenarios}
    one, two = (
        run_trial(config, cut_schema, folder, method, 0, device, workers=2, threads=1, data=data)
        for data in (held, on_disk)
    )
    wait_for_readers()
    assert one.validation == two.validation
    assert one.test(cut_schema, folder) == two.test(cut_schema, folder)
    wait_for_readers()
    for name, client in one.federation.clients.items():
        assert equal_arrays(client.best.parameters, two.federation.clients[name].best.parameters)


def test_damage_in_a_row_group_is_named_when_it_is_read(folder, cut_schema, tmp_path):
    """Bytes in the middle of the file are overwritten: the footer is whole, so opening it tells nothing."""
    (tmp_path / "ES").mkdir()
    path = tmp_path / "ES/train.parquet"
    data = bytearray((folder / "ES/train.parquet").read_bytes())
    meta = pq.ParquetFile(folder / "ES/train.parquet").metadata.row_group(2)
    start = meta.column(0).dictionary_page_offset or meta.column(0).data_page_offset
    data[start : start + meta.total_byte_size // 2] = b"\xff" * (meta.total_byte_size // 2)
    path.write_bytes(data)
    shard = open_shard(tmp_path, "train", cut_schema.scenario("ES"))
    with pytest.raises(
        DataError, match=r"ES/train\.parquet, row group 2, cannot be read \(.*\); run `dvc repro -f partition"
    ):
        list(shard.batches(ES, 24, 0, shard.rows // 24))
    with pytest.raises(DataError, match=r"ES/train\.parquet, row group 2, cannot be read"):
        list(shard.blocks(24))
