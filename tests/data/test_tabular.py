"""The user's own table: what goes in comes out, as CSV and as Parquet; how parts are cut; what categories become."""

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.encoder import encode
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS
from pfmsmt.data.sources.tabular.time_split import Cut
from pfmsmt.data.tables.sheet import Sheet, check
from pfmsmt.data.tables.values import Column
from tests.support.raw_files import contents_of, quiet
from tests.support.raw_tables import config_for, csv_text, parquet_bytes, rows, table, write_raw_folder
from tests.support.shards import read_shard

FORM = pa.schema(
    [("app", pa.string()), ("kind", pa.string()), ("number", pa.int64()), ("size", pa.float64()),
     ("click", pa.int8()), ("like", pa.int8()), ("part", pa.string())]
)  # fmt: skip
ROW = st.tuples(
    st.sampled_from("AB"),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=4),
    st.integers(-(10**14), 10**14),
    st.integers(-(10**9), 10**9).map(lambda size: size / 1000),  # no deviation of 1e-71, which other parts overflow
    st.sampled_from([(0, 0), (1, 0), (1, 1)]),
    st.sampled_from(SPLITS),
)
EACH_PART = [(app, "x", 1, float(at), (0, 0), part) for app in "AB" for at, part in enumerate(SPLITS)]


def decoded(folder, schema, scenario, split):
    """(category, integer, click, like) of each row of a shard; None is out of vocabulary."""
    shard = read_shard(folder / scenario / f"{split}.parquet", columns=["kind", "number", "click", "like"])
    kind, number = ([None, *field.vocabulary] for field in schema.scenario(scenario).categorical)
    return [((k and str(kind[k])) or None, number[n], c, v) for k, n, c, v in shard.itertuples(index=False)]


@pytest.mark.slow(2)
@settings(max_examples=12, deadline=None)
@given(st.lists(ROW, max_size=20))
def test_what_goes_in_comes_out_of_either_form(log):
    flat = [(app, kind, number, size, *labels, part) for app, kind, number, size, labels, part in [*EACH_PART, *log]]
    config = config_for(
        "tabular",
        tabular={
            "categorical": ("kind", "number"),
            "numerical": ("size",),
            "group": None,
            "time": None,
            "split": "part",
        },
    )
    forms = {
        "log.csv": csv_text([FORM.names, *flat]),
        "log.parquet": parquet_bytes(pa.table([list(column) for column in zip(*flat, strict=True)], schema=FORM), 7),
    }
    known = [{row[at] for row in flat if row[6] == "train"} for at in (1, 2)]
    for name, content in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            write_raw_folder(Path(folder, "raw"), "tabular", {name: content})
            schema = partition(config, 0, Path(folder, "raw"), out, quiet)
            for app in "AB":
                for split in SPLITS:
                    expected = [
                        (row[1] if row[1] in known[0] else None, row[2] if row[2] in known[1] else None, row[4], row[5])
                        for row in flat
                        if row[0] == app and row[6] == split
                    ]
                    assert decoded(out, schema, app, split) == expected


def cut(tmp_path, held, **tabular):
    write_raw_folder(tmp_path / "raw", "tabular", {"log.csv": csv_text(held)})
    schema = partition(config_for("tabular", tabular=tabular), 0, tmp_path / "raw", tmp_path / "out", quiet)
    return schema, {
        split: read_shard(tmp_path / "out" / "A" / f"{split}.parquet").merge(
            pd.DataFrame(schema.scenario("A").categorical[0].vocabulary, columns=["item"]).reset_index(names="code")
            .assign(code=lambda t: t["code"] + 1), left_on="item_id", right_on="code", how="left",
        )
        for split in SPLITS
    }  # fmt: skip


def test_by_time_an_instant_is_on_one_side(tmp_path):
    """Item i is seen at time i by 6 users of A: of 60 rows a fifth are items 8 and 9, of the rest the last 6 and 7."""
    held = rows()
    _, parts = cut(tmp_path, [held[0], *reversed(held[1:])])
    assert sorted(set(parts["train"]["item"])) == [0, 1, 2, 3, 4, 5]
    assert (len(parts["train"]), len(parts["val"]), len(parts["test"])) == (36, 12, 12)
    # Out of vocabulary, as training rows do not hold them.
    assert parts["val"]["item_id"].tolist() == parts["test"]["item_id"].tolist() == [0] * 12


