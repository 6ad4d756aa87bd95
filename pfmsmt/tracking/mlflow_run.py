"""One training run in MLflow: flat, metrics at step = round."""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfmsmt.core.errors import TrackingError
from pfmsmt.data.schema import Schema
from pfmsmt.tracking.logged_models import discard_models, log_model
from pfmsmt.tracking.model_card import NOTE, escaped
from pfmsmt.tracking.origin import environment, git_state, source_tags
from pfmsmt.tracking.store import COMPUTATION, readable

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric

    from pfmsmt.tracking.store import Store

# Metrics wait for so many rounds or seconds, and go in one call.
_ROUNDS = 10
_SECONDS = 10.0
# MLflow's own limits.
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_COLUMNS_BYTES = 1_048_575
_UNSCORED = "the stage `evaluate` writes the model card here."
_NAME = re.compile(r"[\w.\- :]+(/[\w.\- :]+)*")


@contextmanager
def training_run(
    store: "Store",
    *,
    method: str,
    seed: int,
    dataset: str,
    fingerprint: str,
    params: Mapping[str, Any],
    config_file: Path,
    data: Schema | None = None,
    computation: str | None = None,
    resume_id: str | None = None,
    resume_round: int = 0,
) -> Iterator["TrainingRun"]:
    """Open the run `<method>-seed<seed>`.

    The second of a method and seed in an experiment is named `<method>-seed<seed> (2)`, and so on; its tag `generation`
    says the same. A run ends as FINISHED, on an error as FAILED, on an interrupt as KILLED.

    Args:
        store: that has or gets the run.
        method: its name.
        seed: of initial values, batches and dropout.
        dataset: name of the data set.
        fingerprint: of the data; also the digest of the run's data set.
        params: flat, name -> value.
        config_file: saved with the run as it was.
        data: whose columns and counts the run's data set shows.
        computation: hash of all that decides what the run computes, by which `Store.locate_run` finds it.
        resume_id: continue this run of a killed training instead. Points that it has already are not logged
            again. Rounds from `resume_round` on that the killed process had logged stay: a deterministic
            training repeats them; where a value differs, both points stay and the newer one counts.
        resume_round: the first round that is trained again; logged as the tag `resumed_at_round`.

    Raises:
        TrackingError: the store refuses, or has no run `resume_id`.
    """
    client = store.client
    if resume_id:
        run = _reopen(store, resume_id, resume_round)
    else:
        tags = {"role": "federation", "method": method, "seed": str(seed), "dataset": dataset}
        tags |= {"data_fingerprint": fingerprint} | git_state(store.root) | source_tags()
        tags[NOTE] = f"Training of {escaped(method)} with seed {seed} on {escaped(dataset)}; " + _UNSCORED
        if computation:
            tags[COMPUTATION] = computation
        if store.launcher_run_id:
            tags["launcher_run_id"] = store.launcher_run_id
        with readable(store.uri, "creating a run"):
            generation = _generation(store, method, seed)
            tags["generation"] = str(generation)
            again = f" ({generation})" if generation > 1 else ""
            created = client.create_run(store.experiment_id, tags=tags, run_name=f"{method}-seed{seed}{again}")
        run = TrainingRun(store, created.info.run_id, {})
    try:
        if not resume_id:
            _describe(store, run.id, dataset, fingerprint, params, config_file, data)
        yield run
        run.finish()
    except BaseException as error:
        # What goes wrong here must not hide why the training stopped.
        with suppress(TrackingError):
            run.flush()
        with suppress(TrackingError), readable(store.uri, "closing a run"):
            client.set_tag(run.id, "failure", (str(error) or type(error).__name__)[:5000])
            client.set_terminated(run.id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


class TrainingRun:
    """A run while its training goes on; made by `training_run`."""

    def __init__(self, store: "Store", run_id: str, logged: Mapping[tuple[str, int], float]) -> None:
        """Continue or begin a run.

        `logged` holds the points, (name, step) -> value, that a resumed run has already.
        """
        self.id = run_id
        self._store = store
        self._logged = logged
        self._buffer: list[Metric] = []
        self._rounds = 0
        self._flushed = time.monotonic()
        self._models: dict[str, int] = {}

    def log_round(self, round: int, metrics: Mapping[str, float | None]) -> None:
        """Log one round's metrics; None and non-finite are left out.

        They are sent with those of a few more rounds, as a call takes longer than a round may.

        Raises:
            TrackingError: a name that MLflow refuses (it allows letters, digits, `_ - . : /` and spaces), or the
                store does not take them.
        """
        self._buffer += [
            metric
            for metric in as_metrics(metrics, step=round)
            if self._logged.get((metric.key, round)) != metric.value
        ]
        self._rounds += 1
        if self._rounds >= _ROUNDS or time.monotonic() - self._flushed > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait.

        Call it before a checkpoint: what a kill destroys must come after the checkpoint.

        Raises:
            TrackingError: the store does not take them; they wait for the next attempt.
        """
        with readable(self._store.uri, f"logging metrics to run {self.id}"):
            while self._buffer:
                self._store.client.log_batch(self.id, metrics=self._buffer[:_METRICS_PER_CALL])
                del self._buffer[:_METRICS_PER_CALL]
        self._rounds = 0
        self._flushed = time.monotonic()

    def log_files(self, files: Path | Iterable[Path], artifact_path: str | None = None) -> None:
        """Copy files, or all that a folder holds, to the run's artifacts."""
        self._store.log_run_files(self.id, files, artifact_path)

    def log_scenario_model(
        self, name: str, folder: Path, example: "pd.DataFrame", params: Mapping[str, Any], step: int
    ) -> str:
        """Log one scenario's model and return its id; see `log_model`.

        `step` is the round that it is from.
        """
        model_id = log_model(self._store, self.id, name, folder, example, params)
        self._models[model_id] = step
        return model_id

    def finish(self) -> None:
        """Send the rest, link the models, and end the run.

        The models come last: a run that is killed before must not have them as its outputs.
        """
        from mlflow.entities import LoggedModelOutput

        self.flush()
        client = self._store.client
        with readable(self._store.uri, f"closing run {self.id}"):
            if self._models:
                client.log_outputs(self.id, [LoggedModelOutput(*entry) for entry in self._models.items()])
            client.set_terminated(self.id, "FINISHED")


def attach_test_metrics(
    store: "Store",
    run_id: str,
    models: Mapping[str, str],
    metrics: Mapping[str, float | None],
    dataset: str,
    digest: str,
) -> None:
    """Log test metrics to a run without reopening it.

    `test/<scenario>/...` go to that scenario's model too. Values that the run has already are not logged again, so a
    repeated evaluation changes nothing.

    Args:
        store: that has the run.
        run_id: the run's id.
        models: scenario -> id of its logged model.
        metrics: `test/<scenario>/<task>_<metric>`, `test/mean_auc`, `test/mean_<task>_auc`.
        dataset: name of the data set, for MLflow's models page.
        digest: its fingerprint.

    Raises:
        TrackingError: no such run or model, a metric of a scenario without model, or the store refuses.
    """
    store.check_run(run_id)
    named = {name: name.split("/")[1] if name.count("/") > 1 else None for name in metrics}
    lost = [name for name, scenario in named.items() if scenario and scenario not in models]
    if lost:
        raise TrackingError(f"metric {lost[0]}: there is no model of that scenario (models: {', '.join(models)})")
    with readable(store.uri, f"logging test metrics to run {run_id}"):
        known = store.client.get_run(run_id).data.metrics
        store.client.log_batch(
            run_id,
            metrics=[
                metric
                for name, scenario in named.items()
                for metric in as_metrics(
                    {name: metrics[name]},
                    step=0,
                    model_id=models[scenario] if scenario else None,
                    dataset_name=dataset,
                    dataset_digest=digest[:36],
                    run_id=run_id,
                )
                if known.get(name) != metric.value
            ],
        )


def as_metrics(metrics: Mapping[str, float | None], step: int, **fields: str | None) -> list["Metric"]:
    """Turn finite values into MLflow's entities.

    Further fields are those of `mlflow.entities.Metric`.

    Raises:
        TrackingError: a name that MLflow refuses.
    """
    from mlflow.entities import Metric

    bad = [name for name in metrics if not _NAME.fullmatch(name)]
    if bad:
        raise TrackingError(f"metric name {bad[0]!r}: use letters, digits, `_ - . :`, spaces, and `/` between parts")
    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, step, **fields)
        for name, value in metrics.items()
        if value is not None and math.isfinite(value)
    ]


