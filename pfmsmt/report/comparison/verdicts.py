"""The comparison in sentences: leads, biases, overfitting."""

import textwrap

from pfmsmt.core.display import Cell, DisplayTable, Heading, Row, terminal_table
from pfmsmt.report.comparison.differences import SIGNS, Difference, PairedMetric, advantage
from pfmsmt.report.comparison.inputs import Results
from pfmsmt.report.comparison.overfitting import overfit_text, overfits
from pfmsmt.report.comparison.recommendation import worth_table
from pfmsmt.report.comparison.summaries import estimate, mean_history, places, ranked

NAMES: dict[PairedMetric, str] = {"auc": "AUC", "logloss": "log-loss", "ece": "calibration error"}
UNBIASED = (0.8, 1.25)
"""Predictions over positives: within this range nothing is said."""
MOST_LISTED = 6
"""Biased predictions that are named; of others their number is said."""


def headline(results: Results) -> str:
    """Say which method has the best AUC, and who is better elsewhere."""
    order = ranked(results)
    if not order:
        return "No AUC is defined on these test shards."
    (best, value), *others = order
    text = f"Best mean test AUC of the methods that could be deployed: {best}, {value:.4f}"
    if others:
        lead = advantage(results, best, others[0][0], "auc", places(results))
        by = lead.phrase if lead is not None else f"{value - others[0][1]:.4f}"
        text += f", ahead of {others[0][0]} by {by}"
    rivals = [_rival(results, best, metric) for metric in SIGNS if metric != "auc"]
    return " ".join([f"{text}.", *(text for text in rivals if text)])


def _rival(results: Results, best: str, metric: PairedMetric) -> str:
    """Name the method that beats the best one by another metric."""
    leads = [
        (name, lead)
        for name in results.methods
        if results.deployable(name) and name != best
        and (lead := advantage(results, name, best, metric, places(results))) is not None
    ]  # fmt: skip
    name, lead = max(leads, key=lambda pair: pair[1].value, default=("", Difference(0.0)))
    return f"{name} has the lower {NAMES[metric]}, by {lead.phrase}." if round(lead.value, 4) > 0 else ""


def lead_table(results: Results) -> DisplayTable | None:
    """Return how far the best method is ahead of each other one.

    None without a second method.
    """
    order = ranked(results)
    if not order or len(results.methods) < 2:
        return None
    best = order[0][0]
    rows = tuple(
        Row((Cell(other), *_leads(results, best, other)), reference=not results.deployable(other))
        for other in results.methods
        if other != best
    )
    headings = (
        Heading("method", align="left"),
        *(Heading(task.upper() if task else "all", "AUC", "+z.4f") for task in (None, *results.tasks)),
        *(Heading("all", NAMES[metric], "+z.4f") for metric in ("logloss", "ece")),
    )
    return DisplayTable(headings, rows, f"How far {best} is ahead", _lead_explanation(results, best))


def _leads(results: Results, best: str, other: str) -> list[Cell]:
    leads = [advantage(results, best, other, "auc", places(results, task)) for task in (None, *results.tasks)]
    leads += [advantage(results, best, other, metric, places(results)) for metric in ("logloss", "ece")]
    return [Cell(None) if lead is None else Cell(lead.value, note=lead.interval, best=lead.certain) for lead in leads]


def _lead_explanation(results: Results, best: str) -> str:
    text = (
        f"Mean over scenarios of the difference between {best} and each other method: above 0, {best} is better, by "
        "any of the three."
    )
    if results.confidence is None:
        return text
    seeds = (
        "Student's interval over the seeds is part of it, and is wide for two or three of them."
        if results.several_seeds
        else "With one seed the luck of training is not part of it; name more in train.seeds."
    )
    return (
        f"{text} [low, high] is the {results.confidence:.0%} interval of the difference, over test searches that are "
        f"drawn anew, the same ones for both methods. {seeds} Bold: the interval leaves 0 out."
    )


def remarks_on(results: Results) -> tuple[str, ...]:
    """Say where predictions are biased, and which methods overfit."""
    found = [_bias(results)]
    for method in results.methods:
        history = mean_history(results, method)
        val = {scenario: splits["val"] for scenario, splits in results.counts.items() if "val" in splits}
        cases = overfits(history, {s: val[s] for s in results.scenarios if s in val})
        found.append(overfit_text(method, cases, results.remedies.get(method, ())))
    return tuple(text for text in found if text)


def _bias(results: Results) -> str:
    """Name the most biased predictions, and count all that are."""
    low, high = UNBIASED
    ratios = [
        (f"{method} {scenario} {task.upper()}", estimate(results, method, "predicted_to_actual", [(scenario, task)])[0])
        for method in results.methods if results.deployable(method)
        for scenario, task in places(results)
    ]  # fmt: skip
    biased = [(name, ratio) for name, ratio in ratios if ratio is not None and not low <= ratio <= high]
    if not biased:
        return ""
    biased.sort(key=lambda pair: -max(pair[1], 1 / max(pair[1], 1e-9)))
    shown = ", ".join(f"{name} ({ratio:#.3g})" for name, ratio in biased[:MOST_LISTED])
    more = len(biased) - MOST_LISTED
    return (
        f"Biased: predicted / actual is outside {low} to {high} for {shown}{f' and {more} more' if more > 0 else ''}. "
        "Rates that set prices or budgets must not be so."
    )


def terminal_findings(results: Results, width: int = 100) -> str:
    """Return headline, remarks and recommendations as text of at most `width` columns."""
    lines = [textwrap.fill(text, width) for text in (headline(results), *remarks_on(results))]
    worth = worth_table(results, brief=True)
    if worth is not None:
        lines += [f"\n{worth.title}", terminal_table(worth, width)]
    return "\n".join(lines) + "\n"
