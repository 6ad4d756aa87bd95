"""Facts of the data card, in words and for its tables."""

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


def card_headline(card: DataCard) -> str:
    """Say in one sentence how much data there are."""
    counts = [split.counts for splits in card.profile.values() for split in splits.values()]
    rows = sum(held.rows for held in counts)
    return (
        f"{card.schema.source}: {rows:,} rows in {len(card.schema.scenarios)} scenarios, "
        f"{len(card.schema.categorical)} categorical and {len(card.schema.numerical)} numerical columns, "
        f"grouped by {card.schema.group} ({groups_word(card)})."
    )


def groups_word(card: DataCard) -> str:
    """Return a noun for the schema's groups: searches, users."""
    word = card.schema.group.removesuffix("_id")
    return "searches" if word == "search" else f"{word}s"


def rate_name(task: str) -> str:
    """Return the name of a task's rate: CTR, finish rate."""
    return task.upper() if task in ("ctr", "ctcvr") else f"{task} rate"


def findings(card: DataCard) -> tuple[str, ...]:
    """Say what a reader should know before training, the gravest first."""
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
        listed = ", ".join(f"{column} ({share:.0%} in {scenario})" for column, (scenario, share) in unknown)
        lines.append(f"Many test rows hold categories that no training row does: {listed}.")
    late = [c for c in card.columns if any(one.notable for one in card.in_time[c].values())]
    lines.append(drift_count(late, len(card.columns), "from training to test rows"))
    if len(card.schema.scenarios) > 1:
        apart = [c for c, pairs in card.between.items() if any(one.notable for one in pairs.values())]
        lines.append(drift_count(apart, len(card.between), "between scenarios"))
    return tuple(lines)


def drift_count(names: list[str], of: int, where: str) -> str:
    """Say how many columns drift, and name the first ten."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    shown = f": {', '.join(names[:10])}{more}" if names else ""
    return f"{len(names)} of {of} columns drift {where}{shown}."


def unknown_share(card: DataCard, column: str) -> tuple[str, float] | None:
    """Return the scenario with most unknown categories in test, and their share.

    None for a numerical column.
    """
    found = {s: card.profile[s]["test"].column(column) for s in card.schema.scenarios}
    shares = {s: one.unknown for s, one in found.items() if isinstance(one, Categorical)}
    return max(shares.items(), key=lambda item: item[1]) if shares else None


def worst_in_time(card: DataCard, column: str) -> tuple[str, Drift]:
    """Return the scenario whose column drifts most from training to test rows."""
    return max(card.in_time[column].items(), key=lambda item: item[1].divergence)


def worst_between(card: DataCard, column: str) -> tuple[tuple[str, str], Drift] | None:
    """Return the two scenarios whose columns lie farthest apart.

    None for a private column, whose codes are each client's own, and for a single scenario.
    """
    found = card.between.get(column)
    return max(found.items(), key=lambda item: item[1].divergence) if found else None
