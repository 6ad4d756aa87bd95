"""What has been seen over the rounds of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pfmsmt.rounds import RoundResult


class History:
    """Validation by round, and who listened to whom."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: list[dict[str, Any]] = []
        self._listening: dict[str, np.ndarray] = {}
        self._rounds = 0

    def add(self, result: RoundResult) -> dict[str, float | None]:
        """Take in one round; return its metrics under the names that MLflow gets."""
        self._rounds += 1
        for group, matrix in result.listening.items():
            self._listening[group] = self._listening.get(group, 0.0) + matrix
        metrics: dict[str, float | None] = dict(result.metrics)
        aucs = []
        for validation in result.validation.values():
            for scenario, tasks in validation.items():
                for task, cell in tasks.items():
                    self.rows.append({"round": result.round, "scenario": scenario, "task": task, **cell})
                    metrics |= {f"val/{scenario}/{task}_{name}": value for name, value in cell.items()}
                    aucs.append(cell["auc"])
        defined = [value for value in aucs if value is not None]
        metrics["val/mean_auc"] = float(np.mean(defined)) if defined else None
        return metrics

    def save(self) -> dict[str, Any]:
        """Return plain values."""
        listening = {group: matrix.tolist() for group, matrix in self._listening.items()}
        return {"rows": self.rows, "listening": listening, "rounds": self._rounds}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take up what `save` returned."""
        self.rows, self._rounds = list(saved["rows"]), saved["rounds"]
        self._listening = {group: np.array(matrix) for group, matrix in saved["listening"].items()}

    def listening(self, clients: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the mean of A over rounds, or None where the method has no A."""
        if not self._listening:
            return None
        groups = {group: (matrix / self._rounds).tolist() for group, matrix in sorted(self._listening.items())}
        return {"clients": list(clients), "groups": groups}
