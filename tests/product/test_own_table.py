"""The worked example of docs/how-to/own-data.md, run as it stands there, up to a small model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pfmsmt.config import parse_config
from pfmsmt.data.schema import read_schema
from tests.support.documents import ROOT, code_blocks
from tests.support.shards import read_shard

pytestmark = pytest.mark.slow(20)


def example():
    """The page's code blocks, kind -> texts."""
    text = (ROOT / "docs/how-to/own-data.md").read_text(encoding="utf-8")
    found = {}
    for kind, block in code_blocks(text):
        found.setdefault(kind, []).append(block)
    return found


def overlay(tree, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and key not in ("scenarios", "fill"):
            overlay(tree[key], value)
        else:
            tree[key] = value


def test_the_worked_example_of_an_own_table(dvc_repository, empty_database, make_tree):
    blocks = example()
    (script,), (settings,) = blocks["python"], blocks["yaml"]
    assert [line for block in blocks[""] for line in block.splitlines()][-1] == "dvc repro"
    tree = make_tree({"train.methods": ["local"], "train.rounds": 1, "register.methods": ["local"]})
    overlay(tree, yaml.safe_load(settings))
    (dvc_repository / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    (dvc_repository / "shop.py").write_text(script, encoding="utf-8")
    shutil.copy(empty_database, dvc_repository)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(dvc_repository), "MLFLOW_TRACKING_URI": f"sqlite:///{dvc_repository}/mlflow.db"}
    for line in ("python shop.py", "git init -q", "dvc repro train"):
        done = subprocess.run(
            line.split(), cwd=dvc_repository, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "local-seed0 1/1  loss" in done.stdout

    shop = pd.read_csv(dvc_repository / "shop.csv")
    schema = read_schema(dvc_repository / "data/clients/schema.json")
    assert schema.scenarios == ("NL", "BE_FR")
    assert [(task.name, task.label, task.within) for task in schema.tasks] == [
        ("ctr", "clicked", None), ("ctcvr", "bought", "ctr")
    ]  # fmt: skip
    device, customer = schema.scenario("NL").categorical
    assert (device.text, device.vocabulary) == (True, ("desktop", "phone", "tablet"))
    assert (customer.text, customer.federated) == (False, False)
    for scenario, value in (("NL", "NL"), ("BE_FR", "Belgique (FR)")):
        own = shop[shop["country"] == value]
        counts = schema.counts[scenario]
        assert counts["test"].rows == int(len(own) * parse_config(tree).data.tabular.test_fraction)
        assert sum(count.rows for count in counts.values()) == len(own)
        assert sum(count.positives["ctcvr"] for count in counts.values()) == own["bought"].sum()
        shard = read_shard(dvc_repository / "data/clients" / scenario / "test.parquet")
        assert shard["ctr"].tolist() == own["clicked"].tail(counts["test"].rows).tolist()
