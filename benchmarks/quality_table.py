"""Tables of the quality benchmark: means, paired differences with intervals, and the share of the gap closed."""

import math

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pfmsmt.core.display import markdown_table, text_table

OURS, FULL, ORACLE, FLOOR = "pf_msmtrec", "full", "oracle", "local"
CONFIDENCE = 0.95
WORST = "worst scenario"
PAIRS = (
    ("private gates", "private gates", ""),
    ("private experts", "private experts", ""),
    ("adapters (rank 4)", "adapters (rank 4)", ""),
    ("personalised aggregation", "", "A uniform"),
    ("both", "", "plain mean"),
    ("conflict coordination", "coordinated mean", "plain mean"),
    ("conflict coordination (c = 0.8)", "coordinated mean (c = 0.8)", "plain mean"),
)
"""The difference between two variants, and the rest of their names."""
STRIPPED = ("all shared", "nothing private")
"""The beginning of these variants' names."""
ORDER = (
    OURS, "pf_msmtrec_paper", "fedhca2", "fedamp", "apfl", "ditto", "fedavg_finetune", "fedrep", "fedper", "fedbn",
    "fedprox", "fedavg", "local", "centralized", ORACLE,
)  # fmt: skip


def tables(runs: pd.DataFrame) -> str:
    """Return all tables as Markdown, from the rows of quality.csv."""
    parts = []
    for setting, rows in runs.groupby("setting", sort=False):
        if not ((rows["method"] == OURS) & (rows["variant"] == FULL)).any():
            parts += [f"### {setting}", "", f"{OURS} has not been run.", ""]
            continue
        full = _per_seed(rows[rows["variant"] == FULL], "method")
        parts += [f"### {setting}", "", _methods(full), "", _errors(rows), ""]
        variants = rows[(rows["method"] == OURS)]
        if variants["variant"].nunique() > 1:
            parts += [f"Modules of {OURS}, {setting}", "", _variants(_per_seed(variants, "variant")), ""]
        if pairs := _pairs(variants):
            parts += [f"What each module adds where clients keep little, {setting}", "", pairs, ""]
    return "\n".join(parts)


def _per_seed(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return the mean AUC over scenarios, with columns for each task and `mean`, by (key, seed)."""
    wide = rows.groupby([key, "seed", "task"], sort=False)["auc"].mean().unstack("task")
    wide = wide[list(dict.fromkeys(rows["task"]))]
    wide["mean"] = wide.mean(axis=1)
    return wide


def _methods(values: pd.DataFrame) -> str:
    columns = list(values.columns)
    head = ["method", *columns, *(f"{OURS} ahead, {c}" for c in columns), "gap closed"]
    rows = []
    present = [name for name in ORDER if name in values.index.get_level_values(0)]
    for name in present:
        own = values.loc[name]
        ahead = [""] * len(columns) if name == OURS else [_interval(values.loc[OURS][c] - own[c]) for c in columns]
        rows.append([name, *(_spread(own[c]) for c in columns), *ahead, _closed(values, name, present)])
    return markdown_table(text_table(head, rows))


def _variants(values: pd.DataFrame) -> str:
    columns = list(values.columns)
    head = ["variant", "seeds", *columns, *(f"full ahead, {c}" for c in columns)]
    rows = []
    for name in dict.fromkeys(values.index.get_level_values(0)):
        own = values.loc[name]
        ahead = [""] * len(columns) if name == FULL else [_interval(values.loc[FULL][c] - own[c]) for c in columns]
        rows.append([name, len(own), *(_spread(own[c]) for c in columns), *ahead])
    return markdown_table(text_table(head, rows))


def _pairs(variants: pd.DataFrame) -> str:
    """Return what a module adds to variants that lack all else, also for the scenario that is worst off."""
    values = _per_seed(variants, "variant")
    values[WORST] = variants.groupby(["variant", "seed", "scenario"])["auc"].mean().groupby(["variant", "seed"]).min()
    there = set(values.index.get_level_values(0))
    rows = []
    for base in STRIPPED:
        for what, end, start in PAIRS:
            ours, other = (f"{base}, {name}" if name else base for name in (end, start))
            if {ours, other} <= there:
                added = values.loc[ours] - values.loc[other]
                rows.append([what, other, ours, *(_interval(added[c]) for c in values.columns)])
    head = ["module", "from", "to", *(f"added, {c}" for c in values.columns)]
    return markdown_table(text_table(head, rows)) if rows else ""


def _closed(values: pd.DataFrame, name: str, present: list[str]) -> str:
    """Return which share of the way from local to the oracle a method goes, in the mean AUC."""
    if ORACLE not in present or FLOOR not in present:
        return ""
    floor, top = values.loc[FLOOR]["mean"].mean(), values.loc[ORACLE]["mean"].mean()
    return f"{(values.loc[name]['mean'].mean() - floor) / (top - floor):.0%}"


def _spread(values: "pd.Series[float]") -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" if len(values) > 1 else f"{values.mean():.4f}"


def _interval(differences: "pd.Series[float]") -> str:
    """Return the mean of paired differences with Student's interval over seeds; seeds that one side lacks drop out."""
    paired = differences.dropna()
    if len(paired) < 2:
        return f"{paired.mean():+.4f}"
    half = stdtrit(len(paired) - 1, (1 + CONFIDENCE) / 2) * paired.std(ddof=1) / math.sqrt(len(paired))
    return f"{paired.mean():+.4f} [{paired.mean() - half:+.4f}, {paired.mean() + half:+.4f}]"


def _errors(rows: pd.DataFrame) -> str:
    """Return the standard error of one run's mean AUC, from the size of the test parts."""
    ours = rows[(rows["method"] == OURS) & (rows["variant"] == FULL)]
    texts = []
    for task, cells in ours.groupby("task", sort=False):
        squares = standard_error(cells["auc"], cells["positives"], cells["rows"] - cells["positives"]) ** 2
        by_seed = squares.groupby(cells["seed"]).agg(lambda s: math.sqrt(s.sum()) / len(s))
        texts.append(f"{task} {by_seed.mean():.4f}")
    return f"Standard error of one run's mean over scenarios, from its test rows alone: {', '.join(texts)}."


def standard_error(
    auc: "pd.Series[float]", positives: "pd.Series[int]", negatives: "pd.Series[int]"
) -> "pd.Series[float]":
    """Return the standard error of an AUC (Hanley and McNeil 1982, eq. 2)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return np.sqrt(variance / (positives * negatives))
