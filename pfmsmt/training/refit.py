"""Findings of a first training, for a second one on all rows.

The first training validates, and so finds each client's best round and its calibration. The second one starts anew,
with the same seed and rounds but with all rows, and each client keeps its model of the round that the first one chose.
So nothing that says how good a model is, or corrects it, is fitted on rows that it describes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pfmsmt.models.calibration import Calibration
from pfmsmt.training.client import Best
from pfmsmt.training.scores import Score


class Refit(NamedTuple):
    """The findings of the first training, for the second."""

    best: Mapping[str, Best]
    """client -> its best round, without parameters"""
    calibrations: Mapping[str, Calibration]
    """scenario -> its calibration, fitted to what the first training's best model predicts; {}: none"""

    @property
    def rounds(self) -> int:
        """Rounds of the second training.

        After the last one that any client keeps, nothing is left to do.
        """
        return max(best.round for best in self.best.values())

    def save(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "best": {client: best._asdict() for client, best in self.best.items()},
            "calibrations": {scenario: found.model_dump(mode="json") for scenario, found in self.calibrations.items()},
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> "Refit":
        """Make one of the values that `save` returned."""
        best = {client: Best(**{**b, "score": Score(*b["score"])}) for client, b in saved["best"].items()}
        return cls(best, {s: Calibration.model_validate(found) for s, found in saved["calibrations"].items()})
