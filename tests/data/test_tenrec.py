"""Tenrec: columns by header, parts by the order of a user's rows, outcomes refused."""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS
from tests.support.raw_files import quiet
from tests.support.raw_tables import config_for, csv_text, rows, write_raw_folder
from tests.support.shards import read_shard

SCENARIOS = ("QK-video", "QB-article")
ROW = st.tuples(
    st.sampled_from(SCENARIOS),
    st.integers(0, 3),  # user
    st.integers(0, 2**40),  # item
    st.sampled_from([(0, 0), (1, 0), (0, 1), (1, 1)]),  # click, like
    st.sampled_from(["0", "1", "7.0", r"\N"]),  # category
    st.floats(-1e6, 1e6),  # age
)
CATEGORIES = {"0": 0, "1": 1, "7.0": 7, r"\N": -1}
EACH_PART = [(name, 9, at, (0, 0), "1", float(at)) for name in SCENARIOS for at in range(10)]


def parts_of(rows):
    """The last floor(n / 5) of each user's n rows are test, the last floor(3 m / 10) of the m others validation."""
    parts = {split: [] for split in SPLITS}
    for user in {row[1] for row in rows}:
        own = [row for row in rows if row[1] == user]
        test = len(own) // 5
        val = (len(own) - test) * 3 // 10
        ends = len(own) - test - val, len(own) - test
        for split, part in zip(SPLITS, (own[: ends[0]], own[ends[0] : ends[1]], own[ends[1] :]), strict=True):
            parts[split] += part
    return parts


@pytest.mark.slow(1)
@settings(max_examples=10, deadline=None)
@given(st.lists(ROW, max_size=40))
def test_what_goes_in_comes_out_under_either_name(log):
    """Rows, labels and categories survive another header, the split and the encoding; users of two apps are two."""
    held = {name: [row for row in [*EACH_PART, *log] if row[0] == name] for name in SCENARIOS}
    parts = {name: parts_of(rows) for name, rows in held.items()}
    names = {"QK-video": ["user_id", "video_category", "age", "item_id", "like", "click"]}
    names["QB-article"] = ["user_id", "category_first", "age", "item_id", "like", "click"]
    block = {"scenarios": SCENARIOS, "rename": {"QB-article": {"video_category": "category_first"}}}
    config = config_for("tenrec", tenrec=block, private_fields=("user_id",))
    with tempfile.TemporaryDirectory() as name:
        raw, out = Path(name, "raw"), Path(name, "out")
        files = {
            f"{scenario}.csv": csv_text(
                [names[scenario], *([u, c, a, i, like, click] for _, u, i, (click, like), c, a in rows)]
            )
            for scenario, rows in held.items()
        }
        write_raw_folder(raw, "tenrec", files, SCENARIOS)
        schema = partition(config, 0, raw, out, quiet)
        shards = {(s, split): read_shard(out / s / f"{split}.parquet") for s in SCENARIOS for split in SPLITS}
    trained = [row for name in SCENARIOS for row in parts[name]["train"]]
    items, categories = {row[2] for row in trained}, {row[4] for row in trained}
    for (scenario, split), shard in shards.items():
        own = schema.scenario(scenario)
        users, known_items, known = ([None, *field.vocabulary] for field in own.categorical)
        scale = own.numerical[0]
        found = [
            (users[u], known_items[i], click, like, known[c], pytest.approx(a * scale.std + scale.mean, abs=1.0))
            for u, i, c, a, click, like in shard[[*own.columns, "click", "like"]].itertuples(index=False)
        ]
        expected = [
            (u, i if i in items else None, click, like, CATEGORIES[c] if c in categories else None, a)
            for _, u, i, (click, like), c, a in parts[scenario][split]
        ]
        # Stable: each user's rows stay in their order.
        assert sorted(expected, key=lambda row: row[0]) == sorted(found, key=lambda row: row[0])
        counts = schema.counts[scenario][split]
        assert counts.rows == len(expected)
        assert counts.groups == len({row[0] for row in expected})
        assert counts.positives == {"click": sum(r[2] for r in expected), "like": sum(r[3] for r in expected)}


def test_an_unknown_category_is_one_of_its_own(tmp_path):
    r"""The files write it as \N; in the row of another user it is what it was in training."""
    held = rows()
    for row in held[1:]:
        row[6] = r"\N" if int(row[0]) < 6 else row[6]
    schema, shards = cut(tmp_path, held)
    categories = [None, *schema.scenario("QB-video").categorical[2].vocabulary]
    assert categories == [None, -1, 0, 1, 2]
    assert schema.fill == {"video_category": -1}  # the models keep it: so it is read in requests
    for shard in shards.values():
        assert {categories[code] for code in shard.loc[shard["user"] < 6, "video_category"]} == {-1}
        assert -1 not in {categories[code] for code in shard.loc[shard["user"] >= 6, "video_category"]}


