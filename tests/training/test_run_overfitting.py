"""The end of a training says that it overfitted."""

import pytest

from pfmsmt.training.history import History
from pfmsmt.training.run import Job, warn_of_overfitting


@pytest.fixture
def say_of(schema, make_config, tmp_path, capsys):
    """Return what is said at the end of a run whose scenarios' AUCs fall by so much after their third round of ten."""

    def say(method, fall):
        history = History()
        history.rows = [
            {"round": r, "scenario": s, "task": t, "auc": 0.9 - (r > 3) * fall - (r < 3) * 0.1, "logloss": 0.5}
            for r in range(1, 11)
            for s in schema.scenarios
            for t in ("ctr", "ctcvr")
        ]
        warn_of_overfitting(Job(make_config(), schema, method, 0, {}, tmp_path), history)
        return capsys.readouterr().out

    return say


def test_what_overfits_is_said_with_the_keys_to_change(say_of, schema):
    text = say_of("local", 0.5)
    assert text.startswith("local-seed0 overfits, by validation AUC: ")
    for scenario in schema.scenarios:
        assert f"{scenario} (best in round 3 of 10, 0.5000 lower at the end)" in text
    assert text.endswith("Lower train.rounds, or raise model.dropout or methods.local.weight_decay.\n")
    assert "methods.pf_msmtrec.private_weight_decay" in say_of("pf_msmtrec", 0.5)


def test_what_does_not_is_not_mentioned(say_of):
    assert say_of("local", 0.0) == ""
    assert say_of("local", 0.01) == ""  # less than so few rows tell
