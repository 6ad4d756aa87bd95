"""The generated data: in the published form, repeatable, and drawn from the probabilities that the oracle scores."""

import json
import zipfile

import numpy as np
import pytest

from pfmsmt.config import Synthetic
from pfmsmt.core.metrics import task_metrics
from pfmsmt.data.sources.synthetic.planted import Features, distribution
from pfmsmt.data.sources.synthetic.planted_scenario import expected_auc, plant
from pfmsmt.data.sources.synthetic.synthetic import generate
from tests.support.raw_files import collect, contents_of, make_config, quiet, read_all

NAMES = ("NL", "ES", "FR")


def config(rows=600, **changes):
    sizes = {name: {"train_rows": rows, "test_rows": rows // 2} for name in NAMES}
    return make_config("synthetic", synthetic={"scenarios": sizes} | changes).synthetic


def generated(folder, settings, seed=0):
    folder.mkdir()
    generate(settings, seed, folder, quiet)
    return contents_of(folder)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """One scenario of AliExpress-like rates, large enough for its statistics."""
    sizes = {"NL": {"train_rows": 100, "test_rows": 40_000}}
    settings = make_config(
        "synthetic", synthetic={"scenarios": sizes, "ctr": 0.08, "cvr": 0.12, "rows_per_search": 8}
    ).synthetic
    folder = tmp_path_factory.mktemp("raw")
    generate(settings, 3, folder, quiet)
    return settings, folder


def rows_of(folder, scenario, part, split):
    with zipfile.ZipFile(folder / f"aliexpress_{scenario}_datasets.zip") as outer:
        name = f"{scenario.lower()}_{part}_{split}"
        with outer.open(f"{name}.zip") as packed, zipfile.ZipFile(packed) as inner:
            assert inner.namelist() == [f"{name}.csv"]
            return [line.split(",") for line in inner.read(f"{name}.csv").decode().splitlines()]


@pytest.mark.slow(1)
def test_the_files_have_the_published_form(tmp_path):
    generated(tmp_path / "raw", config())
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
        *sorted(f"aliexpress_{name}_datasets.zip" for name in NAMES),
        "oracle.json",
    ]
    for split, expected in (("train", 600), ("test", 300)):
        users, items = (rows_of(tmp_path / "raw", "ES", part, split) for part in ("user", "item"))
        assert {len(row) for row in users} == {33}
        assert {len(row) for row in items} == {49}
        assert len(items) == expected
        assert {row[48] for row in items} <= {"0", "1", "2"}
        searches = [row[0] for row in users]
        assert len(searches) == len(set(searches))
        assert set(searches) == {row[0] for row in items}
        for rows, places in ((users, (2, 8, 32, 33)), (items, (19, 34, 35, 36, 40, 41, 42))):
            assert all(row[place - 1].isdigit() for row in rows for place in places)
        numbers = np.asarray([[float(row[place - 1]) for place in range(9, 32)] for row in users])
        assert np.mean((numbers >= 0) & (numbers <= 1)) > 0.9


@pytest.mark.slow(1)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    settings = make_config("synthetic").synthetic
    first = generated(tmp_path / "a", settings, seed=5)
    assert generated(tmp_path / "b", settings, seed=5) == first
    other = generated(tmp_path / "c", settings, seed=6)
    assert all(other[name] != first[name] for name in first)


@pytest.mark.slow(1)
def test_rows_and_rates_are_those_of_the_config(sample):
    _, folder = sample
    rows = collect(read_all("synthetic", folder, "NL", "test"))
    assert len(rows["click"]) == 40_000
    assert len(np.unique(rows["search_id"])) == pytest.approx(40_000 / 8, rel=0.03)
    assert rows["click"].mean() == pytest.approx(0.08, rel=0.08)
    assert rows["conversion"].sum() / rows["click"].sum() == pytest.approx(0.12, rel=0.15)


@pytest.mark.slow(1)
def test_the_oracle_scores_the_probabilities_of_the_features_as_written(sample):
    settings, folder = sample
    rows = collect(read_all("synthetic", folder, "NL", "test"))
    features = Features(
        np.stack([rows[f"categorical_{i}"] for i in range(1, 17)], axis=1),
        np.stack([rows[f"numerical_{i}"] for i in range(1, 64)], axis=1),
    )
    true = plant(settings, 3, "NL").probabilities(features)
    oracle = json.loads((folder / "oracle.json").read_text())["scenarios"]["NL"]
    for task, label, probability in (
        ("ctr", "click", true.click),
        ("ctcvr", "conversion", true.click * true.conversion),
    ):
        again = task_metrics(rows[label].astype(np.uint8), probability, rows["search_id"], bins=15)
        assert again == pytest.approx(oracle[task], rel=1e-9)
        assert oracle[task]["predicted_to_actual"] == pytest.approx(1, abs=0.15)
    assert oracle["ctr"]["auc"] == pytest.approx(0.81, abs=0.015)
    assert oracle["ctcvr"]["auc"] == pytest.approx(0.88, abs=0.025)


@pytest.mark.slow(1)
def test_a_scenario_does_not_depend_on_the_sizes_of_others(tmp_path):
    settings = config()
    first = generated(tmp_path / "a", settings)
    sizes = {name: size.model_dump() for name, size in settings.scenarios.items()}
    sizes["FR"]["train_rows"] = 900
    second = generated(tmp_path / "b", Synthetic(**(settings.model_dump() | {"scenarios": sizes})))
    assert second["aliexpress_NL_datasets.zip"] == first["aliexpress_NL_datasets.zip"]
    assert second["aliexpress_FR_datasets.zip"] != first["aliexpress_FR_datasets.zip"]


@pytest.mark.slow(1)
def test_shares_and_conflict_decide_what_scenarios_have_in_common():
    """NL and FR are one cluster, FR is the last: correlation of their z = shared - cluster with conflict, else +."""
    rng = np.random.default_rng(0)
    flat = Features(np.stack([rng.integers(0, 2, 20_000) for _ in range(16)], axis=1), rng.random((20_000, 63)))

    def correlation(a, b, conflict):
        settings = config(conflict=conflict, shared=0.5, cluster=0.5, own=0.0, covariate_shift=0.0)
        return np.corrcoef(plant(settings, 1, a).scores(flat)[0], plant(settings, 1, b).scores(flat)[0])[0, 1]

    assert correlation("NL", "FR", False) == pytest.approx(1.0)
    assert correlation("NL", "FR", True) < 0.5
    only_shared = config(shared=1.0, cluster=0.0, own=0.0, covariate_shift=0.0)
    scores = [plant(only_shared, 1, name).scores(flat)[0] for name in NAMES]
    assert np.array_equal(scores[0], scores[1])
    assert np.array_equal(scores[0], scores[2])


def test_covariate_shift_moves_feature_means():
    laws = [
        [distribution(np.random.default_rng(0), np.random.default_rng(own), shift) for own in (1, 2)]
        for shift in (0.0, 0.5)
    ]
    assert np.array_equal(laws[0][0].shift, laws[0][1].shift)
    assert 0.5 < np.std(laws[1][0].shift - laws[1][1].shift) < 0.9  # sqrt(2) * 0.5 = 0.71
    assert np.array_equal(laws[0][0].cumulative[5], laws[0][1].cumulative[5])
    assert not np.array_equal(laws[1][0].cumulative[5], laws[1][1].cumulative[5])


def test_expected_auc_by_hand():
    """Two rows: positive and negative are ranked right with weight 0.6 * 0.8, wrong with 0.2 * 0.4."""
    assert expected_auc(np.asarray([0.6, 0.2])) == pytest.approx(0.48 / 0.56)


@pytest.mark.slow(1)
def test_one_row_a_search(tmp_path):
    generated(tmp_path / "raw", config(rows_per_search=1))
    assert [row[0] for row in rows_of(tmp_path / "raw", "NL", "item", "test")] == [str(i) for i in range(1, 301)]
