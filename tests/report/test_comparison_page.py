"""Markdown, terminal and HTML renderings."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from pfmsmt.core.display import UNDEFINED
from pfmsmt.report.comparison.comparison_page import comparison_page
from pfmsmt.report.comparison.metric_tables import auc_table, other_tables, terminal_comparison, undefined_notes
from pfmsmt.report.comparison.score_pictures import auc_picture
from pfmsmt.report.drawing import Picture
from pfmsmt.report.page import html_page, markdown_page


def markdown(results, pictures):
    return markdown_page(comparison_page(results, pictures))


def html(results, pictures):
    return html_page(comparison_page(results, pictures))


def cells(text, heading, method):
    """Return one method's cells of the table under a Markdown heading."""
    section = text.split(f"## {heading}\n")[1]
    line = next(line for line in section.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


class TestMarkdown:
    def test_auc_with_interval_best_deployable_bold(self, load):
        text = markdown(load(), [])
        assert cells(text, "AUC", "pf_msmtrec") == [
            "**0.7083**", "**0.6250**", "**0.8750**", "**0.7500** [0.688, 0.812]", "**0.8750** [0.812, 0.938]",
            "0.5000 [0.438, 0.562]", UNDEFINED,
        ]  # fmt: skip
        assert cells(text, "AUC", "fedavg")[:2] == ["0.6250", "0.5625"]
        assert "**" not in "".join(cells(text, "AUC", "centralized") + cells(text, "AUC", "oracle"))

    def test_deviation_over_seeds(self, load):
        text = markdown(load(seeds=(0, 1)), [])
        assert cells(text, "AUC", "pf_msmtrec")[3] == "**0.8125** ± 0.0884 [0.750, 0.875]"
        assert "Means over seeds 0, 1" in text

    def test_other_metrics(self, load):
        text = markdown(load(), [])
        assert cells(text, "GAUC", "fedavg")[3:] == ["0.3750", "0.6250", "**0.5000**", UNDEFINED]
        assert cells(text, "Predicted / actual", "oracle") == ["1.5000", "1.5000", "1.5000", UNDEFINED]

    def test_ties_are_all_bold(self, load):
        text = markdown(load(), [])
        assert cells(text, "Log-loss", "pf_msmtrec")[0] == cells(text, "Log-loss", "fedavg")[0] == "**0.2500**"

    def test_undefined_values_are_explained(self, load):
        assert undefined_notes(load()) == (
            "ES CTCVR: 80 test rows, 0 positives. "
            "With one class only, AUC and GAUC are undefined and left out of the means.",
        )
        assert undefined_notes(load())[0] in markdown(load(), [])

    def test_headline_and_pictures(self, load):
        text = markdown(load(), [Picture("auc", "The AUCs.", b"")])
        assert "could be deployed: pf_msmtrec, 0.7083, ahead of fedavg by 0.0833." in text
        assert "![The AUCs.](pictures/auc.png)" in text
        assert "centralized: a reference" in text


class TestTerminal:
    def test_rows_by_hand(self, load):
        lines = terminal_comparison(load()).splitlines()
        assert lines[2].split() == ["method", "all", "CTR", "CTCVR", "CTR", "CTCVR", "CTR", "CTCVR"]
        assert lines[3].split() == ["pf_msmtrec", "0.7083*", "0.6250*", "0.8750*", "0.7500*", "0.8750*", "0.5000", "-"]
        assert lines[6].split()[0] == "oracle"

    def test_deviations_have_a_line_of_their_own(self, load):
        lines = terminal_comparison(load(seeds=(0, 1))).splitlines()
        assert lines[4].split() == ["std", "0.0295", "0.0442", "0.0000", "0.0884", "0.0000", "0.0000"]

    def test_plain_and_narrow(self, load):
        text = terminal_comparison(load(seeds=(0, 1)))
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 100

    def test_many_scenarios_continue_below(self, load):
        small = load()
        names = tuple(f"S{number}" for number in range(7))
        runs = tuple(dataclasses.replace(run, scores=dict.fromkeys(names, run.scores["NL"])) for run in small.runs)
        text = terminal_comparison(dataclasses.replace(small, runs=runs, scenarios=names, oracle=None))
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert [line.split()[0] for line in lines].count("pf_msmtrec") == 2
        assert re.findall(r"S\d", text) == list(names)


class Tags(HTMLParser):
    """Collects tags, and checks that they close in order."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestPage:
    @pytest.mark.slow(2)
    def test_is_self_contained_and_well_formed(self, load):
        results = load()
        page = html(results, [auc_picture(results)])
        tags = Tags()
        tags.feed(page)
        assert tags.open == []
        assert not {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"}
        sources = [attrs[name] for _, attrs in tags.seen for name in ("src", "href") if name in attrs]
        assert len(sources) == 1
        assert sources[0].startswith("data:image/png;base64,iVBOR")
        assert not re.search(r"https?:|url\(|@import", page)

    def test_has_every_table_and_value(self, load):
        results = load(seeds=(0, 1))
        page = html(results, [])
        for table in (auc_table(results), *other_tables(results)):
            assert f"<h2>{table.title}</h2>" in page
        assert "<b>0.8125</b><small>± 0.0884</small><small>[0.750, 0.875]</small>" in page
        # Reference and oracle in each of five tables, and the reference among those that the best is ahead of.
        assert page.count('<tr class="reference">') == 2 * 5 + 1

    def test_names_are_escaped(self, load, inputs):
        for path in [*inputs.rglob("*.csv"), *inputs.rglob("*.json")]:
            path.write_text(path.read_text().replace("NL", "<i>&"))
        page = html(load(), [])
        assert "&lt;i&gt;&amp;" in page
        assert "<i>&" not in page
