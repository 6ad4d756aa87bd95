"""The comparison as one HTML file that opens offline: styles and pictures are inside."""

import base64
from collections.abc import Sequence
from html import escape

from pfmsmt.report.comparison.results import Results
from pfmsmt.report.comparison.tables import UNDEFINED, Row, Table, auc_table, notes, other_tables
from pfmsmt.report.comparison.text import explanations, headline
from pfmsmt.report.drawing import Look, Picture, looks

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #222; background: #fff;
  max-width: 1200px; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
p.lead { font-size: 1.1rem; font-weight: 600; margin: 0 0 1rem; }
ul { padding-left: 1.2rem; color: #444; margin: .25rem 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .5rem 0; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; vertical-align: top; }
thead th { font-weight: 600; color: #444; }
thead tr:last-child th { border-bottom: 2px solid #888; }
tbody th { text-align: left; font-weight: 500; position: sticky; left: 0; background: inherit; }
tbody tr { border-bottom: 1px solid #e6e6e6; background: #fff; }
tbody tr.reference { color: #666; background: #f6f6f6; }
th.first, td.first { border-left: 1px solid #d5d5d5; }
th.group { text-align: center; }
td small { display: block; color: #666; font-size: .75rem; }
td b { color: #000; }
i.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .45rem; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid #e6e6e6; }
figcaption { color: #444; font-size: .9rem; }
@media print { body { max-width: none; margin: 0; } figure, table { break-inside: avoid; } }
"""


def html(results: Results, pictures: Sequence[Picture]) -> str:
    """Return the report as one page without any external reference."""
    first, *rest = [auc_table(results), *other_tables(results)]
    body = [
        "<h1>Comparison of methods</h1>",
        f'<p class="lead">{escape(headline(results))}</p>',
        bullets(explanations(results)),
        _section(results, first),
        bullets([f"{UNDEFINED} {note}" for note in notes(results)]),
        *(figure(picture) for picture in pictures),
        *(_section(results, table) for table in rest),
    ]
    return document("Comparison of methods", body)


def document(title: str, body: Sequence[str]) -> str:
    """Return a whole page in the report's style; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def bullets(lines: Sequence[str]) -> str:
    """Return a list of plain texts; nothing for none."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def figure(picture: Picture) -> str:
    """Return a picture with its caption, its bytes inside."""
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _section(results: Results, table: Table) -> str:
    styles = looks(results.shown)
    groups = "".join(
        f'<th class="group first" colspan="{len(columns)}">{escape(group)}</th>' for group, columns in table.groups
    )
    firsts = [place == 0 for _, columns in table.groups for place in range(len(columns))]
    names = [name for _, columns in table.groups for name in columns]
    heads = "".join(f"<th{_first(first)}>{escape(name)}</th>" for name, first in zip(names, firsts, strict=True))
    rows = "\n".join(_row(results, row, firsts, styles[row.method]) for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n<p>{escape(table.explanation)}</p>\n<div class="scroll"><table>\n'
        f"<thead><tr><td></td>{groups}</tr>\n<tr><td></td>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(results: Results, row: Row, firsts: Sequence[bool], look: Look) -> str:
    kind = "method" if results.deployable(row.method) else "reference"
    cells = []
    for cell, first in zip(row.cells, firsts, strict=True):
        value = f"<b>{escape(cell.value)}</b>" if cell.best else escape(cell.value)
        spread = "".join(f"<small>{escape(part)}</small>" for part in _lines(cell.spread))
        cells.append(f"<td{_first(first)}>{value}{spread}</td>")
    key = f'<i class="key" style="background:{look.colour}"></i>'
    return f'<tr class="{kind}"><th>{key}{escape(row.method)}</th>{"".join(cells)}</tr>'


def _lines(spread: str) -> list[str]:
    """Deviation and interval, each on a line of its own."""
    return [part for part in spread.replace(" [", "\n[").split("\n") if part]


def _first(first: bool) -> str:
    return ' class="first"' if first else ""
