"""A reachable MLflow store, and one experiment in it.

Made by `connection.connect`; the other modules of this package are functions on it. MLflow's exceptions reach callers
as one readable message that names the store (`readable`).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.core.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

COMPUTATION = "computation"
"""Tag of a run: the hash of all that decides what it computes."""


@dataclass(frozen=True)
class Store:
    """A store that answers, and one of its experiments.

    Runs are read and written in that experiment alone.
    """

    client: "MlflowClient"
    uri: str
    experiment_id: str
    root: Path
    """The project's folder."""
    launcher_run_id: str | None
    """The run of `mlflow run .` that started this process."""

    def check_run(self, run_id: str, stage: str = "train") -> None:
        """Make sure that this store has a run.

        Args:
            run_id: the run's id, as `stage` wrote it down.
            stage: what to run where it is missing.

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

    def locate_run(self, ids: Mapping[str, Any], stage: str) -> dict[str, Any]:
        """Return the ids of a finished training in this store.

        Results that DVC restored may have been made in another store. If the same computation was also run in this
        one, its newest run is found by the fingerprint.

        Args:
            ids: `run_id`, `models` (scenario -> id) and `fingerprint`, as the training wrote them down.
            stage: what to run where it is missing.

        Raises:
            TrackingError: as `check_run`.
        """
        try:
            self.check_run(ids["run_id"], stage)
        except TrackingError:
            found = self._same_computation(str(ids.get("fingerprint")))
            if found is None:
                raise
            return {**ids, **found}
        return dict(ids)

    def commit_of(self, run_id: str) -> dict[str, str]:
        """Return the tags `git_commit` and `git_dirty` of a run."""
        with readable(self.uri, f"reading run {run_id}"):
            tags = self.client.get_run(run_id).data.tags
        return {name: tags[name] for name in ("git_commit", "git_dirty") if name in tags}

    def _same_computation(self, fingerprint: str) -> dict[str, Any] | None:
        with readable(self.uri, "searching runs"):
            runs = self.client.search_runs(
                [self.experiment_id],
                f"tags.{COMPUTATION} = '{fingerprint}' and attributes.status = 'FINISHED'",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
            if not runs:
                return None
            run_id = runs[0].info.run_id
            models = self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run_id}'")
        return {"run_id": run_id, "models": {model.params["scenario"]: model.model_id for model in models}}

    def log_run_files(self, run_id: str, files: Path | Iterable[Path], artifact_path: str | None = None) -> None:
        """Copy files, or a whole folder, to a run's artifacts.

        The run may have ended.

        Raises:
            TrackingError: a file is missing, or the store refuses.
        """
        with readable(self.uri, f"copying files to run {run_id}"):
            if isinstance(files, Path) and files.is_dir():
                self.client.log_artifacts(run_id, str(files), artifact_path)
                return
            for file in [files] if isinstance(files, Path) else files:
                self.client.log_artifact(run_id, str(file), artifact_path)


@contextmanager
def readable(uri: str, doing: str) -> Iterator[None]:
    """Turn errors of MLflow or the disk into a TrackingError.

    It names the store, and what was being done.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow store {uri}: {doing} failed: {error}") from error
