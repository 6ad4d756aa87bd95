"""Tables of the quality benchmark: means, paired differences with intervals, shares of gaps closed, and searches."""

import math
from typing import Any

import numpy as np
import pandas as pd
import yaml
from floors import FLOORS
from scipy.special import stdtrit
from worlds import DEFAULTS_BEST, SEARCHED, START_VALUES, Bench, settings

from pfmsmt.core.display import markdown_table, text_table

OURS, FULL, LOCAL, JOINT, ORACLE = "pf_msmtrec", "full", "local", "joint", "oracle"
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
BELOW = ("linear", *FLOORS)
"""Floors: the method that is one, and those of this benchmark."""
ORDER = (
    OURS, "pf_msmtrec_paper", "fedhca2", "fedamp", "apfl", "ditto", "fedavg_finetune", "fedrep", "fedper", "fedbn",
    "fedprox", "fedavg", LOCAL, *BELOW, "centralized", JOINT, ORACLE,
)  # fmt: skip
"""Rows of the tables; rivals that are not among them stand before local."""
NO_RIVALS = (LOCAL, *BELOW, "centralized", JOINT, ORACLE)
"""Neither they nor presets of `OURS`, whose names begin as its does, are rivals."""


def tables(runs: pd.DataFrame) -> str:
    """Return all tables as Markdown, from the rows of quality.csv."""
    parts = []
    for setting, rows in runs.groupby("setting", sort=False):
        if not ((rows["method"] == OURS) & (rows["variant"] == FULL)).any():
            parts += [f"### {setting}", "", f"{OURS} has not been run.", ""]
            continue
        full = _per_seed(rows[rows["variant"] == FULL], "method")
        parts += [f"### {setting}", "", _methods(full), "", _errors(rows), ""]
        if questions := _questions(full):
            parts += [f"{OURS} against the best of each kind, {setting}", "", questions, ""]
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
    present = _present(values)
    for name in present:
        own = values.loc[name]
        ahead = [""] * len(columns) if name == OURS else [_interval(values.loc[OURS][c] - own[c]) for c in columns]
        rows.append([name, *(_spread(own[c]) for c in columns), *ahead, _closed(values, name, present)])
    return markdown_table(text_table(head, rows))


def _present(values: pd.DataFrame) -> list[str]:
    """Return the rows of a table in their order."""
    there = dict.fromkeys(values.index.get_level_values(0))
    new = [name for name in there if name not in ORDER]
    at = ORDER.index(LOCAL)
    return [name for name in (*ORDER[:at], *new, *ORDER[at:]) if name in there]


def _questions(values: pd.DataFrame) -> str:
    """Return the leads over the best and the worst of each kind, and the share of the way to joint.

    The best of a kind is who comes closest to `OURS` (or is furthest ahead) by the mean AUC of test rows: the choice
    helps the other side.
    """
    present = _present(values)
    columns = list(values.columns)
    lead = {name: (values.loc[OURS] - values.loc[name]).mean()["mean"] for name in present}
    rivals = [name for name in present if not name.startswith(OURS) and name not in NO_RIVALS]
    floors = [name for name in present if name in BELOW]
    alone = [name for name in present if name in (LOCAL, *BELOW)]
    kinds = (
        ("best rival", rivals, min), ("worst rival", rivals, max), ("best floor", floors, min),
        ("best of floors and local", alone, min), ("best of floors, local and rivals", alone + rivals, min),
    )  # fmt: skip
    rows = []
    for what, kind, choose in kinds:
        if kind:
            chosen = choose(kind, key=lead.__getitem__)
            rows.append([what, chosen, *(_interval((values.loc[OURS] - values.loc[chosen])[c]) for c in columns)])
    if alone and JOINT in present:
        base = min(alone, key=lead.__getitem__)
        ours, top = values.loc[OURS] - values.loc[base], values.loc[JOINT] - values.loc[base]
        shares = [_share(ours[c], top[c]) for c in columns]
        rows.append(["share of the way to joint", f"from {base}", *shares])
    head = ["question", "against", *(f"{OURS} ahead, {c}" for c in columns)]
    return markdown_table(text_table(head, rows)) if rows else ""


def _share(part: "pd.Series[float]", whole: "pd.Series[float]") -> str:
    """Return the ratio of two means over the same seeds, with Fieller's interval.

    The interval (Fieller 1954) has the ratios r for which Student's test does not refuse that part - r whole is zero in
    the mean. It has no ends where `whole` itself may be zero.
    """
    both = pd.DataFrame({"part": part, "whole": whole}).dropna()
    p, w = both.mean()
    if w <= 0:
        return "none: joint is not ahead"
    if len(both) < 2:
        return f"{p / w:.0%}"
    t = stdtrit(len(both) - 1, (1 + CONFIDENCE) / 2)
    (pp, pw), (_, ww) = t**2 * both.cov().to_numpy() / len(both)
    a, b, c = w**2 - ww, p * w - pw, p**2 - pp
    if a <= 0:
        return f"{p / w:.0%} [no ends]"
    half = math.sqrt(max(b**2 - a * c, 0.0))
    return f"{p / w:.0%} [{(b - half) / a:.0%}, {(b + half) / a:.0%}]"


def searches(bench: Bench) -> str:
    """Return the table of studies: who kept whose values, and what pruning saved."""
    rows = []
    for setting in settings():
        paths = sorted(bench.tuned_file(setting, OURS).parent.glob("*.yaml"))
        studies = {path.stem: _figures(yaml.safe_load(path.read_text(encoding="utf-8"))["study"]) for path in paths}
        if not studies:
            continue
        trials = sorted({study["trials"] for study in studies.values()})
        saved = [study["rounds_saved"] for study in studies.values() if study["rounds_saved"] is not None]
        kept = ([name for name, s in studies.items() if s["ended_at"] == end] for end in (START_VALUES, DEFAULTS_BEST))
        rows.append([
            setting, len(studies), " or ".join(map(str, trials)), sum(study["pruned"] for study in studies.values()),
            f"{np.mean(saved):.0%}" if saved else "",
            *(f"{len(names)} of {len(studies)}{': ' * bool(names)}{', '.join(names)}" for names in kept),
        ])  # fmt: skip
    head = ["setting", "searches", "trials of each", "trials pruned", "rounds saved",
            "ended at the start values", "ended at the best of the default setting"]  # fmt: skip
    return markdown_table(text_table(head, rows))


def _figures(study: dict[str, Any]) -> dict[str, Any]:
    """Add what a study lacks that `pfmsmt tune --export` wrote; its first trial is the start as well."""
    end = START_VALUES if study["best_trial"] == 0 else SEARCHED
    return {"pruned": study.get("states", {}).get("pruned", 0), "rounds_saved": None, "ended_at": end, **study}


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
    if ORACLE not in present or LOCAL not in present:
        return ""
    floor, top = values.loc[LOCAL]["mean"].mean(), values.loc[ORACLE]["mean"].mean()
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
