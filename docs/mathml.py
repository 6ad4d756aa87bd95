"""Equations of the pages as MathML, which browsers draw themselves: no script, no fonts from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(text: str, **_: Any) -> str:
    """Put MathML in the place of every equation; mkdocs calls this with each page's HTML."""
    return _EQUATION.sub(_drawn, text)


def _drawn(found: re.Match[str]) -> str:
    _, bracket, latex = found.groups()
    drawn = str(convert(html.unescape(latex), display="inline" if bracket == "(" else "block"))
    if "\\" in drawn:
        raise ValueError(f"latex2mathml does not know all of {latex}")
    return drawn
