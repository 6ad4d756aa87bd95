"""Links into MLflow's UI, and prepared views that they open.

A view is a tag of the experiment, which the UI reads when a link names its key. In its menu *Views* it has a name. The
UI ignores a view if the link holds a filter or an order of its own, so these are within the view.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    from mlflow.entities import Run

    from pfmsmt.tracking.store import Store

TRAINING = "workflowType=machine_learning"
"""Without it the UI opens for language models, where ours are named agents."""
_TAG = "mlflow.sharedViewState."
_TAG_BYTES = 20_000
"""MLflow refuses a longer tag of an experiment."""
_FEDERATION = "tags.role='federation'"
_CHARTS, _TABLE, _COMPARE = "pfmsmt-charts", "pfmsmt-table", "pfmsmt-compare"
_CELL = re.compile(r"(?:val|test)/([^/]+)/(.+)_auc")
_RUNS = 20
"""Runs that a chart shows at once."""
_AXES = 16
"""More lines of metrics than these are not to be read beside each other."""
_LATER = ("privacy", "server")
"""Charts of these prefixes come last."""

_View = dict[str, Any]


def deep_links(store: "Store", base_url: str | None = None) -> dict[str, str]:
    """Return addresses of the useful pages in the MLflow UI.

    Charts, table, models, compare (if there are runs), registry. Prepares the views that they open.

    Args:
        store: whose runs they show.
        base_url: of the UI; by default the tracking server, for a local store http://127.0.0.1:5000.

    Raises:
        TrackingError: the store refuses.
    """
    default = store.uri if store.uri.startswith("http") else "http://127.0.0.1:5000"
    home = f"{(base_url or default).rstrip('/')}/#"
    experiment = f"{home}/experiments/{store.experiment_id}"
    runs = _newest_runs(store)
    views = save_views(store, runs)
    plain = f"searchFilter={quote(_FEDERATION, safe='')}"
    shown = {key: f"viewStateShareKey={key}" if key in views else plain for key in (_CHARTS, _TABLE, _COMPARE)}
    found = {
        "charts": f"{experiment}/runs?{TRAINING}&compareRunsMode=CHART&{shown[_CHARTS]}",
        "table": f"{experiment}/runs?{TRAINING}&compareRunsMode=TABLE&{shown[_TABLE]}",
        # Its charts would show the ten newest models alone.
        "models": f"{experiment}/models?{TRAINING}&viewMode=TABLE",
    }
    if runs:
        found["compare"] = f"{experiment}/runs?{TRAINING}&compareRunsMode=CHART&{shown[_COMPARE]}"
    return found | {"registry": f"{home}/models?{TRAINING}"}


def save_views(store: "Store", runs: Sequence["Run"]) -> tuple[str, ...]:
    """Save the views of charts, table and comparison; return their keys.

    Args:
        store: that gets the views, as tags of its experiment.
        runs: the newest of each method; their metrics are what the views show. Without any there are no views.

    Raises:
        TrackingError: the store refuses.
    """
    if not runs:
        return ()
    metrics = sorted({name for run in runs for name in run.data.metrics})
    views = {
        _CHARTS: ("Validation and test AUC", _charts_view(metrics)),
        _TABLE: ("Runs by test AUC", _table_view(metrics)),
        _COMPARE: ("Newest run of each method", _compare_view(runs)),
    }
    began = min(run.info.start_time for run in runs)
    saved = []
    with readable(store.uri, "saving views of the MLflow UI"):
        for key, (name, view) in views.items():
            packed = base64.b64encode(zlib.compress(json.dumps(view, separators=(",", ":")).encode(), 9)).decode()
            text = json.dumps({"name": name, "createdAt": began, "updatedAt": began, "state": f"deflate;{packed}"})
            if len(text) <= _TAG_BYTES:
                store.client.set_experiment_tag(store.experiment_id, _TAG + key, text)
                saved.append(key)
    return tuple(saved)


def _charts_view(metrics: Sequence[str]) -> _View:
    """Show validation AUC, the mean first, test AUC, then the rest."""
    validation = ["val/mean_auc", *(name for name in metrics if name.startswith("val/") and _CELL.fullmatch(name))]
    prefixes = {name.rpartition("/")[0] for name in metrics}
    rest = sorted(prefixes, key=lambda prefix: (prefix.split("/")[0] in _LATER, prefix.split("/")[0] != "val", prefix))
    sections = [_section("Validation AUC", True), _section("Test AUC", True), *(_section(name, False) for name in rest)]
    charts = [_line(name, "Validation AUC") for name in validation]
    charts += [_bar(name, "Test AUC") for name in _test_bars(metrics)]
    return _view(_FEDERATION, sections, charts)


def _table_view(metrics: Sequence[str]) -> _View:
    """Show all runs with mean metrics, the best by test AUC first."""
    columns = ["val/mean_auc", *(name for name in _test_bars(metrics) if name.count("/") == 1)]
    # Columns of attributes would stand before the metrics, and push them out of sight.
    shown = [*(f"metrics.`{name}`" for name in columns), "tags.`generation`"]
    order = {"orderByKey": "metrics.`test/mean_auc`", "orderByAsc": False, "selectedColumns": shown}
    return _view(_FEDERATION, [], []) | order


def _compare_view(runs: Sequence["Run"]) -> _View:
    """Show methods and their test AUC, and a table of what differs."""
    common = sorted(set.intersection(*(set(run.data.metrics) for run in runs)))
    # An axis that a run has no value on would hide that run.
    bars = _test_bars(common) or [name for name in common if name.startswith("val/")]
    axes = bars if len(bars) <= _AXES else [name for name in bars if name.count("/") == 1]
    lines = {
        "type": "PARALLEL", "uuid": "methods", "metricSectionId": "Methods", "isGenerated": False, "deleted": False,
        "selectedParams": ["method"], "selectedMetrics": axes, "showAllRuns": False,
    }  # fmt: skip
    table = {
        "type": "DIFFERENCE", "uuid": "table", "metricSectionId": "Differences", "isGenerated": False, "deleted": False,
        "compareGroups": ["Model metrics", "Parameters"], "chartName": "Differences", "showChangeFromBaseline": True,
        "showDifferencesOnly": True, "baselineColumnUuid": "",
    }  # fmt: skip
    rest = sorted({metric.rpartition("/")[0] for run in runs for metric in run.data.metrics})
    sections = [
        _section("Methods", True) | {"columns": 1, "cardHeight": 400},
        _section("Test AUC", True),
        _section("Differences", True) | {"columns": 1, "cardHeight": 600},
        *(_section(prefix, False) for prefix in rest),
    ]
    ids = ",".join(f"'{run.info.run_id}'" for run in runs)
    return _view(f"attributes.run_id IN ({ids})", sections, [lines, *(_bar(name, "Test AUC") for name in bars), table])


def _test_bars(metrics: Iterable[str]) -> list[str]:
    """Return names of test AUC: the mean, tasks' means, scenarios' tasks."""
    names = [name for name in metrics if name.startswith("test/") and name.endswith("_auc")]
    return sorted(names, key=lambda name: (name != "test/mean_auc", name.count("/"), name))


def _view(runs_filter: str, sections: list[_View], charts: list[_View]) -> _View:
    return {
        "searchFilter": runs_filter,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        **({"compareRunSections": sections, "compareRunCharts": charts} if charts else {}),
        # Else the UI sorts sections by name.
        "isAccordionReordered": True,
        "runsHiddenMode": f"FIRST_{_RUNS}_RUNS",
    }


def _section(name: str, unfolded: bool) -> _View:
    # Charts that the view does not list go to the section of their prefix.
    return {"uuid": name, "name": name, "display": unfolded, "isReordered": True, "deleted": False, "isGenerated": True}


def _line(metric: str, section: str) -> _View:
    return {
        **_chart("LINE", metric, section), "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear",
        "lineSmoothness": 0, "range": {}, "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [],
        "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


def _bar(metric: str, section: str) -> _View:
    return _chart("BAR", metric, section)


def _chart(kind: str, metric: str, section: str) -> _View:
    return {
        "type": kind, "uuid": f"{section}/{metric}", "metricSectionId": section, "isGenerated": True, "deleted": False,
        "metricKey": metric, "displayName": metric.partition("/")[2], "runsCountToCompare": _RUNS,
    }  # fmt: skip


def _newest_runs(store: "Store") -> list["Run"]:
    """Return the newest finished run of each method, methods by name."""
    with readable(store.uri, "searching runs"):
        runs = store.client.search_runs(
            [store.experiment_id],
            f"{_FEDERATION} and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1000,
        )
    newest = {run.data.tags["method"]: run for run in reversed(runs)}
    return [newest[method] for method in sorted(newest)]
