"""Links into MLflow's UI, and the views that they open."""

import base64
import json
import zlib

import pytest

from pfmsmt.tracking import Store
from pfmsmt.tracking.ui_views import deep_links

ROUND = {
    "val/mean_auc": 0.7, "val/NL/ctr_auc": 0.7, "val/NL/ctr_logloss": 0.3, "val/ES/ctr_auc": 0.6,
    "server/seconds": 1.0, "server/NL/bytes_up": 8.0, "train/NL/loss": 0.4,
}  # fmt: skip
TESTED = {"test/mean_auc": 0.7, "test/mean_ctr_auc": 0.7, "test/NL/ctr_auc": 0.8, "test/ES/ctr_auc": 0.6}


@pytest.fixture
def runs(start) -> dict[str, str]:
    """The newest run of each method; fedavg has an older one."""
    ids = {}
    for method in ("local", "fedavg", "fedavg"):
        with start(method=method) as run:
            run.log_round(1, ROUND | ({"server/cosine": 0.5} if method == "fedavg" else {}))
            run.log_round(2, TESTED)
        ids[method] = run.id
    return ids


def view(tracking: Store, name: str) -> dict:
    tags = tracking.client.get_experiment(tracking.experiment_id).tags
    envelope = json.loads(tags[f"mlflow.sharedViewState.pfmsmt-{name}"])
    assert isinstance(envelope["name"], str)
    assert isinstance(envelope["createdAt"], int)
    return json.loads(zlib.decompress(base64.b64decode(envelope["state"].removeprefix("deflate;"))))


def test_every_link_opens_model_training(tracking: Store, runs) -> None:
    experiment = f"http://127.0.0.1:5000/#/experiments/{tracking.experiment_id}"
    training = "workflowType=machine_learning"
    assert deep_links(tracking) == {
        "charts": f"{experiment}/runs?{training}&compareRunsMode=CHART&viewStateShareKey=pfmsmt-charts",
        "table": f"{experiment}/runs?{training}&compareRunsMode=TABLE&viewStateShareKey=pfmsmt-table",
        "models": f"{experiment}/models?{training}&viewMode=TABLE",
        "compare": f"{experiment}/runs?{training}&compareRunsMode=CHART&viewStateShareKey=pfmsmt-compare",
        "registry": f"http://127.0.0.1:5000/#/models?{training}",
    }
    assert deep_links(tracking, "http://host:8080/")["registry"] == f"http://host:8080/#/models?{training}"


def test_without_runs_there_is_nothing_to_compare_and_links_filter_by_themselves(tracking: Store) -> None:
    links = deep_links(tracking)
    assert "compare" not in links
    assert links["charts"].endswith("compareRunsMode=CHART&searchFilter=tags.role%3D%27federation%27")
    assert not any("sharedViewState" in tag for tag in tracking.client.get_experiment(tracking.experiment_id).tags)


def test_charts_begin_with_validation_then_test_and_end_with_the_server(tracking: Store, runs) -> None:
    deep_links(tracking)
    shown = view(tracking, "charts")
    assert shown["searchFilter"] == "tags.role='federation'"
    assert [(chart["type"], chart["metricKey"]) for chart in shown["compareRunCharts"]] == [
        ("LINE", "val/mean_auc"), ("LINE", "val/ES/ctr_auc"), ("LINE", "val/NL/ctr_auc"),
        ("BAR", "test/mean_auc"), ("BAR", "test/mean_ctr_auc"), ("BAR", "test/ES/ctr_auc"), ("BAR", "test/NL/ctr_auc"),
    ]  # fmt: skip
    sections = [section["name"] for section in shown["compareRunSections"]]
    assert sections[:2] == ["Validation AUC", "Test AUC"]
    assert sections[-2:] == ["server", "server/NL"]
    assert shown["isAccordionReordered"], "else the UI sorts them"
    assert {chart["metricSectionId"] for chart in shown["compareRunCharts"]} <= {
        section["uuid"] for section in shown["compareRunSections"]
    }


def test_the_table_shows_mean_metrics_the_best_run_first(tracking: Store, runs) -> None:
    deep_links(tracking)
    shown = view(tracking, "table")
    assert shown["selectedColumns"] == [
        "metrics.`val/mean_auc`", "metrics.`test/mean_auc`", "metrics.`test/mean_ctr_auc`", "tags.`generation`",
    ]  # fmt: skip
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`test/mean_auc`", False)


def test_only_the_newest_runs_are_compared_on_axes_that_all_have(tracking: Store, runs, start) -> None:
    deep_links(tracking)
    shown = view(tracking, "compare")
    assert shown["searchFilter"] == f"attributes.run_id IN ('{runs['fedavg']}','{runs['local']}')"
    found = tracking.client.search_runs([tracking.experiment_id], shown["searchFilter"])
    assert {run.info.run_id for run in found} == set(runs.values())
    lines, *bars, table = shown["compareRunCharts"]
    assert (lines["type"], lines["selectedParams"], table["type"]) == ("PARALLEL", ["method"], "DIFFERENCE")
    assert lines["selectedMetrics"] == ["test/mean_auc", "test/mean_ctr_auc", "test/ES/ctr_auc", "test/NL/ctr_auc"]
    assert [bar["metricKey"] for bar in bars] == lines["selectedMetrics"]
    with start(method="ditto") as run:
        run.log_round(1, {**ROUND, **{name: 0.5 for name in TESTED if "ES" not in name}})
    deep_links(tracking)
    assert view(tracking, "compare")["compareRunCharts"][0]["selectedMetrics"] == [
        "test/mean_auc", "test/mean_ctr_auc", "test/NL/ctr_auc",
    ]  # fmt: skip


def test_with_very_many_scenarios_a_view_is_left_out_and_the_link_works_all_the_same(tracking: Store, start) -> None:
    with start() as run:
        run.log_round(1, {f"val/{number * 7919 % 100003:05d}/ctr_auc": 0.5 for number in range(900)})
    links = deep_links(tracking)
    assert links["charts"].endswith("searchFilter=tags.role%3D%27federation%27")
    assert links["table"].endswith("viewStateShareKey=pfmsmt-table")
