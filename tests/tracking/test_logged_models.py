"""Logged models: what is kept, what a loaded one does, test metrics, the registry."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations

import pfmsmt
from pfmsmt.core.errors import SchemaError, TrackingError
from pfmsmt.models.saved import load_model
from pfmsmt.tracking import Store
from pfmsmt.tracking.mlflow_run import attach_test_metrics
from pfmsmt.tracking.promotion import set_champion
from pfmsmt.tracking.registry import register_version

pytestmark = pytest.mark.slow(1)
"""Nearly every test logs two models."""


@pytest.fixture
def logged(start, model_folder: Path, rows: pd.DataFrame) -> tuple[str, str]:
    """A finished run with NL's and ES's models; returns run id and NL's model id."""
    with start() as run:
        run.log_round(1, {"val/NL/ctr_auc": 0.6, "val/ES/ctr_auc": 0.5})
        model_id = run.log_scenario_model("fedavg-NL", model_folder, rows.assign(click=0), {"scenario": "NL"}, step=1)
    return run.id, model_id


def test_a_model_knows_its_run_params_and_step_but_no_foreign_metric(tracking: Store, logged) -> None:
    run_id, model_id = logged
    model = tracking.client.get_logged_model(model_id)
    assert (model.name, str(model.status), model.source_run_id) == ("fedavg-NL", "READY", run_id)
    assert model.experiment_id == tracking.experiment_id
    assert model.params["scenario"] == "NL"
    assert model.params["train.rounds"] == "3"
    assert not model.metrics
    outputs = tracking.client.get_run(run_id).outputs.model_outputs
    assert [(output.model_id, output.step) for output in outputs] == [(model_id, 1)]


def test_signature_example_and_pins(logged, rows: pd.DataFrame) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{logged[1]}"))
    info = mlflow.models.Model.load(folder)
    sides = (info.signature.inputs, info.signature.outputs)
    inputs, outputs = ([(column.name, column.type.name) for column in side] for side in sides)
    assert inputs == [("country", "long"), ("price", "double")]
    assert outputs == [("ctr", "double"), ("ctcvr", "double")]
    pd.testing.assert_frame_equal(info.load_input_example(str(folder)), rows)
    pins = (folder / "requirements.txt").read_text().split()
    assert pins.pop() == f"code/pfmsmt-{pfmsmt.__version__}-py3-none-any.whl"
    assert all("==" in pin and "+" not in pin for pin in pins), pins


@pytest.mark.slow(4)
def test_the_model_brings_the_package_that_loads_it(logged, tmp_path: Path) -> None:
    """As MLflow installs it into an environment of its own; what it needs besides is pinned."""
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{logged[1]}"))
    (wheel,) = (folder / "code").iterdir()
    words = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=60)
    installed = {p.relative_to(tmp_path / "site"): p.read_bytes() for p in (tmp_path / "site/pfmsmt").rglob("*.py")}
    package = Path(pfmsmt.__file__).parent
    assert installed == {p.relative_to(package.parent): p.read_bytes() for p in package.rglob("*.py")}
    code = "import pfmsmt.models.saved, sys; print(pfmsmt.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(tmp_path / "site/pfmsmt/__init__.py"), done.stderr


def test_no_artifact_is_a_pickle(logged, root: Path) -> None:
    files = [path for path in (root / "mlruns").rglob("*") if path.is_file()]
    assert {"weights.safetensors", "model.json", "pyfunc_model.py", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".pth", ".pt", ".bin"}]
    named = ("MLmodel", f"pfmsmt-{pfmsmt.__version__}-py3-none-any.whl")  # the word is in them, and no pickle
    assert not [path for path in files if path.name not in named and b"pickle" in path.read_bytes()]


