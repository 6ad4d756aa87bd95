"""The data card as Markdown and as one HTML file that opens offline."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pfmsmt.core import files
from pfmsmt.data.card.card import DataCard
from pfmsmt.report.card.card_pictures import card_pictures
from pfmsmt.report.card.card_tables import CardTable, column_table, findings, groups_word, scenario_table
from pfmsmt.report.comparison.page import bullets, document, figure
from pfmsmt.report.drawing import Picture

PICTURES = "data_pictures"


def write_card(card: DataCard, folder: Path) -> tuple[Path, ...]:
    """Write `data.md`, `data.html` and a folder of pictures; return the files. All is drawn before any is written."""
    pictures = card_pictures(card)
    texts = {"data.md": card_markdown(card, pictures), "data.html": card_html(card, pictures)}
    with files.new_folder(folder / PICTURES) as temporary:
        for picture in pictures:
            picture.write(temporary)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return (*(folder / name for name in texts), *(folder / PICTURES / f"{p.name}.png" for p in pictures))


def headline(card: DataCard) -> str:
    """Return one sentence: what is there."""
    counts = [split.counts for splits in card.profile.values() for split in splits.values()]
    rows = sum(held.rows for held in counts)
    return (
        f"{card.schema.source}: {rows:,} rows in {len(card.schema.scenarios)} scenarios, "
        f"{len(card.schema.categorical)} categorical and {len(card.schema.numerical)} numerical columns, "
        f"grouped by {card.schema.group} ({groups_word(card)})."
    )


def card_markdown(card: DataCard, pictures: Sequence[Picture]) -> str:
    """Return the card; pictures lie in PICTURES beside it."""
    parts = ["# Data card", f"**{headline(card)}**", f"Fingerprint of the shards: `{card.schema.fingerprint}`"]
    parts.append("\n".join(f"- {line}" for line in findings(card)))
    first, *rest = [scenario_table(card), column_table(card)]
    parts += _markdown_table(first)
    for picture in pictures:
        parts += [f"![{picture.caption}]({PICTURES}/{picture.name}.png)", f"*{picture.caption}*"]
    for table in rest:
        parts += _markdown_table(table)
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: CardTable) -> list[str]:
    lines = [table.columns, ("---", *["---:"] * (len(table.columns) - 1)), *table.rows]
    text = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return [f"## {table.title}", table.explanation, text]


def card_html(card: DataCard, pictures: Sequence[Picture]) -> str:
    """Return the card as one page without any external reference."""
    first, *rest = [scenario_table(card), column_table(card)]
    body = [
        "<h1>Data card</h1>",
        f'<p class="lead">{escape(headline(card))}</p>',
        f"<p>Fingerprint of the shards: <code>{escape(card.schema.fingerprint)}</code></p>",
        bullets(findings(card)),
        _html_table(first),
        *(figure(picture) for picture in pictures),
        *(_html_table(table) for table in rest),
    ]
    return document(f"Data card: {card.schema.source}", body)


def _html_table(table: CardTable) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "\n".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>\n<p>{escape(table.explanation)}</p>\n"
        f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )
