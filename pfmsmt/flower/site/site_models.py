"""A finished run at a site: its model, saved and registered.

In the site's own MLflow store.
"""

import json

import pandas as pd

from pfmsmt.core.files import write_json, write_text
from pfmsmt.core.layout import CLIENTS, MODELS, RUNS, run_name
from pfmsmt.data.schema import Schema
from pfmsmt.flower.plan import RunPlan, rows_of
from pfmsmt.flower.site.state import PLAN, STATE, Site
from pfmsmt.flower.wire import SiteResult
from pfmsmt.tracking import connect
from pfmsmt.tracking.mlflow_run import training_run
from pfmsmt.tracking.promotion import place
from pfmsmt.tracking.registry import register_version
from pfmsmt.training.history import History
from pfmsmt.training.scores import mean_auc


def save_site_model(site: Site, asked: str, plan: RunPlan, track: bool) -> SiteResult:
    """Write `models/<method>-seed<seed>/`; with `track`, log and register the model.

    Repeating it registers no more. Private parts never leave the site, so neither does its model: the server learns
    round and validation alone. After the first of two trainings there is no model yet, and its findings are written.

    Raises:
        FederationError: see `Site.check` and `Site.last`.
        TrainingError: the site never validated a model in this run.
        TrackingError: the site's MLflow store refuses; the model is on disk.
    """
    schema = site.check(asked, plan)
    if plan.train.refit and not plan.refits:
        ended = site.save_findings(plan, schema).best[site.client]
        return SiteResult(ended.round, mean_auc([ended.validation]), ended.validation[site.client])
    done = site.folder / RUNS / f"{run_name(plan.method, plan.seed)}.json"
    if done.exists():
        known = json.loads(done.read_text(encoding="utf-8"))
        if known["run"] == plan.run_id:
            return SiteResult(**known["best"])
    folder = site.folder / MODELS / run_name(plan.method, plan.seed)
    found = site.last(plan, schema).save_models(folder, History())[site.client]
    best = SiteResult(found["round"], found["mean_auc"], found["validation"])
    write_text(site.folder / STATE / plan.run_id / PLAN, plan.model_dump_json(indent=2) + "\n")
    ids = _register(site, plan, schema, best) if track else {}
    write_json(done, {"run": plan.run_id, "best": best._asdict(), **ids})
    site.forget_others(plan.run_id, run_name(plan.method, plan.seed))
    return best


def _register(site: Site, plan: RunPlan, schema: Schema, best: SiteResult) -> dict[str, str]:
    """Log and register the model in the site's own store.

    The first version is the champion, a later one the challenger until the site promotes it. Return run, model and
    version.
    """
    store = connect(site.folder)
    refit = {"refit_rows": rows_of(schema, refits=True)[site.client]} if plan.refits else {}
    with training_run(
        store, method=plan.method, seed=plan.seed, dataset=schema.source, fingerprint=schema.fingerprint,
        params={"federation": plan.run_id, "scenario": site.client, "method": plan.method, "seed": plan.seed},
        config_file=site.folder / STATE / plan.run_id / PLAN,
    ) as tracked:  # fmt: skip
        model = tracked.log_scenario_model(
            f"{plan.method}-{site.client}",
            site.folder / MODELS / run_name(plan.method, plan.seed) / site.client,
            pd.read_parquet(site.folder / CLIENTS / site.client / "example.parquet"),
            params={"scenario": site.client, "best_round": best.round, **refit},
            step=plan.train.rounds + 1,
        )
    chosen = {
        "method": plan.method, "seed": plan.seed, "federation": plan.run_id, "val_mean_auc": best.mean_auc,
        "dataset": schema.source, "data_fingerprint": schema.fingerprint,
    }  # fmt: skip
    version = register_version(store, site.client, model, {**chosen, **refit})
    place(store, site.client, version, "manual")
    return {"run_id": tracked.id, "model_id": model, "version": version}