@pytest.mark.parametrize("form", ["2026-01-{:02}", "2026-01-{:02}T07:00:00Z", "2026-01-{:02} 07:00:00.25+02:00"])
def test_times_of_day_and_dates_cut_as_numbers_do(form, tmp_path):
    held = rows()
    (tmp_path / "a").mkdir()
    numbers, _ = cut(tmp_path / "a", held)
    dated = [held[0], *([*row[:-1], form.format(int(row[-1]) + 1)] for row in held[1:])]
    (tmp_path / "b").mkdir()
    assert cut(tmp_path / "b", dated)[0] == numbers


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.date32(), pa.date64()]
)
def test_times_of_every_type_are_the_same_seconds(kind):
    """Day 20,000 after 1970, and a null."""
    day = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[getattr(kind, "unit", "ms")] * 86_400
    held = pa.array([20_000 * (1 if pa.types.is_date32(kind) else day), None], kind)
    sheet, columns = Sheet("x", ["at"]), [Column("at", "time")]
    block, faults = check(sheet, columns, {"at": held}, np.arange(2))
    assert block.columns["at"].tolist() == [20_000 * 86_400.0]
    assert [fault.problem for fault in faults] == ["the value is empty"]


def test_the_border_in_time_takes_16_bytes_a_row():
    """All times once, and once more where they are put into one array; sorting takes place in it."""
    cut_by_time, batches, batch = Cut("time"), 50, 10_000
    tracemalloc.start()
    for first in range(batches):
        cut_by_time.add(np.arange(first, batches * batch, batches, dtype=np.float64))
    cut_by_time.settle(0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 17 * batches * batch
    test, place = cut_by_time.divide(np.zeros(3), np.array([0.0, 399_999.0, 400_000.0]), 0.2, 0)
    assert (test.tolist(), place.tolist()) == ([False, False, True], [0.0, 399_999 / 400_000, 1.0])


def test_without_time_whole_groups_are_drawn(tmp_path):
    _, parts = cut(tmp_path, rows(users=60), time=None, test_fraction=0.3)
    users = [set(part["group"]) for part in parts.values()]
    assert sum(map(len, users)) == len(set.union(*users)) == 30
    assert all(len(part) == 10 * len(held) for part, held in zip(parts.values(), users, strict=True))


def test_without_a_group_every_row_stands_alone(tmp_path):
    schema, parts = cut(tmp_path, rows(), group=None)
    assert {split: count.groups for split, count in schema.counts["A"].items()} == {
        split: len(part) for split, part in parts.items()
    }


def test_the_column_says_the_parts_and_validation_is_drawn_if_it_names_none(tmp_path):
    held = [[*row, "part" if at == 0 else ("Test" if int(row[0]) < 4 else "train")] for at, row in enumerate(rows(40))]
    _, parts = cut(tmp_path, held, time=None, split="part")
    assert len(parts["test"]) == 20
    assert len(parts["val"]) + len(parts["train"]) == 180
    assert not set(parts["val"]["group"]) & set(parts["train"]["group"])


def said(*parts):
    """Rows whose last column says the parts in turn."""
    return [[*row, "part" if at == 0 else parts[at % len(parts)]] for at, row in enumerate(rows(40))]


def at_instants(*instants):
    return [row if at == 0 else [*row[:-1], instants[at % len(instants)]] for at, row in enumerate(rows(40))]


SPLIT = {"time": None, "split": "part"}


@pytest.mark.parametrize(
    ("held", "tabular", "message"),
    [
        (said("train", "train", "val", "val"), SPLIT, r"into test \(its column part says test in no row\); let it"),
        (said("train"), SPLIT, r"into test \(its column part says test in no row"),
        (said("test", "test", "val", "val"), SPLIT, r"into train \(its column part says train in no row"),
        (said("test"), SPLIT, r"into train \(its column part says train in no row"),
        (
            [*said("test")[:80], *said("train")[80:82]],
            SPLIT,
            r"\(whole groups are drawn by chance; .*fraction is 0.3\)",
        ),
        (
            at_instants("5"),
            {},
            r"into train \(rows of one instant stay .*, the test part, begin with the first instant",
        ),
        (
            at_instants("5", "5", "6", "6"),
            {},
            r"into val \(.*the last instant of at before the test part has more than",
        ),
        (
            rows(1),
            {"time": None},
            r"\(whole groups .*test_fraction is 0.2, data.validation_fraction 0.3\); change that",
        ),
    ],
)
def test_an_empty_part_is_explained_by_the_way_of_cutting(held, tabular, message, tmp_path):
    with pytest.raises(DataError, match=message):
        cut(tmp_path, held, **tabular)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("no", "yes"), [("False", "True"), ("false", "true")])
