"""What the stages do with the MLflow store."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pfmsmt.core.errors import TrackingError
from pfmsmt.data.schema import Schema
from pfmsmt.tracking import links, mlflow_run, registry, tuning_run
from pfmsmt.tracking.store import Store, readable


class Tracking(Store):
    """A store with all that is done in it; made by `connect`."""

    def training_run(
        self,
        *,
        method: str,
        seed: int,
        dataset: str,
        fingerprint: str,
        params: Mapping[str, Any],
        config_file: Path,
        data: Schema | None = None,
        resume_id: str | None = None,
        resume_round: int = 0,
    ) -> AbstractContextManager[mlflow_run.TrainingRun]:
        """Open the run `<method>-seed<seed>`: FINISHED at the end, FAILED on an error, KILLED on an interrupt.

        Args:
            fingerprint: of the data; also the digest of the run's data set.
            params: flat, name -> value.
            config_file: kept with the run as it was.
            data: whose columns and counts the run's data set shows.
            resume_id: continue this run of a killed training instead. Points that it has already are not logged
                again. Rounds from `resume_round` on that the killed process had logged stay: a deterministic
                training repeats them; where a value differs, both points stay and the newer one counts.
            resume_round: the first round that is trained again; kept as the tag `resumed_at_round`.

        Raises:
            TrackingError: the store refuses, or has no run `resume_id`.
        """
        return mlflow_run.training_run(
            self,
            method=method,
            seed=seed,
            dataset=dataset,
            fingerprint=fingerprint,
            params=params,
            config_file=config_file,
            data=data,
            resume_id=resume_id,
            resume_round=resume_round,
        )

    def study_run(
        self, *, name: str, identity: str, tags: Mapping[str, str], params: Mapping[str, Any], config_file: Path
    ) -> AbstractContextManager[tuning_run.StudyRun]:
        """Open the run of a search for parameters: FINISHED at the end, FAILED on an error, KILLED on an interrupt.

        Args:
            name: of the study, and of its run.
            identity: unique to the study; where the store has its run already, that one is continued.
            tags: of this run and of every trial's.
            params: flat, name -> value: what all trials have in common.
            config_file: kept with the run as it is.

        Raises:
            TrackingError: the store refuses.
        """
        return tuning_run.study_run(
            self, name=name, identity=identity, tags=tags, params=params, config_file=config_file
        )

    def attach_test_metrics(
        self, run_id: str, models: Mapping[str, str], metrics: Mapping[str, float | None], dataset: str, digest: str
    ) -> None:
        """Log test metrics to a run without reopening it; `test/<scenario>/...` also to that scenario's model.

        Values that the run has already are not logged again, so a repeated evaluation changes nothing.

        Args:
            models: scenario -> id of its logged model.
            metrics: `test/<scenario>/<task>_<metric>`, `test/mean_auc`, `test/mean_<task>_auc`.
            dataset: name of the data set, for MLflow's models page.
            digest: its fingerprint.

        Raises:
            TrackingError: no such run or model, a metric of a scenario without model, or the store refuses.
        """
        self.check_run(run_id)
        named = {name: name.split("/")[1] if name.count("/") > 1 else None for name in metrics}
        lost = [name for name, scenario in named.items() if scenario and scenario not in models]
        if lost:
            raise TrackingError(f"metric {lost[0]}: there is no model of that scenario (models: {', '.join(models)})")
        with readable(self.uri, f"logging test metrics to run {run_id}"):
            known = self.client.get_run(run_id).data.metrics
            self.client.log_batch(
                run_id,
                metrics=[
                    metric
                    for name, scenario in named.items()
                    for metric in mlflow_run.as_metrics(
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

    def register_version(self, scenario: str, model_id: str, tags: Mapping[str, Any]) -> str:
        """Make a logged model a version of `pfmsmt-<scenario>`; return its number.

        A model that is registered already gets no second version, but these tags.

        Raises:
            TrackingError: no such logged model, or the store refuses.
        """
        return registry.register_version(self, scenario, model_id, tags)

    def deep_links(self, base_url: str | None = None) -> dict[str, str]:
        """Return addresses in the MLflow UI: charts, table, models, compare (if there are runs), registry.

        Args:
            base_url: of the UI; by default the tracking server, for a local store http://127.0.0.1:5000.
        """
        return links.deep_links(self, base_url)