def _reopen(store: "Store", run_id: str, resume_round: int) -> TrainingRun:
    """Continue a killed run.

    MLflow cannot delete points, so those it has are remembered and not logged twice. Models that it had begun to log
    are deleted: the training that goes on logs them all.
    """
    store.check_run(run_id)
    client = store.client
    with readable(store.uri, f"reopening run {run_id}"):
        run = client.get_run(run_id)
        if run.info.status != "FINISHED":
            discard_models(store, run)
        client.update_run(run_id, status="RUNNING")
        data = run.data
        if "failure" in data.tags:
            client.delete_tag(run_id, "failure")
        earlier = data.tags.get("resumed_at_round")
        client.set_tag(run_id, "resumed_at_round", f"{earlier}, {resume_round}" if earlier else str(resume_round))
        points = {
            (point.key, point.step): point.value
            for name in data.metrics
            for point in client.get_metric_history(run_id, name)
        }
    return TrainingRun(store, run_id, points)


def _generation(store: "Store", method: str, seed: int) -> int:
    """Return the number of the next run of a method and seed."""
    newest = store.client.search_runs(
        [store.experiment_id],
        f"tags.role = 'federation' and tags.method = '{method}' and tags.seed = '{seed}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return int(newest[0].data.tags.get("generation", 1)) + 1 if newest else 1


def _describe(
    store: "Store",
    run_id: str,
    dataset: str,
    fingerprint: str,
    params: Mapping[str, Any],
    config_file: Path,
    schema: Schema | None,
) -> None:
    from mlflow.entities import Dataset, DatasetInput, Param

    entries = [Param(name, str(value)) for name, value in params.items()]
    with readable(store.uri, f"describing run {run_id}"):
        for first in range(0, len(entries), _PARAMS_PER_CALL):
            store.client.log_batch(run_id, params=entries[first : first + _PARAMS_PER_CALL])
        source = json.dumps({"fingerprint": fingerprint})
        data = Dataset(dataset, fingerprint[:36], "local", source, *(described(schema) if schema else (None, None)))
        store.client.log_inputs(run_id, [DatasetInput(data)])
        store.client.log_dict(run_id, environment(), "environment.json")
        store.client.log_artifact(run_id, str(config_file))


def described(schema: Schema) -> tuple[str | None, str]:
    """Return a data set's columns and counts as JSON, for MLflow's page."""
    columns = [
        *({"type": "string" if f.text else "long", "name": f.name, "required": True} for f in schema.categorical),
        *({"type": "double", "name": f.name, "required": True} for f in schema.numerical),
        *({"type": "integer", "name": task.name, "required": True} for task in schema.tasks),
    ]
    text = json.dumps({"mlflow_colspec": columns})
    counts = {
        s: {split: held.model_dump(exclude_defaults=True) for split, held in splits.items()}
        for s, splits in schema.counts.items()
    }
    rows = sum(held.rows for splits in schema.counts.values() for held in splits.values())
    profile = json.dumps({"num_rows": rows, "num_columns": len(columns), "scenarios": counts})
    # MLflow refuses longer ones.
    return text if len(text) <= _COLUMNS_BYTES else None, profile
