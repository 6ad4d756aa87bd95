"""Sites agree on a schema without showing rows, and are then as one stage partition would have made them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from pfmsmt.core.errors import FederationError, SchemaError
from pfmsmt.data.schema import read_schema
from pfmsmt.data.statistics import Moments
from pfmsmt.flower.operate.control import run_federation
from pfmsmt.flower.operate.programs import Server
from pfmsmt.flower.server.agree import agree_on_schema
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.site.prepare import prepare_site
from tests.support.in_process_grid import InProcessGrid

PRIVATE = "categorical_3"
CHANGES = {"data.private_fields": [PRIVATE], "data.min_count": 2, "federate.rounds": 1, "federate.deadline": 5.0}


@pytest.fixture
def data(make_data):
    """Partitioned in one place, to compare with."""
    return make_data(private_fields=(PRIVATE,), min_count=2)


@pytest.fixture
def raw_sites(configure, project, make_tree):
    """Sites with raw data and params.yaml alone; the server has no data at all."""
    configure(CHANGES)
    shutil.move(project / "data", project.parent / "central")
    found = {}
    for scenario in ("NL", "ES", "US"):
        found[scenario] = project.parent / "sites" / scenario
        found[scenario].mkdir(parents=True)
        (found[scenario] / "params.yaml").write_text(yaml.safe_dump(make_tree(CHANGES)))
        shutil.copytree(project.parent / "central/raw", found[scenario] / "data/raw")
    return found


def agree(sites, project) -> InProcessGrid:
    grid = InProcessGrid(sites)
    agree_on_schema(Nodes(grid, deadline=5.0, trust_nodes=False), project)
    return grid


@pytest.mark.slow(1)
def test_sites_that_agree_have_the_shards_of_one_partition(raw_sites, project, serve):
    for scenario, folder in raw_sites.items():
        prepare_site(folder, scenario)
    agree(raw_sites, project)
    central = project.parent / "central/clients"
    expected, agreed = read_schema(central / "schema.json"), read_schema(project / "data/clients/schema.json")
    assert agreed.categorical == expected.categorical
    assert agreed.counts == expected.counts
    for one, two in zip(agreed.numerical, expected.numerical, strict=True):
        # Sums in another order: sites are put together, not rows.
        assert one.name == two.name
        np.testing.assert_allclose((one.mean, one.std), (two.mean, two.std), rtol=1e-12)
    for scenario, folder in raw_sites.items():
        own = read_schema(folder / "data/clients/schema.json")
        assert own.agreement == agreed.agreement
        assert own.private_vocabularies == {scenario: expected.private_vocabularies[scenario]}
        for split in ("train", "val", "test"):
            found, whole = (
                pd.read_parquet(p / scenario / f"{split}.parquet") for p in (folder / "data/clients", central)
            )
            pd.testing.assert_frame_equal(found, whole, rtol=1e-6, atol=1e-6)
    serve(InProcessGrid(raw_sites), "fedavg")
    assert (project / "models/fedavg-seed0/history.csv").exists()


@pytest.mark.slow(1)
def test_nothing_private_is_told(raw_sites, project):
    for scenario, folder in raw_sites.items():
        prepare_site(folder, scenario)
    grid = agree(raw_sites, project)
    for scenario, folder in raw_sites.items():
        proposal = json.loads((folder / "proposal.json").read_text())
        assert PRIVATE not in proposal["categories"]
        assert proposal["private_text"] == {PRIVATE: False}
        up = [m.content for m in grid.passed if (m.site, m.direction) == (scenario, "up")]
        texts = [json.loads(str(content["notes"]["json"]))["text"] for content in up]
        assert len(texts) == 2
        assert json.loads(texts[0]) == proposal
        private = json.loads(texts[1])["private_vocabularies"]
        assert private == {scenario: {PRIVATE: []}}
        assert len(read_schema(folder / "data/clients/schema.json").private_vocabularies[scenario][PRIVATE]) > 2
        mean, squares, lowest, highest = (np.array(part) for part in proposal["moments"][1:])
        rows = pd.read_parquet(folder / "data/clients" / scenario / "example.parquet").filter(like="numerical")
        vary = lowest < highest
        assert vary.sum() > 10
        for told in (mean, squares, lowest, highest):
            assert not (rows.to_numpy()[:, vary] == told[vary]).any()


def test_of_a_column_that_varies_no_extreme_is_told():
    """1, 2 and 6 have mean 3 and deviation sqrt(14 / 3); a constant column's value has to be told."""
    moments = Moments(2)
    moments.add(np.array([[1.0, 2.0, 6.0], [7.0, 7.0, 7.0]]))
    spread = np.sqrt(14 / 3)
    assert moments.state().rows == 3
    np.testing.assert_allclose(moments.state().lowest, [3 - spread, 7])
    np.testing.assert_allclose(moments.state().highest, [3 + spread, 7])
    whole = Moments(2)
    for _ in range(2):
        whole.add_state(moments.state())
    np.testing.assert_allclose(whole.result(), [[3, 7], [spread, 0]])


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.private_fields": []}, r"sites ES and NL differ in private: \(\) and \['categorical_3'\]"),
        ({"data.validation_fraction": 0.25}, r"sites ES and NL differ in rules: .*0\.25.* and .*0\.3"),
    ],
)
def test_sites_that_differ_are_refused_by_name(raw_sites, project, make_tree, changes, message):
    (raw_sites["ES"] / "params.yaml").write_text(yaml.safe_dump(make_tree({**CHANGES, **changes})))
    for scenario, folder in raw_sites.items():
        prepare_site(folder, scenario)
    with pytest.raises(SchemaError, match=message):
        agree(raw_sites, project)
    assert not (project / "data").exists()
    assert not any((folder / "data/clients").exists() for folder in raw_sites.values())


@pytest.mark.slow(1)
def test_a_site_without_proposal_or_raw_data_is_named(raw_sites, project):
    for scenario in ("NL", "US"):
        prepare_site(raw_sites[scenario], scenario)
    with pytest.raises(
        FederationError, match=r"^site ES: site ES has no proposal; run `pfmsmt site prepare ES` there$"
    ):
        agree(raw_sites, project)
    prepare_site(raw_sites["ES"], "ES")
    shutil.rmtree(raw_sites["ES"] / "data/raw")
    with pytest.raises(FederationError, match=r"^site ES: DataError; the site's own log says more$"):
        agree(raw_sites, project)
    assert not (project / "data").exists()


def test_a_run_before_there_is_a_schema(raw_sites, project):
    with pytest.raises(FederationError, match=r"schema\.json does not exist; agree on it .*`pfmsmt federate agree`$"):
        run_federation(Server(project), "fedavg", 0)
