"""Models that earlier versions logged are still loaded, and predict what they predicted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EARLIER = Path(__file__).parents[1] / "support" / "logged_model_0.1.0"
"""As version 0.1.0 logged it, without the wheel; its code imports `pfmsmt.errors`, which has moved since."""

LOADING = """
import json, sys
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.DataFrame({"country": [3, 7, 99], "user": [10, 30, 5], "price": [8.0, 10.0, 13.5]})
found = [model.predict(rows), model.predict(rows, params={"calibrated": False})]
try:
    model.predict(rows.assign(price=float("inf")))
except mlflow.exceptions.MlflowException as error:
    refused = error.error_code
print(json.dumps([[*(part.to_dict("list") for part in found)], refused]))
"""

CALIBRATED = {
    "ctr": [0.536837258422768, 0.657418407793572, 0.657418407793572],
    "ctcvr": [0.009539879803078, 0.120721838034631, 0.092856736747952],
}
TRAINED = {
    "ctr": [0.513223722635402, 0.648652898124958, 0.648652898124958],
    "ctcvr": [0.017313426486088, 0.164752481729185, 0.131219330196551],
}
"""Version 0.1.0's predictions for these rows."""


def test_a_model_of_version_0_1_0_loads_and_predicts(tmp_path: Path, clean_environment: None) -> None:
    """In a process of its own, which has imported nothing of pfmsmt before MLflow runs the model's code."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(EARLIER)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (calibrated, trained), refused = json.loads(done.stdout.splitlines()[-1])
    for found, expected in ((calibrated, CALIBRATED), (trained, TRAINED)):
        assert found.keys() == expected.keys()
        for task, values in expected.items():
            assert found[task] == pytest.approx(values, rel=1e-6)
    # A bad request: the error that its code catches is the one that the package raises.
    assert refused == "BAD_REQUEST"


def test_the_model_is_as_it_was_logged() -> None:
    """Were its code mended, the test above would prove nothing."""
    assert "from pfmsmt.errors import SchemaError\nfrom pfmsmt.models.saved import load_model\n" in (
        EARLIER / "pyfunc_model.py"
    ).read_text(encoding="utf-8")
