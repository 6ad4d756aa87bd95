"""Tenrec: columns by header, parts by the order of a user's rows, outcomes refused."""

import pandas as pd
import pytest
from raw_files import quiet
from raw_tables import config_for, csv_text, rows, write_raw_folder

from pfmsmt.data.partition import SPLITS, partition
from pfmsmt.errors import ConfigError, DataError


def cut(tmp_path, held, **tenrec):
    write_raw_folder(tmp_path / "raw", "tenrec", {"QB-video.csv": csv_text(held)})
    config = config_for("tenrec", tenrec=tenrec, private_fields=("user_id",))
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    shards = {split: pd.read_parquet(tmp_path / "out/QB-video" / f"{split}.parquet") for split in SPLITS}
    return schema, shards


def test_the_last_rows_of_each_user_are_the_test_part(tmp_path):
    """Of user u's 10 - u rows: a fifth, rounded down, then three tenths of the rest, rounded down."""
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


def test_a_user_split_over_blocks_is_ranked_on(tmp_path):
    """Rows of a user lie far apart: more than 65,536 rows of others stand between."""
    held = rows(users=9000, items=10)
    schema, shards = cut(tmp_path, held)
    assert {split: len(shard) for split, shard in shards.items()} == {"train": 54_000, "val": 18_000, "test": 18_000}
    assert (shards["test"].groupby("user").size() == 2).all()
    assert schema.counts["QB-video"]["val"].groups == 9000
