"""The data card's tables and what deserves a word, free of any markup."""

from typing import NamedTuple

from pfmsmt.data.card.card import DataCard
from pfmsmt.data.card.drift import Drift
from pfmsmt.data.card.profile import Categorical
from pfmsmt.data.card.remarks import remarks
from pfmsmt.data.schema import SPLITS
from pfmsmt.data.tables.faults import LIST_FILE

FEW_POSITIVES = 30
"""With fewer, an AUC is mostly luck."""
MANY_UNKNOWN = 0.1
"""Share of test rows."""


class CardTable(NamedTuple):
    """A heading, an explanation, and cells; the first column names the row."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def groups_word(card: DataCard) -> str:
    """Return what a group is: searches, users."""
    word = card.schema.group.removesuffix("_id")
    return "searches" if word == "search" else f"{word}s"


def rate_name(task: str) -> str:
    """Return how a task's rate is called."""
    return task.upper() if task in ("ctr", "ctcvr") else f"{task} rate"


def scenario_table(card: DataCard) -> CardTable:
    """Return rows, groups and rates of each scenario and split, and of all together."""
    tasks = [task.name for task in card.schema.tasks]
    rows = []
    for split in SPLITS:
        counts = {s: card.profile[s][split].counts for s in card.schema.scenarios}
        for scenario, held in counts.items():
            rates = [_rate(held.positives[task], held.rows) for task in tasks]
            rows.append((f"{scenario} {split}", f"{held.rows:,}", f"{held.groups:,}", *rates))
        whole = sum(held.rows for held in counts.values())
        groups = sum(held.groups for held in counts.values())
        rates = [_rate(sum(held.positives[task] for held in counts.values()), whole) for task in tasks]
        rows.append((f"all {split}", f"{whole:,}", f"{groups:,}", *rates))
    explanation = "Share of rows with label 1, and their number in brackets."
    return CardTable("Scenarios", explanation, ("", "rows", groups_word(card), *map(rate_name, tasks)), tuple(rows))


def column_table(card: DataCard) -> CardTable:
    """Return what each feature column is and where it is poor or drifts."""
    rows = []
    kinds = {f.name: "categorical" if f.federated else "private" for f in card.schema.categorical}
    for column in card.columns:
        held = [card.profile[s]["train"].column(column) for s in card.schema.scenarios]
        sizes = [one.distinct for one in held if isinstance(one, Categorical)]
        unknown = unknown_share(card, column)
        time, pair = worst_in_time(card, column), worst_between(card, column)
        rows.append(
            (
                column,
                kinds.get(column, "numerical"),
                _span(sizes),
                "" if unknown is None else f"{unknown[1]:.1%}",
                f"{card.missing(column):,}" if card.missing(column) else "",
                ", ".join(card.constant(column)),
                _drift(*time),
                "" if pair is None else _drift("-".join(pair[0]), pair[1]),
            )
        )
    explanation = (
        "Categories seen in a scenario's training rows, fewest to most; test rows with a category that no training row "
        "holds, in the worst scenario; rows without a value; scenarios whose training rows hold one value only; the "
        "largest Jensen-Shannon divergence, in bits, from training to test rows, and between the training rows of two "
        "scenarios (! where it is neither small nor chance)."
    )
    names = (
        "",
        "kind",
        "categories",
        "unknown in test",
        "missing",
        "constant in",
        "train to test",
        "between scenarios",
    )
    return CardTable("Columns", explanation, names, tuple(rows))


def unknown_share(card: DataCard, column: str) -> tuple[str, float] | None:
    """Return (scenario, share of its test rows) with the most categories out of vocabulary; None for numbers."""
    found = {s: card.profile[s]["test"].column(column) for s in card.schema.scenarios}
    shares = {s: one.unknown for s, one in found.items() if isinstance(one, Categorical)}
    return max(shares.items(), key=lambda item: item[1]) if shares else None


def worst_in_time(card: DataCard, column: str) -> tuple[str, Drift]:
    """Return the scenario whose column drifts most from training to test rows."""
    return max(card.in_time[column].items(), key=lambda item: item[1].divergence)


def worst_between(card: DataCard, column: str) -> tuple[tuple[str, str], Drift] | None:
    """Return the two scenarios whose columns lie farthest apart; None for private ones and a single scenario."""
    found = card.between.get(column)
    return max(found.items(), key=lambda item: item[1].divergence) if found else None


def findings(card: DataCard) -> tuple[str, ...]:
    """Say what deserves a word, the gravest first."""
    lines = []
    if card.left_out:
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in card.left_out.items())
        total = f"{sum(card.left_out.values()):,} faulty rows were left out"
        lines.append(f"{total}: {kinds}. data/clients/{LIST_FILE} lists them.")
    lines += remarks(card.schema)
    few = [
        f"{scenario} {split} ({n} of {task})"
        for scenario in card.schema.scenarios
        for split in SPLITS
        for task, n in card.profile[scenario][split].counts.positives.items()
        if 0 < n < FEW_POSITIVES
    ]
    if few:
        lines.append(f"Fewer than {FEW_POSITIVES} positives, so that an AUC is mostly luck: {', '.join(few)}.")
    missing = [f"{column} ({card.missing(column):,})" for column in card.columns if card.missing(column)]
    if missing:
        lines.append(f"Rows without a value: {', '.join(missing)}.")
    everywhere = [c for c in card.columns if len(card.constant(c)) == len(card.schema.scenarios)]
    if everywhere:
        lines.append(f"Constant in every scenario, so of no use: {', '.join(everywhere)}.")
    somewhere = [
        f"{c} ({', '.join(card.constant(c))})" for c in card.columns if card.constant(c) and c not in everywhere
    ]
    if somewhere:
        lines.append(f"Constant in some scenarios: {', '.join(somewhere)}.")
    unknown = [(c, share) for c in card.columns if (share := unknown_share(card, c)) and share[1] > MANY_UNKNOWN]
    if unknown:
        told = ", ".join(f"{column} ({share:.0%} in {scenario})" for column, (scenario, share) in unknown)
        lines.append(f"Many test rows hold categories that no training row does: {told}.")
    late = [c for c in card.columns if any(one.notable for one in card.in_time[c].values())]
    lines.append(_count(late, len(card.columns), "from training to test rows"))
    if len(card.schema.scenarios) > 1:
        apart = [c for c, pairs in card.between.items() if any(one.notable for one in pairs.values())]
        lines.append(_count(apart, len(card.between), "between scenarios"))
    return tuple(lines)


def _count(names: list[str], of: int, where: str) -> str:
    shown = f": {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
    return f"{len(names)} of {of} columns drift {where}{shown}."


def _rate(positives: int, rows: int) -> str:
    return f"{positives / max(rows, 1):.3%} ({positives:,})"


def _span(sizes: list[int]) -> str:
    if not sizes:
        return ""
    return f"{sizes[0]:,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"


def _drift(where: str, found: Drift) -> str:
    return f"{found.divergence:.4f} {where}{' !' if found.notable else ''}"
