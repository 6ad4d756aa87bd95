"""Helpers that the tests of whole searches share."""

from pathlib import Path

import optuna

from pfmsmt.tracking import connect
from pfmsmt.tracking.connection import TUNING_EXPERIMENT
from pfmsmt.tuning.command import SearchRequest, tune
from pfmsmt.tuning.storage import full_address, open_store

REPOSITORY = Path(__file__).parents[2]
FLOAT = {"type": "float", "low": 0.001, "high": 0.1, "log": True}
SPACE = {
    "methods.local.learning_rate": FLOAT,
    "methods.fedavg.learning_rate": {**FLOAT, "high": 0.5},
    "methods.fedavg.server_optimizer": {"type": "categorical", "choices": ["adam", "plain"]},
    "methods.pf_msmtrec.server_learning_rate": FLOAT,
}
SMALL = {"tune.space": SPACE, "tune.pruner": "none"}


def search(project, *methods, **options):
    return tune(SearchRequest(methods, **options), project)


def load(project, name, storage=None):
    return optuna.load_study(storage=open_store(full_address(storage, project)), study_name=name)


def tuning_runs(project, query):
    tracking = connect(project, TUNING_EXPERIMENT)
    found = tracking.client.search_runs([tracking.experiment_id], query)
    return tracking.client, sorted(found, key=lambda run: int(run.data.tags.get("trial", -1)))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
