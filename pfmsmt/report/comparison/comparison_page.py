"""The comparison of methods as a page, and all its files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pfmsmt.report.comparison.inputs import ORACLE_METHOD, Results
from pfmsmt.report.comparison.metric_tables import auc_table, other_tables
from pfmsmt.report.comparison.recommendation import ALONE, worth_table
from pfmsmt.report.comparison.score_pictures import all_pictures
from pfmsmt.report.comparison.summaries import (
    calibration_table,
    csv_text,
    metrics_tree,
    roc_table,
    rounds_table,
    summary_tree,
)
from pfmsmt.report.comparison.verdicts import headline, lead_table, remarks_on
from pfmsmt.report.drawing import Picture, looks
from pfmsmt.report.page import Page, write_page


def write_comparison(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write the comparison into `folder` and return the paths.

    metrics.json, summary.json, comparison.md, comparison.html, rounds.csv, roc.csv, calibration.csv and a folder of
    pictures. Other files in `folder` stay; pictures of an earlier comparison go.
    """
    texts: Mapping[str, str] = {
        "metrics.json": _json(metrics_tree(results)),
        "summary.json": _json(summary_tree(results)),
        "rounds.csv": csv_text(rounds_table(results)),
        "roc.csv": csv_text(roc_table(results)),
        "calibration.csv": csv_text(calibration_table(results)),
    }
    return write_page(comparison_page(results, all_pictures(results)), folder, "comparison", texts)


def comparison_page(results: Results, pictures: Sequence[Picture]) -> Page:
    """Put together what the comparison shows."""
    first = [table for table in (worth_table(results), lead_table(results), auc_table(results)) if table is not None]
    return Page(
        title="Comparison of methods",
        headline=headline(results),
        remarks=remarks_on(results),
        points=_explanations(results),
        tables=(*first, *other_tables(results)),
        in_front=len(first),
        pictures=tuple(pictures),
        picture_folder="pictures",
        colours={method: look.colour for method, look in looks(results.shown).items()},
    )


def _explanations(results: Results) -> tuple[str, ...]:
    """Say what the numbers are and how to read them."""
    seeds = sorted({run.seed for run in results.runs})
    lines = [f"All values are from the test shards, with the personalised models. {_seeds(seeds)}"]
    if any(run.scores[s][t].auc_low is not None for run in results.runs for s in run.scores for t in run.scores[s]):
        level = f"{results.confidence:.0%} " if results.confidence is not None else ""
        lines.append(
            f"[low, high] is the {level}bootstrap interval over test searches. All methods are scored on the same "
            "rows, so differences between methods are steadier than the intervals alone suggest, and have intervals of "
            "their own."
        )
    lines += _refits(results)
    lines.append("Bold: the best of the methods that could be deployed.")
    references = [method for method in results.methods if method in results.references]
    if references:
        lines.append(
            f"{', '.join(references)}: a reference that pools gradients at every step; nobody could deploy it."
        )
    if results.federated and ALONE not in results.methods:
        lines.append(f"Name {ALONE} in train.methods to see where a federation is worth it.")
    if results.oracle is not None:
        lines.append(f"{ORACLE_METHOD}: the true probabilities of the generated data, the ceiling for any method.")
    return tuple(lines)


def _refits(results: Results) -> list[str]:
    """Say which methods were trained again, and on how many rows."""
    rows = {run.method: run.refit_rows for run in results.runs if run.refit_rows}
    if not rows:
        return []
    who = "All models" if len(rows) == len(results.methods) else f"The models of {', '.join(rows)}"
    own = next((found for method, found in rows.items() if results.deployable(method)), next(iter(rows.values())))
    counts = ", ".join(f"{scenario} {own[scenario]:,}" for scenario in results.scenarios if scenario in own)
    return [
        f"{who} were trained again, on training and validation rows ({counts}). Best rounds, validation figures and "
        "calibration are of the training before, to which validation rows were unknown."
    ]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]})."
    return f"Means over seeds {', '.join(map(str, seeds))}; ± is the sample standard deviation over them."


def _json(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"  # in the order of display, not of the alphabet
