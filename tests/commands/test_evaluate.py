import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pfmsmt.commands.evaluate import evaluate, predict_shard, test_metrics
from pfmsmt.config import load_config
from pfmsmt.core.errors import DataError, TrackingError
from pfmsmt.core.layout import read_run
from pfmsmt.core.metrics import auc
from pfmsmt.core.types import Stream
from pfmsmt.data.encoder import Encoded
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.streamed import open_shard
from pfmsmt.models.saved import load_model
from pfmsmt.tracking import connect
from tests.support.shards import read_shard

test_metrics.__test__ = False
CLIENTS = Path("data/clients")


def again(project, config, method="local"):
    evaluate(config, read_schema(CLIENTS / "schema.json"), method, 0, connect(project), project)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow(3)
def test_scores_are_those_of_the_saved_models_on_the_test_shards(finished_project):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    project, tracking = finished_project, connect(finished_project)
    found = json.loads((project / "evaluation/local-seed0/metrics.json").read_text())
    assert (found["method"], found["seed"]) == ("local", 0)
    schema = read_schema(CLIENTS / "schema.json")
    run = tracking.client.get_run(read_run(project, "local", 0)["run_id"])
    means = []
    for name in schema.scenarios:
        frame = read_shard(CLIENTS / name / "test.parquet")
        model = load_model(project / "models/local-seed0" / name)
        own = schema.scenario(name)
        codes = frame[[f.name for f in own.categorical]].to_numpy(np.int32, copy=True)
        values = frame[[f.name for f in own.numerical]].to_numpy(np.float32, copy=True)
        predicted = model.probabilities(Encoded(codes, values))
        for i, task in enumerate(("ctr", "ctcvr")):
            cell = found["scenarios"][name][task]
            expected = sklearn_metrics.roc_auc_score(frame[task], predicted[:, i])
            means.append(cell["auc"])
            assert cell["auc"] == pytest.approx(expected, abs=1e-6)
            assert cell["logloss"] == pytest.approx(sklearn_metrics.log_loss(frame[task], predicted[:, i]), abs=1e-6)
            assert (cell["rows"], cell["positives"]) == (200, frame[task].sum())
            assert cell["auc_low"] <= cell["auc"] <= cell["auc_high"]
            for metric in ("auc", "gauc", "logloss", "ece"):
                assert run.data.metrics[f"test/{name}/{task}_{metric}"] == cell[metric]
        model_id = read_run(project, "local", 0)["models"][name]
        own_metrics = {m.key: m.value for m in tracking.client.get_logged_model(model_id).metrics}
        assert {key.split("/")[1] for key in own_metrics} == {name}
        assert own_metrics[f"test/{name}/ctr_auc"] == found["scenarios"][name]["ctr"]["auc"]
    assert run.data.metrics["test/mean_auc"] == pytest.approx(np.mean(means), abs=1e-12)


def test_replicates_draw_by_seed_and_scenario_alone(finished_project):
    """Neither method nor task: differences are paired."""
    schema, config = read_schema(CLIENTS / "schema.json"), load_config()
    found = pd.read_parquet(finished_project / "evaluation/local-seed0/replicates.parquet")
    for scenario in schema.scenarios:
        shard = open_shard(CLIENTS, "test", schema.scenario(scenario))
        predicted = predict_shard(load_model(finished_project / "models/local-seed0" / scenario), shard, 64, True)
        names, codes = np.unique(shard.groups, return_inverse=True)
        generator = Stream(config.seed, f"bootstrap/{scenario}", 0).generator()
        weights = [generator.poisson(1.0, len(names))[codes] for _ in range(3)]
        for i, task in enumerate(task.name for task in schema.tasks):
            own = found[(found["scenario"] == scenario) & (found["task"] == task)]
            assert own["replicate"].tolist() == list(range(config.evaluate.bootstrap))
            expected = [auc(shard.labels[:, i], predicted[:, i], drawn) for drawn in weights]
            assert own["auc"].tolist()[:3] == pytest.approx(expected)


@pytest.mark.slow(1)
def test_scoring_again_changes_nothing(finished_project):
    project, config, tracking = finished_project, load_config(), connect(finished_project)
    before = files(project / "evaluation/local-seed0")
    run_id = read_run(project, "local", 0)["run_id"]
    again(project, config)
    assert files(project / "evaluation/local-seed0") == before
    assert len(tracking.client.get_metric_history(run_id, "test/mean_auc")) == 1


