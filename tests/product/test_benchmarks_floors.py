"""The floors of the quality benchmark, and the setting whose log is made for it."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task
from tests.support.shards import write_shard

SIZES = {"NL": (1000, 1000), "US": (500, 800)}


@pytest.fixture(scope="module")
def floors(benchmark):
    return benchmark("floors")


@pytest.fixture(scope="module")
def id_world(benchmark):
    return benchmark("id_world")


VOCABULARIES = {"A": (3, 5, 8), "B": (3, 7)}
FEATURES = ("user", "device", "price", "age")
SCHEMA = Schema(
    source="made",
    fingerprint="",
    group="search",
    tasks=(Task(name="ctr", label="click"), Task(name="ctcvr", label="buy", within="ctr")),
    categorical=(
        CategoricalField(name="user", federated=False),
        CategoricalField(name="device", federated=True, vocabulary=(1, 2, 3, 4)),
    ),
    numerical=(NumericalField(name="price", mean=0.0, std=1.0), NumericalField(name="age", mean=0.0, std=1.0)),
    private_vocabularies={name: {"user": ids} for name, ids in VOCABULARIES.items()},
    counts={name: dict.fromkeys(("train", "val", "test"), SplitCounts(rows=1, groups=1, positives={}))
            for name in VOCABULARIES},
)  # fmt: skip


def draw(floors, rng, scenario, rows):
    """Rows whose clicks depend on the device, the user and the price, not alike in both scenarios."""
    codes = np.stack([rng.integers(0, len(VOCABULARIES[scenario]) + 1, rows), rng.integers(0, 5, rows)], axis=1)
    numbers = rng.standard_normal((rows, 2)).astype(np.float32)
    slope = 1.5 if scenario == "A" else 0.5
    click = rng.random(rows) < expit(slope * numbers[:, 0] + 0.6 * (codes[:, 1] - 2) + 0.5 * (codes[:, 0] == 1) - 0.5)
    buy = click & (rng.random(rows) < expit(numbers[:, 1] - 0.5))
    return floors.Rows(codes.astype(np.int32), numbers, np.stack([click, buy], axis=1).astype(np.uint8))


@pytest.fixture(scope="module")
def made(floors, tmp_path_factory):
    """Shards of two scenarios, and their rows."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(4)
    rows = {}
    for scenario in VOCABULARIES:
        (folder / scenario).mkdir()
        for split, count in (("train", 600), ("val", 300), ("test", 2000)):
            found = rows[split, scenario] = draw(floors, rng, scenario, count)
            columns = dict(zip(("user", "device"), found.codes.T, strict=True))
            columns |= dict(zip(("price", "age"), found.numbers.T, strict=True))
            columns |= dict(zip(("ctr", "ctcvr"), found.labels.T, strict=True))
            write_shard(pd.DataFrame(columns), folder / scenario / f"{split}.parquet", FEATURES)
    return folder, rows


def one_hot(codes, width):
    return np.eye(width)[codes]


def blocks(rows, *, shared, own):
    """[x ; x in the scenario's block], each scaled so that a ridge of 1 is what is wanted, and nearly free intercepts.

    x is numbers, devices and users, each scenario's users apart.
    """
    parts = []
    for scenario, held in rows.items():
        first = scenario == "A"
        users = one_hot(held.codes[:, 0], 4 if first else 3)
        apart = np.zeros((len(users), 7))
        (apart[:, :4] if first else apart[:, 4:])[:] = users
        x = np.concatenate([held.numbers, one_hot(held.codes[:, 1], 5), apart], axis=1)
        ones, zeros = np.full((len(x), 1), 1e3**0.5), np.zeros((len(x), 1))
        nothing = np.zeros_like(x)
        sides = [x / own**0.5, nothing] if first else [nothing, x / own**0.5]
        parts.append(np.concatenate([x / shared**0.5, *sides, *([ones, zeros] if first else [zeros, ones])], axis=1))
    return np.concatenate(parts)


