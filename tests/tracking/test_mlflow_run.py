"""A training run in a real store."""

import json
import subprocess
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pfmsmt.core.errors import TrackingError, TrainingError
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task
from pfmsmt.tracking import Store


def history(tracking: Store, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in tracking.client.get_metric_history(run_id, name))


@pytest.mark.slow(1)
def test_a_run_carries_name_tags_params_and_origin(tracking: Store, root: Path, start) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "params.yaml"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True).stdout
    with start(params={f"p{number}": number for number in range(130)}) as run:
        pass
    found = tracking.client.get_run(run.id)
    assert (found.info.run_name, found.info.status) == ("fedavg-seed0", "FINISHED")
    expected = {"role": "federation", "method": "fedavg", "seed": "0", "dataset": "synthetic"}
    expected |= {"git_commit": commit.strip(), "git_dirty": "false", "data_fingerprint": "f" * 64}
    assert expected.items() <= found.data.tags.items()
    assert found.data.params == {f"p{number}": str(number) for number in range(130)}
    assert [entry.dataset.name for entry in found.inputs.dataset_inputs] == ["synthetic"]
    environment = json.loads(mlflow.artifacts.load_text(f"runs:/{run.id}/environment.json"))
    assert environment["packages"]["mlflow"] == mlflow.__version__
    assert mlflow.artifacts.load_text(f"runs:/{run.id}/params.yaml") == "seed: 0\n"
    (root / "params.yaml").write_text("seed: 1\n")
    with start() as changed:
        pass
    assert tracking.client.get_run(changed.id).data.tags["git_dirty"] == "true"


def test_names_tell_generations_apart(tracking: Store, start) -> None:
    ids = []
    for changes in ({}, {"seed": 1}, {"method": "local"}, {}, {}):
        with start(**changes) as run:
            pass
        ids.append(run.id)
    with start(resume_id=ids[-1], resume_round=1):
        pass
    found = [tracking.client.get_run(run_id) for run_id in ids]
    assert [run.info.run_name for run in found] == [
        "fedavg-seed0", "fedavg-seed1", "local-seed0", "fedavg-seed0 (2)", "fedavg-seed0 (3)",
    ]  # fmt: skip
    assert [run.data.tags["generation"] for run in found] == ["1", "1", "1", "2", "3"]


