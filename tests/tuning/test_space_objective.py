import pytest

from pfmsmt.core.errors import ConfigError
from pfmsmt.tuning.space import read_objective


def cells(ctr, ctcvr):
    return {"ctr": {"auc": ctr, "logloss": 0.1}, "ctcvr": {"auc": ctcvr, "logloss": 0.1}}


ROUND = [{"NL": cells(0.9, 0.8)}, {"ES": cells(0.7, None)}, {"US": cells(0.6, 0.82)}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", (0.9 + 0.8 + 0.7 + 0.6 + 0.82) / 5),
        ("minimum", 0.7),  # ES: its one defined AUC; US: 0.71; NL: 0.85
        ("US", 0.71),
        ("ctr", (0.9 + 0.7 + 0.6) / 3),
        ("US/ctcvr", 0.82),
        ("ES/ctcvr", None),
    ],
)
def test_values(schema, name, expected):
    found = read_objective(name, schema).value(ROUND)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-15))


def test_a_client_of_all_scenarios_counts_the_same(schema):
    pooled = [{scenario: tasks for validation in ROUND for scenario, tasks in validation.items()}]
    for name in ("mean", "minimum", "NL", "ctcvr"):
        objective = read_objective(name, schema)
        assert objective.value(pooled) == objective.value(ROUND)


@pytest.mark.parametrize(
    ("name", "near"), [("minimun", "minimum"), ("ctrr", "ctr"), ("NL/ctcv", "NL/ctcvr"), ("FR/ctr", "ctr")]
)
def test_what_the_data_do_not_have_is_refused(schema, name, near):
    with pytest.raises(ConfigError, match=r"tune\.yaml: objective: .* is unknown; did you mean") as caught:
        read_objective(name, schema)
    assert (
        f"{name!r} is unknown; did you mean {near!r}? valid for these data: mean, minimum, NL, ES, US, ctr, ctcvr, "
        in str(caught.value)
    )
