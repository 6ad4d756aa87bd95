"""A client whose private table has millions of rows: trained in place beside the same table trained densely.

    python benchmarks/large_table.py [--table-rows 5000000] [--dim 16] [--rounds 10] [--methods local pf_msmtrec]

Each is a process of its own, so that its memory can be told: rounds of 8 steps of 256 rows with validation, then a
checkpoint, written and read, and the model that is kept. Seconds are medians over rounds but the first. Dense training
copies the table and Adam's moments from round to round, as all private state is; it takes two rounds only.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pfmsmt.config import Config, load_config
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task, encoded_column
from pfmsmt.models.saved import load_model
from pfmsmt.training.client import Client
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import Federation, build_federation
from pfmsmt.training.history import History
from pfmsmt.training.rounds import run_rounds

SCENARIO = "NL"
NUMBERS, SHARED = 8, 4
ROWS = {"train": 200_000, "val": 20_000}
PARAMS = Path(__file__).parents[1] / "params.yaml"


def write_shards(folder: Path, users: int) -> Schema:
    """Write one scenario's shards: user ids by Zipf's law, all else at random."""
    shared = [
        CategoricalField(name=f"category_{i}", federated=True, vocabulary=tuple(range(20))) for i in range(SHARED)
    ]
    tasks = (Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr"))
    rng = np.random.default_rng(0)
    counts = {}
    (folder / SCENARIO).mkdir(parents=True)
    for split, rows in ROWS.items():
        click = rng.random(rows) < 0.1
        columns = {"search_id": np.arange(rows)}
        columns |= {encoded_column(field.name): rng.integers(0, 21, rows).astype(np.int32) for field in shared}
        # The density of ranks falls with 1 / rank, from user to user in no order.
        user = np.exp(rng.random(rows) * np.log(users)).astype(np.int64) * 7919 % users
        columns[encoded_column("user")] = user.astype(np.int32)
        columns |= {encoded_column(f"number_{i}"): rng.normal(size=rows).astype(np.float32) for i in range(NUMBERS)}
        columns |= {"ctr": click.astype(np.uint8), "ctcvr": (click & (rng.random(rows) < 0.3)).astype(np.uint8)}
        pq.write_table(pa.table(columns), folder / SCENARIO / f"{split}.parquet", row_group_size=65_536)
        counts[split] = SplitCounts(rows=rows, groups=rows, positives={"ctr": int(click.sum())})
    return Schema(
        source="tabular", fingerprint="", group="search_id", tasks=tasks,
        categorical=(*shared, CategoricalField(name="user", federated=False)),
        numerical=tuple(NumericalField(name=f"number_{i}", mean=0.0, std=1.0) for i in range(NUMBERS)),
        private_vocabularies={SCENARIO: {"user": tuple(range(users - 1))}}, counts={SCENARIO: counts},
    )  # fmt: skip


def configured(dim: int, rounds: int, in_place: bool) -> Config:
    """Return params.yaml with another width, and the table dense or in place."""
    config = load_config(PARAMS)
    limit = 1 if in_place else 2**31
    train = config.train.model_copy(update={"rounds": rounds, "large_table_rows": limit})
    model, run = config.model.model_copy(update={"embedding_dim": dim}), config.run.model_copy(update={"device": "cpu"})
    return config.model_copy(update={"train": train, "run": run, "model": model})


def measure(method: str, users: int, dim: int, rounds: int, in_place: bool) -> None:
    """Train, save and load; print one line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema = write_shards(folder / "shards", users)
        base = peak()
        config = configured(dim, rounds, in_place)

        def build() -> Federation:
            return build_federation(config, schema, folder / "shards", method, 0, torch.device("cpu"))

        federation, took = timed(build)
        client: Client = federation.clients[SCENARIO]
        assert (client.learner.large is not None) == in_place
        print(f"{method}, {'in place' if in_place else 'dense'}: built in {took:.1f} s", flush=True)
        server = federation.method.init(client.initial_parameters, federation.names)
        history, seconds, last = History(), [], time.perf_counter()
        with InProcess(federation.clients, 1, torch.get_num_threads()) as exchange:
            for result in run_rounds(federation.method, exchange, server, federation.names, rounds=rounds, quorum=1.0):
                history.add(result)
                now = time.perf_counter()
                seconds.append((result.metrics["server/seconds"], now - last))
                last = now
        trained, whole = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
        print(
            f"  a round {whole:.3f} s, {trained:.3f} s of it training; first round {seconds[0][1]:.3f} s; "
            f"peak memory {peak() - base:,.0f} MB above shards and schema",
            flush=True,
        )
        _, saving = timed(lambda: client.save(folder / "checkpoint", rounds))
        size = sum(path.stat().st_size for path in (folder / "checkpoint").iterdir()) / 1e6
        _, reading = timed(lambda: build().clients[SCENARIO].load(folder / "checkpoint"))
        print(f"  checkpoint {size:,.0f} MB, written in {saving:.2f} s; built and read again in {reading:.2f} s")
        _, writing = timed(lambda: federation._replace(calibration="none").save_models(folder / "models", history))
        _, loading = timed(lambda: load_model(folder / "models" / SCENARIO))
        print(
            f"  model written in {writing:.1f} s, loaded in {loading:.1f} s; peak memory {peak() - base:,.0f} MB in all"
        )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and its seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def peak() -> float:
    """Return the peak of resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Measure both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-rows", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=["local", "pf_msmtrec"])
    parser.add_argument("--only", choices=("in_place", "dense"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        measure(chosen.methods[0], chosen.table_rows, chosen.dim, chosen.rounds, chosen.only == "in_place")
        return
    print(
        f"a private table of {chosen.table_rows:,} rows x {chosen.dim}, {torch.get_num_threads()} thread(s)", flush=True
    )
    for method in chosen.methods:
        for mode, rounds in (("in_place", chosen.rounds), ("dense", 2)):
            sizes = ["--table-rows", str(chosen.table_rows), "--dim", str(chosen.dim), "--rounds", str(max(rounds, 2))]
            subprocess.run([sys.executable, __file__, "--only", mode, "--methods", method, *sizes], check=True)


if __name__ == "__main__":
    main()