@pytest.mark.slow(1)
def test_a_loaded_model_answers_as_the_saved_one(logged, model_folder: Path, rows: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{logged[1]}")
    expected = load_model(model_folder).predict(rows)
    pd.testing.assert_frame_equal(model.predict(rows), expected)
    shuffled = rows.assign(other="x")[["price", "other", "country"]]
    pd.testing.assert_frame_equal(model.predict(shuffled), expected)


def test_a_loaded_model_answers_json(logged, model_folder: Path, rows: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{logged[1]}")
    body = json.dumps({"dataframe_split": {"columns": ["country", "price"], "data": [[3, 8], [7, 10], [99, 13.5]]}})
    answer = invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200
    predictions = pd.DataFrame(json.loads(answer.response)["predictions"])
    pd.testing.assert_frame_equal(predictions, load_model(model_folder).predict(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": [1.0, np.nan, 2.0]}, "column price, row 1: nan is not a finite number"),
        ({"price": ["a", "b", "c"]}, "price"),
        ({"country": [0.5, 1.0, 2.0]}, "country"),
        ({"country": None}, "country"),
    ],
)
def test_bad_input_is_named(change: dict, message: str, logged, rows: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{logged[1]}")
    frame = rows.drop(columns="country") if change == {"country": None} else rows.assign(**change)
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(frame)
    assert caught.value.get_http_status_code() == 400


def test_a_folder_or_example_that_does_not_fit_is_refused(start, tmp_path: Path, model_folder: Path, rows) -> None:
    with start() as run:
        with pytest.raises(SchemaError, match="holds no saved model"):
            run.log_scenario_model("fedavg-NL", tmp_path, rows, {}, step=1)
        with pytest.raises(SchemaError, match="lacks the columns price"):
            run.log_scenario_model("fedavg-NL", model_folder, rows[["country"]], {}, step=1)


METRICS = {"test/NL/ctr_auc": 0.7, "test/NL/ctcvr_gauc": None, "test/mean_auc": 0.65, "test/mean_ctr_auc": 0.7}


def test_test_metrics_go_to_run_and_model_without_reopening_the_run(tracking: Store, logged) -> None:
    run_id, model_id = logged
    before = tracking.client.get_run(run_id).info
    for _ in range(2):
        attach_test_metrics(tracking, run_id, {"NL": model_id}, METRICS, "synthetic", "f" * 64)
    after = tracking.client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    present = {name: value for name, value in METRICS.items() if value is not None}
    assert present.items() <= after.data.metrics.items()
    assert len(tracking.client.get_metric_history(run_id, "test/NL/ctr_auc")) == 1, "a second evaluation adds nothing"
    (metric,) = tracking.client.get_logged_model(model_id).metrics
    assert (metric.key, metric.value) == ("test/NL/ctr_auc", 0.7)
    assert (metric.dataset_name, metric.dataset_digest) == ("synthetic", "f" * 36)
    found = tracking.client.search_logged_models([tracking.experiment_id], "metrics.`test/NL/ctr_auc` > 0.6")
    assert [model.model_id for model in found] == [model_id]


def test_test_metrics_of_a_scenario_without_model_are_refused(tracking: Store, logged) -> None:
    with pytest.raises(TrackingError, match="test/US/ctr_auc"):
        attach_test_metrics(tracking, logged[0], {"NL": logged[1]}, {"test/US/ctr_auc": 0.5}, "d", "f")


def test_check_run_says_which_stage_to_repeat(tracking: Store, finished) -> None:
    tracking.check_run(finished.id)
    tracking.client.delete_run(finished.id)
    for lost in (finished.id, "0" * 32, "no id"):
        with pytest.raises(TrackingError, match=rf"{lost}(.|\n)*dvc repro --force --single-item train@x"):
            tracking.check_run(lost, "train@x")


def test_there_is_one_version_per_model(tracking: Store, logged, start, model_folder: Path, rows) -> None:
    _, model_id = logged
    assert register_version(tracking, "NL", model_id, {"method": "fedavg", "seed": 0}) == "1"
    assert register_version(tracking, "NL", model_id, {"method": "fedavg", "seed": 1}) == "1"
    with start() as run:
        other = run.log_scenario_model("local-NL", model_folder, rows, {}, step=1)
    assert register_version(tracking, "NL", other, {"method": "local"}) == "2"
    assert register_version(tracking, "NL", model_id, {"method": "fedavg"}) == "1"
    first = tracking.client.get_model_version("pfmsmt-NL", "1")
    assert first.source == f"models:/{model_id}"
    assert first.tags == {"method": "fedavg", "seed": "1"}
    assert len(tracking.client.search_model_versions("name = 'pfmsmt-NL'")) == 2
    with pytest.raises(TrackingError, match="m-absent"):
        register_version(tracking, "NL", "m-absent", {})


@pytest.mark.slow(6)
def test_the_champion_loads_from_another_directory(
    tracking: Store, logged, model_folder: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    set_champion(tracking, "NL", register_version(tracking, "NL", logged[1], {}), "register")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows.to_json(elsewhere / "rows.json", orient="records")
    code = (
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/pfmsmt-NL@champion')\n"
        "print(model.predict(pd.read_json('rows.json').astype({'price': float})).to_json(double_precision=15))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=kept | {"MLFLOW_TRACKING_URI": tracking.uri, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    answers = pd.DataFrame({task: list(column.values()) for task, column in json.loads(done.stdout).items()})
    pd.testing.assert_frame_equal(answers, load_model(model_folder).predict(rows))
