"""Noise at sites: from each site's own entropy, counted on its own disk, and what the server makes of the counts."""

import json

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from pfmsmt.flower.site.client_app import client_app
from pfmsmt.flower.wire import read_answer, read_request
from pfmsmt.methods import Upload
from pfmsmt.training.privacy import epsilon

CHANGES = {
    "federate.rounds": 2, "federate.local_epochs": 0.25,
    "privacy.clip": 0.5, "privacy.noise": 0.7, "privacy.delta": 1e-4,
}  # fmt: skip


@pytest.fixture
def twice(grid):
    """Make site ES carry out its request of round 1, phase 0 twice, as after a server's kill; return both answers."""
    answers = []

    def answer(site, message):
        request = read_request(message.content).request
        if site == "ES" and request and (request.kind, request.round, request.phase) == ("train", 1, 0):
            node = next(n for n in grid.contexts if grid.site(n) == "ES")
            answers.extend(client_app(message, grid.contexts[node]) for _ in range(2))
            return answers[-1]
        return None

    grid.before = answer
    return answers


@pytest.mark.slow(3)
def test_a_sites_noise_is_not_the_seeds_and_a_repeated_upload_counts(configure, grid, twice, serve, project, sites):
    configure(CHANGES)
    serve(grid, "pf_msmtrec")
    first, second = (read_answer(message.content) for message in twice)
    assert isinstance(first, Upload)
    assert (first.releases, second.releases) == (1, 2)
    apart = np.concatenate([(first.arrays[n] - second.arrays[n]).ravel() for n in sorted(first.arrays)])
    # Training is repeatable: what differs is noise alone, of variance 2 (noise clip)^2.
    assert apart.std() == pytest.approx(np.sqrt(2) * 0.7 * 0.5, rel=0.15)

    (run,) = (sites["ES"] / "state").glob("*/releases.txt")
    assert run.read_text() == "5"
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    for name, counts in {"NL": [2, 4], "ES": [3, 5]}.items():
        history = client.get_metric_history(found.info.run_id, f"privacy/{name}/epsilon")
        assert [m.value for m in history] == [epsilon(0.7, count, 1e-4) for count in counts]
    largest = client.get_metric_history(found.info.run_id, "privacy/epsilon")
    assert [m.value for m in largest] == [epsilon(0.7, count, 1e-4) for count in (3, 5)]
    ledger = pd.read_csv(project / "models/pf_msmtrec-seed0/ledger.csv")
    assert {"examples", "loss", "releases"} <= set(ledger[ledger["direction"] == "up"]["name"])


@pytest.mark.slow(1)
@pytest.mark.parametrize("said", [0, -1, 2.5, None])
def test_an_upload_that_says_it_has_no_noise_is_rejected(configure, grid, serve, project, capsys, said):
    configure(CHANGES)

    def lie(site, message):
        request = read_request(message.content).request
        if site != "ES" or not request or (request.kind, request.round) != ("train", 1):
            return None
        node = next(n for n in grid.contexts if grid.site(n) == site)
        reply = client_app(message, grid.contexts[node])
        notes = json.loads(str(reply.content.config_records["notes"]["json"]))
        reply.content.config_records["notes"]["json"] = json.dumps({**notes, "releases": said})
        return reply

    grid.before = lie
    serve(grid, "fedavg")
    said_so = f"client ES did not answer: upload rejected: it says {said!r} noised uploads"
    assert said_so in capsys.readouterr().out
