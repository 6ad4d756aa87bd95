"""Paired differences, against numbers worked out by hand from conftest.REPLICATES and simulated scores."""

import dataclasses
import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.core.metrics import bootstrap
from pfmsmt.report.comparison.differences import Difference, advantage
from pfmsmt.report.comparison.summaries import places

Z = NormalDist().inv_cdf(0.975)


def test_the_interval_is_of_the_differences_of_replicates(paired):
    lead = advantage(paired(confidence=0.95), "pf_msmtrec", "fedavg", "auc", [("NL", "ctr")])
    # AUCs are 0.75 and 0.5. Replicates go up and down together by 0.5; their differences by -0.1, 0, 0.1 alone.
    assert lead.value == 0.25
    half = Z * np.std([-0.1, 0.0, 0.1], ddof=1)
    assert (lead.low, lead.high) == pytest.approx((0.25 - half, 0.25 + half))
    assert lead.certain
    assert lead.text == f"+0.2500 [{0.25 - half:.4f}, {0.25 + half:.4f}]"


def test_less_is_better_for_losses(paired):
    results = paired(confidence=0.95)
    one = advantage(results, "pf_msmtrec", "fedavg", "logloss", [("NL", "ctr")])
    two = advantage(results, "fedavg", "pf_msmtrec", "logloss", [("NL", "ctr")])
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))


def test_undefined_places_are_left_out(paired):
    results = paired(confidence=0.95)
    everywhere = advantage(results, "pf_msmtrec", "fedavg", "auc", places(results))
    assert everywhere.value == pytest.approx((0.25 + 0.125 - 0.125) / 3)
    assert advantage(results, "pf_msmtrec", "fedavg", "auc", [("ES", "ctcvr")]) is None


def test_seeds_are_paired_and_widen_the_interval(paired):
    lead = advantage(paired(seeds=(0, 1), confidence=0.95), "pf_msmtrec", "fedavg", "auc", [("NL", "ctr")])
    # Differences of the seeds are 0.25 and 0.375; Student's quantile for one degree of freedom is 12.706.
    of_seeds = 12.706204736 * (0.125 / math.sqrt(2)) / math.sqrt(2)
    of_rows = Z * np.std([-0.1, 0.0, 0.1], ddof=1)
    assert lead.value == pytest.approx(0.3125)
    assert lead.high - lead.value == pytest.approx(math.hypot(of_seeds, of_rows))
    assert not lead.certain


def test_without_replicates_there_is_no_interval(load):
    assert advantage(load(confidence=None), "pf_msmtrec", "fedavg", "auc", [("NL", "ctr")]) == Difference(0.25)
    assert advantage(load(confidence=0.95), "pf_msmtrec", "fedavg", "auc", [("NL", "ctr")]) == Difference(0.25)
    assert Difference(0.25).text == Difference(0.25).phrase.rjust(7, "+") == "+0.2500"
    assert not Difference(0.25).certain


def test_a_sentence_says_where_it_may_be_chance():
    assert Difference(0.01, -0.002, 0.022).phrase == "0.0100 [-0.0020, 0.0220], which may be chance"
    assert Difference(0.01, 0.002, 0.018).phrase == "0.0100 [0.0020, 0.0180]"
    assert Difference(-0.00001).text == "+0.0000"


def test_other_numbers_of_replicates_are_refused(paired, load, inputs):
    results = paired()
    path = inputs / "evaluation/fedavg-seed0/replicates.parquet"
    table = results.of("fedavg")[0].replicates["NL", "ctr"]
    table.iloc[1:].to_parquet(path)
    with pytest.raises(DataError, match=r"fedavg-seed0/replicates\.parquet: NL/ctr has 2 replicates, but .* has 3;"):
        load()


def test_the_paired_interval_covers_the_true_difference_and_is_narrow(load):
    """Two models of the same rows: one sees all of the signal, one a noisy version of it."""
    generator = np.random.default_rng(0)
    base, found = load(methods=("pf_msmtrec", "fedavg"), confidence=0.9), []

    def world(rows):
        signal = generator.normal(-2, 1, rows)
        labels = (generator.random(rows) < 1 / (1 + np.exp(-signal))).astype(np.uint8)
        return labels, [1 / (1 + np.exp(-(signal + generator.normal(0, s, rows)))) for s in (0.2, 0.5)]

    def log_loss(labels, scores):
        return -np.mean(np.where(labels == 1, np.log(scores), np.log1p(-scores)))

    labels, scores = world(400_000)
    truth = log_loss(labels, scores[1]) - log_loss(labels, scores[0])
    for number in range(60):
        labels, scores = world(600)
        runs = []
        for run, probabilities in zip(base.runs, scores, strict=True):
            drawn = bootstrap(
                labels, probabilities, np.arange(600) // 3,
                bins=5, replicates=100, generator=np.random.default_rng(number),
            )  # fmt: skip
            cell = dataclasses.replace(run.scores["NL"]["ctr"], logloss=log_loss(labels, probabilities))
            runs.append(
                dataclasses.replace(
                    run, scores={"NL": {"ctr": cell}}, replicates={("NL", "ctr"): pd.DataFrame(drawn._asdict())}
                )
            )
        results = dataclasses.replace(base, runs=tuple(runs))
        lead = advantage(results, "pf_msmtrec", "fedavg", "logloss", [("NL", "ctr")])
        alone = np.std(drawn.logloss, ddof=1) * NormalDist().inv_cdf(0.95)
        found.append((lead.low <= truth <= lead.high, (lead.high - lead.low) / (2 * alone)))
    covered, widths = np.mean(found, axis=0)
    assert 0.8 <= covered <= 1.0
    assert widths < 0.6
