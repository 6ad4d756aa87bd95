"""From raw AliExpress zips to shards: rows per second, growth with the rows, peak memory; a usual script beside it.

    python benchmarks/data.py [--millions 1 4 16] [--peer-rows 300000] [--folder data/benchmark] [--quick]

Makes the zips first, which takes minutes and is not timed, and keeps them in the folder; two thirds of the rows are
for training, and sizes above a million are the first million over and over, with other search ids. Each size is read,
joined, split, encoded and written by a process of its own. The peer does what scripts for this data set usually do with
pandas: both files into memory, merge, encode, scale, one CSV out. Close other programs first.
"""

import argparse
import itertools
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from pfmsmt.config import Data, ScenarioSize, load_config
from pfmsmt.core import files
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.sources.aliexpress import tianchi
from pfmsmt.data.tables.zips import open_nested

ROOT = Path(__file__).parents[1]
GOAL_ROWS_PER_SECOND = 200_000
GOAL_MEMORY = 1.5 * 2**30
SCENARIO = "NL"
GENERATED_ROWS = 1_000_000
"""More are these over and over, with other search ids."""
NEW_IDS = 10**8

OURS = """
import sys
from pathlib import Path
from pfmsmt.config import Data
from pfmsmt.data.prepare.partition import partition
config = Data.model_validate_json(sys.stdin.read())
partition(config, 0, Path(sys.argv[1]), Path(sys.argv[2]), lambda line: None)
"""

USUAL = """
import sys, io, zipfile
import pandas as pd

def table(part, split):
    with zipfile.ZipFile(sys.argv[1] + "/aliexpress_NL_datasets.zip") as outer:
        with zipfile.ZipFile(io.BytesIO(outer.read(f"nl_{part}_{split}.zip"))) as inner:
            return pd.read_csv(inner.open(inner.namelist()[0]), header=None)

categorical = [f"u{i}" for i in (*range(2, 9), 32, 33)] + [f"i{i}" for i in (19, 34, 35, 36, 40, 41, 42)]
frames = {}
for split in ("train", "test"):
    user, item = table("user", split), table("item", split)
    user.columns = ["search_id"] + [f"u{i}" for i in range(2, 34)]
    item.columns = ["search_id"] + [f"i{i}" for i in range(2, 49)] + ["label"]
    frame = item.merge(user, on="search_id")
    frame["click"], frame["conversion"] = (frame["label"] > 0).astype(int), (frame["label"] > 1).astype(int)
    frames[split] = frame.drop(columns="label")
both = pd.concat(frames, names=["split"])
for column in categorical:
    both[column] = both[column].astype("category").cat.codes
numerical = [column for column in both.columns if column[0] in "ui" and column not in categorical]
both[numerical] = (both[numerical] - both[numerical].min()) / (both[numerical].max() - both[numerical].min())
for split in frames:
    both.loc[split].to_csv(f"{sys.argv[2]}/{split}.csv", index=False)
"""


class Measured(NamedTuple):
    """One process."""

    seconds: float
    memory: int
    """Peak resident bytes."""


