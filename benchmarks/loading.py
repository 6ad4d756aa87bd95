"""Speed of turning shards into batches, beside the usual ways, in one run.

    python benchmarks/loading.py [--rows 1000000] [--batch 256] [--steps 50] [--turns 3]

AliExpress's shape: 16 categorical and 63 numerical columns, two labels, row groups as `partition` writes them. Prints
- loading: rows per second from a shard on disk to tensors that are ready for training, beside pandas (read_parquet,
  then to_numpy); the file is in the system's cache for both;
- batches: rows per second delivered to the model, from memory and streamed from disk, beside torch's DataLoader over
  the same tensors, and beside what the default configuration's model consumes (params.yaml, pf_msmtrec, phase 1:
  forward, backward and both optimisers).
Medians over turns that take the candidates one after the other, so that a machine whose speed drifts is fair to all.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, TensorDataset

from pfmsmt.config import Config, load_config
from pfmsmt.core.types import Role, Stream
from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task, encoded_column
from pfmsmt.data.shards.reader import RowGroups, ShardFile
from pfmsmt.data.shards.resident import ClientData, Shard, load_rows
from pfmsmt.data.shards.streamed import StreamedShard
from pfmsmt.data.shards.writer import ShardWriter
from pfmsmt.methods.catalogue import method_facts
from pfmsmt.models.spec import build_spec
from pfmsmt.training.local import build_learner, local_train

PARAMS = Path(__file__).parents[1] / "params.yaml"
SCHEMA = ScenarioSchema(
    scenario="NL",
    group="search_id",
    tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
    categorical=tuple(
        CategoricalField(name=f"categorical_{i}", federated=True, vocabulary=tuple(range(20))) for i in range(1, 17)
    ),
    numerical=tuple(NumericalField(name=f"numerical_{i}", mean=0.5, std=0.25) for i in range(1, 64)),
)
FEDERATED = frozenset({Role.EXPERT, Role.TOWER, Role.EMBEDDING})


def write_shard(folder: Path, rows: int) -> None:
    """Write one training shard through the pipeline's own writer."""
    rng = np.random.default_rng(0)
    (folder / SCHEMA.scenario).mkdir(parents=True)
    with ShardWriter(folder / SCHEMA.scenario / "train.parquet", SCHEMA) as writer:
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            click = rng.random(count) < 0.05
            raw: dict[str, np.ndarray] = {SCHEMA.group: np.arange(start, start + count) // 8}
            raw |= {field.name: rng.integers(0, 21, count) for field in SCHEMA.categorical}
            raw |= {field.name: rng.random(count) for field in SCHEMA.numerical}
            raw |= {"click": click.astype(np.int64), "conversion": (click & (rng.random(count) < 0.1)).astype(np.int64)}
            writer.write(raw)


def by_pandas(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Load as usual scripts do."""
    frame = pd.read_parquet(path)
    codes, values, labels = (
        [encoded_column(field.name) for field in SCHEMA.categorical],
        [encoded_column(field.name) for field in SCHEMA.numerical],
        [task.name for task in SCHEMA.tasks],
    )
    return (
        torch.from_numpy(frame[codes].to_numpy(np.int64, copy=True)),
        torch.from_numpy(frame[values].to_numpy(np.float32, copy=True)),
        torch.from_numpy(frame[labels].to_numpy(np.float32, copy=True)),
    )


def by_loader(shard: Shard, batch: int) -> Iterator[list[torch.Tensor]]:
    """Deliver shuffled batches for ever, as usual scripts do: one row at a time, put together by the DataLoader."""
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
        TensorDataset(shard.codes, shard.values, shard.labels), batch, shuffle=True
    )
    while True:
        yield from loader


def rate(rows: int, work: Callable[[], object]) -> float:
    """Return rows per second of `work`."""
    start = time.perf_counter()
    work()
    return rows / (time.perf_counter() - start)


def drain(batches: Iterator[object], steps: int) -> None:
    """Take so many batches."""
    for _ in range(steps):
        next(batches)


def trainer(config: Config, shard: Shard, batch: int) -> Callable[[int], object]:
    """Return a function that trains so many steps as pf_msmtrec's first phase does."""
    spec = build_spec(SCHEMA, config.model, **method_facts("pf_msmtrec", config.methods).model_parts)
    learner = build_learner("NL", spec, ClientData(shard, {}), batch, config.train, 0, torch.device("cpu"))
    start = learner.binding.read()
    block = config.methods.pf_msmtrec

    def train(steps: int) -> object:
        return local_train(
            start, {}, learner, Stream(0, "NL", 1), federated=FEDERATED, learning_rate=block.learning_rate,
            private_learning_rate=block.private_learning_rate, private_weight_decay=block.private_weight_decay,
            steps=steps,
        )  # fmt: skip

    return train


def main() -> None:
    """Measure loading, then batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50, help="of the model and of DataLoader in a turn")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    config = load_config(PARAMS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder, chosen.rows)
        path = folder / SCHEMA.scenario / "train.parquet"
        source = RowGroups([ShardFile(folder, "train", SCHEMA)])
        print(
            f"{chosen.rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB in {len(source.sizes)} row groups; "
            f"{torch.get_num_threads()} torch thread(s); medians of {chosen.turns} turns, rows per second"
        )
        turns = [
            (rate(chosen.rows, lambda: load_rows(source, None)), rate(chosen.rows, lambda: by_pandas(path)))
            for _ in range(chosen.turns)
        ]
        ours, peer = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"loading   shard to tensors {ours:12,.0f}   pandas {peer:12,.0f}   ratio {ours / peer:.2f}", flush=True)
        shard = load_rows(source, None)
        streamed = StreamedShard(source, config.train.shuffle_rows, ThreadPoolExecutor(1))
        train, stream, loader = trainer(config, shard, chosen.batch), Stream(0, "NL", 1), by_loader(shard, chosen.batch)
        train(2)
        # Whole epochs, so that drawing orders and reading windows are in it.
        whole = -(-chosen.rows // chosen.batch)
        next(loader)
        found = []
        for turn in range(chosen.turns):
            held, on_disk = (rows.batches(stream, chosen.batch, turn * whole, whole) for rows in (shard, streamed))
            found.append(
                (
                    rate(whole * chosen.batch, functools.partial(drain, held, whole)),
                    rate(whole * chosen.batch, functools.partial(drain, on_disk, whole)),
                    rate(chosen.steps * chosen.batch, lambda: drain(loader, chosen.steps)),
                    rate(chosen.steps * chosen.batch, lambda: train(chosen.steps)),
                )
            )
        memory, disk, loaded, model = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"batches   memory {memory:,.0f}   streamed {disk:,.0f}   DataLoader {loaded:,.0f}   model {model:,.0f}")
        print(
            f"faster than the model consumes: memory {memory / model:.1f} x, streamed {disk / model:.1f} x, "
            f"DataLoader {loaded / model:.1f} x"
        )


if __name__ == "__main__":
    main()
