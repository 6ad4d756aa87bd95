"""Ranking and calibration of predicted probabilities.

An undefined metric is None, never a neutral number such as 0.5. Legend: B rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CLIP = 1e-7
"""log_loss keeps probabilities in [CLIP, 1 - CLIP]: the last step of float32 below 1 is 6e-8 away, so a float32
sigmoid that saturated costs 16.1, not infinity, and float32 and float64 predictions score alike."""
LOGGED = ("auc", "gauc", "logloss", "ece")
"""The metrics that MLflow's runs and registered versions carry, among those of `task_metrics`."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Weights = NDArray[np.int64] | NDArray[np.float64]


class RocCurve(NamedTuple):
    """Points of a ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: Floats
    true_positive_rate: Floats


class CalibrationBins(NamedTuple):
    """Bins of equal size over rows sorted by prediction; none is empty."""

    predicted: Floats
    """Mean prediction of each bin."""
    actual: Floats
    """Share of positives in each bin."""
    rows: Integers


class Replicates(NamedTuple):
    """Metrics of each bootstrap replicate, each [replicates].

    nan where one is undefined: no positive or no negative was drawn, or no row at all.
    """

    auc: Floats
    logloss: Floats
    ece: Floats


def auc(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the area under the ROC curve.

    It is the probability that a random positive scores above a random negative, where ties count half: the statistic
    of Mann and Whitney (1947).

    Args:
        labels: [B], 0 or 1.
        probabilities: [B], in [0, 1].
        weights: [B], >= 0; None weighs every row 1 and counts in exact integers.

    Returns:
        None where only one class is present (or has weight).

    Raises:
        ValueError: shapes differ, no rows, a label is not 0 or 1, a probability or weight is out of range or NaN.
    """
    positive, scores = _checked(labels, probabilities)
    if weights is None:
        mass: Weights = np.ones(len(scores), np.int64)
    else:
        mass = np.asarray(weights, dtype=np.float64)
        _same_shape("weights", mass, scores)
        _all_true(np.isfinite(mass) & (mass >= 0), mass, "weight", "a finite number >= 0")
    ranking = _rank(positive, scores)
    return _area(ranking, mass[ranking.positives], mass[ranking.negatives])


def gauc(labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike) -> float | None:
    """Return the grouped AUC (Zhu et al. 2017).

    It is the mean AUC of the groups that hold both classes, weighted by their rows.

    Args:
        labels: [B], 0 or 1.
        probabilities: [B], in [0, 1].
        groups: [B], whatever names a row's search: integers or text.

    Returns:
        None if no group holds both classes.

    Raises:
        ValueError: as `auc`.
    """
    positive, scores = _checked(labels, probabilities)
    codes = _group_codes(groups, scores)
    order = np.lexsort((scores, codes))
    codes, scores, positive = codes[order], scores[order], positive[order].astype(np.int64)
    new_group = np.r_[True, codes[1:] != codes[:-1]]
    tied = np.flatnonzero(new_group | np.r_[True, scores[1:] != scores[:-1]])  # first row of each run of equal scores
    starts = np.flatnonzero(new_group)

    ups = np.add.reduceat(positive, tied)
    downs = np.add.reduceat(1 - positive, tied)
    first_tie = np.searchsorted(tied, starts)
    below = np.cumsum(downs) - downs
    below -= below[first_tie][codes[tied]]  # negatives of the same group only
    doubled = np.add.reduceat(ups * (2 * below + downs), first_tie)

    rows = np.diff(np.r_[starts, len(scores)])
    positives = np.add.reduceat(positive, starts)
    pairs = positives * (rows - positives)
    both = pairs > 0
    if not both.any():
        return None
    return float(np.average(doubled[both] / (2 * pairs[both]), weights=rows[both]))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean binary cross-entropy in nats.

    Probabilities are clipped to [CLIP, 1 - CLIP].

    Raises:
        ValueError: as `auc`.
    """
    positive, scores = _checked(labels, probabilities)
    return float(np.mean(_losses(positive, scores)))


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int) -> float:
    """Return the expected calibration error over bins of equal size.

    It is the mean of |mean prediction - share of positives|, weighted by the bins' rows. Bins and ties are those of
    `calibration_bins`.

    Raises:
        ValueError: as `auc`; bins < 1.
    """
    parts = calibration_bins(labels, probabilities, bins)
    return float(np.average(np.abs(parts.predicted - parts.actual), weights=parts.rows))


def predicted_to_actual(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the sum of predictions divided by the number of positives.

    1 is unbiased, above 1 predicts too much; None without a positive.

    Raises:
        ValueError: as `auc`.
    """
    positive, scores = _checked(labels, probabilities)
    positives = int(np.count_nonzero(positive))
    return float(scores.sum(dtype=np.float64)) / positives if positives else None


