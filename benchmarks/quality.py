"""Which method predicts best: methods x seeds x settings, each method tuned with the same number of trials.

    python benchmarks/quality.py tune [--settings default] [--trials 20]     -> results/tuned/<setting>/<method>.*
    python benchmarks/quality.py run  [--settings ...] [--seeds 5] [--refit] -> results/quality.csv
    python benchmarks/quality.py run  --variants modules [stripped]          -> pf_msmtrec with modules switched off
    python benchmarks/quality.py table [--refit]                             -> the tables of docs/results.md

--methods takes the floors as well (`floors.py`: linear models and trees), which are tuned and run in the same way.
Data and training are drawn anew with every seed (MovieLens: training alone). Searches (`studies.py`) see a world of
their own, and of MovieLens validation rows alone. Test rows are scored once, with each client's best round on
validation. With --refit, methods (`train.refit`) and floors are trained once more, on training and validation rows;
nobody is tuned with it. A setting without studies of its own takes the default setting's. Runs that are in quality.csv
are not repeated, and data in the work folder not drawn again: remove both after changes.
"""

import argparse
import csv
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from floors import FLOORS, Floor
from quality_table import searches, tables
from studies import TUNING_SEED, tune
from worlds import DEFAULT, HERE, Bench, check_studies, settings, shards, train

from pfmsmt.config import METHOD_NAMES
from pfmsmt.data.schema import Schema
from pfmsmt.training.trial import Aucs

COLUMNS = ("setting", "seed", "method", "variant", "refit", "scenario", "task", "auc", "rows", "positives", "seconds")
PLANTED = ("no_conflict", "default", "strong_conflict")

FULL = "full"
ALL_SHARED: dict[str, Any] = {"gate": "federated", "private_experts": 0}
"""Experts, gates and towers of every client come from the server; BatchNorm alone is the client's."""
NOTHING_PRIVATE: dict[str, Any] = {**ALL_SHARED, "federated_batch_norm": False}
"""Here A and g alone decide what a client gets."""
MEAN: dict[str, Any] = {"aggregation": "uniform", "coupling": 1.0}
"""One model for all."""
MODULES: dict[str, dict[str, Any]] = {
    "no private experts": {"private_experts": 0},
    "adapters on (rank 4)": {"rank": 4},
    "adapters for private experts": {"rank": 4, "private_experts": 0},
    "no FedBN": {"federated_batch_norm": False},
    "no coordination (c = 0)": {"conflict": 0.0},
    "coordination of clients and tasks": {"coordinate": "clients_and_tasks"},
    "A uniform": {"aggregation": "uniform"},
    "A identity": {"aggregation": "identity"},
    "A learned": {"aggregation": "learned"},
    "no phase 2": {"tower_steps": 0},
    "regulariser on (mu = 0.1)": {"regularizer": 0.1},
    "direct CTCVR head": {"model.ctcvr": "direct"},
    "plain server": {"server_optimizer": "plain", "server_learning_rate": 1.0, "server_weight_decay": 0.0},
}
"""pf_msmtrec with a module off or changed: keys of methods.pf_msmtrec, or dotted ones of params.yaml."""
STRIPPED: dict[str, dict[str, Any]] = {
    f"{name}{end}": {**base, **change}
    for name, base in (("all shared", ALL_SHARED), ("nothing private", NOTHING_PRIVATE))
    for end, change in (
        ("", {}),
        (", A uniform", {"aggregation": "uniform"}),
        (", plain mean", {**MEAN, "conflict": 0.0}),
        (", coordinated mean", MEAN),
        (", coordinated mean (c = 0.8)", {**MEAN, "conflict": 0.8}),
    )
} | {
    "all shared, private gates": {**ALL_SHARED, "gate": "private"},
    "all shared, private experts": {**ALL_SHARED, "private_experts": 4},
    "all shared, adapters (rank 4)": {**ALL_SHARED, "rank": 4},
}
"""Each module alone, where clients keep little."""
VARIANTS = MODULES | STRIPPED
GROUPS = {"modules": tuple(MODULES), "stripped": tuple(STRIPPED)}


