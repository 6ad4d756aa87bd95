"""The worked example of docs/how-to/own-data.md: a newcomer copies files and commands of the page, and no more."""

import json
import re

import pandas as pd
import pytest

from pfmsmt.config import load_config
from pfmsmt.data.schema import read_schema
from tests.support.checkout import Checkout, stop
from tests.support.documents import ROOT, code_blocks, commands
from tests.support.shards import read_shard

pytestmark = pytest.mark.slow(60)


@pytest.fixture
def walk(tmp_path):
    """Return what the commands printed, command -> text, and the folder in which they ran."""
    checkout = Checkout(tmp_path / "pfmsmt")
    page = (ROOT / "docs/how-to/own-data.md").read_text(encoding="utf-8")
    example = page[page.index("## An example from zero") : page.index("## What to say of the columns")]
    printed, server = {}, None
    try:
        for kind, block in code_blocks(example):
            if kind:
                name = re.match(r"# (\w+\.(?:py|yaml)): ", block)[1]
                assert f"Save this as `{name}`" in example
                (checkout.folder / name).write_text(block, encoding="utf-8")
                continue
            for line in commands(f"```\n{block}```\n"):
                if line == "make serve":
                    server = checkout.start_server(line, "SERVE_PORT", "/readyz")
                else:
                    printed[line] = checkout.run(line)
        yield printed, checkout.folder
    finally:
        if server is not None:
            stop(server)


def test_the_worked_example_of_an_own_table(walk):
    printed, folder = walk
    assert "data.source: tabular\n" in printed["pfmsmt params merge shop.yaml"]
    assert "Test AUC" in printed["dvc repro"]
    (answer,) = [json.loads(text) for line, text in printed.items() if " -d @rows.json" in line]
    assert (answer["scenario"], answer["model_version"], len(answer["predictions"])) == ("BE_FR", "1", 1)
    assert 0 < answer["predictions"][0]["ctcvr"] < answer["predictions"][0]["ctr"] < 1

    config = load_config(folder / "params.yaml")
    shop = pd.read_csv(folder / "shop.csv")
    schema = read_schema(folder / "data/clients/schema.json")
    assert schema.scenarios == ("AT", "BE_FR")
    assert [(task.name, task.label, task.within) for task in schema.tasks] == [
        ("ctr", "clicked", None), ("ctcvr", "bought", "ctr")
    ]  # fmt: skip
    device, customer = schema.scenario("AT").categorical
    assert (device.text, device.vocabulary) == (True, ("desktop", "phone", "tablet"))
    assert (customer.text, customer.federated) == (False, False)
    for scenario, value in (("AT", "AT"), ("BE_FR", "Belgique (FR)")):
        own = shop[shop["country"] == value]
        counts = schema.counts[scenario]
        assert counts["test"].rows == int(len(own) * config.data.tabular.test_fraction)
        assert sum(count.rows for count in counts.values()) == len(own)
        assert sum(count.positives["ctcvr"] for count in counts.values()) == own["bought"].sum()
        shard = read_shard(folder / "data/clients" / scenario / "test.parquet")
        assert shard["ctr"].tolist() == own["clicked"].tail(counts["test"].rows).tolist()