def config_for(rows: int) -> Data:
    """The repository's settings, with one generated scenario of so many rows, a third of them for the test."""
    data = load_config(ROOT / "params.yaml").data
    size = ScenarioSize(train_rows=rows - rows // 3, test_rows=rows // 3)
    return data.model_copy(
        update={"source": "synthetic", "synthetic": data.synthetic.model_copy(update={"scenarios": {SCENARIO: size}})}
    )


def raw_folder(folder: Path, rows: int) -> Path:
    """Return a folder with the zip of so many rows, made if it is not there."""
    raw = folder / f"raw-{rows}"
    if not (raw / "source.json").exists():
        copies = max(rows // GENERATED_ROWS, 1)
        print(f"making {rows:,} rows", flush=True)
        if copies == 1:
            obtain(config_for(rows), 0, raw, lambda line: None)
        else:
            repeat(raw_folder(folder, rows // copies), copies, raw)
    return raw


def repeat(raw: Path, copies: int, target: Path) -> None:
    """Write the zip of a raw folder `copies` times over, each time with new search ids, as one larger zip."""
    name = tianchi.zip_name(SCENARIO)
    with files.new_folder(target) as folder:
        shutil.copy(raw / "source.json", folder)
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as outer:
            for split in ("train", "test"):
                for part in ("user", "item"):
                    member = tianchi.member_name(SCENARIO, part, split)
                    with (
                        open_nested(raw / name, member) as held,
                        outer.open(member, "w", force_zip64=True) as packed,
                        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as inner,
                        inner.open(f"{Path(member).stem}.csv", "w", force_zip64=True) as stream,
                    ):
                        _repeat_rows(held.stream.read(), copies, stream)


def _repeat_rows(text: bytes, copies: int, stream: IO[bytes]) -> None:
    rows = [line.split(b",", 1) for line in text.splitlines()]
    ids = np.array([int(row[0]) for row in rows])
    for copy in range(copies):
        shifted = (ids + copy * NEW_IDS).astype("S")
        stream.write(b"\n".join(b",".join((key, row[1])) for key, row in zip(shifted, rows, strict=True)) + b"\n")


def measure(script: str, raw: Path, rows: int) -> Measured:
    """Run a script on a raw folder in a process of its own; its output is removed."""
    with tempfile.TemporaryDirectory(dir=raw.parent) as out:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", script, str(raw), out], stdin=subprocess.PIPE, cwd=ROOT)
        assert process.stdin is not None
        process.stdin.write(config_for(rows).model_dump_json(by_alias=True).encode())
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the process failed with {process.returncode}")
    return Measured(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def main() -> None:
    """Print one line a size, and what they say together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 4, 16], help="raw rows of each size")
    parser.add_argument("--peer-rows", type=int, default=300_000, help="rows for the usual script; 0 leaves it out")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "benchmark", help="where the zips are kept")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: to see that it runs")
    chosen = parser.parse_args()
    sizes = [3_000, 6_000] if chosen.quick else [round(size * 1e6) for size in chosen.millions]
    peer = 3_000 if chosen.quick else chosen.peer_rows
    chosen.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(chosen.folder).free
    needed = max(sizes) * 700
    if free < needed:
        raise SystemExit(f"{chosen.folder} has {free / 2**30:.0f} GiB free, {needed / 2**30:.0f} are needed")
    # In a process of its own: the peak of a child's memory is never below what its parent has.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as maker:
        wanted = sorted({*sizes, *([peer] if peer else [])})
        raws = dict(zip(wanted, maker.map(raw_folder, [chosen.folder] * len(wanted), wanted), strict=True))
    print(f"{'script':8} {'rows':>12} {'seconds':>9} {'rows/s':>10} {'peak MiB':>9}")
    found: dict[int, Measured] = {}
    for name, script, rows in [
        *(("pfmsmt", OURS, rows) for rows in sizes),
        *([("usual", USUAL, peer)] if peer else []),
    ]:
        measured = measure(script, raws[rows], rows)
        speed, mib = rows / measured.seconds, measured.memory / 2**20
        print(f"{name:8} {rows:12,} {measured.seconds:9.2f} {speed:10,.0f} {mib:9,.0f}", flush=True)
        if name == "pfmsmt":
            found[rows] = measured
    ordered = sorted(found)
    for small, large in itertools.pairwise(ordered):
        growth = math.log(found[large].seconds / found[small].seconds) / math.log(large / small)
        print(f"time grows with the rows to the power {growth:.2f} from {small:,} to {large:,}")
    slowest = min(rows / measured.seconds for rows, measured in found.items())
    largest = max(measured.memory for measured in found.values())
    print(f"slowest {slowest:,.0f} rows/s (goal {GOAL_ROWS_PER_SECOND:,}: {_verdict(slowest >= GOAL_ROWS_PER_SECOND)})")
    print(f"peak {largest / 2**20:,.0f} MiB (goal {GOAL_MEMORY / 2**20:,.0f}: {_verdict(largest <= GOAL_MEMORY)})")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


if __name__ == "__main__":
    main()
