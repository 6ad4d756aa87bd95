"""What the comparison says in sentences, and the table of leads."""

import json

from pfmsmt.report.comparison.comparison_page import comparison_page
from pfmsmt.report.comparison.verdicts import headline, lead_table, remarks_on, terminal_findings
from pfmsmt.report.page import html_page, markdown_page


def edit(inputs, method, **values):
    """Change metrics of every cell of a method's first seed where they are defined."""
    path = inputs / f"evaluation/{method}-seed0/metrics.json"
    tree = json.loads(path.read_text())
    for tasks in tree["scenarios"].values():
        for cell in tasks.values():
            cell.update({name: value for name, value in values.items() if cell[name] is not None})
    path.write_text(json.dumps(tree))


def texts(table):
    return {row[0]: row[1:] for row in table.texts()}


def test_the_lead_has_its_paired_interval(paired):
    text = headline(paired(confidence=0.95))
    # Replicates of the two differ by -0.1, 0 and 0.1, so the half width is 0.196.
    assert text.endswith("pf_msmtrec, 0.7083, ahead of fedavg by 0.0833 [-0.1127, 0.2793], which may be chance.")


def test_a_method_that_is_better_elsewhere_is_named(load, inputs):
    assert headline(load()).endswith("ahead of fedavg by 0.0833.")
    edit(inputs, "fedavg", logloss=0.125)
    edit(inputs, "centralized", ece=0.0)  # a reference is never the better one
    assert headline(load()).endswith("by 0.0833. fedavg has the lower log-loss, by 0.1250.")
    edit(inputs, "fedavg", ece=0.015625)
    assert headline(load()).endswith(
        "fedavg has the lower log-loss, by 0.1250. fedavg has the lower calibration error, by 0.0156."
    )


def test_the_lead_table(paired, load, inputs):
    table = lead_table(paired(confidence=0.95))
    assert table.title == "How far pf_msmtrec is ahead"
    assert texts(table) == {
        "fedavg": ("+0.0833", "+0.0625", "+0.1250", "+0.0000", "+0.0000"),
        "centralized": ("-0.1667", "-0.2188", "-0.0625", "+0.0000", "+0.0000"),
    }
    first, last = table.rows
    assert first.cells[1].note == "[-0.1127, 0.2793]"
    # Without spread the interval is a point, which leaves 0 out.
    assert [cell.best for cell in last.cells] == [False, True, True, True, False, False]
    assert (first.reference, last.reference) == (False, True)
    assert "95% interval" in table.explanation
    assert "With one seed the luck of training is not part of it" in table.explanation
    assert "Student's" in lead_table(load(seeds=(0, 1), confidence=0.95)).explanation
    assert "interval" not in lead_table(load()).explanation
    assert lead_table(load(methods=("fedavg",))) is None


def test_biased_predictions_are_named_the_worst_first(load, inputs):
    for method in ("pf_msmtrec", "fedavg", "centralized"):
        edit(inputs, method, predicted_to_actual=1.25)
    assert remarks_on(load()) == ()
    edit(inputs, "centralized", predicted_to_actual=9.0)  # a reference serves nobody
    assert remarks_on(load()) == ()
    edit(inputs, "fedavg", predicted_to_actual=0.5)
    assert remarks_on(load())[0].startswith(
        "Biased: predicted / actual is outside 0.8 to 1.25 for fedavg NL CTR (0.500), fedavg NL CTCVR (0.500), "
        "fedavg ES CTR (0.500). "
    )
    edit(inputs, "pf_msmtrec", predicted_to_actual=3.0)
    assert "for pf_msmtrec NL CTR (3.00), " in remarks_on(load())[0]


def test_a_long_list_says_how_many_more(load):
    results = load(seeds=(0,), scenarios=["NL", "ES"])
    wide = tuple(f"S{number}" for number in range(5))
    scores = dict.fromkeys(wide, results.runs[0].scores["NL"])
    for run in results.runs:
        object.__setattr__(run, "scores", scores)
    object.__setattr__(results, "scenarios", wide)
    text = remarks_on(results)[0]
    assert text.count("(1.50)") == 6
    assert " and 14 more. " in text
    assert "..." not in text


def test_remarks_stand_out_in_front_of_the_explanations(load):
    page = comparison_page(load(), [])
    assert page.remarks
    html, markdown = html_page(page), markdown_page(page)
    assert html.index('<div class="remarks">') < html.index("All values are from the test shards")
    assert f"- {page.remarks[0]}\n" in markdown


def test_the_terminal_says_the_same(paired):
    results = paired(confidence=0.95)
    text = terminal_findings(results)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert " ".join(text.split()).startswith(headline(results))


def test_nothing_defined_is_said(load, inputs):
    for method in ("pf_msmtrec", "fedavg", "centralized"):
        edit(inputs, method, auc=None)
    assert headline(load()) == "No AUC is defined on these test shards."
    assert lead_table(load()) is None