def task_metrics(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike, *, bins: int
) -> dict[str, float | None]:
    """Return auc, gauc, logloss, ece and predicted_to_actual.

    One that is undefined is None.

    Raises:
        ValueError: as `auc`; bins < 1.
    """
    return {
        "auc": auc(labels, probabilities),
        "gauc": gauc(labels, probabilities, groups),
        "logloss": log_loss(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities, bins),
        "predicted_to_actual": predicted_to_actual(labels, probabilities),
    }


def bootstrap(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike,
    *,
    bins: int,
    replicates: int,
    generator: np.random.Generator,
) -> Replicates | None:
    """Return the metrics of bootstrap replicates, which resample whole groups.

    Whole groups, as a search's rows are not independent. Each replicate draws a Poisson(1) weight per group (Hanley and
    MacGibbon 2006). The weights depend on nothing but the generator and the number of groups: of models that are scored
    on the same rows with generators in the same state, replicate i has the same weights, so that differences are
    paired. Rows are sorted once, so a replicate is O(B).

    Args:
        labels: [B], 0 or 1.
        probabilities: [B], in [0, 1].
        groups: [B], the search of each row.
        bins: of the calibration error; every replicate has the bins of all rows.
        replicates: 0 switches them off.
        generator: the only source of randomness.

    Returns:
        None without replicates, and with a single group.

    Raises:
        ValueError: as `auc`; bins < 1; replicates < 0.
    """
    positive, scores = _checked(labels, probabilities)
    codes = _group_codes(groups, scores)
    if replicates < 0:
        raise ValueError(f"replicates is {replicates}; it must be >= 0")
    count = int(codes.max()) + 1
    if replicates == 0 or count == 1:
        return None
    ranking = _rank(positive, scores)
    of_positives, of_negatives = codes[ranking.positives], codes[ranking.negatives]
    rows = np.bincount(codes)
    losses = np.bincount(codes, weights=_losses(positive, scores))
    order, bin_of_row = _sorted_into_bins(scores, bins)
    starts = np.flatnonzero(np.r_[True, bin_of_row[1:] != bin_of_row[:-1]])
    of_sorted, residuals = codes[order], scores[order].astype(np.float64) - positive[order]
    found = Replicates(*np.full((3, replicates), np.nan))
    for number in range(replicates):
        drawn = generator.poisson(1.0, count)
        area = _area(ranking, drawn[of_positives], drawn[of_negatives])
        if area is not None:
            found.auc[number] = area
        total = drawn @ rows
        if total:
            found.logloss[number] = drawn @ losses / total
            found.ece[number] = np.abs(np.add.reduceat(drawn[of_sorted] * residuals, starts)).sum() / total
    return found


