"""Shard files, and categories of text."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pfmsmt.core.errors import DataError, SchemaError
from pfmsmt.data.encoder import encode
from pfmsmt.data.schema import CategoricalField, NumericalField, ScenarioSchema, Task
from pfmsmt.data.shards.writer import ROW_GROUP_ROWS, ShardWriter
from tests.support.shards import read_shard

FIELDS = (CategoricalField(name="device", federated=True, text=True, vocabulary=("desktop", "phone")),)
SCHEMA = ScenarioSchema(
    scenario="NL",
    group="search",
    tasks=(Task(name="ctr", label="click"),),
    categorical=FIELDS,
    numerical=(NumericalField(name="price", mean=1.0, std=2.0),),
)


def rows(first, last):
    numbers = np.arange(first, last)
    return {
        "search": numbers // 3,
        "device": np.array(["phone", "tablet", "desktop"], dtype=object)[numbers % 3],
        "price": numbers.astype(float),
        "click": (numbers % 2).astype(np.int8),
    }


@pytest.mark.parametrize("batch", [7_001, 65_536, 200_000])
def test_row_groups_and_digest_do_not_depend_on_the_batches(batch, tmp_path):
    total = 2 * ROW_GROUP_ROWS + 10
    writer = ShardWriter(tmp_path / "train.parquet", SCHEMA)
    with writer:
        for first in range(0, total, batch):
            writer.write(rows(first, min(first + batch, total)))
    footer = pq.ParquetFile(tmp_path / "train.parquet").metadata
    assert [footer.row_group(i).num_rows for i in range(3)] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 10]
    shard = read_shard(tmp_path / "train.parquet")
    assert shard["search"].tolist() == [i // 3 for i in range(total)]
    assert shard["device"].tolist() == [(2, 0, 1)[i % 3] for i in range(total)]
    assert np.array_equal(shard["price"], ((np.arange(total) - 1.0) / 2.0).astype(np.float32))
    assert shard["ctr"].tolist() == [i % 2 for i in range(total)]
    counts = writer.counts()
    assert (counts.rows, counts.groups, counts.positives) == (total, -(-total // 3), {"ctr": total // 2})
    whole = ShardWriter(tmp_path / "whole.parquet", SCHEMA)
    with whole:
        whole.write(rows(0, total))
    assert whole.digest() == writer.digest()


def test_a_number_far_from_those_of_training_is_named(tmp_path):
    """1e29 is within the bound of a row, but 1e29 / 1e-20 is beyond float32."""
    narrow = SCHEMA.model_copy(update={"numerical": (NumericalField(name="price", mean=0.0, std=1e-20),)})
    far = rows(0, 3) | {"price": np.array([0.0, 1e29, 0.0])}
    message = r"^NL test, column price: 1e\+29 is too large, .* deviation 1e-20; correct or"
    with pytest.raises(DataError, match=message), ShardWriter(tmp_path / "test.parquet", narrow) as writer:
        writer.write(far)


def test_categories_of_text_are_found_by_their_very_characters():
    frame = pd.DataFrame({"device": ["phone", "Phone", "desktop", " "], "price": [1.0, 3.0, 5.0, -1.0]})
    encoded = encode(frame, SCHEMA)
    assert encoded.codes[:, 0].tolist() == [2, 0, 1, 0]
    assert encoded.values[:, 0].tolist() == [0.0, 1.0, 2.0, -1.0]
    with pytest.raises(SchemaError, match="column device, row 2: the value is empty"):
        encode(frame.assign(device=["phone", "x", "", "y"]), SCHEMA)


def test_unsigned_integers_do_not_wrap_around():
    """-5 has the bits of 2^64 - 5; what is beyond the range is refused, as in training."""
    field = CategoricalField(name="user", federated=True, vocabulary=(-5, 7, 2**63 - 1))
    schema = SCHEMA.model_copy(update={"categorical": (field,), "numerical": ()})
    users = np.array([2**64 - 5, 7, 2**63 - 1, 2**63], np.uint64)
    assert encode({"user": users[1:3]}, schema).codes[:, 0].tolist() == [2, 3]
    for row, part in ((0, users), (2, users[1:])):
        with pytest.raises(SchemaError, match=rf"column user, row {row}: {part[row]} is 2\^63 or more"):
            encode({"user": part}, schema)
    assert encode(pd.DataFrame({"user": users[1:2]}), schema).codes.tolist() == [[2]]


@pytest.mark.parametrize("value", [3, None, 1.5])
def test_a_category_that_is_no_text_is_refused_by_its_row(value):
    frame = {"device": np.array(["phone", value], dtype=object), "price": np.zeros(2)}
    with pytest.raises(SchemaError, match=r"column device, row 1: .* is not text"):
        encode(frame, SCHEMA)


@pytest.mark.parametrize("vocabulary", [(), (-7, 0, 2**53), ("7", "x"), ("7",)])
def test_a_vocabulary_is_read_as_it_was_written(vocabulary):
    """Integers stay integers, and text that looks like one stays text."""
    field = CategoricalField(name="c", federated=True, text="7" in vocabulary, vocabulary=vocabulary)
    assert CategoricalField.model_validate_json(field.model_dump_json()) == field
    assert [type(entry) for entry in field.vocabulary] == [type(entry) for entry in vocabulary]


@pytest.mark.parametrize("vocabulary", [(1, "x"), (1.5,), (True, "x"), None])
def test_a_vocabulary_of_mixed_or_other_values_is_refused(vocabulary):
    with pytest.raises(ValidationError):
        CategoricalField(name="c", federated=True, vocabulary=vocabulary)
