"""Means over seeds and scenarios, worked out by hand from conftest.AUCS, and the tables behind the pictures."""

import math

import numpy as np
import pytest

from pfmsmt.report.comparison.summaries import (
    calibration_table,
    csv_text,
    metrics_tree,
    ranked,
    roc_table,
    rounds_table,
    summary_tree,
)


def test_metrics_are_nested_and_averaged_over_seeds(load):
    tree = metrics_tree(load(seeds=(0, 1)))
    assert list(tree) == ["pf_msmtrec", "fedavg", "centralized", "oracle"]
    assert {name: list(tasks) for name, tasks in tree["fedavg"].items()} == {
        "NL": ["ctr", "ctcvr"],
        "ES": ["ctr", "ctcvr"],
    }
    assert tree["pf_msmtrec"]["NL"]["ctr"] == {"auc": 0.8125, "gauc": 0.6875, "logloss": 0.25, "ece": 0.03125}
    assert tree["pf_msmtrec"]["ES"]["ctcvr"] == {"auc": None, "gauc": None, "logloss": 0.25, "ece": 0.03125}


def test_summary_of_one_seed_leaves_out_and_counts_what_is_undefined(load):
    assert summary_tree(load())["pf_msmtrec"] == {
        "mean_auc": pytest.approx((0.75 + 0.875 + 0.5) / 3),
        "mean_ctr_auc": (0.75 + 0.5) / 2,
        "mean_ctcvr_auc": 0.875,
        "undefined_aucs": 1,
        "seeds": 1,
    }


def test_summary_of_two_seeds_has_sample_deviations(load):
    summary = summary_tree(load(seeds=(0, 1)))
    # only NL ctr differs, by 1/8: the mean over two scenarios by 1/16; of two values, deviation = difference / sqrt(2)
    assert summary["pf_msmtrec"]["mean_ctr_auc"] == 0.65625
    assert summary["pf_msmtrec"]["mean_ctr_auc_std"] == pytest.approx(1 / 16 / math.sqrt(2))
    assert summary["pf_msmtrec"]["mean_auc_std"] == pytest.approx(1 / 24 / math.sqrt(2))
    assert summary["pf_msmtrec"]["mean_ctcvr_auc_std"] == 0.0
    assert "mean_auc_std" not in summary["oracle"]
    assert summary["oracle"]["seeds"] == 1


def test_ranking_leaves_references_and_oracle_out(load):
    assert [name for name, _ in ranked(load())] == ["pf_msmtrec", "fedavg"]


def test_rounds_average_the_tasks_that_are_defined(load):
    table = rounds_table(load(seeds=(0, 1)))
    assert list(table) == ["method", "seed", "scenario", "round", "auc", "logloss"]
    assert table.iloc[:4].to_numpy().tolist() == [
        ["pf_msmtrec", 0, "NL", 1, 0.5625, 0.5],
        ["pf_msmtrec", 0, "NL", 2, 0.625, 0.5],
        ["pf_msmtrec", 0, "ES", 1, 0.5625, 0.5],
        ["pf_msmtrec", 0, "ES", 2, 0.625, 0.5],
    ]
    assert len(table) == 3 * 2 * 2 * 2


def test_a_round_with_nothing_defined_is_an_empty_cell(load):
    results = load(methods=("fedavg",), tasks=["ctcvr"])
    run = results.runs[0]
    run.history.loc[run.history["task"] == "ctr", "auc"] = np.nan
    assert "fedavg,0,ES,1,,0.5\n" in csv_text(rounds_table(results))


def test_curves_are_of_the_lowest_seed(load):
    results = load(seeds=(1, 0))
    assert set(roc_table(results)["seed"]) == {0}
    assert len(roc_table(results)) == 3 * 9
    assert len(calibration_table(results)) == 3 * 8
