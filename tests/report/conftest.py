"""Tiny hand-written inputs of a comparison: two scenarios, two tasks, one cell undefined."""

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pfmsmt.commands.evaluate import REPLICATES_COLUMNS
from pfmsmt.report.comparison.comparison_page import write_comparison
from pfmsmt.report.comparison.inputs import load_results

AUCS = {  # method -> seed -> NL ctr, NL ctcvr, ES ctr (ES ctcvr has no positive)
    "pf_msmtrec": {0: (0.75, 0.875, 0.5), 1: (0.875, 0.875, 0.5)},
    "fedavg": {0: (0.5, 0.75, 0.625), 1: (0.5, 0.75, 0.625)},
    "centralized": {0: (0.9375, 0.9375, 0.75), 1: (0.9375, 0.9375, 0.75)},
}


def task_score(auc, rows=80, positives=8):
    undefined = auc is None
    return {
        "auc": auc,
        "auc_low": None if undefined else auc - 0.0625,
        "auc_high": None if undefined else auc + 0.0625,
        "gauc": None if undefined else auc - 0.125,
        "logloss": 0.25,
        "ece": 0.03125,
        "predicted_to_actual": None if undefined else 1.5,
        "rows": rows,
        "positives": 0 if undefined else positives,
    }


def score_tree(aucs):
    nl_ctr, nl_ctcvr, es_ctr = map(task_score, aucs)
    return {"NL": {"ctr": nl_ctr, "ctcvr": nl_ctcvr}, "ES": {"ctr": es_ctr, "ctcvr": task_score(None)}}


def write_run(root: Path, method: str, seed: int, aucs: tuple[float, ...]):
    evaluation, model = root / "evaluation" / f"{method}-seed{seed}", root / "models" / f"{method}-seed{seed}"
    evaluation.mkdir(parents=True)
    model.mkdir(parents=True)
    metrics = {"method": method, "seed": seed, "scenarios": score_tree(aucs)}
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    places = [("NL", "ctr"), ("NL", "ctcvr"), ("ES", "ctr")]
    roc = [f"{s},{t},{x},{y}" for s, t in places for x, y in [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0)]]
    (evaluation / "roc.csv").write_text("\n".join(["scenario,task,false_positive_rate,true_positive_rate", *roc]))
    bins = [f"{s},{t},{p},{a},40" for s, t in [*places, ("ES", "ctcvr")] for p, a in [(0.05, 0.0), (0.2, 0.25)]]
    (evaluation / "calibration.csv").write_text("\n".join(["scenario,task,predicted,actual,rows", *bins]))
    pd.DataFrame(columns=REPLICATES_COLUMNS).to_parquet(evaluation / "replicates.parquet", index=False)
    history = [f"{r},{s},{t},{0.5 + r / 16},0.5" for r in (1, 2) for s, t in places]
    history += [f"{r},ES,ctcvr,,0.5" for r in (1, 2)]
    (model / "history.csv").write_text("\n".join(["round,scenario,task,auc,logloss", *history]))
    if method == "pf_msmtrec":
        diagnostics_table().to_parquet(model / "diagnostics.parquet", index=False)
        traffic = [f"{r},{k},3,{up},6,2048" for r in (1, 2) for k, up in (("ES", 512), ("NL", 1024))]
        header = "round,client,tensors_up,bytes_up,tensors_down,bytes_down"
        (model / "traffic.csv").write_text("\n".join([header, *traffic]))


def diagnostics_table() -> pd.DataFrame:
    """Two clients, two groups, two rounds that are alike."""
    groups = {"expert/0": [0.75, 0.25, 0.5, 0.5], "tower/ctr": [1.0, 0.0, 0.0, 1.0]}
    cosines, pairs = [1.0, -0.5, -0.5, 1.0], list(itertools.product(("ES", "NL"), repeat=2))
    rows = []
    for number, (group, matrix) in itertools.product((1, 2), groups.items()):
        for quantity, values in (("listening", matrix), ("cosine", cosines)):
            rows += [(number, group, quantity, *pair, v) for pair, v in zip(pairs, values, strict=True)]
        for quantity in ("coefficients", "drift"):
            rows += [(number, group, quantity, client, "", 0.25) for client in ("ES", "NL")]
        rows.append((number, group, "conflicts", "", "", 1.0))
    return pd.DataFrame(rows, columns=["round", "group", "quantity", "client", "other", "value"])


def write_inputs(root: Path):
    for method, seeds in AUCS.items():
        for seed, aucs in seeds.items():
            write_run(root, method, seed, aucs)
    tree = {"scenarios": score_tree((0.96875, 0.96875, 0.96875))}
    (root / "oracle.json").write_text(json.dumps(tree))


def load_inputs(root: Path, seeds=(0,), methods=tuple(AUCS), **options):
    return load_results(
        [(method, seed) for method in methods for seed in seeds],
        evaluation=root / "evaluation",
        models=root / "models",
        **{"oracle": root / "oracle.json", **options},
    )


@pytest.fixture
def inputs(tmp_path):
    """Folder with every run's files and the oracle."""
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture
def load(inputs):
    """Load some seeds of some methods."""
    return functools.partial(load_inputs, inputs)


SHIFTS = {"pf_msmtrec": (0.5, 0.0, -0.5), "centralized": (0.5, 0.0, -0.5)} | dict.fromkeys(
    ("fedavg", "local"), (0.6, 0.0, -0.6)
)
"""Method -> what each replicate adds to every metric of the run."""


def write_replicates(root: Path):
    """Give every run replicates; pf_msmtrec's and fedavg's differ by -0.1, 0 and 0.1 more than the runs do."""
    for path in (root / "evaluation").glob("*/metrics.json"):
        found = json.loads(path.read_text())
        rows = [
            {"scenario": s, "task": t, "replicate": number}
            | {m: np.nan if cell[m] is None else cell[m] + shift for m in ("auc", "logloss", "ece")}
            for s, tasks in found["scenarios"].items()
            for t, cell in tasks.items()
            for number, shift in enumerate(SHIFTS[found["method"]])
        ]
        pd.DataFrame(rows)[list(REPLICATES_COLUMNS)].to_parquet(path.with_name("replicates.parquet"), index=False)


@pytest.fixture
def paired(inputs, load):
    """Load some runs, which have replicates."""
    write_replicates(inputs)
    return load


@pytest.fixture
def against_local(inputs):
    """Load some runs, which have replicates; a method `local` has fedavg's scores."""
    for seed, aucs in AUCS["fedavg"].items():
        write_run(inputs, "local", seed, aucs)
    write_replicates(inputs)
    methods = ("pf_msmtrec", "fedavg", "local", "centralized")
    return functools.partial(load_inputs, inputs, methods=methods, federated=methods[:2], confidence=0.95)


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """One report of two seeds, written once: drawing takes a second or two."""
    root = tmp_path_factory.mktemp("report")
    write_inputs(root)
    return write_comparison(load_inputs(root, seeds=(0, 1)), root / "reports")