@pytest.mark.parametrize("columns", [(2, 4), (4,)])
def test_labels_may_be_written_as_pandas_writes_booleans(no, yes, columns, tmp_path):
    plain, _ = cut(tmp_path / "plain", rows())
    held = rows()
    for at in columns:
        for row in held[1:]:
            row[at] = (no, yes)[int(row[at])]
    schema, _ = cut(tmp_path / "written", held)
    assert schema == plain
    held[3][4] = "1.0"  # a block that has all ways is read cell by cell
    held[3][2] = yes
    held[7][2] = "TRUE"
    with pytest.raises(DataError, match=r"row 8, column 3 \(click\): 'TRUE' is not a number"):
        cut(tmp_path / "other", held)
    held[7][2] = "1"
    assert cut(tmp_path / "mixed", held)[0].counts["A"]["test"] == plain.counts["A"]["test"]


def test_csv_and_parquet_of_the_same_rows_are_the_same(tmp_path):
    """Categories of a CSV that read as integers throughout are integers, and so models ask for them."""
    for name, content in (("log.csv", csv_text(rows())), ("log.parquet", parquet_bytes(table()))):
        folder = tmp_path / name
        write_raw_folder(folder / "raw", "tabular", {name: content})
        partition(config_for("tabular"), 0, folder / "raw", folder / "out", quiet)
    csv, parquet = (
        {name: data for name, data in contents_of(tmp_path / form / "out").items() if not name.endswith("json")}
        for form in ("log.csv", "log.parquet")
    )
    # Text of a group is hashed, an integer is itself: the rows are the same, their groups have other numbers.
    assert csv.keys() == parquet.keys()
    one, other = (read_shard(tmp_path / form / "out/A/train.parquet") for form in ("log.csv", "log.parquet"))
    assert one.drop(columns="group").equals(other.drop(columns="group"))
    assert (one.groupby("group").ngroup().value_counts() == 6).all()


@pytest.mark.parametrize("odd", ["07", "+7", "7.0", " 7", "12345678901234567", "x"])
def test_one_training_value_that_is_no_plain_integer_makes_the_column_text(odd, tmp_path):
    held = rows()
    held[1][1] = odd
    schema, _ = cut(tmp_path, held)
    field = schema.categorical[0]
    assert field.text
    assert odd in field.vocabulary
    example = pd.read_parquet(tmp_path / "out/A/example.parquet")
    assert encode(example, schema.scenario("A")).codes.min() > 0


@pytest.mark.parametrize("private", [(), ("item_id",)])
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"0": "1000000000000000000"}, "'1000000000000000000'"),
        ({"3": "03"}, "'03'"),
        ({str(item): f"{item}.0" for item in range(10)}, "'0.0'"),
        ({str(item): "abcdefghij"[item] for item in range(10)}, None),
        ({}, None),
    ],
)
def test_partition_says_why_a_column_of_numbers_is_text(values, told, private, tmp_path):
    held, lines = rows(), []
    for row in held[1:]:
        row[1] = values.get(row[1], row[1])
    write_raw_folder(tmp_path / "raw", "tabular", {"log.csv": csv_text(held)})
    partition(config_for("tabular", private_fields=private), 0, tmp_path / "raw", tmp_path / "out", lines.append)
    expected = [f"item_id is text, as {told} is among its values: integers are written as 7 or -7 is"]
    assert [line.split(", with ")[0] for line in lines if "is text" in line] == (expected if told else [])


def test_a_later_value_that_is_no_integer_is_out_of_vocabulary(tmp_path):
    held = rows()
    for row in held[-12:]:
        row[1] = "seven"
    schema, parts = cut(tmp_path, held)
    assert not schema.categorical[0].text
    assert set(parts["test"]["item_id"]) == {0}


def test_missing_values_are_filled_where_that_is_said(tmp_path):
    held = rows()
    held[1][7], held[3][1], held[5][7] = "", "", "NaN"
    schema, parts = cut(tmp_path, held, fill={"age": 33, "item_id": -1}, group=None)
    assert schema.fill == schema.scenario("A").fill == {"age": 33, "item_id": -1}
    assert schema.public().fill == {}
    assert -1 in schema.categorical[0].vocabulary
    mean, std = schema.numerical[0].mean, schema.numerical[0].std
    first = parts["train"].iloc[0]
    assert first["age"] == pytest.approx((33 - mean) / std)
    assert np.isfinite(parts["train"]["age"]).all()


@pytest.mark.parametrize("missing", ["", None])
def test_empty_text_of_parquet_is_filled_as_that_of_a_csv(missing, tmp_path):
    held = table()
    values = pa.array([missing if item == 3 else "abcdefghij"[item] for item in held["item_id"].to_pylist()])
    held = held.set_column(held.schema.names.index("item_id"), "item_id", values)
    write_raw_folder(tmp_path / "raw", "tabular", {"log.parquet": parquet_bytes(held)})
    config = config_for("tabular", tabular={"fill": {"item_id": "none"}})
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert schema.categorical[0].vocabulary == ("a", "b", "c", "e", "f", "none")


