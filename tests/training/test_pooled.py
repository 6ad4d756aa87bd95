"""The pooled reference: one client for everybody's rows, whatever the scenarios are called."""

import pytest
import torch

from pfmsmt.data.schema import read_schema
from pfmsmt.models.saved import load_model
from pfmsmt.training.exchange import InProcess
from pfmsmt.training.federation import build_federation
from pfmsmt.training.history import History
from pfmsmt.training.pooled import POOLED_CLIENT, PooledReference
from pfmsmt.training.rounds import run_rounds

SIZES = {"train_rows": 200, "test_rows": 100}
SCENARIOS = {"NL": SIZES, POOLED_CLIENT: SIZES}
PRIVATE = ("categorical_3",)


@pytest.fixture(scope="module")
def shards(make_data):
    """One scenario has the very name of the pooled client."""
    return make_data(**{"synthetic.scenarios": SCENARIOS, "private_fields": PRIVATE}) / "data/clients"


@pytest.fixture
def build(make_config, shards):
    def make(name):
        config = make_config({"data.synthetic.scenarios": SCENARIOS, "data.private_fields": list(PRIVATE)})
        return build_federation(config, read_schema(shards / "schema.json"), shards, name, 0, torch.device("cpu"))

    return make


@pytest.mark.slow(1)
def test_every_scenario_has_the_one_client_and_a_model_of_its_own(build, tmp_path):
    federation = build("centralized")
    assert federation.names == (POOLED_CLIENT,)
    assert {federation.client_of(scenario) for scenario in SCENARIOS} == set(federation.clients.values())
    server = federation.method.init(federation.initial_parameters, federation.names)
    with InProcess(federation.clients, 1, 1) as exchange:
        list(run_rounds(federation.method, exchange, server, federation.names, rounds=1, quorum=1.0))
    federation.save_models(tmp_path / "models", History())
    schema = federation.schema
    for position, scenario in enumerate(schema.scenarios):
        model = load_model(tmp_path / "models" / scenario)
        assert model.scenario_code == position
        own = tuple(field.codes for field in schema.scenario(scenario).categorical)
        assert model.model.spec.field_codes == (*own, len(SCENARIOS))


def test_without_pooling_a_scenario_of_that_name_is_a_client_like_others(build):
    federation = build("local")
    assert federation.names == ("NL", POOLED_CLIENT)
    assert all(federation.client_of(scenario).name == scenario for scenario in SCENARIOS)


def test_private_tables_lie_side_by_side_and_a_step_sees_all_clients_rows(build):
    schema = build("local").schema
    reference = PooledReference.of(schema)
    specs = [build("local").client_of(scenario).learner.model.spec for scenario in schema.scenarios]
    pooled = reference.spec(specs[0])
    private = [i for i, federated in enumerate(specs[0].field_federated) if not federated]
    assert private == [2]
    for i, codes in enumerate(pooled.field_codes[:-1]):
        assert codes == (sum(s.field_codes[i] for s in specs) if i in private else specs[0].field_codes[i])
    assert pooled.field_codes[-1] == len(SCENARIOS)
    assert reference.batch_size(24) == 48
