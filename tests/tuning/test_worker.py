import torch
from optuna.trial import FixedTrial

from pfmsmt.training.federation import load_data
from pfmsmt.training.trial import run_trial
from pfmsmt.tuning.space import read_objective
from pfmsmt.tuning.worker import StudySetup, _Progress, _train


def test_a_trial_trains_once_whatever_params_yaml_says(make_config, schema, shards, tmp_path):
    """A second training would read all rows anew, from a folder that has none here."""
    config = make_config({"train.refit": True})
    once = make_config({"train.refit": False})
    data = load_data(config, schema, shards, "local")
    setup = StudySetup("", "", config, schema, tmp_path, "local", {}, read_objective("mean", schema), "cpu", 1)
    found = _train(setup, FixedTrial({}), data, _Progress())
    alone = run_trial(once, schema, shards, "local", 0, torch.device("cpu"), workers=1, threads=1)
    assert found == alone.best_validation()
