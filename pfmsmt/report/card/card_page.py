"""The data card as a page: scenarios, columns and pictures."""

from collections.abc import Sequence
from pathlib import Path

from pfmsmt.core.display import DisplayTable, Heading, Row, plain_row
from pfmsmt.data.card.card import DataCard
from pfmsmt.data.card.drift import Drift
from pfmsmt.data.card.profile import Categorical
from pfmsmt.data.schema import SPLITS
from pfmsmt.report.card.card_facts import (
    card_headline,
    findings,
    groups_word,
    rate_name,
    unknown_share,
    worst_between,
    worst_in_time,
)
from pfmsmt.report.card.card_pictures import card_pictures
from pfmsmt.report.drawing import Picture
from pfmsmt.report.page import Page, write_page


def write_card(card: DataCard, folder: Path) -> tuple[Path, ...]:
    """Write `data.md`, `data.html` and a folder of pictures; return the files."""
    return write_page(card_page(card, card_pictures(card)), folder, "data")


def card_page(card: DataCard, pictures: Sequence[Picture]) -> Page:
    """Put together what the card shows."""
    return Page(
        title="Data card",
        headline=card_headline(card),
        points=findings(card),
        tables=(scenario_table(card), column_table(card)),
        pictures=tuple(pictures),
        picture_folder="data_pictures",
        subject=card.schema.source,
        facts=(("Fingerprint of the shards", card.schema.fingerprint),),
    )


def scenario_table(card: DataCard) -> DisplayTable:
    """Return rows, groups and rates by scenario and split, then in all."""
    tasks = [task.name for task in card.schema.tasks]
    rows: list[Row] = []
    for split in SPLITS:
        counts = {s: card.profile[s][split].counts for s in card.schema.scenarios}
        for scenario, held in counts.items():
            rates = [_rate(held.positives[task], held.labels(task)) for task in tasks]
            rows.append(plain_row(f"{scenario} {split}", held.rows, held.groups, *rates))
        whole = sum(held.rows for held in counts.values())
        groups = sum(held.groups for held in counts.values())
        rates = [
            _rate(
                sum(held.positives[task] for held in counts.values()),
                sum(held.labels(task) for held in counts.values()),
            )
            for task in tasks
        ]
        rows.append(plain_row(f"all {split}", whole, groups, *rates))
    counted = (Heading("rows", form=","), Heading(groups_word(card), form=","))
    return DisplayTable(
        (Heading("", align="left"), *counted, *(Heading(rate_name(task)) for task in tasks)),
        tuple(rows),
        "Scenarios",
        "Share of rows with label 1, and their number in brackets.",
    )


_COLUMN_HEADINGS = (
    Heading("", align="left"),
    Heading("kind"),
    Heading("categories"),
    Heading("unknown in test", form=".1%"),
    Heading("missing", form=","),
    Heading("constant in"),
    Heading("train to test"),
    Heading("between scenarios"),
)
_COLUMN_EXPLANATION = (
    "Categories seen in a scenario's training rows, fewest to most; test rows with a category that no training row "
    "holds, in the worst scenario; rows without a value; scenarios whose training rows hold one value only; the "
    "largest Jensen-Shannon divergence, in bits, from training to test rows, and between the training rows of two "
    "scenarios (! where it is neither small nor chance)."
)


def column_table(card: DataCard) -> DisplayTable:
    """Return each feature column's kind, gaps and drift."""
    rows = []
    kinds = {f.name: "categorical" if f.federated else "private" for f in card.schema.categorical}
    for column in card.columns:
        held = [card.profile[s]["train"].column(column) for s in card.schema.scenarios]
        sizes = [one.distinct for one in held if isinstance(one, Categorical)]
        unknown = unknown_share(card, column)
        pair = worst_between(card, column)
        # A blank, not None: there is nothing to report, which differs from an undefined value.
        rows.append(
            plain_row(
                column,
                kinds.get(column, "numerical"),
                _span(sizes),
                unknown[1] if unknown else "",
                card.missing(column) or "",
                ", ".join(card.constant(column)),
                _drift(*worst_in_time(card, column)),
                _drift("-".join(pair[0]), pair[1]) if pair else "",
            )
        )
    return DisplayTable(_COLUMN_HEADINGS, tuple(rows), "Columns", _COLUMN_EXPLANATION)


def _rate(positives: int, rows: int) -> str:
    return f"{positives / max(rows, 1):.3%} ({positives:,})"


def _span(sizes: list[int]) -> str:
    if not sizes:
        return ""
    return f"{sizes[0]:,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"


def _drift(where: str, found: Drift) -> str:
    return f"{found.divergence:.4f} {where}{' !' if found.notable else ''}"