def test_the_data_set_shows_columns_and_counts(tracking: Store, start) -> None:
    counts = {"NL": {"train": SplitCounts(rows=70, groups=9, positives={"ctr": 5, "ctcvr": 1}),
                     "test": SplitCounts(rows=30, groups=4, positives={"ctr": 2, "ctcvr": 0})}}  # fmt: skip
    tasks = (Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr"))
    fields = (
        CategoricalField(name="country", federated=True),
        CategoricalField(name="brand", federated=True, text=True),
    )
    data = Schema(
        source="synthetic", fingerprint="f" * 64, group="search", tasks=tasks, categorical=fields,
        numerical=(NumericalField(name="price", mean=10.0, std=2.0),), private_vocabularies={}, counts=counts,
    )  # fmt: skip
    with start(data=data) as run:
        pass
    (entry,) = tracking.client.get_run(run.id).inputs.dataset_inputs
    columns = [(c["name"], c["type"]) for c in json.loads(entry.dataset.schema)["mlflow_colspec"]]
    assert columns == [
        ("country", "long"), ("brand", "string"), ("price", "double"), ("ctr", "integer"), ("ctcvr", "integer"),
    ]  # fmt: skip
    profile = json.loads(entry.dataset.profile)
    assert (profile["num_rows"], profile["num_columns"]) == (100, 5)
    assert profile["scenarios"]["NL"]["test"] == {"rows": 30, "groups": 4, "positives": {"ctr": 2, "ctcvr": 0}}


def test_outside_a_repository_the_commit_is_unknown(tracking: Store, finished) -> None:
    assert tracking.client.get_run(finished.id).data.tags["git_commit"] == "unknown"


def test_metrics_land_at_their_round_and_what_is_not_finite_is_left_out(tracking: Store, start) -> None:
    with start() as run:
        for number in range(1, 24):
            run.log_round(number, {"val/NL/ctr_auc": number / 100, "server/bytes_up": 7, "x": None, "y": float("nan")})
            if number == 10:
                assert len(history(tracking, run.id, "val/NL/ctr_auc")) == 10, "not kept for the end alone"
    assert history(tracking, run.id, "val/NL/ctr_auc") == [(number, number / 100) for number in range(1, 24)]
    assert set(tracking.client.get_run(run.id).data.metrics) == {"val/NL/ctr_auc", "server/bytes_up"}


@pytest.mark.slow(2)
def test_a_round_of_more_metrics_than_one_call_takes(tracking: Store, start) -> None:
    with start() as run:
        run.log_round(1, {f"m/{number}": number for number in range(1001)})
    assert len(tracking.client.get_run(run.id).data.metrics) == 1001


@pytest.mark.slow(1)
@pytest.mark.parametrize("name", ["auc@5", "f(x)", "a=b", "/a", "a//b", ""])
def test_a_name_that_mlflow_refuses_is_refused_at_once(name: str, start) -> None:
    with start() as run, pytest.raises(TrackingError, match="metric name"):
        run.log_round(1, {name: 1.0})


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [
        (TrainingError("NL: loss is nan"), "FAILED", "NL: loss is nan"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
    ],
)
def test_a_training_that_stops_keeps_its_rounds_and_the_reason(
    error: BaseException, status: str, tag: str, tracking: Store, start
) -> None:
    with pytest.raises(type(error)), start() as run:  # noqa: PT012
        run.log_round(1, {"val/mean_auc": 0.5})
        raise error
    found = tracking.client.get_run(run.id)
    assert (found.info.status, found.data.tags["failure"]) == (status, tag)
    assert history(tracking, run.id, "val/mean_auc") == [(1, 0.5)]


def test_a_config_file_that_is_missing_fails_the_run(tracking: Store, start, root: Path) -> None:
    with pytest.raises(TrackingError, match=r"absent\.yaml"), start(config_file=root / "absent.yaml"):
        pass
    (run,) = tracking.client.search_runs([tracking.experiment_id])
    assert run.info.status == "FAILED"


def test_a_resumed_run_has_every_round_once(tracking: Store, start) -> None:
    with pytest.raises(KeyboardInterrupt), start() as killed:  # noqa: PT012
        for number in (1, 2, 3):
            killed.log_round(number, {"val/mean_auc": number / 10, "server/seconds": 1.0})
        raise KeyboardInterrupt
    with start(resume_id=killed.id, resume_round=3) as run:
        run.log_round(3, {"val/mean_auc": 0.3, "server/seconds": 2.0})
        run.log_round(4, {"val/mean_auc": 0.4, "server/seconds": 2.0})
    assert run.id == killed.id
    assert history(tracking, run.id, "val/mean_auc") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert history(tracking, run.id, "server/seconds") == [(1, 1.0), (2, 1.0), (3, 1.0), (3, 2.0), (4, 2.0)]
    found = tracking.client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["resumed_at_round"] == "3"
    assert "failure" not in found.data.tags
    (hit,) = tracking.client.search_runs([tracking.experiment_id], "metrics.`val/mean_auc` = 0.4")
    assert hit.info.run_id == run.id


@pytest.mark.slow(2)
def test_a_resumed_run_has_every_model_once(tracking: Store, start, model_folder: Path, rows: pd.DataFrame) -> None:
    with pytest.raises(KeyboardInterrupt), start() as killed:  # noqa: PT012
        killed.log_scenario_model("fedavg-NL", model_folder, rows, {}, step=3)
        raise KeyboardInterrupt
    with start(resume_id=killed.id, resume_round=3) as run:
        model_id = run.log_scenario_model("fedavg-NL", model_folder, rows, {}, step=3)
    models = tracking.client.search_logged_models([tracking.experiment_id])
    assert [model.model_id for model in models] == [model_id]
    outputs = tracking.client.get_run(run.id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model_id]


@pytest.mark.slow(1)
def test_a_value_that_changed_after_resuming_counts(tracking: Store, start) -> None:
    with start() as first:
        first.log_round(1, {"val/mean_auc": 0.9})
    with start(resume_id=first.id, resume_round=1) as run:
        run.log_round(1, {"val/mean_auc": 0.2})
    assert tracking.client.get_run(run.id).data.metrics["val/mean_auc"] == 0.2


def test_resuming_a_run_of_another_store_says_what_to_do(start) -> None:
    with pytest.raises(TrackingError, match="has no run"), start(resume_id="0" * 32, resume_round=3):
        pass


def test_files_and_folders_become_artifacts(tracking: Store, start, root: Path) -> None:
    (root / "plots").mkdir()
    for name in ("a.png", "b.png"):
        (root / "plots" / name).write_bytes(b"png")
    with start() as run:
        run.log_files(root / "plots", "figures")
    before = tracking.client.get_run(run.id).info.end_time
    tracking.log_run_files(run.id, [root / "plots" / "a.png"], "later")
    listed = [file.path for where in ("figures", "later") for file in tracking.client.list_artifacts(run.id, where)]
    assert listed == ["figures/a.png", "figures/b.png", "later/a.png"]
    assert tracking.client.get_run(run.id).info.end_time == before
    with pytest.raises(TrackingError, match="absent"):
        tracking.log_run_files(run.id, [root / "absent.png"])
