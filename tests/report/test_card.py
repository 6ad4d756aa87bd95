"""The data card of two scenarios whose rows are written by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from pfmsmt.core.errors import DataError
from pfmsmt.data.card.card import make_card
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.report.card.card_facts import drift_count, findings
from pfmsmt.report.card.card_page import column_table, scenario_table, write_card
from tests.support.shards import read_shard, write_shard

N = 400


FEATURES = ("device", "user", "price", "stock")


def frame(price, device, click, user=1, stock=0.0):
    rows = len(price)
    columns = {"search_id": np.arange(rows) // 2, "device": device, "user": user, "price": price, "stock": stock}
    labels = {"ctr": click, "ctcvr": 0}
    return pd.DataFrame({**columns, **labels}).astype(
        {"device": "int32", "user": "int32", "price": "float32", "stock": "float32", "ctr": "uint8", "ctcvr": "uint8"}
    )


@pytest.fixture
def shards(tmp_path):
    """ES is NL with price one deviation higher and another device; in ES's test rows half of the users are new."""
    prices = np.linspace(-2, 2, N)
    half = np.arange(N) % 2
    quarter = (np.arange(N) % 4 == 0).astype(int)
    frames = {
        "NL": {split: frame(prices, 1 + half, quarter) for split in ("train", "val", "test")},
        "ES": {
            "train": frame(prices + 1, np.full(N, 2), half, user=1 + half),
            "val": frame(prices + 1, np.full(N, 2), half),
            "test": frame(prices + 3, np.full(N, 2), half, user=half),
        },
    }
    counts = {
        scenario: {
            split: SplitCounts(
                rows=N, groups=N // 2, positives={"ctr": int(table["ctr"].sum()), "ctcvr": int(table["ctcvr"].sum())}
            )
            for split, table in splits.items()
        }
        for scenario, splits in frames.items()
    }
    for scenario, splits in frames.items():
        (tmp_path / scenario).mkdir()
        for split, table in splits.items():
            write_shard(table, tmp_path / scenario / f"{split}.parquet", FEATURES, row_group_size=150)
    schema = Schema(
        source="tabular", fingerprint="f" * 64, group="search_id",
        tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr")),
        categorical=(
            CategoricalField(name="device", federated=True, vocabulary=(10, 20, 30)),
            CategoricalField(name="user", federated=False),
        ),
        numerical=(NumericalField(name="price", mean=0.0, std=1.0), NumericalField(name="stock", mean=7.0, std=0.0)),
        private_vocabularies={"NL": {"user": (5,)}, "ES": {"user": (5, 6)}}, counts=counts,
    )  # fmt: skip
    return schema, tmp_path


@pytest.fixture
def card(shards):
    return make_card(*shards)


def columns(table):
    return tuple(heading.name for heading in table.headings)


def test_rows_searches_and_rates(card):
    rows = {row[0]: row[1:] for row in scenario_table(card).texts()}
    assert columns(scenario_table(card)) == ("", "rows", "searches", "CTR", "CTCVR")
    assert rows["NL train"] == ("400", "200", "25.000% (100)", "0.000% (0)")
    assert rows["ES test"] == ("400", "200", "50.000% (200)", "0.000% (0)")
    assert rows["all val"] == ("800", "400", "37.500% (300)", "0.000% (0)")
    assert len(rows) == 9


def test_columns(card):
    table = column_table(card)
    rows = {row[0]: dict(zip(columns(table), row, strict=True)) for row in table.texts()}
    assert list(rows) == ["device", "user", "price", "stock"]
    assert [row["kind"] for row in rows.values()] == ["categorical", "private", "numerical", "numerical"]
    assert [row["categories"] for row in rows.values()] == ["1 to 2", "1 to 2", "", ""]
    assert [row["unknown in test"] for row in rows.values()] == ["0.0%", "50.0%", "", ""]
    assert [row["constant in"] for row in rows.values()] == ["ES", "NL", "", "NL, ES"]
    assert {row["missing"] for row in rows.values()} == {""}
    # Users' codes are each client's own: they are not compared.
    assert rows["user"]["between scenarios"] == ""
    # NL has devices 1 and 2 in equal parts, ES device 2 alone: 0.3113 bits, by hand in tests/data/test_drift.py.
    assert rows["device"]["between scenarios"] == "0.3113 NL-ES !"
    assert rows["device"]["train to test"] == "0.0000 NL"


