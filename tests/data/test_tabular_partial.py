"""Labels that are not known, in an own table: `missing: ignore`."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS, UNLABELLED, read_schema
from tests.support.raw_tables import HEADER, config_for, csv_text, parquet_bytes, rows, table, write_raw_folder

LABELS = [
    {"task": "click", "column": "click", "missing": "ignore"},
    {"task": "like", "column": "like", "within": "click", "missing": "ignore"},
]
WORDS = {"0": "False", "1": "True", "": ""}


def holed():
    """Rows, some of whose labels are empty; among them a like of which the click is not known."""
    held, rng = rows(), np.random.default_rng(5)
    for row in held[1:]:
        for name in ("click", "like"):
            if rng.random() < 0.3:
                row[HEADER.index(name)] = ""
    return held


def numbered(held):
    """As pandas writes integers in a column with gaps."""
    places = [HEADER.index(name) for name in ("click", "like")]
    return [held[0], *([f"{c}.0" if i in places and c else c for i, c in enumerate(row)] for row in held[1:])]


def worded(held):
    places = [HEADER.index(name) for name in ("click", "like")]
    return [held[0], *([WORDS[c] if i in places else c for i, c in enumerate(row)] for row in held[1:])]


def typed(held, kind):
    whole = table()
    for name in ("click", "like"):
        cells = [row[HEADER.index(name)] for row in held[1:]]
        values = pa.array([None if c == "" else kind(int(c)) for c in cells])
        whole = whole.set_column(whole.schema.get_field_index(name), name, values)
    return parquet_bytes(whole)


FORMS = {
    "integers": ("t.csv", lambda held: csv_text(held)),
    "pandas' numbers": ("t.csv", lambda held: csv_text(numbered(held))),
    "words": ("t.csv", lambda held: csv_text(worded(held))),
    "Parquet, integers": ("t.parquet", lambda held: typed(held, int)),
    "Parquet, numbers": ("t.parquet", lambda held: typed(held, float)),
    "Parquet, booleans": ("t.parquet", lambda held: typed(held, bool)),
}


def cut(tmp_path, file, content, **changes):
    write_raw_folder(tmp_path / "raw", "tabular", {file: content})
    lines = []
    config = config_for("tabular", tabular={"labels": LABELS, **changes})
    partition(config, 0, tmp_path / "raw", tmp_path / "clients", lines.append)
    return read_schema(tmp_path / "clients/schema.json"), lines


@pytest.mark.parametrize(("file", "form"), FORMS.values(), ids=FORMS.keys())
def test_empty_labels_are_marked_and_counted(tmp_path, file, form):
    held = holed()
    schema, lines = cut(tmp_path, file, form(held))
    assert [task.partial for task in schema.tasks] == [True, True]
    found = []
    for scenario in schema.scenarios:
        for split in SPLITS:
            shard = pd.read_parquet(tmp_path / "clients" / scenario / f"{split}.parquet")
            counts = schema.counts[scenario][split]
            for task in ("click", "like"):
                known = shard[task][shard[task] != UNLABELLED]
                assert (counts.labels(task), counts.positives[task]) == (len(known), known.sum())
            found += shard[["click", "like"]].to_numpy().tolist()
    wanted = [
        [UNLABELLED if row[HEADER.index(name)] == "" else int(row[HEADER.index(name)]) for name in ("click", "like")]
        for row in held[1:]
    ]
    assert sorted(found) == sorted(wanted)
    assert [UNLABELLED, 1] in found
    assert any("have no label of click, and take no part in it" in line for line in lines)


def test_a_label_that_is_wrong_is_a_fault_all_the_same(tmp_path):
    held = holed()
    held[1][HEADER.index("click")] = "2"
    with pytest.raises(DataError, match=r"2 is not a label \(0, 1\)"):
        cut(tmp_path, "t.csv", csv_text(held))


def test_without_the_word_an_empty_label_names_it(tmp_path):
    labels = [{**label, "missing": "fail"} for label in LABELS]
    with pytest.raises(DataError, match=r"\((click|like)\): the value is empty; set missing: ignore for it"):
        cut(tmp_path, "t.csv", csv_text(holed()), labels=labels)


def test_a_split_without_any_label_of_a_task_is_refused(tmp_path):
    held = rows()
    for row in held[1:]:
        if row[HEADER.index("app")] == "B":
            row[HEADER.index("like")] = ""
    with pytest.raises(DataError, match=r"B: no row of train has a label of like \(column like\); give it"):
        cut(tmp_path, "t.csv", csv_text(held))
    assert not (tmp_path / "clients").exists()


def test_a_whole_label_is_stored_as_ever(tmp_path):
    """The word alone changes no shard and no count."""
    first, lines = cut(tmp_path / "first", "t.csv", csv_text(rows()))
    labels = [{**label, "missing": "fail"} for label in LABELS]
    second, _ = cut(tmp_path / "second", "t.csv", csv_text(rows()), labels=labels)
    assert (first.fingerprint, first.counts) == (second.fingerprint, second.counts)
    assert not any("no label" in line for line in lines)
    assert json.loads((tmp_path / "second/clients/schema.json").read_text())["tasks"][0]["partial"] is False
