"""A page of tables and pictures, as Markdown and as offline HTML."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pfmsmt.core import files
from pfmsmt.core.display import UNDEFINED, DisplayTable, markdown_table, markdown_text
from pfmsmt.report.drawing import Picture


class Page(NamedTuple):
    """All that a report shows, without markup."""

    title: str
    headline: str
    points: tuple[str, ...]
    """Sentences that a reader should see before the tables."""
    tables: tuple[DisplayTable, ...]
    """The first ones stand in front of the pictures, the others behind them."""
    pictures: tuple[Picture, ...]
    picture_folder: str
    """Beside the Markdown file; the HTML file holds the pictures itself."""
    subject: str = ""
    """Follows the title in the browser's tab."""
    facts: tuple[tuple[str, str], ...] = ()
    """(name, value), such as a fingerprint."""
    colours: Mapping[str, str] | None = None
    """Name of a row -> its colour in the pictures; HTML only."""
    in_front: int = 1
    """Tables in front of the pictures."""
    remarks: tuple[str, ...] = ()
    """What deserves attention; stands above the points."""


def write_page(page: Page, folder: Path, name: str, texts: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Write `<name>.md`, `<name>.html` and the pictures; return all paths.

    Everything is rendered before the first byte is written. Other files in `folder` stay; the folder of pictures is
    replaced as a whole.

    Args:
        texts: further files, name -> content.
    """
    whole = {f"{name}.md": markdown_page(page), f"{name}.html": html_page(page), **(texts or {})}
    pictures = folder / page.picture_folder
    with files.new_folder(pictures) as temporary:
        for picture in page.pictures:
            picture.write(temporary)
    for file, text in whole.items():
        files.write_text(folder / file, text)
    return (*(folder / file for file in whole), *(pictures / f"{picture.name}.png" for picture in page.pictures))


def markdown_page(page: Page) -> str:
    """Return the report as Markdown, which names its pictures' files."""
    parts = [f"# {markdown_text(page.title)}", f"**{markdown_text(page.headline)}**"]
    parts += [f"{name}: `{value}`" for name, value in page.facts]
    parts += [_bullets(page.remarks), _bullets(page.points)]
    for table in page.tables[: page.in_front]:
        parts += _section(table)
    # A picture shows its caption as its title, so that it is not printed again.
    parts += [
        f"![{markdown_text(picture.caption)}]({page.picture_folder}/{picture.name}.png)" for picture in page.pictures
    ]
    for table in page.tables[page.in_front :]:
        parts += _section(table)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(table: DisplayTable) -> list[str]:
    notes = _bullets([f"{UNDEFINED} {note}" for note in table.notes])
    return [f"## {markdown_text(table.title)}", markdown_text(table.explanation), markdown_table(table), notes]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def html_page(page: Page) -> str:
    """Return the report as HTML that refers to no other file."""
    shown = page._replace(colours=page.colours or {})
    return _template().render(page=shown, undefined_mark=UNDEFINED)


def write_plots_page(path: Path) -> None:
    """Write the page that DVC fills with plots, scripts included.

    DVC's own page fetches them from the network.
    """
    import vl_convert

    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    head = f'<meta charset="utf-8">{{refresh_tag}}<title>Plots</title><script>{scripts}</script>'
    style = "<style>body {font-family: sans-serif; margin: 2em} table {border-spacing: 1em}</style>"
    files.write_text(path, f"<!DOCTYPE html><html><head>{head}{style}</head><body>{{plot_divs}}</body></html>\n")


@cache
def _template() -> Template:
    loader = PackageLoader("pfmsmt.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
