"""Once with real processes over TLS: a server and two sites with keys, two rounds of both phases, bit for bit."""

import json

import mlflow
import pytest
import torch

from pfmsmt.data.schema import read_schema
from pfmsmt.flower.operate.control import describe, register_site, run_federation, wait_for_server
from pfmsmt.flower.operate.credentials import make_certificates, make_site_key
from pfmsmt.flower.operate.demo import process, share_out
from pfmsmt.flower.operate.programs import Server, free_port, supernode
from pfmsmt.flower.plan import across_sites
from pfmsmt.tracking import connect
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.history import History
from pfmsmt.training.rounds import run_rounds

SIZES = {"train_rows": 300, "test_rows": 200}
SCENARIOS = {"synthetic.scenarios": {"NL": SIZES, "ES": SIZES}}
CHANGES = {
    **{f"data.{key}": value for key, value in SCENARIOS.items()},
    "federate.rounds": 2, "federate.local_epochs": 0.25, "federate.deadline": 300.0,
}  # fmt: skip
RUN = "models/pf_msmtrec-seed0"


@pytest.fixture
def data(make_data):
    """Two scenarios only, as every message costs a process."""
    return make_data(**SCENARIOS)


@pytest.fixture
def expected(configure, project):
    """The outputs of two rounds in this process."""
    config, shards = configure(CHANGES), project / "data/clients"
    schema = read_schema(shards / "schema.json")
    config = across_sites(config, schema)
    federation = build_federation(config, schema, shards, "pf_msmtrec", 0, torch.device("cpu"))
    server = federation.method.init(federation.clients["NL"].initial_parameters, federation.names)
    history = History()
    with InProcess(federation.clients, 1, 1) as exchange:
        for result in run_rounds(federation.method, exchange, server, federation.names, rounds=2, quorum=1.0):
            history.add(result)
    federation.save_models(project.parent / "expected", history)
    return project.parent / "expected"


@pytest.mark.slow(60)
def test_two_rounds_over_tls_are_the_same_bit_for_bit(expected, project, empty_database):
    sites = share_out(project / "data/clients", project, project.parent / "sites")
    server = Server(project, port=free_port(), own_store=True)
    authority = make_certificates(server.certificates.folder, []).authority
    logs = project.parent
    with process(server.superlink(), logs / "server.log"):
        wait_for_server(server)
        commands = {}
        for scenario, place in sites.items():
            (place / "mlflow.db").write_bytes(empty_database.read_bytes())
            register_site(server, scenario, make_site_key(place / "site.key"))
            commands[scenario] = supernode(
                scenario, place, f"127.0.0.1:{server.port}", key=place / "site.key", authority=authority, track=True
            )
        make_site_key(logs / "stranger.key")
        stranger = supernode(
            "NL", sites["NL"], f"127.0.0.1:{server.port}", key=logs / "stranger.key", authority=authority, track=True
        )
        with (
            process(commands["NL"], logs / "NL.log"),
            process(commands["ES"], logs / "ES.log"),
            process(stranger, logs / "stranger.log"),
        ):
            run_federation(server, "pf_msmtrec", 0)
            told = describe(server).splitlines()
            assert sorted(line.split()[0] for line in told if " online " in line) == ["ES", "NL"]
    for file in ("history.csv", "ledger.csv", "traffic.csv", "result.json"):
        assert (project / RUN / file).read_text() == (expected / file).read_text()
    for scenario, place in sites.items():
        kept = place / RUN / scenario / "weights.safetensors"
        assert kept.read_bytes() == (expected / scenario / "weights.safetensors").read_bytes()
        ids = json.loads((place / "runs/pf_msmtrec-seed0.json").read_text())
        store = f"sqlite:///{place / 'mlflow.db'}"
        found = mlflow.MlflowClient(store, store).get_model_version_by_alias(f"pfmsmt-{scenario}", "champion")
        assert str(found.version) == ids["version"] == "1"
    # The server's own run, and no model: those are the sites'.
    tracking = connect(project)
    (run,) = tracking.client.search_runs([tracking.experiment_id])
    assert (run.info.status, run.data.params["run.device"]) == ("FINISHED", "sites")
    assert run.data.metrics["val/mean_auc"] > 0
    assert tracking.client.search_registered_models() == []
