import json

import pandas as pd
import pytest
import torch

from pfmsmt.errors import TrainingError
from pfmsmt.trial import Trial, run_trial


@pytest.mark.parametrize("method", ["pf_msmtrec", "centralized"])
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


def test_a_trial_without_any_auc_says_so():
    assert Trial(None, (None, 0.5, 0.75, 0.25)).best_validation() == 0.75
    with pytest.raises(TrainingError, match="no validation AUC is defined"):
        Trial(None, (None, None)).best_validation()
