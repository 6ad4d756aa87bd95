"""Metrics of the server, in Prometheus' form.

No label comes from a request unchecked.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from pfmsmt.serving.deployments import Fleet

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_DIFFERENCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class Counters:
    """The counters of one server."""

    def __init__(self) -> None:
        """Start at zero, in a registry of their own."""
        own = self._registry = CollectorRegistry()
        self.requests = Counter("pfmsmt_requests", "Prediction requests", ["scenario", "status"], registry=own)
        self.seconds = Histogram(
            "pfmsmt_request_seconds", "From the head of a request to its answer", ["scenario"],
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.rows = Counter("pfmsmt_rows", "Rows answered", ["scenario", "alias", "version"], registry=own)
        self.batch_rows = Histogram("pfmsmt_batch_rows", "Rows scored together", buckets=_ROWS, registry=own)
        self.unknown = Counter(
            "pfmsmt_unknown_categories", "Cells whose category is out of vocabulary", ["scenario", "column"],
            registry=own,
        )  # fmt: skip
        self.filled = Counter(
            "pfmsmt_filled_cells", "Cells of optional columns that were not given", ["scenario", "column"],
            registry=own,
        )  # fmt: skip
        self.shadow = Histogram(
            "pfmsmt_shadow_difference", "Mean over a request's rows of |challenger - champion|", ["scenario", "task"],
            buckets=_DIFFERENCES, registry=own,
        )  # fmt: skip
        self.shadow_lost = Counter(
            "pfmsmt_shadow_lost", "Requests that the challenger did not score, by reason", ["scenario", "reason"],
            registry=own,
        )  # fmt: skip
        self.keyless = Counter(
            "pfmsmt_split_without_key", "Requests without X-Request-Key, which the champion answered", ["scenario"],
            registry=own,
        )  # fmt: skip
        self.running = Gauge("pfmsmt_requests_running", "Prediction requests being answered", registry=own)
        self._served = Gauge("pfmsmt_model", "1: this version serves", ["scenario", "alias", "version"], registry=own)
        self._faults = Gauge(
            "pfmsmt_model_fault", "1: the version that the alias wants does not serve", ["scenario", "alias"],
            registry=own,
        )  # fmt: skip
        self._swaps = Gauge("pfmsmt_model_loads", "Versions put into service since the start", registry=own)
        self._registry_fault = Gauge("pfmsmt_registry_fault", "1: the registry cannot be read", registry=own)

    def text(self, fleet: "Fleet") -> bytes:
        """Return all counters, and what the fleet serves now."""
        self._served.clear()
        self._faults.clear()
        for (scenario, alias), deployment in fleet.deployments().items():
            if deployment.scorer:
                self._served.labels(scenario, alias, deployment.scorer.version).set(1)
            self._faults.labels(scenario, alias).set(deployment.fault is not None)
        self._swaps.set(fleet.swaps)
        self._registry_fault.set(fleet.registry_fault is not None)
        return generate_latest(self._registry)

    def count_cells(self, scenario: str, unknown: Mapping[str, int], filled: Mapping[str, int]) -> None:
        """Count out-of-vocabulary and filled cells of one request."""
        for column, cells in unknown.items():
            self.unknown.labels(scenario, column).inc(cells)
        for column, cells in filled.items():
            self.filled.labels(scenario, column).inc(cells)
