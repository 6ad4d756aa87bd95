"""Where a federation is worth it, by the stated rule."""

import pytest

from pfmsmt.data.schema import SplitCounts
from pfmsmt.report.comparison import recommendation
from pfmsmt.report.comparison.comparison_page import comparison_page
from pfmsmt.report.comparison.differences import Difference
from pfmsmt.report.comparison.recommendation import WORTHWHILE, Gain, federated_choice, worth_table

COUNTS = {
    s: {"train": SplitCounts(rows=1200, groups=300, positives={"ctr": 100, "ctcvr": n})}
    for s, n in (("NL", 9), ("ES", 0))
}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.010, "federated"),
        (0.0, 0.010, "more data"),
        (-0.010, 0.010, "more data"),
        (-0.001, WORTHWHILE, "more data"),
        (-0.010, -0.001, "local"),
        (-0.001, 0.001, "local"),
        (0.0001, 0.0019, "local"),
    ],
)
def test_the_rule(low, high, expected):
    gain = Difference((low + high) / 2, low, high)
    assert Gain(gain, None, None).recommendation == expected
    assert Gain(gain, Difference(0.001, 0.0005, 0.0015), None).recommendation == expected
    assert Gain(gain, Difference(-0.001, -0.0025, 0.0005), None).recommendation == expected


def test_ranking_that_costs_log_loss_is_said():
    gain, worse = Difference(0.01, 0.001, 0.019), Difference(-0.002, -0.003, -0.001)
    assert Gain(gain, worse, None).recommendation == "for ranking only"
    assert Gain(Difference(0.0, -0.01, 0.01), worse, None).recommendation == "more data"


def test_without_an_interval_nothing_is_recommended():
    assert Gain(Difference(0.01), None, None).recommendation == ""
    assert Gain(None, None, None).recommendation == ""


def test_a_row_for_each_scenario_in_its_order(against_local):
    table = worth_table(against_local(scenarios=["ES", "NL"], counts=COUNTS))
    rows = table.texts()
    assert table.title == "When is it worth it: pf_msmtrec against local"
    assert [row[0] for row in rows] == ["ES", "NL"]
    # NL: 0.75 - 0.5 and 0.875 - 0.75, whose mean is 0.1875; replicates differ by -0.1, 0 and 0.1 more.
    assert rows[1][1:5] == ("1,200", "100", "9", "+0.1875 [-0.0085, 0.3835]")
    assert rows[0][4] == "-0.1250 [-0.3210, 0.0710]"
    assert [row[-1] for row in rows] == ["more data", "more data"]
    assert recommendation.RULE in table.explanation
    assert str(WORTHWHILE) in recommendation.RULE


def test_the_terminals_table_is_narrow(against_local):
    table = worth_table(against_local(counts=COUNTS), brief=True)
    assert [heading.name for heading in table.headings] == ["scenario", "training rows", "AUC gain", "recommended"]
    assert table.texts()[0] == ("NL", "1,200", "+0.1875 [-0.0085, 0.3835]", "more data")


def test_validation_chooses_the_federated_method(against_local, inputs):
    results = against_local()
    assert federated_choice(results) == "pf_msmtrec"  # all validate alike, so the first
    path = inputs / "models/fedavg-seed0/history.csv"
    path.write_text(path.read_text().replace("0.625", "0.75"))
    assert federated_choice(against_local()) == "fedavg"
    path = inputs / "models/centralized-seed0/history.csv"  # a reference
    path.write_text(path.read_text().replace("0.625", "0.875"))
    assert federated_choice(against_local()) == "fedavg"


def test_the_page_has_the_section_or_says_why_not(against_local):
    def titles(results):
        return [table.title for table in comparison_page(results, []).tables]

    assert titles(against_local())[0].startswith("When is it worth it")
    alone = against_local(methods=("pf_msmtrec", "fedavg"))
    assert not titles(alone)[0].startswith("When is it worth it")
    assert "Name local in train.methods to see where a federation is worth it." in comparison_page(alone, []).points
    assert worth_table(against_local(methods=("local", "centralized"))) is None
