"""Tiny data sets in AliExpress's raw and joined forms, built by hand from plain rows."""

import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pfmsmt.config import AliExpress, Data, MovieLens, Synthetic, Tabular, Tenrec
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import Opening
from pfmsmt.data.tables.faults import Faults

PARTS = ("user_train", "item_train", "user_test", "item_test")


def make_config(source="aliexpress", scenarios=("NL",), **changes):
    """A small, valid `data` block."""
    sizes = {name: {"train_rows": 400, "test_rows": 200} for name in scenarios}
    synthetic = {"scenarios": sizes, "rows_per_search": 4, "ctr": 0.2, "cvr": 0.3, "shared": 0.6, "cluster": 0.25}
    synthetic |= {"own": 0.15, "conflict": True, "covariate_shift": 0.3} | changes.pop("synthetic", {})
    block = {"path": None, "url": None, "scenarios": tuple(scenarios)} | changes.pop("aliexpress", {})
    movies = {"variant": "100k", "path": None, "url": "http://127.0.0.1:9"} | changes.pop("movielens", {})
    tenrec = {"path": None, "url": None, "scenarios": ("QB-video",), "categorical": ("user_id", "item_id")}
    tenrec |= {"numerical": (), "rename": {}, "test_fraction": 0.2} | changes.pop("tenrec", {})
    tabular = dict.fromkeys(("path", "url", "scenario", "scenarios", "group", "time", "split"))
    tabular |= {"labels": (), "categorical": (), "numerical": (), "test_fraction": 0.2, "outcomes": (), "fill": {}}
    tabular |= changes.pop("tabular", {})
    plain = {"source": source, "validation_fraction": 0.4, "min_count": 1, "private_fields": ()}
    plain |= {"on_bad_rows": "fail", "outcomes_as_features": (), "local_files": "copy", "sha256": {}} | changes
    blocks = {"synthetic": Synthetic(**synthetic), "aliexpress": AliExpress(**block), "movielens": MovieLens(**movies)}
    blocks |= {"tenrec": Tenrec(**tenrec), "tabular": Tabular(**tabular)}
    return Data(**plain, **blocks)


def user_row(search, value=0):
    """33 cells: the cell of column c (from 1) is a category 100 + c + value, or a number c / 100 + value."""
    cells = [str(search)]
    for column in range(2, 34):
        category = column <= 8 or column >= 32
        cells.append(str(100 + column + value) if category else f"{column / 100 + value:.2f}")
    return cells


def item_row(search, label, value=0):
    """49 cells: the cell of column c (from 1) is a category 200 + c + value, or a number -c / 100 - value."""
    cells = [str(search)]
    for column in range(2, 49):
        category = column in (19, 34, 35, 36, 40, 41, 42)
        cells.append(str(200 + column + value) if category else f"{-column / 100 - value:.2f}")
    return [*cells, str(label)]


def tables(searches=10, rows=3):
    """Rows of the four files: `searches` searches of `rows` items each, labels 0, 1, 2 in turn."""
    users = [user_row(search, search % 2) for search in range(1, searches + 1)]
    items = [item_row(search, i % 3, i % 5) for search in range(1, searches + 1) for i in range(rows)]
    copy = {"user_train": users, "item_train": items, "user_test": users, "item_test": items}
    return {part: [list(row) for row in table] for part, table in copy.items()}


def csv_bytes(table):
    return "".join(",".join(row) + "\n" for row in table).encode()


def zip_bytes(members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def inner_zips(contents, scenario="NL"):
    """Inner zip name -> bytes; `contents` maps a part to its rows, or to bytes."""
    lower = scenario.lower()
    packed = {}
    for part, table in contents.items():
        text = table if isinstance(table, bytes) else csv_bytes(table)
        packed[f"{lower}_{part}.zip"] = zip_bytes({f"{lower}_{part}.csv": text})
    return packed


def write_source_file(raw, scenarios, source="aliexpress"):
    (raw / "source.json").write_text(json.dumps({"source": source, "scenarios": list(scenarios)}))


def write_raw(raw: Path, contents, scenario="NL"):
    """Write one scenario in the nested form, inner zips in a folder of their own as in the published files."""
    raw.mkdir(parents=True, exist_ok=True)
    top = f"aliexpress_{scenario}_datasets"
    nested = {f"{top}/{name}": packed for name, packed in inner_zips(contents, scenario).items()}
    (raw / f"{top}.zip").write_bytes(zip_bytes(nested))
    write_source_file(raw, [scenario])


JOINED_HEADER = [
    "search_id",
    *(f"categorical_{i}" for i in range(1, 17)),
    *(f"numerical_{i}" for i in range(1, 64)),
    "click",
    "conversion",
]


def joined_rows(searches=10, rows=3):
    """Rows of the joined form, labels (0, 0), (1, 0), (1, 1) in turn."""
    table = [list(JOINED_HEADER)]
    for search in range(1, searches + 1):
        for i in range(rows):
            features = [*(str(c + i) for c in range(1, 17)), *(f"{c / 100 + i:.2f}" for c in range(1, 64))]
            table.append([str(search), *features, str(int(i % 3 > 0)), str(int(i % 3 == 2))])
    return table


def write_joined(raw: Path, train, test, folder="NL", scenario="NL"):
    (raw / folder).mkdir(parents=True, exist_ok=True)
    for split, table in (("train", train), ("test", test)):
        (raw / folder / f"{split}.csv").write_bytes(table if isinstance(table, bytes) else csv_bytes(table))
    write_source_file(raw, [scenario])


def read_all(source, raw, scenario, split, **changes):
    """All batches of one split, the folder opened for it alone; the first bad row is an error."""
    config = make_config(source, (scenario,), **changes)
    with TemporaryDirectory() as scratch:
        opening = Opening(config, 0, raw, SOURCES[source].scenarios(config), Path(scratch), Faults(), quiet)
        return list(SOURCES[source].open(opening).read(scenario, split, Faults()))


def collect(batches):
    """All rows of a source's batches: column -> array."""
    held = list(batches)
    return {
        name: np.concatenate([batch.column(name).to_numpy(zero_copy_only=False) for batch in held])
        for name in held[0].schema.names
    }


def contents_of(folder):
    """Relative path -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def quiet(line):
    """A progress that shows nothing."""
