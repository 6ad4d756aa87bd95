import json

import pytest
import torch

from pfmsmt.trial import run_trial


@pytest.mark.parametrize("method", ["pf_msmtrec", "centralized"])
def test_a_trial_is_the_run_of_the_pipeline_without_its_files(project, configure, train_all, schema, shards, method):
    config = configure({"train.methods": [method]})
    train_all(config, "evaluate")
    trial = run_trial(config, schema, shards, method, 0, torch.device("cpu"), workers=1, threads=1)
    result = json.loads((project / f"models/{method}-seed0/result.json").read_text())
    tested = json.loads((project / f"evaluation/{method}-seed0/metrics.json").read_text())["scenarios"]
    assert trial.test(schema, shards) == {
        s: {t: pytest.approx(cell["auc"], abs=1e-6) for t, cell in tasks.items()} for s, tasks in tested.items()
    }
    assert len(trial.metrics) == config.train.rounds
    assert set(trial.validation()) == set(result["best"])
