"""A search for parameters: a run for the study, one per trial.

The trials' runs are nested in the study's.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking.mlflow_run import as_metrics
from pfmsmt.tracking.origin import environment, git_state, source_tags
from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

_ENTRIES_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its run shows it."""

    number: int
    state: str
    """complete, pruned or failed"""
    reason: str | None
    params: Mapping[str, Any]
    rounds: Iterable[tuple[int, Mapping[str, float | None]]]
    """(round, metrics)"""
    metrics: Mapping[str, float | None]
    """Seconds of the whole trial."""
    began: datetime
    ended: datetime


@contextmanager
def study_run(
    store: "Store",
    *,
    name: str,
    identity: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    config_file: Path,
) -> Iterator["StudyRun"]:
    """Open the run of a search for parameters.

    It ends as FINISHED, on an error as FAILED, on an interrupt as KILLED.

    Args:
        store: that has or gets the run.
        name: of the study, and of its run.
        identity: unique to the study; where the store has its run already, that one is continued.
        tags: of this run and of every trial's.
        params: flat, name -> value: what all trials have in common.
        config_file: saved with the run as it is.

    Raises:
        TrackingError: the store refuses.
    """
    client = store.client
    own = {"study": name, **tags}
    with readable(store.uri, "opening a study's run"):
        found = client.search_runs([store.experiment_id], f"tags.identity = '{identity}'", max_results=1)
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            if "failure" in found[0].data.tags:
                client.delete_tag(run_id, "failure")
        else:
            run_id = _create(store, name, {**own, "role": "study", "identity": identity}, params)
        client.log_artifact(run_id, str(config_file))
    run = StudyRun(store, run_id, own)
    try:
        yield run
        with readable(store.uri, f"closing run {run_id}"):
            client.set_terminated(run_id, "FINISHED")
    except BaseException as error:
        # What goes wrong here must not hide why the search stopped.
        with suppress(TrackingError), readable(store.uri, "closing a run"):
            client.set_tag(run_id, "failure", (str(error) or type(error).__name__)[:5000])
            client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


class StudyRun:
    """The run of a study while trials are run; made by `study_run`."""

    def __init__(self, store: "Store", run_id: str, tags: Mapping[str, str]) -> None:
        """`tags` are those of every trial."""
        self.id = run_id
        self._store, self._tags = store, tags

    def logged_trials(self) -> set[int]:
        """Return the numbers of the trials that have a run."""
        found: set[int] = set()
        token = None
        with readable(self._store.uri, "searching trials"):
            while True:
                page = self._store.client.search_runs(
                    [self._store.experiment_id],
                    f"tags.mlflow.parentRunId = '{self.id}'",
                    max_results=1000,
                    page_token=token,
                )
                found |= {int(run.data.tags["trial"]) for run in page}
                token = page.token
                if not token:
                    return found

    def log_trial(self, trial: TrialRecord) -> None:
        """Log a trial that has ended, as a nested run.

        Raises:
            TrackingError: the store does not take it.
        """
        from mlflow.entities import Param

        client = self._store.client
        tags = {**self._tags, "role": "trial", "trial": str(trial.number), "state": trial.state}
        tags |= {"mlflow.parentRunId": self.id}
        if trial.reason:
            tags["reason"] = trial.reason[:5000]
        seconds = (trial.ended - trial.began).total_seconds()
        metrics = as_metrics({**trial.metrics, "duration_seconds": seconds}, step=0)
        for number, values in trial.rounds:
            metrics += as_metrics(values, step=number)
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        with readable(self._store.uri, f"logging trial {trial.number}"):
            created = client.create_run(
                self._store.experiment_id,
                start_time=_milliseconds(trial.began),
                tags=tags,
                run_name=f"trial-{trial.number:04d}",
            )
            run_id = created.info.run_id
            room = _ENTRIES_PER_CALL - _PARAMS_PER_CALL
            for first in range(0, max(len(metrics), len(params), 1), room):
                now = params[:_PARAMS_PER_CALL] if first == 0 else []
                client.log_batch(run_id, metrics=metrics[first : first + room], params=now)
            client.set_terminated(run_id, _STATUS[trial.state], _milliseconds(trial.ended))

    def log_summary(self, metrics: Mapping[str, float | None], folder: Path) -> None:
        """Log figures of the whole study, and all files in a folder.

        Raises:
            TrackingError: the store does not take them.
        """
        with readable(self._store.uri, f"logging to run {self.id}"):
            self._store.client.log_batch(self.id, metrics=as_metrics(metrics, step=0))
            self._store.client.log_artifacts(self.id, str(folder))


def _create(store: "Store", name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
    from mlflow.entities import Param

    tags = {**tags, **git_state(store.root), **source_tags()}
    if store.launcher_run_id:
        tags["launcher_run_id"] = store.launcher_run_id
    created = store.client.create_run(store.experiment_id, tags=tags, run_name=name)
    run_id = str(created.info.run_id)
    entries = [Param(key, str(value)) for key, value in params.items()]
    for first in range(0, len(entries), _PARAMS_PER_CALL):
        store.client.log_batch(run_id, params=entries[first : first + _PARAMS_PER_CALL])
    store.client.log_dict(run_id, environment(), "environment.json")
    return run_id


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
