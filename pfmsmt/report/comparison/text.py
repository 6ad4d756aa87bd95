"""The comparison as Markdown, and as plain text for a terminal."""

import textwrap
from collections.abc import Sequence

from pfmsmt.report.comparison.means import ranked
from pfmsmt.report.comparison.results import ORACLE, Results
from pfmsmt.report.comparison.tables import UNDEFINED, Row, Table, auc_table, notes, other_tables

WIDTH = 100
"""Columns of the terminal table."""


def headline(results: Results) -> str:
    """Return one sentence: which method leads, by how much."""
    order = ranked(results)
    if not order:
        return "No AUC is defined on these test shards."
    (best, value), *others = order
    behind = f", ahead of {others[0][0]} by {value - others[0][1]:.4f}" if others else ""
    return f"Best mean test AUC of the methods that could be deployed: {best}, {value:.4f}{behind}."


def explanations(results: Results) -> tuple[str, ...]:
    """Say what the numbers are and how to read them."""
    seeds = sorted({run.seed for run in results.runs})
    lines = [f"All values are from the test shards, with the personalised models. {_seeds(seeds)}"]
    if any(run.scores[s][t].auc_low is not None for run in results.runs for s in run.scores for t in run.scores[s]):
        level = f"{results.confidence:.0%} " if results.confidence is not None else ""
        lines.append(
            f"[low, high] is the {level}bootstrap interval over test searches. All methods are scored on the same "
            "rows, so differences between methods are steadier than the intervals alone suggest."
        )
    lines.append("Bold: the best of the methods that could be deployed.")
    references = [method for method in results.methods if method in results.references]
    if references:
        lines.append(f"{', '.join(references)}: a reference that pools all clients' data; nobody could deploy it.")
    if results.oracle is not None:
        lines.append(f"{ORACLE}: the true probabilities of the generated data, the ceiling for any method.")
    return tuple(lines)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]})."
    return f"Means over seeds {', '.join(map(str, seeds))}; ± is the sample standard deviation over them."


def markdown(results: Results, pictures: Sequence[tuple[str, str]]) -> str:
    """Return the report; `pictures` are (path relative to it, caption)."""
    parts = ["# Comparison of methods", f"**{headline(results)}**", "\n".join(f"- {t}" for t in explanations(results))]
    tables = [auc_table(results), *other_tables(results)]
    parts += _markdown_section(tables[0])
    if notes(results):
        parts.append("\n".join(f"- {UNDEFINED} {note}" for note in notes(results)))
    for path, caption in pictures:
        parts += [f"![{caption}]({path})", f"*{caption}*"]
    for table in tables[1:]:
        parts += _markdown_section(table)
    return "\n\n".join(parts) + "\n"


def _markdown_section(table: Table) -> list[str]:
    heads = ["method"] + [f"{group} {column}" for group, columns in table.groups for column in columns]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for row in table.rows:
        texts = [f"**{cell.value}**" if cell.best else cell.value for cell in row.cells]
        spreads = [f" {cell.spread}" if cell.spread else "" for cell in row.cells]
        lines.append([row.method, *(text + spread for text, spread in zip(texts, spreads, strict=True))])
    return [f"## {table.title}", table.explanation, "\n".join(f"| {' | '.join(line)} |" for line in lines)]


def terminal_table(results: Results) -> str:
    """Return the AUC table as plain ASCII text of at most WIDTH columns; wide tables continue below.

    An asterisk marks the best method that could be deployed; `-` is undefined.
    """
    table = auc_table(results)
    label = max(len("method"), *(len(row.method) for row in table.rows), len("  std"))
    lines = ["Test AUC, * marks the best of the methods that could be deployed"]
    for first, last in _blocks(table, WIDTH - label):
        lines += _block(table, first, last, label)
    for note in notes(results):
        lines += textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


COLUMN = 8
"""Blank, four decimals, room for the asterisk."""


def _blocks(table: Table, width: int) -> list[tuple[int, int]]:
    """Cut the groups into runs that fit; a group is never torn apart."""
    fitting = max(1, width // COLUMN)
    blocks: list[tuple[int, int]] = []
    start = end = 0
    for _, columns in table.groups:
        if end > start and end + len(columns) - start > fitting:
            blocks.append((start, end))
            start = end
        end += len(columns)
    return [*blocks, (start, end)]


def _block(table: Table, first: int, last: int, label: int) -> list[str]:
    above, below, column = " " * label, "method".ljust(label), 0
    for group, names in table.groups:
        if first <= column < last:
            above += f" {group:-^{COLUMN * len(names) - 2}} "
            below += "".join(f"{name[: COLUMN - 2]:>{COLUMN - 1}} " for name in names)
        column += len(names)
    lines = [above, below]
    for row in table.rows:
        lines.append(row.method.ljust(label) + "".join(_padded(c.value, c.best) for c in row.cells[first:last]))
        if any(cell.spread.startswith("±") for cell in row.cells):
            lines.append("  std".ljust(label) + "".join(_deviations(row, first, last)))
    return lines


def _deviations(row: Row, first: int, last: int) -> list[str]:
    parts = [cell.spread.split() for cell in row.cells[first:last]]
    return [_padded(part[1] if part[:1] == ["±"] else "") for part in parts]


def _padded(text: str, best: bool = False) -> str:
    ascii_text = text.replace(UNDEFINED, "-")
    return f"{ascii_text:>{COLUMN - 1}}{'*' if best else ' '}"
