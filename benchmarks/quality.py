"""Which method predicts best: methods x seeds x settings, each method tuned with the same number of trials.

    python benchmarks/quality.py tune [--settings default] [--trials 12]     -> results/tuned/<setting>/<method>.yaml
    python benchmarks/quality.py run  [--settings ...] [--seeds 5]           -> results/quality.csv
    python benchmarks/quality.py run  --variants modules [stripped]          -> pf_msmtrec with modules switched off
    python benchmarks/quality.py table                                       -> the tables of docs/results.md

Data and training are drawn anew with every seed (MovieLens: training alone). Tuning draws with another seed, 1000, and
sees validation rows alone: the mean AUC of the best round. Test rows are scored once, with each client's best round on
validation. A setting without studies of its own takes the default setting's. Runs that are in quality.csv are not
repeated, and data in the work folder not drawn again: remove both after changes.
"""

import argparse
import csv
import datetime
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
import yaml
from quality_table import tables
from worlds import DEFAULT, HERE, Bench, check_studies, configure, settings, shards

from pfmsmt.config import METHOD_NAMES
from pfmsmt.config.keys import value_at
from pfmsmt.core.errors import TrainingError
from pfmsmt.training.trial import Aucs, Trial, run_trial

COLUMNS = ("setting", "seed", "method", "variant", "scenario", "task", "auc", "rows", "positives", "seconds")
TUNING_SEED = 1000
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


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("--settings", nargs="+", default=list(PLANTED), choices=list(settings()))
    parser.add_argument("--methods", nargs="+", default=list(METHOD_NAMES), choices=METHOD_NAMES)
    variants = [*GROUPS, *VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=variants, help="run these variants of pf_msmtrec instead")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path(".benchmarks/quality"), help="shards are kept here")
    parser.add_argument("--movielens", type=Path, help="ml-100k.zip; downloaded if left out")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--quick", action="store_true", help="tiny data and two rounds, to see that it works")
    options = parser.parse_args()
    bench = Bench(options.work, options.results, options.movielens, options.quick)
    if options.what == "table":
        print(tables(pd.read_csv(bench.runs)))
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
                print(*running[future], error, flush=True)
                failed += 1
                continue
            rows = future.result()
            _append(bench.runs, rows)
            job = running[future]
            own = [row["auc"] for row in rows if row["method"] == job.method and row["auc"] is not None]
            print(*job, f"{np.mean(own):.4f} {rows[0]['seconds']} s", flush=True)
    if failed:
        raise SystemExit(f"{failed} runs failed; run the same command again to repeat them")


def run(bench: Bench, job: Job) -> list[dict[str, Any]]:
    """Train and test once; return rows of quality.csv, with the oracle's beside the first method's."""
    torch.set_num_threads(1)
    schema, folder, oracle = shards(bench, job.setting, job.seed)
    variant = {} if job.variant == FULL else VARIANTS[job.variant]
    changes = bench.tuned(job.setting, job.method) | {
        key if "." in key else f"methods.pf_msmtrec.{key}": value for key, value in variant.items()
    }
    start = time.perf_counter()
    trial = _trial(bench, job, changes)
    seconds = round(time.perf_counter() - start, 1)
    found: dict[str, Aucs] = {job.method: trial.test(schema, folder)}
    if oracle is not None and job.method == "local":
        found["oracle"] = {s: {t: values["auc"] for t, values in tasks.items()} for s, tasks in oracle.items()}
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


