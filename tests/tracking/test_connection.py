"""Reaching or creating the store."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking import Store, connect
from pfmsmt.tracking.mlflow_run import training_run


def test_the_experiment_is_made_once_with_absolute_artifacts(tracking: Store, root: Path) -> None:
    assert connect(root).experiment_id == tracking.experiment_id
    experiment = tracking.client.get_experiment(tracking.experiment_id)
    assert experiment.name == "pfmsmt"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.artifact_location == (root / "mlruns" / "pfmsmt").as_uri()


def test_the_environment_names_the_store_for_child_processes(tracking: Store, root: Path) -> None:
    assert os.environ["MLFLOW_TRACKING_URI"] == os.environ["MLFLOW_REGISTRY_URI"] == f"sqlite:///{root}/mlflow.db"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_deleted_experiment_comes_back(tracking: Store, root: Path) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    assert connect(root).experiment_id == tracking.experiment_id
    assert tracking.client.get_experiment(tracking.experiment_id).lifecycle_stage == "active"


RACE = """
import os, sys
from pathlib import Path
import mlflow
from pfmsmt.tracking import connect

def child():
    print(connect(Path(sys.argv[1])).experiment_id, flush=True)

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    return pid

sys.exit(any([os.waitpid(pid, 0)[1] for pid in [fork() for _ in range(4)]]))
"""


@pytest.mark.slow(8)
def test_four_processes_race_on_a_fresh_store(tmp_path: Path, clean_environment: None) -> None:
    """Forked after the import, so that they really meet."""
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [done.stdout.split()[0]] * 4
    assert "Traceback" not in done.stderr


@pytest.mark.slow(4)
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
def test_an_unreachable_server_is_named_soon(silent: bool, tmp_path: Path, clean_environment: None) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        os.environ["MLFLOW_TRACKING_URI"] = uri
        began = time.monotonic()
        with pytest.raises(TrackingError, match=rf"{uri} cannot be used.*\n.*unset it"):
            connect(tmp_path)
        assert time.monotonic() - began < 10


def test_a_damaged_store_is_named(tmp_path: Path, clean_environment: None) -> None:
    (tmp_path / "mlflow.db").write_text("no database, but long enough to have a header of its own" * 10)
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be opened"):
        connect(tmp_path)


def test_under_mlflow_run_the_launcher_is_named_and_children_carry_its_id(tracking: Store, root: Path) -> None:
    launcher = tracking.client.create_run("0").info.run_id
    os.environ["MLFLOW_RUN_ID"] = launcher
    inside = connect(root)
    assert inside.launcher_run_id == launcher
    assert "MLFLOW_RUN_ID" not in os.environ
    assert connect(root).launcher_run_id == launcher, "a process started from here must know it too"
    found = tracking.client.get_run(launcher)
    assert (found.info.run_name, found.data.tags["role"]) == ("pipeline", "launcher")
    assert f"launcher_run_id%20%3D%20%27{launcher}%27" in found.data.tags["mlflow.note.content"]
    with training_run(
        inside, method="local", seed=1, dataset="d", fingerprint="f", params={}, config_file=root / "params.yaml"
    ) as run:
        pass
    assert run.id != launcher
    tags = tracking.client.get_run(run.id).data.tags
    assert tags["launcher_run_id"] == launcher
    assert "mlflow.parentRunId" not in tags


def test_a_launcher_of_another_store_is_ignored(root: Path) -> None:
    os.environ["MLFLOW_RUN_ID"] = "0" * 32
    assert connect(root).launcher_run_id is None
    assert connect(root).launcher_run_id is None
