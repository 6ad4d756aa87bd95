"""Rows are held in memory where they fit, else streamed; either way training stays within its budget."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfmsmt.core.errors import ConfigError
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task, encoded_column
from pfmsmt.data.shards.budget import GIB, RowPlan, choose_plan
from pfmsmt.data.shards.reader import RowGroups, ShardFile

FIELDS, NUMBERS = 8, 40
ROW_BYTES = 4 * (FIELDS + NUMBERS + 2) + 8
GROUP_ROWS = 4096
WINDOW = 2 * GROUP_ROWS


def write(folder: Path, train_rows: int, val_rows: int) -> Schema:
    """Shards of two scenarios, and their schema."""
    tasks = (Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr"))
    schema = Schema(
        source="synthetic", fingerprint="", group="search_id", tasks=tasks,
        categorical=tuple(
            CategoricalField(name=f"c{i}", federated=True, vocabulary=tuple(range(10))) for i in range(FIELDS)
        ),
        numerical=tuple(NumericalField(name=f"n{i}", mean=0.0, std=1.0) for i in range(NUMBERS)),
        private_vocabularies={},
        counts={s: {"train": SplitCounts(rows=train_rows, groups=train_rows, positives={})} for s in ("NL", "ES")},
    )  # fmt: skip
    form = pa.schema(
        [("search_id", pa.int64())]
        + [(encoded_column(field.name), pa.int32()) for field in schema.categorical]
        + [(encoded_column(field.name), pa.float32()) for field in schema.numerical]
        + [(task.name, pa.uint8()) for task in tasks]
    )
    rng = np.random.default_rng(0)
    for scenario in schema.scenarios:
        (folder / scenario).mkdir(parents=True)
        for split, count in (("train", train_rows), ("val", val_rows)):
            with pq.ParquetWriter(folder / scenario / f"{split}.parquet", form, compression="none") as writer:
                for start in range(0, count, GROUP_ROWS):
                    n = min(GROUP_ROWS, count - start)
                    click = rng.random(n) < 0.3
                    arrays = [
                        np.arange(start, start + n),
                        *(rng.integers(0, 11, n).astype(np.int32) for _ in range(FIELDS)),
                        *(rng.random(n, np.float32) for _ in range(NUMBERS)),
                        click.astype(np.uint8),
                        (click & (rng.random(n) < 0.5)).astype(np.uint8),
                    ]
                    writer.write_batch(pa.RecordBatch.from_arrays([pa.array(a) for a in arrays], schema=form))
    (folder / "schema.json").write_text(schema.model_dump_json())
    return schema


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    tiny, large = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("large")
    write(tiny, 2000, GROUP_ROWS * 2)
    write(large, 180_000, 12_000)
    return tiny, large


def measure(folders, memory):
    script = Path(__file__).parents[1] / "support" / "resident.py"
    command = [sys.executable, script, *folders, str(memory), str(WINDOW)]
    # What allocators keep for each thread is theirs, some tens of megabytes, and would drown a budget as small as this.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow(10)
def test_training_stays_within_its_memory(folders):
    """The rows are three times the budget; in the larger budget they fit, and the same rounds come out of them."""
    rows = 2 * (180_000 + 12_000) * ROW_BYTES
    small, large = rows / 3, rows * 1.5
    streamed, held = measure(folders, small / GIB), measure(folders, large / GIB)
    assert streamed["streamed"]
    assert not held["streamed"]
    assert streamed["validation"] == held["validation"]
    assert 0 < streamed["peak"] <= small
    # The measurement is not blind: it sees rows that are held.
    assert 2 * small < held["peak"] <= large


@pytest.fixture(scope="module")
def sources(folders):
    schema = Schema.model_validate_json((folders[1] / "schema.json").read_text())
    return tuple(
        [RowGroups([ShardFile(folders[1], split, schema.scenario(s))]) for s in schema.scenarios]
        for split in ("train", "val")
    )


@pytest.mark.slow(1)
def test_the_plan_follows_from_sizes(sources, make_config):
    def plan(phases=1, **train):
        changes = {"shuffle": "auto", "shuffle_rows": WINDOW, **train}
        memory = changes.pop("memory", 1.0)
        return choose_plan(make_config({f"train.{k}": v for k, v in changes.items()}).train, memory, *sources, phases)

    decoding = 4 * GROUP_ROWS * ROW_BYTES
    # Rows, an order of 4 bytes a row for each phase, and 8 while it is drawn.
    held = 2 * 192_000 * ROW_BYTES + 2 * 180_000 * (4 + 8) + decoding
    # Two windows for each client, an order and its inverse, labels of validation, one reader and two more for it.
    streamed = 2 * 2 * WINDOW * ROW_BYTES + 16 * WINDOW + 2 * 12_000 * 2 + 3 * decoding
    assert plan() == RowPlan(False, None, held)
    assert plan(shuffle="row_groups") == RowPlan(False, WINDOW, held)
    assert plan(phases=2).needed == held + 2 * 180_000 * 4
    assert plan(memory=held / GIB) == RowPlan(False, None, held)
    assert plan(memory=(held - 1) / GIB) == RowPlan(True, WINDOW, streamed)
    assert plan(memory=(held - 1) / GIB, phases=2).needed == streamed + 2 * 2 * WINDOW * ROW_BYTES
    assert plan(memory=streamed / GIB).streamed
    # A window is one row group at least.
    assert plan(memory=(held - 1) / GIB, shuffle_rows=1).needed == (
        streamed - 2 * 2 * GROUP_ROWS * ROW_BYTES - 16 * GROUP_ROWS
    )
    with pytest.raises(ConfigError, match=r"train\.shuffle: rows needs all rows in memory, 0\.08 GiB"):
        plan(memory=0.01, shuffle="rows")
    with pytest.raises(ConfigError, match=r"lower train\.shuffle_rows, or raise run\.memory"):
        plan(memory=(streamed - 1) / GIB)
    with pytest.raises(ConfigError, match=r"at least, with the row groups of these shards; raise run\.memory$"):
        plan(memory=0.001)
