"""A tiny log with named columns, read as Tenrec and as the user's own table, as CSV and as Parquet."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.raw_files import make_config

HEADER = ["user_id", "item_id", "click", "follow", "like", "share", "video_category", "age", "app", "at"]


def rows(users=12, items=10):
    """Header and rows; likes are clicks of even items; app is the scenario of the user's own table."""
    pairs = [(user, item) for item in range(items) for user in range(users)]
    clicked = {(user, item): (user + item) % 2 for user, item in pairs}
    body = [
        [u, i, clicked[u, i], 0, clicked[u, i] * (i % 4 < 2), 0, i % 3, 20 + u, "AB"[u % 2], i]
        for u, i in pairs
    ]  # fmt: skip
    return [list(HEADER), *([str(cell) for cell in row] for row in body)]


def csv_text(table):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue().encode()


def table(row_list=None):
    """The same rows as an Arrow table with types."""
    held = row_list or rows()
    columns = dict(zip(held[0], zip(*held[1:], strict=True), strict=True))
    return pa.table({name: values if name == "app" else [int(v) for v in values] for name, values in columns.items()})


def parquet_bytes(arrow, row_group=50):
    out = io.BytesIO()
    pq.write_table(arrow, out, row_group_size=row_group)
    return out.getvalue()


def write_raw_folder(folder, source, files, scenarios=("QB-video",)):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    held = list(scenarios) if source == "tenrec" else []
    (folder / "source.json").write_text(json.dumps({"source": source, "scenarios": held}))


def config_for(source, **changes):
    if source == "tenrec":
        block = {"categorical": ("user_id", "item_id", "video_category"), "numerical": ("age",)}
        return make_config("tenrec", tenrec=block | changes.pop("tenrec", {}), validation_fraction=0.3, **changes)
    block = {
        "scenario": "app", "labels": [
            {"task": "click", "column": "click"}, {"task": "like", "column": "like", "within": "click"}
        ],
        "categorical": ("item_id", "video_category"), "numerical": ("age",), "group": "user_id", "time": "at",
    }  # fmt: skip
    return make_config("tabular", tabular=block | changes.pop("tabular", {}), validation_fraction=0.3, **changes)
