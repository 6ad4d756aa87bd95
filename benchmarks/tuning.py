"""The cost of tuning beside the training, and the size of its workers.

    python benchmarks/tuning.py [--trials 200] [--workers 1] [--method pf_msmtrec] [--storage URL]

Runs one study of short trials as `pfmsmt tune` does, on tiny generated data, with new stores of studies and of runs,
all in a temporary folder. Overhead of a trial: all time from the start of the command's work to its last word,
less the time in which rounds were trained and validated, divided by the number of trials. Memory: what the worker holds
after each trial, and this process, which tells the workers and logs; the last trial beside the tenth.
Run it on an idle machine: the wall clock counts what other processes take as overhead.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import yaml

from pfmsmt.config import PARAMS_FILE, TUNE_FILE, parse_config
from pfmsmt.core.layout import CLIENTS, RAW
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.tracking import connect
from pfmsmt.tracking.connection import TUNING_EXPERIMENT
from pfmsmt.tuning.command import SearchRequest, tune

TENTH = 10
ROUNDS = 4
ROWS = {"train_rows": 400, "test_rows": 200}


def main() -> None:
    """Run the study and print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--method", default="pf_msmtrec")
    parser.add_argument("--storage", help="as for pfmsmt tune; a journal file if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        _prepare(root)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root / 'mlflow.db'}"
        # The first opening of a new MLflow store makes its tables: once for all studies.
        connect(root, TUNING_EXPERIMENT)
        own = _Memory()
        start = time.perf_counter()
        request = SearchRequest((options.method,), options.trials, workers=options.workers, storage=options.storage)
        with own:
            tune(request, root)
        wall = time.perf_counter() - start
        _print(_trials(root), own.seen, wall, options.workers)


def _prepare(root: Path) -> None:
    """Write params.yaml of short trials, none of them pruned, and make the shards."""
    tree = yaml.safe_load((Path(__file__).parents[1] / PARAMS_FILE).read_text(encoding="utf-8"))
    tree["data"]["synthetic"]["scenarios"] = dict.fromkeys(tree["data"]["synthetic"]["scenarios"], ROWS)
    tree["data"]["synthetic"] |= {"ctr": 0.3, "cvr": 0.4}
    tree["model"] |= {"embedding_dim": 2, "experts": 2, "expert_layers": [8, 8], "tower_layers": [4]}
    tree["methods"]["pf_msmtrec"] |= {"private_experts": 1, "tower_steps": 1}
    tree["train"] |= {"rounds": ROUNDS, "local_steps": 2}
    tree["run"]["device"] = "cpu"
    search = yaml.safe_load((Path(__file__).parents[1] / TUNE_FILE).read_text(encoding="utf-8")) | {"pruner": "none"}
    (root / TUNE_FILE).write_text(yaml.safe_dump(search), encoding="utf-8")
    (root / PARAMS_FILE).write_text(yaml.safe_dump(tree), encoding="utf-8")
    config = parse_config(tree)
    obtain(config.data, 0, root / RAW, lambda _: None)
    partition(config.data, 0, root / RAW, root / CLIENTS, lambda _: None)


class _Memory:
    """Looks at the size of this process ten times a second."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        """(seconds since 1970, MB)"""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.1):
            self.seen.append((time.time(), process.memory_info().rss / 2**20))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _trials(root: Path) -> pd.DataFrame:
    """Return what MLflow holds of every trial, in the order in which they ended."""
    tracking = connect(root, TUNING_EXPERIMENT)
    rows = []
    token = None
    while True:
        page = tracking.client.search_runs([tracking.experiment_id], "tags.role = 'trial'", page_token=token)
        rows += [{**run.data.metrics, "ended": run.info.end_time / 1000} for run in page]
        token = page.token
        if not token:
            return pd.DataFrame(rows).sort_values("ended", ignore_index=True)


def _print(trials: pd.DataFrame, own: list[tuple[float, float]], wall: float, workers: int) -> None:
    training = trials.training_seconds.sum()
    # Workers train side by side, so each has its share of the wall clock.
    overhead = (wall - training / workers) / (len(trials) / workers)
    between = trials.ended.iloc[-1] - trials.ended.iloc[0]
    steady = (between - trials.training_seconds.iloc[1:].sum() / workers) / ((len(trials) - 1) / workers)
    print(f"\n{len(trials)} trials of {ROUNDS} rounds, {workers} at a time: {wall:.1f} s, {training:.1f} s of training")
    print(f"overhead per trial: {overhead:.3f} s, all included; {steady:.3f} s without start-up and pictures")
    last = len(trials)
    if last <= TENTH:
        print(f"memory is compared with that after trial {TENTH}: run more trials")
        return
    early, late = trials.ended.iloc[TENTH - 1], trials.ended.iloc[-1]
    sizes = {
        "worker": (trials.resident_megabytes.iloc[TENTH - 1], trials.resident_megabytes.iloc[-1]),
        "main process": tuple(max((mb for at, mb in own if at <= end), default=float("nan")) for end in (early, late)),
    }
    for name, (first, now) in sizes.items():
        print(f"resident memory, {name}: {first:.0f} MB after trial {TENTH}, {now:.0f} MB after trial {last} "
              f"({now / first - 1:+.1%})")  # fmt: skip


if __name__ == "__main__":
    main()