def tune(bench: Bench, setting: str, method: str, trials: int) -> str:
    """Search a method's parameters by the best round's mean validation AUC; write them with the study's figures."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        return _trial(bench, Job(setting, TUNING_SEED, method, FULL), space(trial, method)).best_validation()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    # Every search starts from params.yaml, with what lies outside of a range at its edge; then comes the best of the
    # default setting.
    study.enqueue_trial({key: _at(bench, setting, key) for key in SPACE["model"] + SPACE[method]})
    if setting != DEFAULT and bench.tuned_file(DEFAULT, method).exists():
        study.enqueue_trial(bench.tuned(DEFAULT, method))
    # A trial whose training diverges counts, and is no candidate.
    study.optimize(objective, n_trials=trials, catch=(TrainingError,))
    best = study.best_trial
    start = study.trials[0].value
    figures = {
        "setting": setting, "data_seed": TUNING_SEED, "trials": trials,
        "sampler": "TPE, seed 0; the first 5 trials are given or random",
        "validation_auc": round(study.best_value, 5), "validation_auc_of_the_start": start and round(start, 5),
        "best_trial": best.number, "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    path = bench.tuned_file(setting, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {key: value if key in CHOICES else float(f"{value:.3g}") for key, value in best.params.items()}
    path.write_text(yaml.safe_dump({"study": figures, "params": rounded}, sort_keys=False), encoding="utf-8")
    return f"{study.best_value:.4f} (start {'diverged' if start is None else f'{start:.4f}'})"


_SERVER = ("server_learning_rate", "server_weight_decay")
_KEYS = {
    "pf_msmtrec": ("private_learning_rate", "private_weight_decay", "gate", *_SERVER),
    "fedavg": ("learning_rate", *_SERVER),
    "fedprox": ("learning_rate", "regularizer", *_SERVER),
    "fedbn": ("private_learning_rate", "private_weight_decay", *_SERVER),
    "fedper": ("private_learning_rate", "private_weight_decay", *_SERVER),
    "ditto": ("private_learning_rate", "private_weight_decay", "regularizer", *_SERVER),
    "fedrep": ("head_share", "private_learning_rate", "private_weight_decay", *_SERVER),
    "fedavg_finetune": ("finetune_steps", "finetune_rate", "learning_rate", *_SERVER),
    "apfl": ("alpha_rate", "private_learning_rate", "private_weight_decay", *_SERVER),
    "fedamp": ("attraction", "sigma", "regularizer", "private_learning_rate", "private_weight_decay"),
    "fedhca2": ("hyper_rate", "learning_rate", "private_learning_rate", "private_weight_decay"),
    "pf_msmtrec_paper": (
        "learned_rate",
        "learning_rate",
        "regularizer",
        "private_learning_rate",
        "private_weight_decay",
    ),
    "local": ("learning_rate", "weight_decay"),
    "centralized": ("learning_rate", "weight_decay"),
}
SPACE: dict[str, tuple[str, ...]] = {
    "model": ("model.dropout",),
    **{method: tuple(f"methods.{method}.{key}" for key in keys) for method, keys in _KEYS.items()},
}
"""Keys that are tuned: for every method (model), and for each."""
RANGES = {
    "dropout": (0.3, 0.65),
    "private_learning_rate": (0.003, 0.03),
    "private_weight_decay": (0.3, 10.0),
    "weight_decay": (0.3, 10.0),
    "server_learning_rate": (0.005, 0.05),
    "server_weight_decay": (0.03, 3.0),
}
SPECIAL = {
    "methods.local.learning_rate": (0.003, 0.03),
    "methods.centralized.learning_rate": (0.003, 0.03),
    "methods.fedavg.learning_rate": (0.05, 0.5),
    "methods.fedprox.learning_rate": (0.05, 0.5),
    "methods.fedprox.regularizer": (1e-4, 1.0),
    "methods.ditto.regularizer": (0.1, 300.0),
    "methods.fedrep.head_share": (0.125, 0.875),
    "methods.fedavg_finetune.finetune_rate": (0.1, 3.0),
    "methods.fedavg_finetune.learning_rate": (0.05, 0.5),
    "methods.apfl.alpha_rate": (0.01, 10.0),
    "methods.fedamp.attraction": (0.1, 1.0),
    "methods.fedamp.sigma": (1.0, 10000.0),
    "methods.fedamp.regularizer": (0.1, 300.0),
    "methods.fedhca2.hyper_rate": (0.01, 1000.0),
    "methods.fedhca2.learning_rate": (0.1, 5.0),
    "methods.pf_msmtrec_paper.learned_rate": (0.01, 1000.0),
    "methods.pf_msmtrec_paper.learning_rate": (0.1, 5.0),
    "methods.pf_msmtrec_paper.regularizer": (1e-3, 1.0),
}
"""Ranges where the last word of the key is not enough."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "methods.pf_msmtrec.gate": ("private", "federated"),
    "methods.fedavg_finetune.finetune_steps": (8, 16, 32, 64, 128),
}


def space(trial: optuna.Trial, method: str) -> dict[str, Any]:
    """Draw a trial's parameters by dotted keys."""
    drawn: dict[str, Any] = {}
    for key in SPACE["model"] + SPACE[method]:
        if key in CHOICES:
            drawn[key] = trial.suggest_categorical(key, CHOICES[key])
        else:
            drawn[key] = trial.suggest_float(key, *_range(key), log=key != "model.dropout")
    return drawn


def _range(key: str) -> tuple[float, float]:
    return SPECIAL.get(key) or RANGES[key.rsplit(".", 1)[1]]


def _at(bench: Bench, setting: str, key: str) -> Any:
    value = value_at(configure(bench, setting, TUNING_SEED, {}), key)
    if key in CHOICES:
        return value
    low, high = _range(key)
    return float(min(max(value, low), high))


def _trial(bench: Bench, job: Job, changes: dict[str, Any]) -> Trial:
    schema, folder, _ = shards(bench, job.setting, job.seed)
    weights = {"train.task_weights": [1.0] * len(schema.tasks)}
    config = configure(bench, job.setting, job.seed, weights | changes)
    return run_trial(config, schema, folder, job.method, job.seed, torch.device("cpu"), workers=1, threads=1)


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    for setting in options.settings:
        for seed in range(options.seeds):
            if options.variants is None:
                yield from (Job(setting, seed, method, FULL) for method in options.methods)
            else:
                named = [v for name in options.variants for v in GROUPS.get(name, (name,))]
                yield from (Job(setting, seed, "pf_msmtrec", v) for v in named)


def _done(runs: Path) -> Iterator[Job]:
    if runs.exists():
        with runs.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield Job(row["setting"], int(row["seed"]), row["method"], row["variant"])


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