@pytest.mark.parametrize("form", ["product", "direct"])
def test_shared_and_own_weights_are_the_logistic_regression_of_stacked_features(floors, made, form):
    """scikit-learn's, where every scenario's users are columns of their own in both halves."""
    folder, rows = made
    strengths = {"l2_shared": 2.0, "l2_own": 7.0, "l2_shared_within": 4.0, "l2_own_within": 5.0}
    model = floors.Floor("linear_shared", SCHEMA, folder, {"form": form, **strengths})
    train, test = ({s: rows[split, s] for s in VOCABULARIES} for split in ("train", "test"))
    wanted = []
    for task, end in enumerate(("", "_within")):
        scale = {"shared": strengths[f"l2_shared{end}"], "own": strengths[f"l2_own{end}"]}
        labels = np.concatenate([held.labels for held in train.values()])
        chosen = labels[:, 0] == 1 if task and form == "product" else np.ones(len(labels), bool)
        peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=10_000)
        peer.fit(blocks(train, **scale)[chosen], labels[chosen, task])
        wanted.append(peer.predict_proba(blocks(test, **scale))[:, 1])
    if form == "product":
        wanted[1] = wanted[0] * wanted[1]
    found = np.concatenate([model.probabilities(scenario, held) for scenario, held in test.items()])
    np.testing.assert_allclose(found, np.stack(wanted, axis=1), atol=2e-3)


def test_local_weights_know_their_own_scenario_alone(floors, made):
    folder, rows = made
    params = {"form": "direct", "l2": 3.0, "l2_within": 3.0}
    model = floors.Floor("linear_local", SCHEMA, folder, params)
    held, test = rows["train", "B"], rows["test", "B"]

    def features(some):
        parts = (some.numbers, one_hot(some.codes[:, 1], 5), one_hot(some.codes[:, 0], 3))
        return np.concatenate([*(part / 3.0**0.5 for part in parts), np.full((len(some.codes), 1), 1e3**0.5)], axis=1)

    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=10_000)
    peer.fit(features(held), held.labels[:, 0])
    found = model.probabilities("B", test)[:, 0]
    np.testing.assert_allclose(found, peer.predict_proba(features(test))[:, 1], atol=2e-3)


def test_refitting_takes_validation_rows_as_well(floors, made, tmp_path):
    """It is the fit to shards whose training rows are both."""
    folder, rows = made
    params = floors.START["linear_shared"]
    for scenario in VOCABULARIES:
        (tmp_path / scenario).mkdir()
        parts = [pd.read_parquet(folder / scenario / f"{split}.parquet") for split in ("train", "val")]
        pd.concat(parts).to_parquet(tmp_path / scenario / "train.parquet")
        parts[1].to_parquet(tmp_path / scenario / "val.parquet")
    refitted = floors.Floor("linear_shared", SCHEMA, folder, params, refit=True)
    wanted = floors.Floor("linear_shared", SCHEMA, tmp_path, params)
    for scenario in VOCABULARIES:
        test = rows["test", scenario]
        assert (refitted.probabilities(scenario, test) == wanted.probabilities(scenario, test)).all()


@pytest.mark.parametrize("floor", ["trees_local", "trees_pooled"])
@pytest.mark.parametrize("form", ["product", "direct"])
def test_trees_rank_rows_and_nest_conversions_in_clicks(floors, made, floor, form):
    pytest.importorskip("lightgbm")
    folder, rows = made
    params = floors.START[floor] | {"form": form}
    model = floors.Floor(floor, SCHEMA, folder, params)
    found = model.aucs("test")
    assert all(value > 0.65 for tasks in found.values() for value in tasks.values()), found
    if form == "product":
        both = model.probabilities("A", rows["test", "A"])
        assert (both[:, 1] < both[:, 0]).all()
    again = floors.Floor(floor, SCHEMA, folder, params).probabilities("A", rows["test", "A"])
    assert (again == model.probabilities("A", rows["test", "A"])).all()
    refitted = floors.Floor(floor, SCHEMA, folder, params, refit=True).aucs("test")
    assert refitted != found