def test_a_fill_is_kept_in_the_form_that_its_column_has(tmp_path):
    text, named = rows(), {"item_id": 7, "video_category": "none", "age": 0.5}
    text[3][1] = "seven"
    assert cut(tmp_path / "text", text, fill={**named, "video_category": 5.0})[0].fill == {"item_id": "7", "age": 0.5}
    assert cut(tmp_path / "csv", rows(), fill=named)[0].fill == {"item_id": 7, "age": 0.5}
    with pytest.raises(ConfigError, match="age: inf is not a finite number"):
        cut(tmp_path / "inf", rows(), fill={"age": float("inf")})


def test_integers_of_parquet_may_be_filled_with_a_fraction(tmp_path):
    held = table()
    ages = [None if row == 1 else age for row, age in enumerate(held["age"].to_pylist())]
    held = held.set_column(held.schema.names.index("age"), "age", pa.array(ages, pa.int64()))
    write_raw_folder(tmp_path / "raw", "tabular", {"log.parquet": parquet_bytes(held)})
    schema = partition(
        config_for("tabular", tabular={"fill": {"age": 0.5}}), 0, tmp_path / "raw", tmp_path / "o", quiet
    )
    example = pd.read_parquet(tmp_path / "o" / "B" / "example.parquet")
    assert schema.fill == {"age": 0.5}
    assert example["age"].tolist()[0] == 0.5


def test_unsigned_integers_of_64_bits(tmp_path):
    """Groups beyond 2^63 are as many as without, categories may be filled below 0, and numbers are numbers."""
    held, plain = table(), config_for("tabular", tabular={"fill": {"item_id": -1}})
    wide = {"user_id": lambda v: v + 2**63, "item_id": lambda v: v or None, "age": lambda v: v + 2**63}
    for name, change in wide.items():
        values = pa.array([change(value) for value in held[name].to_pylist()], pa.uint64())
        held = held.set_column(held.schema.names.index(name), name, values)
    write_raw_folder(tmp_path / "raw", "tabular", {"log.parquet": parquet_bytes(held)})
    schema = partition(plain, 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert schema.counts["A"]["train"].groups == 6
    assert schema.categorical[0].vocabulary == (-1, 1, 2, 3, 4, 5)
    assert schema.numerical[0].mean == pytest.approx(2**63)
    assert sorted(set(read_shard(tmp_path / "out/A/train.parquet")["group"])) == [
        user - 2**63 for user in range(0, 12, 2)
    ]


def test_scenarios_may_be_named_and_chosen(tmp_path):
    write_raw_folder(tmp_path / "raw", "tabular", {"log.csv": csv_text(rows())})
    config, lines = config_for("tabular", tabular={"scenarios": {"first": "B"}}), []
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", lines.append)
    assert schema.scenarios == ("first",)
    assert sum(count.rows for count in schema.counts["first"].values()) == 60
    assert lines[0] == "60 rows of scenarios that data.tabular.scenarios does not name left out"


def test_the_largest_numbers_are_carried(tmp_path):
    """The bound is 1e30: of as many 1e30 as -1e30 the mean is 0 and the deviation 1e30."""
    held = rows()
    for at, row in enumerate(held[1:]):
        row[7] = "1e30" if at // 12 % 2 else "-1e30"
    schema, parts = cut(tmp_path, held)
    assert schema.numerical[0].mean == pytest.approx(0.0, abs=1e15)  # rounded at the last of 16 digits
    assert schema.numerical[0].std == pytest.approx(1e30)
    assert sorted(set(parts["test"]["age"].round(6))) == [-1.0, 1.0]


def test_columns_may_have_the_names_that_shards_use_for_their_own(tmp_path):
    """A task, a feature and a label may be called group, place and scenario: what is computed makes way."""
    names = {"user_id": "group", "video_category": "place", "app": "scenario", "click": "place_"}
    held = [[names.get(name, name) for name in rows()[0]], *rows()[1:]]
    labels = ({"task": "group_", "column": "place_"},)
    schema, parts = cut(
        tmp_path, held, labels=labels, scenario="scenario", categorical=("item_id", "place", "group"), group="group"
    )
    assert schema.group == "group__"
    assert parts["train"].columns[:5].tolist() == ["group__", "item_id", "place", "group", "age"]
    assert parts["test"]["group_"].tolist() == [(user + item) % 2 for item in (8, 9) for user in range(0, 12, 2)]


def test_an_outcome_may_be_forced(tmp_path):
    write_raw_folder(tmp_path / "raw", "tabular", {"log.csv": csv_text(rows())})
    config = config_for("tabular", tabular={"numerical": ("age", "share")}, outcomes_as_features=("share",))
    schema = partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert [field.name for field in schema.numerical] == ["age", "share"]
