"""Connects to the MLflow store; creates it, and the experiment, when they are missing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pfmsmt.errors import TrackingError
from pfmsmt.tracking.address import (
    DATABASE,
    LAUNCHER,
    is_server,
    prepare_environment,
    sqlite_file,
    sqlite_uri,
    store_uri,
    take_launcher,
)
from pfmsmt.tracking.tracker import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "pfmsmt"
TUNING_EXPERIMENT = "pfmsmt-tuning"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


def connect(root: Path, experiment: str = EXPERIMENT) -> Tracking:
    """Connect to the store of MLFLOW_TRACKING_URI, else to `<root>/mlflow.db`; safe in many processes at once.

    Raises:
        TrackingError: the address is no valid store, or nobody answers there (said within about ten seconds).
    """
    uri = store_uri(root, os.environ)
    prepare_environment(uri)
    launcher = take_launcher()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    database = sqlite_file(uri)
    try:
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # MLflow's migration of a fresh sqlite file crashes when two processes run it at the same time.
        with FileLock(f"{database}.lock") if database else nullcontext(), _impatient():
            client = mlflow.MlflowClient(uri, uri)
            place = None if is_server(uri) else (database or root.absolute() / DATABASE).parent / "mlruns" / experiment
            experiment_id = _experiment(client, experiment, place)
            launcher = _mark_launcher(client, launcher) if launcher else None
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        raise TrackingError(_advice(uri, root, error)) from error
    return Tracking(client, uri, experiment_id, root.absolute(), launcher)


def _experiment(client: "MlflowClient", name: str, place: Path | None) -> str:
    from mlflow.entities import LifecycleStage, ViewType
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, place.as_uri() if place else None, tags=_KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.search_experiments(ViewType.ALL, filter_string=f"name = '{name}'")[0]
    if found.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(found.experiment_id)
    if not _KIND.items() <= found.tags.items():
        client.set_experiment_tag(found.experiment_id, *next(iter(_KIND.items())))
    return str(found.experiment_id)


def _mark_launcher(client: "MlflowClient", run_id: str) -> str | None:
    """Name the run that `mlflow run` made, and tell it from training runs; None if this store has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).data.tags.get("role") != "launcher":
            client.update_run(run_id, name="pipeline")
            client.set_tag(run_id, "role", "launcher")
        return run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        os.environ.pop(LAUNCHER, None)
        return None


@contextmanager
def _impatient() -> Iterator[None]:
    """Wait seconds, not minutes, for the first answer; afterwards MLflow's own patience counts again."""
    before = {name: os.environ.get(name) for name in _IMPATIENT}
    os.environ.update(_IMPATIENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _advice(uri: str, root: Path, error: Exception) -> str:
    reason = str(error).split("\n")[0][:300]
    if is_server(uri):
        local = sqlite_uri(root.absolute() / DATABASE)
        return (
            f"the MLflow server {uri} cannot be used: {reason}\n"
            f"Start it or correct MLFLOW_TRACKING_URI; unset it to keep runs in {local}."
        )
    if "out-of-date" in reason:
        return f"the MLflow store {uri} is from another MLflow version; back it up, then run `mlflow db upgrade {uri}`"
    return f"the MLflow store {uri} cannot be opened: {reason}\nCorrect MLFLOW_TRACKING_URI, or move the file away."