class Job(NamedTuple):
    """One training run."""

    setting: str
    seed: int
    method: str
    variant: str
    refit: int = 0
    """1: trained once more, on training and validation rows."""

    def __str__(self) -> str:
        """Name it in a line of output."""
        return f"{self.setting} {self.seed} {self.method} {self.variant}{' refit' * self.refit}"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("--settings", nargs="+", default=list(PLANTED), choices=list(settings()))
    everybody = [*METHOD_NAMES, *FLOORS]
    parser.add_argument("--methods", nargs="+", default=everybody, choices=everybody)
    variants = [*GROUPS, *VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=variants, help="run these variants of pf_msmtrec instead")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--refit", action="store_true", help="run: train on validation rows as well; table: of those")
    parser.add_argument("--work", type=Path, default=Path(".benchmarks/quality"), help="shards are kept here")
    parser.add_argument("--movielens", type=Path, help="ml-100k.zip; downloaded if left out")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--quick", action="store_true", help="tiny data and two rounds, to see that it works")
    options = parser.parse_args()
    bench = Bench(options.work, options.results, options.movielens, options.quick)
    if options.what == "table":
        runs = pd.read_csv(bench.runs)
        print(tables(runs[runs["refit"] == int(options.refit)]))
        print(searches(bench))
        return
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        if options.what == "tune":
            for setting in options.settings:
                shards(bench, setting, TUNING_SEED)
            # The default setting first: the others try its best parameters.
            for group in ([s for s in options.settings if s == DEFAULT], [s for s in options.settings if s != DEFAULT]):
                waiting = {
                    pool.submit(tune, bench, s, m, options.trials): f"{s} {m}" for s in group for m in options.methods
                }
                for future in as_completed(waiting):
                    print(waiting[future], future.result(), flush=True)
            return
        for setting in options.settings:
            check_studies(bench, setting, ["pf_msmtrec"] if options.variants else options.methods)
        done = set(_done(bench.runs))
        jobs = [job for job in _jobs(options) if job not in done]
        for s, seed in dict.fromkeys((job.setting, job.seed) for job in jobs):
            shards(bench, s, seed)
        running = {pool.submit(run, bench, job): job for job in jobs}
        failed = 0
        for future in as_completed(running):
            if error := future.exception():
                print(running[future], error, flush=True)
                failed += 1
                continue
            rows = future.result()
            _append(bench.runs, rows)
            job = running[future]
            own = [row["auc"] for row in rows if row["method"] == job.method and row["auc"] is not None]
            print(job, f"{np.mean(own):.4f} {rows[0]['seconds']} s", flush=True)
    if failed:
        raise SystemExit(f"{failed} runs failed; run the same command again to repeat them")


def run(bench: Bench, job: Job) -> list[dict[str, Any]]:
    """Train and test once; return rows of quality.csv, with the oracle's beside the first method's."""
    torch.set_num_threads(1)
    schema, folder, oracle = shards(bench, job.setting, job.seed)
    if job.method in FLOORS:
        return _run_floor(bench, job)
    variant = {} if job.variant == FULL else VARIANTS[job.variant]
    changes = bench.tuned(job.setting, job.method) | {
        key if "." in key else f"methods.pf_msmtrec.{key}": value for key, value in variant.items()
    }
    start = time.perf_counter()
    trial = train(bench, job.setting, job.seed, job.method, changes | {"train.refit": bool(job.refit)})
    seconds = round(time.perf_counter() - start, 1)
    found: dict[str, Aucs] = {job.method: trial.test(schema, folder)}
    if oracle is not None and job.method == "local":
        found["oracle"] = {s: {t: values["auc"] for t, values in tasks.items()} for s, tasks in oracle.items()}
    return _rows(schema, job, seconds, found)


def _run_floor(bench: Bench, job: Job) -> list[dict[str, Any]]:
    schema, folder, _ = shards(bench, job.setting, job.seed)
    start = time.perf_counter()
    floor = Floor(job.method, schema, folder, bench.tuned(job.setting, job.method), bool(job.refit))
    seconds = round(time.perf_counter() - start, 1)
    return _rows(schema, job, seconds, {job.method: floor.aucs("test")})


def _rows(schema: Schema, job: Job, seconds: float, found: dict[str, Aucs]) -> list[dict[str, Any]]:
    """Return rows of quality.csv."""
    return [
        {
            **job._asdict(), "method": method, "scenario": scenario, "task": task, "auc": value,
            "rows": schema.counts[scenario]["test"].rows, "seconds": seconds,
            "positives": schema.counts[scenario]["test"].positives[task],
        }
        for method, scenarios in found.items()
        for scenario, tasks in scenarios.items()
        for task, value in tasks.items()
    ]  # fmt: skip


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    for setting in options.settings:
        for seed in range(options.seeds):
            if options.variants is None:
                yield from (Job(setting, seed, method, FULL, int(options.refit)) for method in options.methods)
            else:
                named = [v for name in options.variants for v in GROUPS.get(name, (name,))]
                yield from (Job(setting, seed, "pf_msmtrec", v, int(options.refit)) for v in named)


def _done(runs: Path) -> Iterator[Job]:
    if runs.exists():
        with runs.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield Job(row["setting"], int(row["seed"]), row["method"], row["variant"], int(row["refit"]))


def _append(runs: Path, rows: list[dict[str, Any]]) -> None:
    runs.parent.mkdir(parents=True, exist_ok=True)
    new = not runs.exists()
    with runs.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
