"""Tables as Markdown and as terminal text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfmsmt.core.display import (
    Cell,
    DisplayTable,
    Heading,
    Row,
    markdown_table,
    plain_row,
    terminal_notes,
    terminal_table,
    text_table,
)

SCORES = DisplayTable(
    headings=(
        Heading("method", align="left"),
        Heading("all", "mean", ".4f"),
        Heading("CTR", "NL", ".4f"),
        Heading("CTCVR", "NL", ".4f"),
    ),
    rows=(
        Row((Cell("ours"), Cell(0.75, 0.0125, best=True), Cell(0.5), Cell(1, note="[0.9, 1.0]", best=True))),
        Row((Cell("longest"), Cell(0.7), Cell(0.625, best=True), Cell(None)), reference=True),
    ),
    title="AUC",
    notes=("One class only.",),
)


def test_markdown():
    assert markdown_table(SCORES).splitlines() == [
        "| method | mean all | NL CTR | NL CTCVR |",
        "| --- | ---: | ---: | ---: |",
        "| ours | **0.7500** ± 0.0125 | 0.5000 | **1.0000** [0.9, 1.0] |",
        "| longest | 0.7000 | **0.6250** | – |",
    ]


def test_terminal():
    assert terminal_table(SCORES).splitlines() == [
        "         -mean-  ------NL------",
        "method      all     CTR   CTCVR",
        "ours     0.7500* 0.5000  1.0000*",
        "  std    0.0125",
        "longest  0.7000  0.6250*      -",
    ]


def test_a_wide_table_goes_on_below_and_no_group_is_torn_apart():
    assert terminal_table(SCORES, 30).splitlines() == [
        "         -mean-",
        "method      all",
        "ours     0.7500*",
        "  std    0.0125",
        "longest  0.7000",
        "         ------NL------",
        "method      CTR   CTCVR",
        "ours     0.5000  1.0000*",
        "  std",
        "longest  0.6250*      -",
    ]
    assert terminal_table(SCORES, 32) == terminal_table(SCORES)


def test_a_group_with_a_long_name_has_room_for_it():
    headings = (Heading("", align="left"), Heading("CTR", "QK-article"), Heading("CTR", "NL"))
    assert terminal_table(DisplayTable(headings, (plain_row("ours", 1, 2),))).splitlines() == [
        "      QK-article  NL-",
        "             CTR  CTR",
        "ours           1    2",
    ]


def test_columns_of_text_and_a_table_without_headings():
    table = text_table(("", "before", "after"), [("local", 0.25, "0.5*"), ("  rate", None, 12)], right=("after",))
    assert terminal_table(table).splitlines() == [
        "        before  after",
        "local   0.25     0.5*",
        "  rate  -          12",
    ]
    assert terminal_table(text_table(("",), [("A–B",)])) == "A–B"
    assert terminal_table(text_table(("", ""), [("seed", "0"), ("a", "b")])) == "seed  0\na     b"
    assert terminal_table(text_table(("model", "alias"), [])) == "model  alias"
    assert table.texts() == (("local", "0.25", "0.5*"), ("  rate", "–", "12"))


def test_names_cannot_break_markdown():
    table = text_table(("a|b",), [("<b>x\ny|",)])
    assert markdown_table(table).splitlines() == [r"| a\|b |", "| --- |", r"| &lt;b>x y\| |"]


def test_notes_are_wrapped():
    table = SCORES._replace(notes=("one two three", "four"))
    assert terminal_notes(table, 10) == "- one two\n  three\n- four"
    assert terminal_notes(SCORES._replace(notes=()), 10) == ""


def test_a_row_must_fit_its_headings():
    with pytest.raises(ValueError, match="zip"):
        terminal_table(DisplayTable((Heading("one"),), (plain_row(1, 2),)))


words = st.text("abcXYZ-_", min_size=1, max_size=12)


@pytest.mark.slow(1)
@given(
    groups=st.dictionaries(words, st.lists(words, min_size=1, max_size=4), min_size=1, max_size=8),
    values=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    width=st.integers(20, 120),
)  # fmt: skip
def test_a_narrow_terminal_loses_no_value(groups, values, width):
    headings = [Heading("name", align="left")]
    headings += [Heading(name, group, ".4f") for group, names in groups.items() for name in names]
    rows = tuple(
        Row((Cell(f"r{number}"), *(Cell(value, best=number == 0) for _ in headings[1:])))
        for number, value in enumerate(values)
    )
    lines = terminal_table(DisplayTable(tuple(headings), rows), width).splitlines()
    for number, value in enumerate(values):
        printed = [line.split()[1:] for line in lines if line.split()[0] == f"r{number}"]
        mark = "*" if number == 0 else ""
        assert [text for texts in printed for text in texts] == [f"{value:.4f}{mark}"] * (len(headings) - 1)
    widest = max(sum(max(len(n), 7) + 2 for n in names) + len(group) for group, names in groups.items())
    assert max(map(len, lines)) <= max(width, 6 + widest)
