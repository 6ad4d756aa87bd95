"""Nothing private leaves a site: proven on messages as Flower sends them, over two rounds with private fields."""

import json

import numpy as np
import pandas as pd
import pytest
from flwr.app import ArrayRecord

from pfmsmt.core.types import NEVER_LEAVES
from pfmsmt.data.schema import read_schema
from pfmsmt.data.shards.resident import load_shard
from pfmsmt.flower.server.server_app import federate
from pfmsmt.tracking import connect
from pfmsmt.training.ledger import NUMBER_ROLE
from pfmsmt.training.tree import read_tree
from tests.support.wiretap import pairs

PRIVATE = ("categorical_3", "categorical_5")
CHANGES = {"federate.rounds": 2, "federate.local_epochs": 0.25, "data.private_fields": list(PRIVATE)}


@pytest.fixture
def data(make_data):
    """In place of the data without private fields, for this file."""
    return make_data(private_fields=PRIVATE)


def conversation(name, grid, sites, project):
    """Run to the end; return what every site had on its disk after each message."""
    kept: dict[str, list] = {site: [] for site in sites}

    def note(site, message):
        kept[site] += [read_tree(path)[0] for path in (sites[site] / "state").glob("*/*/*.safetensors")]

    grid.before = note
    federate(grid, name, 0, connect(project), project, trust_nodes=False)
    for site in sites:
        note(site, None)
    return kept


@pytest.mark.slow(6)
@pytest.mark.parametrize("name", ["pf_msmtrec", "ditto"])
def test_what_is_on_the_wire(configure, grid, sites, project, name):
    configure(CHANGES)
    kept = conversation(name, grid, sites, project)
    assert_listed(grid, pd.read_csv(project / f"models/{name}-seed0/ledger.csv"))
    sent = [array.numpy() for m in grid.passed for r in m.content.array_records.values() for array in r.values()]
    seen = pairs(sent)
    # The search is not blind: what was sent is found by any of its numbers.
    assert len(np.intersect1d(pairs([max(sent, key=np.count_nonzero)]), seen)) > 10
    said = "".join(str(m.content.config_records["notes"]["json"]) for m in grid.passed)
    for site, folder in sites.items():
        schema = read_schema(folder / "data/clients/schema.json").scenario(site)
        hidden = pairs([*private_numbers(name, kept[site]), *rows(folder, schema)])
        assert len(hidden) > 1000
        assert len(np.intersect1d(hidden, seen)) == 0
        for field in schema.categorical:
            if not field.federated:
                assert len(field.vocabulary) > 2
                assert str(list(field.vocabulary))[1:-1] not in said
    known = read_schema(project / "data/clients/schema.json").public()
    assert all(set(own.values()) == {()} for own in known.private_vocabularies.values())


def assert_listed(grid, ledger):
    """All that is in Flower's messages is in the ledger, and the ledger lists nothing that must not leave."""
    assert not set(ledger["role"]) & {*NEVER_LEAVES, "unlabelled"}
    tensors = ledger[ledger["role"] != NUMBER_ROLE]
    columns = (tensors[name] for name in ("client", "direction", "name", "shape", "dtype"))
    seen, told = set(), set()
    for message in grid.passed:
        for record, part in message.content.items():
            if isinstance(part, ArrayRecord):
                assert record == "arrays"
                shapes = {n: ("x".join(map(str, a.shape)), a.dtype) for n, a in part.items()}
                seen |= {(message.site, message.direction, n, *shape) for n, shape in shapes.items()}
            else:
                assert (record, list(part)) == ("notes", ["json"])
                notes = json.loads(str(part["json"]))
                told |= {(message.direction, key) for key in notes}
        # Nothing else is in the bytes: they are those of these records.
        kinds = {content.split(b" ", 1)[0].decode() for content in message.wire.values()}
        assert kinds <= {"Message", "RecordDict", "ArrayRecord", "Array", "ArrayChunk", "ConfigRecord"}
    assert seen == set(zip(*columns, strict=True))
    assert {key for direction, key in told if direction == "down"} == {"client", "plan", "request"}
    assert {key for direction, key in told if direction == "up"} == {"examples", "loss", "validation", "best"}


def private_numbers(name, trees):
    """Private tables, private experts, adapters and BatchNorm where the method keeps it, and their moments."""
    kept = ("private", "task") if name == "ditto" else ("private", "task", "norm")
    return [
        array
        for tree in trees
        for part in tree["state"].values()
        for n, array in part.items()
        if n.removeprefix("global:").startswith(kept) and array.size > 1
    ]


def rows(folder, schema):
    """Features, codes and search ids."""
    shards = [load_shard(folder / "data/clients", split, schema) for split in ("train", "val", "test")]
    return [part for shard in shards for part in (shard.values.numpy(), shard.codes.numpy(), shard.groups)]