@pytest.mark.slow(14)
def test_the_same_seed_gives_the_same_reports(project, configure, train_all):
    config = configure({"train.methods": ["pf_msmtrec"], "run.workers": 2})
    reports = []
    for _ in range(2):
        train_all(config, "compare")
        reports.append(
            {p.name: p.read_bytes() for p in (project / "reports").iterdir() if p.suffix in (".json", ".csv")}
        )
    assert "metrics.json" in reports[0]
    assert reports[0] == reports[1]


def test_means_leave_undefined_values_out():
    def cell(auc):
        return {"auc": auc, "gauc": None, "logloss": 0.5, "ece": 0.1}

    found = test_metrics({"A": {"ctr": cell(0.6), "ctcvr": cell(None)}, "B": {"ctr": cell(0.8), "ctcvr": cell(None)}})
    assert found["test/mean_ctr_auc"] == pytest.approx(0.7)
    assert found["test/mean_ctcvr_auc"] is None
    assert found["test/mean_auc"] == pytest.approx(0.7)
    assert found["test/A/ctcvr_auc"] is None


def test_what_is_missing_is_named(project, configure):
    config = configure()
    with pytest.raises(DataError, match=r"runs/local-seed0\.json does not exist; run `dvc repro train@local-0`"):
        again(project, config)
    (project / "runs").mkdir()
    (project / "runs/local-seed0.json").write_text("{")
    with pytest.raises(DataError, match=r"runs/local-seed0\.json is damaged"):
        again(project, config)
    (project / "runs/local-seed0.json").write_text('{"run_id": "' + "0" * 32 + '", "models": {}}')
    with pytest.raises(TrackingError, match=r"has no run 0{32}.*\n.*train@local-0"):
        again(project, config)
    assert not (project / "evaluation").exists()


@pytest.mark.slow(3)
def test_a_single_class_is_undefined_all_the_way(project, configure, train_all, capsys):
    """US has no conversion in its validation rows, and neither click nor conversion in its test rows."""
    for split, tasks in (("val", ["ctcvr"]), ("test", ["ctr", "ctcvr"])):
        path = CLIENTS / "US" / f"{split}.parquet"
        frame = pd.read_parquet(path)
        frame[tasks] = np.uint8(0)
        frame.to_parquet(path)
    config = configure({"train.methods": ["fedavg"], "register.methods": ["fedavg"]})
    tracking = train_all(config, "all")
    output = capsys.readouterr().out
    assert "fedavg-seed0: US: test AUC ctr undefined (one class)  ctcvr undefined (one class)" in output
    history = pd.read_csv(project / "models/fedavg-seed0/history.csv")
    assert history[(history.scenario == "US") & (history.task == "ctcvr")].auc.isna().all()
    assert history[(history.scenario == "US") & (history.task == "ctr")].auc.notna().all()
    cell = json.loads((project / "reports/metrics.json").read_text())["fedavg"]["US"]["ctr"]
    assert cell["auc"] is None
    assert cell["logloss"] > 0
    run = tracking.client.get_run(read_run(project, "fedavg", 0)["run_id"])
    assert "test/US/ctr_auc" not in run.data.metrics
    assert "val/US/ctcvr_auc" not in run.data.metrics
    assert run.data.metrics["test/mean_auc"] == pytest.approx(
        np.mean([run.data.metrics[f"test/{s}/{t}_auc"] for s in ("NL", "ES") for t in ("ctr", "ctcvr")])
    )
    from pfmsmt.commands.compare import comparison_text

    table = comparison_text(config, read_schema(CLIENTS / "schema.json"), project)
    row = next(line for line in table.splitlines() if line.startswith("fedavg"))
    assert " - " in row
    assert "US" in table
    assert "0.5000" not in row


@pytest.mark.slow(4)
def test_a_scenario_without_any_defined_auc_still_has_a_champion(project, configure, train_all):
    path = CLIENTS / "US/val.parquet"
    frame = pd.read_parquet(path)
    frame[["ctr", "ctcvr"]] = np.uint8(0)
    frame.to_parquet(path)
    train_all(configure({"train.methods": ["fedavg", "local"], "register.methods": ["fedavg", "local"]}), "all")
    best = {
        m: json.loads((project / f"models/{m}-seed0/result.json").read_text())["best"]["US"]
        for m in ("fedavg", "local")
    }
    assert [found["mean_auc"] for found in best.values()] == [None, None]
    loss = {m: np.mean([cell["logloss"] for cell in found["validation"].values()]) for m, found in best.items()}
    champion = json.loads((project / "champions.json").read_text())["US"]
    assert champion["method"] == min(loss, key=loss.__getitem__)
    assert champion["val_mean_auc"] is None