def cut(tmp_path, held, **tenrec):
    write_raw_folder(tmp_path / "raw", "tenrec", {"QB-video.csv": csv_text(held)})
    config = config_for("tenrec", tenrec=tenrec, private_fields=("user_id",))
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    shards = {split: read_shard(tmp_path / "out/QB-video" / f"{split}.parquet") for split in SPLITS}
    return schema, shards


def test_the_last_rows_of_each_user_are_the_test_part(tmp_path):
    """A fifth of user u's 10 - u rows, rounded down, then three tenths of the rest, rounded down."""
    held = [row for at, row in enumerate(rows(users=8)) if at == 0 or int(row[1]) < 10 - int(row[0])]
    schema, shards = cut(tmp_path, held)
    items = [None, *schema.scenario("QB-video").categorical[1].vocabulary]
    for user in range(8):
        total = 10 - user
        test = total // 5
        val = (total - test) * 3 // 10
        order = {"train": total - test - val, "val": val, "test": test}
        for split, shard in shards.items():
            assert (shard["user"] == user).sum() == order[split]
        found = [items[code] for code in shards["train"].loc[shards["train"]["user"] == user, "item_id"]]
        assert found == list(range(order["train"]))


def test_users_with_too_few_rows_for_a_test_part(tmp_path):
    """A fifth of four rows is less than one."""
    with pytest.raises(
        DataError, match=r"into test \(no user has more than 4 rows, and data.tenrec.test_fraction, 0.2,"
    ):
        cut(tmp_path, rows(items=4))


def test_labels_and_private_ids(tmp_path):
    schema, shards = cut(tmp_path, rows())
    assert [(task.name, task.label, task.within) for task in schema.tasks] == [
        ("click", "clicked", None), ("like", "liked", None)
    ]  # fmt: skip
    assert schema.private_vocabularies["QB-video"]["user_id"] == tuple(range(12))
    everything = pd.concat(shards.values())
    assert everything["click"].sum() == sum(int(row[2]) for row in rows()[1:])
    assert everything["like"].sum() == sum(int(row[4]) for row in rows()[1:])


def test_columns_are_found_by_the_header_and_may_have_other_names(tmp_path):
    schema, _ = cut(tmp_path, rows())
    renamed = [["category_first" if name == "video_category" else name for name in rows()[0]], *rows()[1:]]
    other = [row[::-1] for row in renamed]
    assert cut(tmp_path, other, rename={"QB-video": {"video_category": "category_first"}})[0] == schema
    message = r"column video_category is missing in the header.*columns: at, app, .*data.tenrec.rename, as \{QB-video:"
    with pytest.raises(DataError, match=message):
        cut(tmp_path, other)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"numerical": ("watching_times",)}, "the feature 'watching_times' is an outcome"),
        ({"numerical": ("read_percentage",)}, "the feature 'read_percentage' is an outcome"),
        ({"categorical": ("user_id", "follow")}, "the feature 'follow' is an outcome"),
        ({"categorical": ("user_id", "like")}, "'like' is a label, and cannot be a feature"),
        ({"categorical": ("user_id", "user")}, "'user' is a column of what is written"),
        ({"numerical": ("place",)}, "'place' is a column of what is written"),
        ({"categorical": ("age",)}, "'age' is both categorical and numerical"),
        ({"rename": {"QB-video": {"age": "read_time"}}}, "the feature 'read_time' is an outcome"),
        ({"rename": {"QB-videos": {"age": "years"}}}, "'QB-videos' is none of data.tenrec.scenarios"),
        ({"rename": {"QB-video": {"ages": "years"}}}, "'ages' is neither a feature nor user_id, click, like"),
    ],
)
def test_features_that_cannot_be(block, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        cut(tmp_path, rows(), **block)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow(1)
def test_a_user_split_over_blocks_is_ranked_on(tmp_path):
    """Rows of a user lie far apart: more than 65,536 rows of others stand between."""
    held = rows(users=9000, items=10)
    schema, shards = cut(tmp_path, held)
    assert {split: len(shard) for split, shard in shards.items()} == {"train": 54_000, "val": 18_000, "test": 18_000}
    assert (shards["test"].groupby("user").size() == 2).all()
    assert schema.counts["QB-video"]["val"].groups == 9000
