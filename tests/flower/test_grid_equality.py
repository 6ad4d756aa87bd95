"""Two rounds over Flower's messages give what two rounds in one process give, bit for bit."""

import json

import pandas as pd
import pytest
import torch

from pfmsmt.commands.train import train
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.plan import across_sites
from pfmsmt.flower.wire import read_request
from pfmsmt.tracking import connect
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.history import History
from pfmsmt.training.rounds import run_rounds
from tests.support.in_process_grid import InProcessGrid
from tests.support.partial_labels import take_labels_away

CHANGES = {"federate.rounds": 2, "federate.local_epochs": 0.25, "methods.pf_msmtrec.coordinate": "clients_and_tasks"}


REFIT = {**CHANGES, "train.refit": True}


@pytest.fixture
def in_one_process(project):
    """Return a function that runs a method in this process and writes all that is to be compared."""

    def run(config, name):
        schema, folder = read_schema(project / "data/clients/schema.json"), project.parent / "here"
        config = across_sites(config, schema)
        federation = build_federation(config, schema, project / "data/clients", name, 0, torch.device("cpu"))
        server = federation.method.init(federation.clients["NL"].initial_parameters, federation.names)
        history = History()
        with InProcess(federation.clients, 1, 1) as exchange:
            results = list(run_rounds(federation.method, exchange, server, federation.names, rounds=2, quorum=1.0))
        for result in results:
            history.add(result)
        federation.save_models(folder / "models", history)
        for client in federation.clients.values():
            client.save(folder / "state", 2)
        parameters = {k: federation.method.broadcast(results[-1].server, k) for k in federation.names}
        return folder, parameters

    return run


@pytest.mark.slow(2)
@pytest.mark.parametrize(
    ("name", "wire"),
    [("pf_msmtrec", "float32"), ("fedavg", "float32"), ("ditto", "float32"), ("apfl", "float32"),
     ("pf_msmtrec", "float16"), ("fedavg", "float16"), ("fedhca2", "float16"), ("pf_msmtrec_paper", "float16")],
)  # fmt: skip
def test_two_rounds_are_the_same_bit_for_bit(configure, in_one_process, request, project, equal_arrays, name, wire):
    config = configure({**CHANGES, "privacy.wire": wire})
    here, parameters = in_one_process(config, name)
    sites = request.getfixturevalue("sites")
    grid = InProcessGrid(sites)
    request.getfixturevalue("serve")(grid, name)

    phases = 2 if name in ("pf_msmtrec", "pf_msmtrec_paper") else 1
    assert len(grid.passed) == 2 * 3 * (2 * (phases + 1) + 1)
    last = {m.site: read_request(m.content) for m in grid.passed if m.direction == "down"
            if (r := read_request(m.content).request) and r.kind == "validate" and r.round == 2}  # fmt: skip
    for site, folder in sites.items():
        assert equal_arrays(last[site].request.arrays, parameters[site])
        (run,) = (folder / "state").glob("*/")
        state = run / f"000002.{phases}" / f"{site}.safetensors"
        assert state.read_bytes() == (here / "state" / f"{site}.safetensors").read_bytes()
        for file in ("weights.safetensors", "model.json"):
            kept = folder / f"models/{name}-seed0" / site / file
            assert kept.read_bytes() == (here / "models" / site / file).read_bytes()

    server = project / f"models/{name}-seed0"
    for file in ("history.csv", "ledger.csv", "traffic.csv", "result.json"):
        assert (server / file).read_text() == (here / "models" / file).read_text(), file
    if phases == 2:
        tables = [pd.read_parquet(folder / "diagnostics.parquet") for folder in (server, here / "models")]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.slow(2)
def test_rows_without_labels_are_left_out_at_sites_as_here(configure, in_one_process, request, project):
    config = configure(CHANGES)
    take_labels_away(project / "data/clients")
    here, _ = in_one_process(config, "pf_msmtrec")
    sites = request.getfixturevalue("sites")
    request.getfixturevalue("serve")(InProcessGrid(sites), "pf_msmtrec")
    for site, folder in sites.items():
        for file in ("weights.safetensors", "model.json"):
            kept = folder / "models/pf_msmtrec-seed0" / site / file
            assert kept.read_bytes() == (here / "models" / site / file).read_bytes()
    for file in ("history.csv", "result.json"):
        assert (project / "models/pf_msmtrec-seed0" / file).read_text() == (here / "models" / file).read_text()


@pytest.mark.slow(4)
@pytest.mark.parametrize("name", ["pf_msmtrec", "local"])
def test_a_second_training_is_the_same_bit_for_bit(configure, project, request, name):
    """As the stage `train` does it, with all of its files."""
    config = configure(REFIT)
    schema = read_schema(project / "data/clients/schema.json")
    train(across_sites(config, schema), schema, name, 0, connect(project), project)
    here = (project / f"models/{name}-seed0").rename(project.parent / "here")
    sites = request.getfixturevalue("sites")
    grid = InProcessGrid(sites)
    request.getfixturevalue("serve")(grid, name)
    for site, folder in sites.items():
        for file in ("weights.safetensors", "model.json"):
            assert (folder / f"models/{name}-seed0" / site / file).read_bytes() == (here / site / file).read_bytes()
    server = project / f"models/{name}-seed0"
    for file in ("history.csv", "ledger.csv", "traffic.csv", "result.json"):
        assert (server / file).read_text() == (here / file).read_text(), file
    # Calibrations, and what else the second training needs, never leave a site.
    answers = [json.loads(m.content["notes"]["json"]) for m in grid.passed if m.direction == "up"]
    ended = [answer["best"] for answer in answers if "best" in answer]
    assert len(ended) == 2 * len(sites)
    assert {key for best in ended for key in best} == {"round", "mean_auc", "validation"}


@pytest.mark.slow(4)
def test_a_second_training_goes_on_where_the_server_was_broken_off(configure, project, request):
    config = configure({**REFIT, "federate.rounds": 3})
    schema = read_schema(project / "data/clients/schema.json")
    train(across_sites(config, schema), schema, "local", 0, connect(project), project)
    here = (project / "models/local-seed0").rename(project.parent / "here")
    sites = request.getfixturevalue("sites")
    grid = InProcessGrid(sites)

    def broken(site, message):
        """Stop when the second training asks ES for its model."""
        asked = read_request(message.content)
        if site == "ES" and asked.plan.refits and asked.request and asked.request.kind == "validate":
            raise KeyboardInterrupt
        return None

    grid.before = broken
    with pytest.raises(KeyboardInterrupt):
        request.getfixturevalue("serve")(grid, "local")
    grid.before = lambda site, message: None
    request.getfixturevalue("serve")(grid, "local")
    for site, folder in sites.items():
        file = f"{site}/weights.safetensors"
        assert (folder / "models/local-seed0" / file).read_bytes() == (here / file).read_bytes()
    assert (project / "models/local-seed0/result.json").read_text() == (here / "result.json").read_text()
    for folder in sites.values():
        (run,) = (folder / "state").glob("*/")
        assert (run / "findings.json").exists()