def percentile_interval(values: ArrayLike, confidence: float) -> tuple[float, float] | None:
    """Return the (low, high) that hold the middle share of the values.

    nan are left out; None where nothing else is left.

    Raises:
        ValueError: confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    given = np.asarray(values, np.float64)
    defined = given[~np.isnan(given)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return float(low), float(high)


def roc_points(labels: ArrayLike, probabilities: ArrayLike, points: int = 200) -> RocCurve | None:
    """Return corners of the ROC curve, evenly spread along it.

    There are at most `points` of them, both ends included; None where only one class is present.

    Raises:
        ValueError: as `auc`; points < 2.
    """
    positive, scores = _checked(labels, probabilities)
    if points < 2:
        raise ValueError(f"points is {points}; a curve needs at least 2")
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # ties make one slanted step
    hits = np.cumsum(positive[order])[last]
    true_rate = np.r_[0.0, hits / hits[-1]]
    false_rate = np.r_[0.0, (last + 1 - hits) / (last[-1] + 1 - hits[-1])]
    along = true_rate + false_rate
    picked = np.unique(np.searchsorted(along, np.linspace(0.0, along[-1], points)))
    return RocCurve(false_rate[picked], true_rate[picked])


def calibration_bins(labels: ArrayLike, probabilities: ArrayLike, bins: int) -> CalibrationBins:
    """Sort rows by prediction and cut them into `bins` of equal size.

    Row i of the sorted B belongs to bin floor(i * bins / B). Rows with equal predictions stay together, in the bin
    of the first of them, so the result does not depend on the order of rows; a bin left empty is not returned.

    Raises:
        ValueError: as `auc`; bins < 1.
    """
    positive, scores = _checked(labels, probabilities)
    order, bin_of_row = _sorted_into_bins(scores, bins)
    scores, positive = scores[order].astype(np.float64), positive[order]
    rows = np.bincount(bin_of_row, minlength=bins)
    filled = rows > 0
    predicted = np.bincount(bin_of_row, weights=scores, minlength=bins)[filled] / rows[filled]
    actual = np.bincount(bin_of_row, weights=positive, minlength=bins)[filled] / rows[filled]
    return CalibrationBins(predicted, actual, rows[filled].astype(np.int64))


def _losses(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Floats:
    clipped = np.clip(scores.astype(np.float64), CLIP, 1.0 - CLIP)
    return -np.where(positive, np.log(clipped), np.log1p(-clipped))


def _sorted_into_bins(scores: NDArray[np.floating], bins: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order of rows by score, and their bins in it."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be >= 1")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    first_of_tie = np.searchsorted(ordered, ordered, side="left")
    return order, first_of_tie * bins // len(scores)


class _Ranking(NamedTuple):
    """Rows sorted once by score; P positives, N negatives."""

    positives: NDArray[np.intp]  # [P] row numbers, by rising score
    negatives: NDArray[np.intp]  # [N] row numbers, by rising score
    below: NDArray[np.intp]  # [P] negatives that score below each positive
    at_most: NDArray[np.intp]  # [P] negatives that score at most as high


def _rank(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> _Ranking:
    ups, downs = np.flatnonzero(positive), np.flatnonzero(~positive)
    ups, downs = ups[np.argsort(scores[ups], kind="stable")], downs[np.argsort(scores[downs], kind="stable")]
    return _Ranking(
        ups,
        downs,
        np.searchsorted(scores[downs], scores[ups], side="left"),
        np.searchsorted(scores[downs], scores[ups], side="right"),
    )


def _area(ranking: _Ranking, positive_weights: Weights, negative_weights: Weights) -> float | None:
    total = positive_weights.sum() * negative_weights.sum()
    if total == 0:
        return None
    below = np.concatenate([[0], np.cumsum(negative_weights)])
    doubled = np.dot(positive_weights, below[ranking.below] + below[ranking.at_most])  # a tie is counted half
    return float(doubled / (2 * total))


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    given, scores = np.asarray(labels), np.asarray(probabilities)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"probabilities have shape {scores.shape}; one row of numbers, at least one, is needed")
    _same_shape("labels", given, scores)
    _all_true((given == 0) | (given == 1), given, "label", "0 or 1")
    _all_true((scores >= 0) & (scores <= 1), scores, "probability", "between 0 and 1")
    return given == 1, scores


def _same_shape(name: str, array: NDArray[np.generic], scores: NDArray[np.floating]) -> None:
    if array.shape != scores.shape:
        raise ValueError(f"{name} have shape {array.shape}, probabilities {scores.shape}; they must be the same")


def _all_true(good: NDArray[np.bool_], values: NDArray[np.generic], name: str, wanted: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"row {row}: {name} {values[row]} is not {wanted} ({np.count_nonzero(~good)} such rows)")


def _group_codes(groups: ArrayLike, scores: NDArray[np.floating]) -> NDArray[np.intp]:
    names = np.asarray(groups)
    _same_shape("groups", names, scores)
    return np.unique(names, return_inverse=True)[1]
