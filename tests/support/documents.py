"""The project's pages as tests read them: their prose, code blocks, code spans and links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_EQUATION = re.compile(r"\$\$.*?\$\$", re.DOTALL)
_INLINE_EQUATION = re.compile(r"\$[^$\n]+(?:\n[^$\n]+)?\$")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
_BULLET = re.compile(r"^\s*([-*]|\d+\.)\s+")
# After them a sentence goes on.
_SHORT_FORMS = re.compile(r"\b(et al|vs|p|pp|eq|ca)\.", re.IGNORECASE)


def pages() -> list[Path]:
    """Return every page that people write or read: those of docs and those at the root."""
    return sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return (language, text) of each fenced block; the language of a shell's commands is empty."""
    return [(kind, block) for _, kind, block in _FENCE.findall(text)]


def without_code(text: str) -> str:
    """Return the text without fenced blocks."""
    return _FENCE.sub("\n\n", text)


def code_spans(text: str) -> list[str]:
    """Return what stands in backticks within the text, on one line each."""
    return [" ".join(span.split()) for span in _SPAN.findall(without_code(text))]


def links(text: str) -> list[str]:
    """Return the targets of all links."""
    return [target for _, target in _LINK.findall(_SPAN.sub("", without_code(text)))]


def commands(text: str) -> list[str]:
    """Return every line of the shell blocks, without comments; a line that ends in a backslash goes on."""
    blocks = [block.replace("\\\n", " ") for kind, block in code_blocks(text) if not kind]
    lines = [re.split(r"\s+# ", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def sentences(text: str) -> list[str]:
    """Return the sentences of the prose: no code, tables, headings or equations of their own.

    A code span, an inline equation and a link's address count as one word, or as none.
    """
    prose = _EQUATION.sub(" ", without_code(text))
    paragraphs: list[str] = []
    fresh = True
    for line in prose.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(("|", "#", "<", "!!!", "---")):
            fresh = True
            continue
        if fresh or _BULLET.match(line):
            paragraphs.append("")
        paragraphs[-1] += " " + _BULLET.sub("", bare)
        fresh = False
    return [sentence for paragraph in paragraphs for sentence in _split(paragraph)]


def _split(paragraph: str) -> list[str]:
    text = _LINK.sub(r"\1", _INLINE_EQUATION.sub("equation", _SPAN.sub("code", paragraph)))
    text = _SHORT_FORMS.sub(r"\1", text.replace("**", "").replace("*", ""))
    parts = re.split(r"(?<=[.!?])[)\"']?\s+", text.strip())
    return [part for part in parts if part]


def word_count(sentence: str) -> int:
    """Return how many words a sentence has; a dash or another sign alone is none."""
    return len([word for word in sentence.split() if re.search(r"\w", word)])
