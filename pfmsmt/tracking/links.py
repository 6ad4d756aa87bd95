"""Addresses in the MLflow UI that open the views worth seeing."""

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

_FEDERATION = "tags.role='federation'"


def deep_links(tracking: "Store", base_url: str | None = None) -> dict[str, str]:
    """See `Tracking.deep_links`."""
    default = tracking.uri if tracking.uri.startswith("http") else "http://127.0.0.1:5000"
    home = f"{(base_url or default).rstrip('/')}/#"
    experiment = f"{home}/experiments/{tracking.experiment_id}"
    runs = f"{experiment}/runs?searchFilter={quote(_FEDERATION, safe='')}"
    newest = _newest_runs(tracking)
    found = {
        "charts": f"{runs}&compareRunsMode=CHART",
        "table": f"{runs}&orderByKey={quote('metrics.`test/mean_auc`', safe='')}&orderByAsc=false",
        "models": f"{experiment}/models?viewMode=CHART",
    }
    if newest:
        found["compare"] = f"{home}/compare-runs?runs={_list(newest)}&experiments={_list([tracking.experiment_id])}"
    return found | {"registry": f"{home}/models"}


def _list(ids: list[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")), safe="")


def _newest_runs(tracking: "Store") -> list[str]:
    """Return the newest finished run of each method, methods by name."""
    with readable(tracking.uri, "searching runs"):
        runs = tracking.client.search_runs(
            [tracking.experiment_id],
            f"{_FEDERATION} and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1000,
        )
    newest = {run.data.tags["method"]: run.info.run_id for run in reversed(runs)}
    return [newest[method] for method in sorted(newest)]
