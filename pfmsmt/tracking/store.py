"""A reachable MLflow store and the experiment in it.

MLflow's exceptions as one readable message.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pfmsmt.core.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def readable(uri: str, doing: str) -> Iterator[None]:
    """Turn what MLflow or the disk raises while `doing` something into a TrackingError that names the store."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow store {uri}: {doing} failed: {error}") from error


@dataclass(frozen=True)
class Store:
    """Where runs are kept."""

    client: "MlflowClient"
    uri: str
    experiment_id: str
    root: Path
    launcher_run_id: str | None
    """The run of `mlflow run .` that started this process."""

    def check_run(self, run_id: str, stage: str = "train") -> None:
        """Make sure that this store has the run that `stage` wrote down.

        Raises:
            TrackingError: it has not, or only in its bin; the message says what to run.
        """
        from mlflow.exceptions import MlflowException

        try:
            deleted = self.client.get_run(run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise TrackingError(f"MLflow store {self.uri}: asking for run {run_id} failed: {error}") from error
            deleted = True
        if deleted:
            raise TrackingError(
                f"the MLflow store {self.uri} has no run {run_id}: it was made in another store or deleted.\n"
                f"Run `dvc repro --force --single-item {stage}` to make it here, or set MLFLOW_TRACKING_URI to the "
                "store that has it."
            )

    def log_run_files(self, run_id: str, files: Path | Iterable[Path], artifact_path: str | None = None) -> None:
        """Copy files, or all that a folder holds, to a run's artifacts; the run may have ended.

        Raises:
            TrackingError: a file is missing, or the store refuses.
        """
        with readable(self.uri, f"copying files to run {run_id}"):
            if isinstance(files, Path) and files.is_dir():
                self.client.log_artifacts(run_id, str(files), artifact_path)
                return
            for file in [files] if isinstance(files, Path) else files:
                self.client.log_artifact(run_id, str(file), artifact_path)
