"""Calibration of probabilities on validation rows.

Platt 1999; temperature: Guo et al. 2017.

Legend: B batch, N validation rows, T tasks. The log-odds u = log p - log (1 - p) of a task become a u + b with a > 0,
so calibrated probabilities rise with the model's logits, and AUC and GAUC stay what they were.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit

from pfmsmt.core.errors import TrainingError
from pfmsmt.data.schema import UNLABELLED

CalibrationName = Literal["platt", "temperature"]
_Floats = NDArray[np.float64]

PRIOR_DEVIATION = 1.0
"""The prior deviation of log a and of b around 0 (ours): few positives move a task a little, none hardly."""
_FLAT = 1e-5
"""Largest slope of the mean loss, per unit of log a or b, at which a fit counts as converged."""


class Calibration(BaseModel):
    """One line for each task; saved with the model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: CalibrationName
    slopes: tuple[float, ...]
    """a > 0, [T]; a temperature is 1 / a."""
    intercepts: tuple[float, ...]
    """b, [T]; 0 for temperatures."""

    def apply(self, log_odds: _Floats, parents: tuple[int | None, ...], nested: bool) -> _Floats:
        """Return calibrated probabilities [B, T] of log-odds [B, T].

        With `nested` (the product head) a task never gets more than the task it is nested in, as without calibration.
        """
        result: _Floats = expit(log_odds * np.asarray(self.slopes) + np.asarray(self.intercepts))
        if nested:
            for task, parent in enumerate(parents):
                if parent is not None:
                    np.minimum(result[:, task], result[:, parent], out=result[:, task])
        return result


def fit_calibration(kind: CalibrationName, log_odds: _Floats, labels: NDArray[np.generic]) -> Calibration:
    """Fit every task's line to log-odds and labels [N, T].

    Rows that are UNLABELLED are left out of a task's fit. By log-loss, with a Gaussian prior on log a and b (ours).

    Raises:
        TrainingError: a fit did not converge.
    """
    lines = []
    for task in range(labels.shape[1]):
        known = labels[:, task] != UNLABELLED
        lines.append(_fit_line(kind, log_odds[known, task], np.asarray(labels[known, task], np.float64)))
    return Calibration(kind=kind, slopes=tuple(a for a, _ in lines), intercepts=tuple(b for _, b in lines))


def _fit_line(kind: CalibrationName, log_odds: _Floats, labels: _Floats) -> tuple[float, float]:
    # Not at the top: whoever predicts need not wait for what fits.
    from scipy.optimize import minimize

    rows = max(len(labels), 1)
    free = 2 if kind == "platt" else 1

    def loss(point: _Floats) -> tuple[float, _Floats]:
        a, b = float(np.exp(point[0])), float(point[1]) if free == 2 else 0.0
        z = a * log_odds + b
        # log(1 + e^z) - y z, without overflow
        value = np.logaddexp(0.0, z).sum() - labels @ z + point @ point / (2 * PRIOR_DEVIATION**2)
        error = expit(z) - labels
        slope = np.array([a * (error @ log_odds), error.sum()])[:free] + point / PRIOR_DEVIATION**2
        return float(value) / rows, slope / rows

    found = minimize(loss, np.zeros(free), jac=True, method="BFGS", options={"gtol": _FLAT / 100})
    if not np.isfinite(found.x).all() or np.abs(loss(found.x)[1]).max() > _FLAT:
        raise TrainingError(f"calibration did not converge ({found.message}); set train.calibration: none")
    return float(np.exp(found.x[0])), float(found.x[1]) if free == 2 else 0.0
