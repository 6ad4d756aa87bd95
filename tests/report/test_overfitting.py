"""Planted histories: what overfits is said, what is noise or late is not."""

import numpy as np
import pandas as pd
import pytest

from pfmsmt.config import load_config
from pfmsmt.core.metrics import auc
from pfmsmt.data.schema import SplitCounts
from pfmsmt.report.comparison.overfitting import FALL, Overfit, overfit_text, overfits, remedies_of, standard_error
from pfmsmt.report.comparison.verdicts import remarks_on

MANY, FEW = ({"val": SplitCounts(rows=n, groups=n, positives={"ctr": n // 10, "ctcvr": n // 50})} for n in (10**6, 500))
ROUNDS = 60


def course(best, fall, start=0.6, top=0.8):
    """Validation AUC that rises to `top` in round `best` and falls in a line until the last tenth of rounds."""
    rounds = np.arange(1, ROUNDS + 1)
    rising = start + (top - start) * np.minimum(rounds / best, 1)
    return rising - fall * np.clip((rounds - best) / (0.9 * ROUNDS - best), 0, 1)


def history(scenario="NL", tasks=("ctr", "ctcvr"), **shape):
    return pd.concat(
        pd.DataFrame({"round": range(1, ROUNDS + 1), "scenario": scenario, "task": task, "auc": course(**shape)})
        for task in tasks
    )


def found(table, counts=MANY):
    return overfits(table, {"NL": counts["val"]})


def test_an_early_peak_and_a_fall():
    (case,) = found(history(best=12, fall=0.03))
    assert (case.scenario, case.best_round, case.rounds) == ("NL", 12, ROUNDS)
    assert case.fall == pytest.approx(0.03)


@pytest.mark.parametrize(
    "shape",
    [
        {"best": 31, "fall": 0.03},  # the second half is late enough
        {"best": 60, "fall": 0.0},
        {"best": 12, "fall": FALL - 1e-4},
        {"best": 12, "fall": 0.0},
    ],
)
def test_no_false_alarm(shape):
    assert found(history(**shape)) == ()


def test_a_fall_within_the_noise_of_few_rows_is_nothing():
    # 50 and 10 positives among 500: an AUC of 0.8 is known to 0.04 and 0.09.
    assert found(history(best=12, fall=0.03), FEW) == ()
    assert len(found(history(best=12, fall=0.1), FEW)) == 1


def test_a_flat_course_with_noise_is_nothing():
    generator = np.random.default_rng(0)
    for _ in range(20):
        table = history(best=10, fall=0.0)
        table["auc"] += generator.normal(0, 0.002, len(table))
        assert found(table) == ()


def test_undefined_tasks_and_unknown_scenarios_are_left_out():
    table = history(best=12, fall=0.03)
    table.loc[table["task"] == "ctcvr", "auc"] = np.nan
    assert [case.best_round for case in found(table)] == [12]
    assert found(table.assign(auc=np.nan)) == ()
    assert found(table.assign(scenario="ES")) == ()


def test_the_standard_error_is_near_that_of_simulated_aucs():
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], [40, 160])
    aucs = []
    for _ in range(400):
        scores = generator.normal(np.where(labels == 1, 1.0, 0.0), 1.0)
        aucs.append(auc(labels, 1 / (1 + np.exp(-scores))))
    assert standard_error(float(np.mean(aucs)), 40, 200) == pytest.approx(np.std(aucs), rel=0.25)


def test_the_sentence_names_scenarios_and_keys():
    cases = (Overfit("NL", 12, 60, 0.03), Overfit("ES", 20, 60, 0.0125))
    text = overfit_text("local-seed0", cases, ("train.rounds", "model.dropout", "methods.local.weight_decay"))
    assert text == (
        "local-seed0 overfits, by validation AUC: NL (best in round 12 of 60, 0.0300 lower at the end); "
        "ES (best in round 20 of 60, 0.0125 lower at the end). The models of the best rounds are served. "
        "Lower train.rounds, or raise model.dropout or methods.local.weight_decay."
    )
    assert overfit_text("local-seed0", (), ("train.rounds",)) == ""
    assert overfit_text("local-seed0", cases, ()).endswith("served.")


@pytest.mark.parametrize(
    ("method", "last"),
    [
        ("pf_msmtrec", "methods.pf_msmtrec.private_weight_decay"),
        ("fedamp", "methods.fedamp.private_weight_decay"),
        ("local", "methods.local.weight_decay"),
        ("linear", "methods.linear.ridge"),
        ("centralized", "methods.centralized.private_weight_decay"),
    ],
)
def test_the_keys_exist(method, last):
    config = load_config()
    keys = remedies_of(method, config.methods)
    assert keys[0] == "train.rounds"
    assert keys[-1] == last
    assert ("model.dropout" in keys) is (method != "linear")
    for key in keys:
        value = config
        for part in key.split("."):
            value = getattr(value, part)


def test_the_report_says_it_once_for_all_seeds(load, inputs):
    for seed in (0, 1):
        history(best=12, fall=0.1).assign(logloss=0.5).to_csv(inputs / f"models/fedavg-seed{seed}/history.csv")
    results = load(seeds=(0, 1), counts={"NL": MANY}, remedies={"fedavg": ("train.rounds", "model.dropout")})
    lines = [line for line in remarks_on(results) if "overfits" in line]
    assert len(lines) == 1
    assert lines[0].startswith("fedavg overfits, by validation AUC: NL (best in round 12 of 60, 0.1000 lower")
    assert lines[0].endswith("Lower train.rounds, or raise model.dropout.")
