"""Metrics against values worked out by hand, brute force over all pairs, and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from pfmsmt.core import metrics

COARSE = st.integers(0, 8).map(lambda eighths: eighths / 8)  # few values, so that ties are common
ROWS = st.lists(st.tuples(st.integers(0, 1), COARSE, st.integers(0, 3)), min_size=1, max_size=25)


def pairs_won(labels, scores, weights=None):
    """Weight of won pairs (half for a tie) and of all pairs, by comparing every positive with every negative."""
    weights = [1] * len(labels) if weights is None else weights
    won = total = 0.0
    for positive, high, heavy in zip(labels, scores, weights, strict=True):
        for other, low, light in zip(labels, scores, weights, strict=True):
            if positive == 1 and other == 0:
                total += heavy * light
                won += heavy * light * (1.0 if high > low else 0.5 if high == low else 0.0)
    return won, total


def many_rows(seed=0, rows=4000):
    generator = np.random.default_rng(seed)
    scores = generator.beta(1, 9, rows).round(3)
    return (generator.random(rows) < scores).astype(np.int8), scores, np.repeat(np.arange(rows // 8), 8)


class TestAuc:
    def test_by_hand(self):
        # pairs (0.4 against 0.1, 0.4, 0.8): 1 + 0.5 + 0; (0.9 against the same): 3; 4.5 of 6
        assert metrics.auc([0, 1, 0, 1, 0], [0.1, 0.4, 0.4, 0.9, 0.8]) == 0.75

    def test_weights_by_hand(self):
        # won 2*1 + 2*3*0.5 = 5 of 2*(1+3+4) = 16
        assert metrics.auc([0, 1, 0, 0], [0.1, 0.4, 0.4, 0.8], [1, 2, 3, 4]) == 5 / 16

    def test_all_tied_is_exactly_a_half(self):
        assert metrics.auc([0, 1, 1], [0.3, 0.3, 0.3]) == 0.5

    @pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
    def test_one_class_is_undefined(self, labels):
        assert metrics.auc(labels, [0.1, 0.2, 0.3]) is None

    def test_a_class_without_weight_is_undefined(self):
        assert metrics.auc([0, 1], [0.1, 0.2], [1.0, 0.0]) is None

    @given(ROWS)
    @settings(deadline=None)
    def test_equals_brute_force(self, rows):
        labels, scores, weights = zip(*rows, strict=True)
        won, total = pairs_won(labels, scores)
        assert metrics.auc(labels, scores) == (won / total if total else None)
        won, total = pairs_won(labels, scores, weights)
        assert metrics.auc(labels, scores, weights) == (won / total if total else None)

    def test_agrees_with_scikit_learn(self):
        labels, scores, _ = many_rows()
        weights = np.random.default_rng(1).random(len(labels))
        assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        expected = roc_auc_score(labels, scores, sample_weight=weights)
        assert metrics.auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)

    def test_accepts_bool_labels_and_float32(self):
        labels, scores, _ = many_rows()
        assert metrics.auc(labels == 1, scores.astype(np.float32)) == metrics.auc(labels, scores)


class TestGauc:
    def test_by_hand(self):
        # group 7: AUC 1 of 2 rows; group 3: 0.5 of 4 rows (won 1 of 2, lost 1); group 5 has no positive
        labels = [1, 0, 0, 1, 0, 0, 0, 0]
        scores = [0.9, 0.1, 0.2, 0.5, 0.8, 0.5, 0.3, 0.3]
        groups = [7, 3, 7, 3, 3, 3, 5, 5]
        # group 3: positive 0.5 against 0.1, 0.8, 0.5: 1 + 0 + 0.5 of 3
        assert metrics.gauc(labels, scores, groups) == pytest.approx((2 * 1.0 + 4 * 0.5) / 6)

    def test_group_names_may_be_text(self):
        assert metrics.gauc([1, 0, 1, 0], [0.9, 0.1, 0.1, 0.9], ["a", "a", "b", "b"]) == 0.5

    def test_no_group_with_both_classes_is_undefined(self):
        assert metrics.gauc([1, 1, 0], [0.5, 0.4, 0.3], [1, 1, 2]) is None

    def test_one_group_is_the_auc(self):
        labels, scores, _ = many_rows()
        assert metrics.gauc(labels, scores, np.zeros(len(labels))) == metrics.auc(labels, scores)

    @given(ROWS)
    @settings(deadline=None)
    def test_equals_brute_force(self, rows):
        held = [[row[:2] for row in rows if row[2] == group] for group in range(4)]
        parts = [(*pairs_won(*zip(*group, strict=True)), len(group)) for group in held if group]
        parts = [(won / total, size) for won, total, size in parts if total]
        result = metrics.gauc(*zip(*rows, strict=True))
        if not parts:
            assert result is None
        else:
            assert result == pytest.approx(sum(a * size for a, size in parts) / sum(size for _, size in parts))


class TestCalibration:
    def test_log_loss_by_hand(self):
        assert metrics.log_loss([1, 0], [0.5, 0.75]) == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_log_loss_of_a_saturated_miss_is_finite_and_does_not_depend_on_the_type(self):
        assert metrics.log_loss([1], [0.0]) == pytest.approx(-math.log(1e-7))
        assert metrics.log_loss([0], np.array([1.0], np.float32)) == pytest.approx(-math.log(1e-7))

    def test_log_loss_agrees_with_scikit_learn(self):
        labels, scores, _ = many_rows()
        scores = np.clip(scores, 1e-3, 1)
        assert metrics.log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, scores), abs=1e-9)

    def test_expected_calibration_error_by_hand(self):
        # sorted: 0.1 0.2 | 0.6 0.8 with labels 0 0 | 1 0: 2/4 * |0.15 - 0| + 2/4 * |0.7 - 0.5|
        assert metrics.expected_calibration_error([0, 1, 0, 0], [0.8, 0.6, 0.1, 0.2], 2) == pytest.approx(0.175)

    def test_perfect_calibration_is_zero(self):
        assert metrics.expected_calibration_error([0, 1, 0, 1], [0.5] * 4, 10) == 0.0

    def test_ties_share_the_bin_of_their_first_row(self):
        # rows 0 to 3 sorted, two bins: 0.2 0.2 | 0.2 0.9, but the third 0.2 belongs with the first two
        bins = metrics.calibration_bins([1, 0, 0, 1], [0.2, 0.9, 0.2, 0.2], 2)
        assert bins.rows.tolist() == [3, 1]
        assert bins.predicted == pytest.approx([0.2, 0.9])
        assert bins.actual == pytest.approx([2 / 3, 0.0])

    def test_more_bins_than_rows(self):
        assert metrics.calibration_bins([1, 0], [0.7, 0.1], 5).rows.tolist() == [1, 1]

    @given(ROWS, st.integers(1, 9), st.randoms())
    @settings(deadline=None)
    def test_bins_hold_every_row_and_ignore_their_order(self, rows, bins, random):
        shuffled = random.sample(rows, len(rows))
        one = metrics.calibration_bins(*list(zip(*rows, strict=True))[:2], bins)
        two = metrics.calibration_bins(*list(zip(*shuffled, strict=True))[:2], bins)
        assert one.rows.sum() == len(rows)
        assert len(one.rows) <= bins
        assert one.rows @ one.actual == pytest.approx(sum(row[0] for row in rows))
        for left, right in zip(one, two, strict=True):
            assert left == pytest.approx(right)

    def test_predicted_to_actual(self):
        assert metrics.predicted_to_actual([1, 0, 1, 0], [0.5, 0.5, 1.0, 1.0]) == 1.5
        assert metrics.predicted_to_actual([0, 0], [0.5, 0.5]) is None


def test_task_metrics_has_every_key_and_none_where_undefined():
    result = metrics.task_metrics([0, 0], [0.25, 0.25], [1, 1], bins=15)
    expected = {"auc": None, "gauc": None, "logloss": -math.log(0.75), "ece": 0.25, "predicted_to_actual": None}
    assert result == pytest.approx(expected)


class TestBootstrap:
    def interval(self, *data, replicates=200, confidence=0.95, seed=0):
        generator = np.random.default_rng(seed)
        found = metrics.bootstrap(*data, bins=15, replicates=replicates, generator=generator)
        return None if found is None else metrics.percentile_interval(found.auc, confidence)

    def test_is_the_percentile_interval_of_reweighted_aucs(self):
        labels, scores, groups = many_rows(rows=400)
        generator = np.random.default_rng(3)
        aucs = [metrics.auc(labels, scores, generator.poisson(1.0, 50)[groups]) for _ in range(20)]
        expected = np.quantile(aucs, [0.1, 0.9])
        assert self.interval(labels, scores, groups, replicates=20, confidence=0.8, seed=3) == pytest.approx(expected)

    def test_same_generator_same_interval(self):
        data = many_rows(rows=400)
        assert self.interval(*data) == self.interval(*data)

    def test_contains_the_auc_and_widens_with_confidence(self):
        data = many_rows()
        low, high = self.interval(*data, confidence=0.5)
        wide_low, wide_high = self.interval(*data, confidence=0.99)
        assert wide_low < low < metrics.auc(*data[:2]) < high < wide_high

    def test_whole_groups_are_drawn(self):
        # copies of a row in its own group carry no new information, as separate groups they would
        labels, scores, _ = many_rows(rows=400)
        rows = np.arange(400)
        copied = [np.repeat(values, 9) for values in (labels, scores)]
        width = np.ptp(self.interval(labels, scores, rows))
        assert np.ptp(self.interval(*copied, np.repeat(rows, 9))) == pytest.approx(width)
        assert np.ptp(self.interval(*copied, np.arange(3600))) < 0.5 * width

    def test_undefined(self):
        assert self.interval([0, 0], [0.1, 0.2], [1, 2]) is None
        assert self.interval([0, 1], [0.1, 0.2], [1, 1]) is None
        assert self.interval([0, 1], [0.1, 0.2], [1, 2], replicates=0) is None

    def test_replicates_without_both_classes_are_left_out(self):
        assert self.interval([0, 1], [0.1, 0.2], [1, 2]) == (1.0, 1.0)

    def test_replicates_are_the_metrics_of_repeated_rows(self):
        labels, scores, groups = many_rows(rows=400)
        found = metrics.bootstrap(labels, scores, groups, bins=1, replicates=5, generator=np.random.default_rng(3))
        generator = np.random.default_rng(3)
        for number in range(5):
            rows = np.repeat(np.arange(400), generator.poisson(1.0, 50)[groups])
            drawn = labels[rows], scores[rows]
            assert found.auc[number] == pytest.approx(metrics.auc(*drawn))
            assert found.logloss[number] == pytest.approx(metrics.log_loss(*drawn))
            # One bin alone has the same edges whatever is drawn.
            assert found.ece[number] == pytest.approx(metrics.expected_calibration_error(*drawn, 1))

    def test_replicates_keep_the_bins_of_all_rows(self):
        labels, _, groups = many_rows(rows=400)
        scores = np.random.default_rng(5).random(400)  # without ties, so that bins are quarters
        one = metrics.bootstrap(labels, scores, groups, bins=4, replicates=1, generator=np.random.default_rng(3))
        drawn = np.random.default_rng(3).poisson(1.0, 50)[groups]
        order = np.argsort(scores, kind="stable")
        gaps = [abs(np.sum((drawn * (scores - labels))[part])) for part in np.split(order, 4)]
        assert one.ece[0] == pytest.approx(sum(gaps) / drawn.sum())

    def test_the_same_weights_for_any_model_of_the_same_rows(self):
        labels, scores, groups = many_rows(rows=400)

        def drawn(probabilities):
            return metrics.bootstrap(
                labels, probabilities, groups, bins=5, replicates=9, generator=np.random.default_rng(3)
            )

        one, two = drawn(scores), drawn(np.sqrt(scores))
        # The root keeps the order of rows, so with the same weights each replicate has the same AUC.
        np.testing.assert_array_equal(one.auc, two.auc)
        assert not np.array_equal(one.logloss, two.logloss)


class TestRoc:
    def test_corners_by_hand(self):
        # from the top: 0.9 (1) -> (0, 1/2); 0.4 (1 and 0) slanted -> (1/2, 1); 0.1 (0) -> (1, 1)
        curve = metrics.roc_points([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9])
        assert curve.false_positive_rate.tolist() == [0.0, 0.0, 0.5, 1.0]
        assert curve.true_positive_rate.tolist() == [0.0, 0.5, 1.0, 1.0]

    def test_thinned_curve_keeps_the_ends_and_the_area(self):
        labels, scores, _ = many_rows()
        curve = metrics.roc_points(labels, scores, 100)
        assert len(curve.true_positive_rate) <= 100
        assert (curve.false_positive_rate[0], curve.true_positive_rate[-1]) == (0.0, 1.0)
        area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
        assert area == pytest.approx(metrics.auc(labels, scores), abs=2e-3)

    def test_one_class_is_undefined(self):
        assert metrics.roc_points([1, 1], [0.5, 0.6]) is None


class TestRefused:
    @pytest.mark.parametrize(
        ("labels", "scores", "message"),
        [
            ([0, 1], [0.1, math.nan], "row 1: probability nan"),
            ([0, 1], [0.1, math.inf], "row 1: probability inf"),
            ([0, 1], [-0.5, 0.2], r"row 0: probability -0\.5"),
            ([0, 2], [0.1, 0.2], "row 1: label 2"),
            ([0, math.nan], [0.1, 0.2], "row 1: label nan"),
            ([0, 1, 1], [0.1, 0.2], r"labels have shape \(3,\), probabilities \(2,\)"),
            ([], [], r"shape \(0,\)"),
            ([[0, 1]], [[0.1, 0.2]], r"shape \(1, 2\)"),
        ],
    )
    @pytest.mark.parametrize(
        "metric",
        [
            metrics.auc,
            metrics.log_loss,
            metrics.predicted_to_actual,
            metrics.roc_points,
            lambda labels, scores: metrics.gauc(labels, scores, labels),
            lambda labels, scores: metrics.expected_calibration_error(labels, scores, 3),
        ],
        ids=["auc", "log_loss", "predicted_to_actual", "roc_points", "gauc", "ece"],
    )
    def test_rows_that_are_no_labels_or_probabilities(self, metric, labels, scores, message):
        with pytest.raises(ValueError, match=message):
            metric(labels, scores)

    def test_weights_and_groups(self):
        with pytest.raises(ValueError, match=r"row 1: weight -1\.0"):
            metrics.auc([0, 1], [0.1, 0.2], [1, -1])
        with pytest.raises(ValueError, match=r"weights have shape \(1,\)"):
            metrics.auc([0, 1], [0.1, 0.2], [1])
        with pytest.raises(ValueError, match=r"groups have shape \(3,\)"):
            metrics.gauc([0, 1], [0.1, 0.2], [1, 2, 3])

    def test_numbers_out_of_range(self):
        data = ([0, 1], [0.1, 0.2])
        with pytest.raises(ValueError, match="bins is 0"):
            metrics.calibration_bins(*data, 0)
        with pytest.raises(ValueError, match="points is 1"):
            metrics.roc_points(*data, 1)
        for bins, replicates, message in [(15, -1, "replicates is -1"), (0, 1, "bins is 0")]:
            with pytest.raises(ValueError, match=message):
                metrics.bootstrap(*data, [1, 2], bins=bins, replicates=replicates, generator=np.random.default_rng(0))
        with pytest.raises(ValueError, match=r"confidence is 1\.0"):
            metrics.percentile_interval([0.5], 1.0)
