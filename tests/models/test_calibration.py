"""Calibration: known lines are found, order is kept, few positives move little."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pfmsmt.core.metrics import auc, log_loss
from pfmsmt.models.calibration import PRIOR_DEVIATION, Calibration, fit_calibration


def drawn(rows, slope, intercept, seed=0):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-2, 1.5, size=(rows, 1))
    labels = rng.random((rows, 1)) < expit(slope * log_odds + intercept)
    return log_odds, labels.astype(np.uint8)


def test_platt_finds_the_planted_line():
    log_odds, labels = drawn(200_000, 0.6, -0.9)
    found = fit_calibration("platt", log_odds, labels)
    assert found.slopes[0] == pytest.approx(0.6, abs=0.02)
    assert found.intercepts[0] == pytest.approx(-0.9, abs=0.03)
    # With so many rows the prior is nothing, and this is plain logistic regression.
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds, labels[:, 0])
    assert found.slopes[0] == pytest.approx(float(peer.coef_[0, 0]), abs=1e-3)
    assert found.intercepts[0] == pytest.approx(float(peer.intercept_[0]), abs=1e-3)


def test_a_temperature_has_no_intercept():
    log_odds, labels = drawn(100_000, 0.5, 0.0)
    found = fit_calibration("temperature", log_odds, labels)
    assert found.slopes[0] == pytest.approx(0.5, abs=0.02)
    assert found.intercepts == (0.0,)


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_the_fit_is_the_lowest_point_of_the_penalised_loss(kind):
    log_odds, labels = drawn(60, 0.7, -0.5, seed=3)
    found = fit_calibration(kind, log_odds, labels)

    def loss(a, b):
        p = expit(np.exp(a) * log_odds[:, 0] + b)
        y = labels[:, 0]
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() + (a * a + b * b) / (2 * PRIOR_DEVIATION**2)

    best = loss(np.log(found.slopes[0]), found.intercepts[0])
    steps = [(0.01, 0), (-0.01, 0), *([(0, 0.01), (0, -0.01)] if kind == "platt" else [])]
    assert all(loss(np.log(found.slopes[0]) + da, found.intercepts[0] + db) > best for da, db in steps)


def test_no_rows_change_nothing_and_one_class_is_fitted():
    none = fit_calibration("platt", np.zeros((0, 2)), np.zeros((0, 2)))
    assert (none.slopes, none.intercepts) == ((1.0, 1.0), (0.0, 0.0))
    log_odds = np.full((50, 1), -3.0)
    found = fit_calibration("platt", log_odds, np.zeros((50, 1)))
    assert 0 < found.slopes[0] < 5
    assert -5 < found.intercepts[0] < 0


def test_order_stays_and_log_loss_falls():
    log_odds, labels = drawn(5_000, 0.5, -1.0)
    line = fit_calibration("platt", log_odds, labels)
    before, after = expit(log_odds[:, 0]), line.apply(log_odds, (None,), False)[:, 0]
    assert auc(labels[:, 0], after) == auc(labels[:, 0], before)
    assert (np.diff(after[np.argsort(log_odds[:, 0])]) > 0).all()
    assert log_loss(labels[:, 0], after) < log_loss(labels[:, 0], before) - 0.02
    assert after.mean() == pytest.approx(labels.mean(), rel=0.01)


def test_a_nested_task_never_gets_more_than_its_parent():
    line = Calibration(kind="platt", slopes=(1.0, 1.0), intercepts=(0.0, 2.0))
    log_odds = np.array([[0.0, -1.0], [0.0, -5.0]])
    free = expit(log_odds + np.array([0.0, 2.0]))
    assert np.array_equal(line.apply(log_odds, (None, 0), False), free)
    assert free[0, 1] > free[0, 0]
    assert np.array_equal(line.apply(log_odds, (None, 0), True), [[0.5, 0.5], [0.5, free[1, 1]]])