def test_drift_in_time_and_between_scenarios(card):
    assert card.in_time["price"]["NL"].divergence == pytest.approx(0, abs=1e-12)
    # Prices from -1 to 3 in training, from 1 to 5 in test: half of the rows lie where the other sample has none.
    assert card.in_time["price"]["ES"].divergence > 0.25
    assert card.in_time["price"]["ES"].notable
    assert 0.1 < card.between["price"]["NL", "ES"].divergence < 0.4
    assert card.in_time["stock"]["ES"].divergence == 0
    distances = card.distances()
    mean = np.mean([card.between[c]["NL", "ES"].divergence for c in ("device", "price", "stock")])
    np.testing.assert_allclose(distances, [[0, mean], [mean, 0]])


def test_findings_name_what_deserves_a_word(card):
    lines = "\n".join(findings(card))
    assert "NL train: conversion is 0 in all 400 rows, so ctcvr has nothing to learn from." in lines
    assert "NL test: conversion is 0 in all " in lines
    assert "Constant in every scenario, so of no use: stock." in lines
    assert "Constant in some scenarios: device (ES), user (NL)." in lines
    assert "categories that no training row does: user (50% in ES)." in lines
    assert "2 of 4 columns drift from training to test rows: user, price." in lines
    assert "2 of 3 columns drift between scenarios: device, price." in lines
    assert "without a value" not in lines


def test_missing_values_are_counted(shards):
    schema, folder = shards
    path = folder / "NL/test.parquet"
    table = read_shard(path)
    table.loc[[3, 5], "price"] = np.nan
    write_shard(table, path, FEATURES)
    card = make_card(schema, folder)
    assert card.missing("price") == 2
    assert "Rows without a value: price (2)." in findings(card)


def test_rows_that_were_left_out_are_told(shards):
    schema, folder = shards
    assert make_card(schema, folder).left_out == {}
    faults = Faults(folder)
    faults.take([Fault("a.csv", row, "price", "'x' is no number", "no number") for row in (2, 3)])
    faults.take([Fault("a.csv", 9, "price", "missing", "missing")])
    faults.close()
    assert findings(make_card(schema, folder))[0] == (
        "3 faulty rows were left out: no number (2), missing (1). data/clients/quarantine.csv lists them."
    )
    (folder / "quarantine.json").write_text("{")
    with pytest.raises(DataError, match=r"quarantine\.json cannot be read .*dvc repro -f partition"):
        make_card(schema, folder)


@pytest.mark.slow(1)
def test_the_files_open_offline_and_are_the_same_each_time(card, tmp_path):
    paths = write_card(card, tmp_path / "one")
    assert [p.name for p in paths] == [
        "data.md", "data.html", "rates.png", "drift.png", "distances.png", "cardinalities.png",
    ]  # fmt: skip
    page, text = (tmp_path / "one/data.html").read_text(), (tmp_path / "one/data.md").read_text()
    assert "tabular: 2,400 rows in 2 scenarios, 2 categorical and 2 numerical columns" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|<script", page)
    for name in re.findall(r"\]\((\S+\.png)\)", text):
        pixels = imread(tmp_path / "one" / name)
        assert pixels[..., :3].std() > 0.01
    again = write_card(card, tmp_path / "two")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_a_damaged_shard_is_named(shards):
    schema, folder = shards
    path = folder / "ES/val.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ES/val\.parquet cannot be read .*dvc repro -f partition"):
        make_card(schema, folder)


def test_a_long_list_says_how_many_more():
    names = [f"column_{number}" for number in range(13)]
    line = drift_count(names, 20, "between scenarios")
    assert line.endswith(", column_9 and 3 more.")
    assert drift_count(names[:10], 20, "between scenarios").endswith(", column_9.")
