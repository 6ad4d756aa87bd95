"""Rows without a label take no part in its task: training, validation, calibration, scores; in memory and on disk."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pfmsmt.core.metrics import auc, log_loss
from pfmsmt.data.schema import UNLABELLED
from pfmsmt.data.shards.reader import RowGroups, ShardFile
from pfmsmt.data.shards.resident import ClientData
from pfmsmt.data.shards.streamed import ReadingThread, StreamedShard, open_shard
from pfmsmt.models.calibration import fit_calibration
from pfmsmt.training.federation import build_federation, load_data
from pfmsmt.training.trial import run_trial
from pfmsmt.training.validate import predict_rows, validate
from tests.support.partial_labels import take_labels_away

CPU = torch.device("cpu")


@pytest.fixture
def partial(project):
    """The shards of the test's project, with labels taken away: (folder, schema)."""
    return project / "data/clients", take_labels_away(project / "data/clients")


def test_validation_and_calibration_see_labelled_rows_alone(partial, make_config):
    folder, schema = partial
    federation = build_federation(make_config(), schema, folder, "pf_msmtrec", 0, CPU)
    client = federation.clients["ES"]
    assert client.learner.labelled == tuple(schema.counts["ES"]["train"].labels(task.name) for task in schema.tasks)
    shard = client.learner.data.validation["ES"]
    probabilities, labels = predict_rows(client.learner.model, shard, CPU), shard.labels.numpy()
    found = validate(client.learner.model, {"ES": shard}, CPU)["ES"]
    for i, task in enumerate(schema.tasks):
        known = labels[:, i] != UNLABELLED
        assert 0 < known.sum() == schema.counts["ES"]["val"].labels(task.name) < len(known)
        given = labels[known, i].astype(int)
        assert found[task.name]["auc"] == auc(given, probabilities[known, i])
        assert found[task.name]["logloss"] == log_loss(given, probabilities[known, i])
        odds = np.log(probabilities / (1 - probabilities))
        whole, own = (
            fit_calibration("platt", odds, labels),
            fit_calibration("platt", odds[known][:, [i]], given[:, None]),
        )
        assert (whole.slopes[i], whole.intercepts[i]) == (own.slopes[0], own.intercepts[0])


@pytest.mark.slow(2)
@pytest.mark.parametrize("changes", [{}, {"train.refit": True}], ids=["once", "refit"])
def test_the_pipeline_scores_labelled_rows_alone(partial, project, configure, train_all, changes):
    folder, schema = partial
    config = configure({"train.methods": ["pf_msmtrec"], **changes})
    train_all(config, last="all")
    metrics = json.loads((project / "evaluation/pf_msmtrec-seed0/metrics.json").read_text())["scenarios"]
    for scenario in schema.scenarios:
        labels = pd.read_parquet(folder / scenario / "test.parquet")
        for task in schema.tasks:
            known = labels[task.name][labels[task.name] != UNLABELLED]
            cell = metrics[scenario][task.name]
            assert (cell["rows"], cell["positives"]) == (len(known), known.sum())
            assert 0 < cell["logloss"] < 2
    assert "pf_msmtrec" in (project / "reports/comparison.md").read_text()


@pytest.mark.slow(2)
@pytest.mark.parametrize("method", ["pf_msmtrec", "centralized", "joint", "fedhca2"])
def test_rows_on_disk_train_as_rows_in_memory(partial, make_config, method):
    folder, schema = partial
    config = make_config({"train.shuffle": "row_groups", "train.shuffle_rows": 80, "train.rounds": 2})
    reader = ReadingThread()
    held = load_data(config, schema, folder, method)

    def stream(split, name):
        return StreamedShard(RowGroups([ShardFile(folder, split, schema.scenario(name))]), 80, reader)

    on_disk = {name: ClientData(stream("train", name), {name: stream("val", name)}) for name in schema.scenarios}
    one, two = (
        run_trial(config, schema, folder, method, 0, CPU, workers=1, threads=1, data=data) for data in (held, on_disk)
    )
    assert one.validation == two.validation
    scores = one.test(schema, folder)
    assert scores == two.test(schema, folder)
    client = one.federation.clients["NL"]
    shard = open_shard(folder, "test", schema.scenario("NL"))
    labels, found = shard.labels.numpy(), predict_rows(client.learner.model, shard, CPU)
    known = labels[:, 0] != UNLABELLED
    assert scores["NL"]["ctr"] == auc(labels[known, 0], found[known, 0])


def test_with_all_labels_there_a_partial_task_trains_as_any_other(project, make_config):
    folder = project / "data/clients"
    plain = build_federation(make_config(), take_labels_away(folder, 0.0), folder, "pf_msmtrec", 0, CPU)
    assert plain.clients["NL"].learner.labelled is not None
    whole = plain.schema.model_copy(
        update={"tasks": tuple(task.model_copy(update={"partial": False}) for task in plain.schema.tasks)}
    )
    trials = [
        run_trial(make_config({"train.rounds": 2}), schema, folder, "pf_msmtrec", 0, CPU, workers=1, threads=1)
        for schema in (plain.schema, whole)
    ]
    np.testing.assert_allclose(trials[0].validation, trials[1].validation, rtol=0, atol=1e-6)
