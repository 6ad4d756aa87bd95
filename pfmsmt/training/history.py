"""The history of a run: validation, diagnostics and transfers by round.

Legend: S clients, R rounds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pfmsmt.core.types import FloatArray
from pfmsmt.methods.aggregation import conflict_share
from pfmsmt.training.ledger import Ledger
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.scores import mean_auc

_FEW = 8
"""Up to so many clients, every weight of A and every cosine is a metric of its own."""
MOST_VALUES = 2**16
"""Values of one quantity of one group: 16 rounds of matrices for 64 clients, 4096 for 4."""
DIAGNOSTICS_COLUMNS = ("round", "group", "quantity", "client", "other", "value")


class History:
    """Validation by round, diagnostics and ledger."""

    def __init__(self) -> None:
        """Start empty."""
        self.rows: list[dict[str, Any]] = []
        self.ledger = Ledger()
        self._clients: tuple[str, ...] = ()
        self._quantities: dict[tuple[str, str], _Quantity] = {}
        """(quantity, group) -> values"""

    def add(self, result: RoundResult) -> dict[str, float | None]:
        """Add one round; return its metrics under MLflow's names."""
        self.ledger.add(result.round, result.transfers)
        self._clients = result.clients
        for group, found in result.diagnostics.items():
            conflicts = np.asarray(conflict_share(_present(found)))
            for name, value in {**found, "conflicts": conflicts}.items():
                self._quantities.setdefault((name, group), _Quantity()).add(result.round, value)
        metrics: dict[str, float | None] = {**result.metrics, **summary(result)}
        self.rows += [
            {"round": result.round, "scenario": scenario, "task": task, **cell}
            for validation in result.validation.values()
            for scenario, tasks in validation.items()
            for task, cell in tasks.items()
        ]
        return metrics | validation_metrics(result)

    def diagnostics(self) -> pd.DataFrame | None:
        """Return all diagnostics, one row for each value.

        The columns are DIAGNOSTICS_COLUMNS; None where the method has no diagnostics.

        Of a matrix, `client` names the row and `other` the column; a vector has no `other`, a single value neither.
        """
        names = pd.Index(["", *self._clients])
        parts = [
            part.table(names).assign(group=group, quantity=quantity)
            for (quantity, group), part in sorted(self._quantities.items())
            if part.values
        ]
        if not parts:
            return None
        table = pd.concat(parts, ignore_index=True)[list(DIAGNOSTICS_COLUMNS)]
        return table.astype({"group": "category", "quantity": "category"})

    def save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a tree of arrays, and plain values."""
        tree: dict[str, Any] = {}
        for (quantity, group), part in self._quantities.items():
            tree.setdefault(quantity, {})[group] = part.save()
        return tree, {"rows": self.rows, "clients": self._clients, "ledger": self.ledger.save()}

    def load(self, tree: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Load the tree and values that `save` returned."""
        self.rows, self._clients = list(notes["rows"]), tuple(notes["clients"])
        self.ledger.load(notes["ledger"])
        self._quantities = {
            (quantity, group): _Quantity(part) for quantity, groups in tree.items() for group, part in groups.items()
        }


class _Quantity:
    """One quantity of one group over rounds.

    Once there are too many, every second, fourth, ... round stays.
    """

    def __init__(self, saved: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Start empty, or with what `save` returned."""
        self.values: dict[int, NDArray[np.float32]] = {}
        self._every = 1
        if saved is not None:
            self.values = dict(zip(saved["rounds"].tolist(), saved["values"], strict=True))
            self._every = int(saved["every"])

    def add(self, round: int, value: FloatArray) -> None:
        """Add one round's value, unless its round is thinned out."""
        if round % self._every:
            return
        self.values[round] = value.astype(np.float32)
        while len(self.values) * value.size > MOST_VALUES and len(self.values) > 1:
            self._every *= 2
            self.values = {number: value for number, value in self.values.items() if number % self._every == 0}

    def save(self) -> dict[str, NDArray[Any]]:
        """Return arrays."""
        return {
            "rounds": np.array(list(self.values), np.int64),
            "values": np.stack(list(self.values.values())) if self.values else np.zeros(0, np.float32),
            "every": np.asarray(self._every),
        }

    def table(self, names: "pd.Index[str]") -> pd.DataFrame:
        """Return round, client, other, value; `names` begins with the empty name."""
        values = np.stack(list(self.values.values()))
        places = np.indices(values.shape, np.int32).reshape(values.ndim, -1)
        client, other = (places[axis] + 1 if values.ndim > axis else np.zeros_like(places[0]) for axis in (1, 2))
        return pd.DataFrame(
            {
                "round": np.array(list(self.values), np.int32)[places[0]],
                "client": pd.Categorical.from_codes(client, names),
                "other": pd.Categorical.from_codes(other, names),
                "value": values.ravel(),
            }
        )


def validation_metrics(result: RoundResult) -> dict[str, float | None]:
    """Return `val/<scenario>/<task>_{auc,logloss}` and `val/mean_auc` of a round."""
    metrics = {
        f"val/{scenario}/{task}_{name}": value
        for validation in result.validation.values()
        for scenario, tasks in validation.items()
        for task, cell in tasks.items()
        for name, value in cell.items()
    }
    return {**metrics, "val/mean_auc": mean_auc(result.validation.values())}


def summary(result: RoundResult) -> dict[str, float]:
    """Return a round's diagnostics as metrics.

    Means over the groups of a kind (all experts, all towers, ...): `server/<kind>_{conflicts,cosine,drift}`,
    `server/<client>/<kind>_{coefficient,own_weight,drift}` of each client that answered and, with few clients,
    `server/<client>/{listens_to,cosine}/<other>_<kind>`.
    """
    kinds: dict[str, list[Mapping[str, FloatArray]]] = {}
    for group, found in sorted(result.diagnostics.items()):
        kinds.setdefault(group.split("/")[0], []).append(found)
    metrics: dict[str, float] = {}
    for kind, groups in kinds.items():
        rows, cosine, coefficients, drift = (
            np.mean([found[name] for found in groups], axis=0)
            for name in ("listening", "cosine", "coefficients", "drift")
        )
        cosines = [_present(found) for found in groups]
        metrics[f"server/{kind}_conflicts"] = float(np.mean([conflict_share(cosine) for cosine in cosines]))
        pairs = np.concatenate([cosine[np.triu_indices(len(cosine), k=1)] for cosine in cosines])
        if len(pairs):
            metrics[f"server/{kind}_cosine"] = float(pairs.mean())
        here = [place for place, value in enumerate(coefficients) if np.isfinite(value)]
        metrics[f"server/{kind}_drift"] = float(drift[here].mean())
        for place in here:
            client = f"server/{result.clients[place]}"
            metrics[f"{client}/{kind}_coefficient"] = float(coefficients[place])
            metrics[f"{client}/{kind}_own_weight"] = float(rows[place, place])
            metrics[f"{client}/{kind}_drift"] = float(drift[place])
            if len(result.clients) <= _FEW:
                for other, name in enumerate(result.clients):
                    if other != place:
                        metrics[f"{client}/listens_to/{name}_{kind}"] = float(rows[place, other])
                    if other in here:
                        metrics[f"{client}/cosine/{name}_{kind}"] = float(cosine[place, other])
    return metrics


def _present(found: Mapping[str, FloatArray]) -> NDArray[np.float64]:
    """Return the cosines of the clients that answered."""
    here = np.flatnonzero(np.isfinite(found["coefficients"]))
    return np.asarray(found["cosine"][np.ix_(here, here)], np.float64)
