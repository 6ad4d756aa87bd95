import json

import pandas as pd
import pytest
import torch

from pfmsmt.core.errors import TrainingError
from pfmsmt.training.federation import load_data
from pfmsmt.training.trial import Trial, run_trial


@pytest.mark.slow(3)
@pytest.mark.parametrize("method", ["pf_msmtrec", "joint"])
def test_a_trial_is_the_run_of_the_pipeline_without_its_files(project, configure, train_all, schema, shards, method):
    config = configure({"train.methods": [method]})
    train_all(config, "evaluate")
    trial = run_trial(config, schema, shards, method, 0, torch.device("cpu"), workers=1, threads=1)
    tested = json.loads((project / f"evaluation/{method}-seed0/metrics.json").read_text())["scenarios"]
    assert trial.test(schema, shards) == {
        s: {t: pytest.approx(cell["auc"], abs=1e-6) for t, cell in tasks.items()} for s, tasks in tested.items()
    }
    history = pd.read_csv(project / f"models/{method}-seed0/history.csv")
    rounds = history.groupby("round")["auc"].mean()
    assert list(trial.validation) == pytest.approx(rounds.tolist(), abs=1e-12)
    assert trial.best_validation() == pytest.approx(rounds.max(), abs=1e-12)


@pytest.mark.slow(1)
@pytest.mark.parametrize("method", ["pf_msmtrec", "joint"])
def test_trials_share_loaded_data_and_leave_it_as_it_was(make_config, schema, shards, tmp_path, method):
    config, cpu = make_config(), torch.device("cpu")
    own = run_trial(config, schema, shards, method, 0, cpu, workers=1, threads=1)
    data = load_data(config, schema, shards, method)
    before = {name: part.train.codes.clone() for name, part in data.items()}
    for _ in range(2):
        # From a folder without shards: nothing is loaded again.
        shared = run_trial(config, schema, tmp_path, method, 0, cpu, workers=1, threads=1, data=data)
        assert shared.validation == own.validation
    assert all(torch.equal(part.train.codes, before[name]) for name, part in data.items())


def test_what_is_raised_after_a_round_ends_the_trial(make_config, schema, shards):
    seen = []

    def stop(result):
        seen.append(result.round)
        if result.round == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run_trial(make_config(), schema, shards, "local", 0, torch.device("cpu"), workers=1, threads=1, on_round=stop)
    assert seen == [1, 2]


def test_a_trial_without_any_auc_says_so():
    assert Trial(None, (None, 0.5, 0.75, 0.25)).best_validation() == 0.75
    with pytest.raises(TrainingError, match="no validation AUC is defined"):
        Trial(None, (None, None)).best_validation()