def test_pooled_trees_tell_each_scenarios_users_apart(floors, tmp_path):
    """User 1 clicks in A and never in B; nothing else says anything, and all devices are unknown."""
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    for scenario in VOCABULARIES:
        (tmp_path / scenario).mkdir()
        for split in ("train", "val", "test"):
            user = rng.integers(1, 3, 1000)
            click = (user == 1) if scenario == "A" else (user == 2)
            numbers = rng.standard_normal((2, 1000)).astype(np.float32)
            columns = {"user": user, "device": 0, "price": numbers[0], "age": numbers[1]}
            labels = {"ctr": click.astype(np.int8), "ctcvr": (click & (rng.random(1000) < 0.5)).astype(np.int8)}
            write_shard(pd.DataFrame(columns | labels), tmp_path / scenario / f"{split}.parquet", FEATURES)
    params = floors.START["trees_pooled"] | {"num_leaves": 4}
    model = floors.Floor("trees_pooled", SCHEMA, tmp_path, params)
    assert {scenario: tasks["ctr"] for scenario, tasks in model.aucs("test").items()} == {"A": 1.0, "B": 1.0}


@pytest.fixture(scope="module")
def log(id_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    id_world.generate(3, folder, SIZES)
    return folder


def test_a_log_of_many_ids_is_the_seeds(id_world, log, tmp_path):
    id_world.generate(3, tmp_path / "again", SIZES)
    id_world.generate(4, tmp_path / "other", SIZES)
    frames = [pd.read_parquet(folder / "tables" / "NL.parquet") for folder in (log, tmp_path / "again")]
    pd.testing.assert_frame_equal(*frames)
    other = pd.read_parquet(tmp_path / "other/tables/NL.parquet")
    assert not frames[0]["item_id"].equals(other["item_id"])
    assert not frames[0]["category"].equals(other["category"])


def test_items_mean_the_same_in_all_scenarios_and_conversions_follow_clicks(log):
    frames = {name: pd.read_parquet(log / "tables" / f"{name}.parquet") for name in SIZES}
    for name, (train, test) in SIZES.items():
        assert frames[name]["split"].value_counts().to_dict() == {"train": train, "test": test}
        assert not (frames[name]["buy"] & ~frames[name]["click"]).any()
        assert 0.04 < frames[name]["click"].mean() < 0.14
        assert frames[name].groupby("search")["user_id"].nunique().eq(1).all()
        assert frames[name].groupby("search")["split"].nunique().eq(1).all()
    items = pd.concat(frames.values()).groupby("item_id")[["category", "seller_id", "price"]].nunique()
    assert items.eq(1).all(axis=None)


def test_the_true_probabilities_of_many_ids_rank_as_the_synthetic_sources_do(id_world, tmp_path):
    id_world.generate(5, tmp_path, {"NL": (500, 40_000), "US": (500, 40_000)})
    oracle = json.loads((tmp_path / "oracle.json").read_text(encoding="utf-8"))["scenarios"]
    for tasks in oracle.values():
        assert tasks["ctr"]["auc"] == pytest.approx(0.81, abs=0.015)
        assert tasks["ctcvr"]["auc"] == pytest.approx(0.88, abs=0.03)
        assert tasks["ctr"]["ece"] < 0.01


def test_many_ids_become_shards_with_private_users(benchmark, tmp_path):
    worlds = benchmark("worlds")
    schema, folder, oracle = worlds.shards(worlds.Bench(tmp_path, tmp_path, None, True), worlds.MANY_IDS, 0)
    assert schema.scenarios == ("NL", "ES", "FR", "US")
    assert [field.name for field in schema.categorical if not field.federated] == ["user_id"]
    assert set(oracle) == set(schema.scenarios)
    assert {schema.counts[name]["test"].rows for name in schema.scenarios} == {worlds.QUICK_ROWS["test_rows"]}
    assert not (folder.parent / "tables").exists()
