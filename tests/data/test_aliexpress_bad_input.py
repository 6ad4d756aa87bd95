"""Every damage to AliExpress's files is an error that says where it is and costs nothing, or its rows are set aside."""

import io
import json
import os
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.prepare.partition import partition
from tests.support.raw_files import (
    JOINED_HEADER,
    contents_of,
    csv_bytes,
    inner_zips,
    item_row,
    joined_rows,
    make_config,
    quiet,
    tables,
    user_row,
    write_joined,
    write_raw,
    write_source_file,
    zip_bytes,
)

OUTER = "aliexpress_NL_datasets.zip"


def cell(part, row, column, text):
    """Set one cell (row and column from 1) of one file."""

    def change(raw):
        contents = tables()
        contents[part][row - 1][column - 1] = text
        write_raw(raw, contents)

    return change


def lines(part, edit):
    """Replace one file's rows by `edit(rows)`."""

    def change(raw):
        contents = tables()
        contents[part] = edit(contents[part])
        write_raw(raw, contents)

    return change


def outer_of(edit):
    """Replace the four inner zips by `edit(zips)`."""

    def change(raw):
        (raw / OUTER).write_bytes(zip_bytes(edit(inner_zips(tables()))))

    return change


def cut_outer(raw):
    whole = (raw / OUTER).read_bytes()
    (raw / OUTER).write_bytes(whole[: len(whole) // 2])


def flip_bytes(packed):
    """Damage the compressed data and leave the directory of the zip as it was."""
    middle = len(packed) // 3
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 16]) + packed[middle + 16 :]


RAW_FAULTS = {
    "outer zip missing": (lambda raw: (raw / OUTER).unlink(), f"no data of scenario NL: expected {OUTER}"),
    "outer zip cut": (cut_outer, f"{OUTER} is damaged or cut short"),
    "outer zip empty": (lambda raw: (raw / OUTER).write_bytes(b""), f"{OUTER} is damaged or cut short"),
    "inner zip cut": (
        outer_of(lambda zips: zips | {"nl_item_train.zip": zips["nl_item_train.zip"][:200]}),
        "nl_item_train.zip is damaged or cut short",
    ),
    "inner zip damaged inside": (
        outer_of(lambda zips: zips | {"nl_item_train.zip": flip_bytes(zips["nl_item_train.zip"])}),
        "nl_item_train.csv is damaged or cut short",
    ),
    "inner zip missing": (
        outer_of(lambda zips: {name: zips[name] for name in zips if name != "nl_user_test.zip"}),
        f"{OUTER} must hold one nl_user_test.zip, but holds 0; its members: nl_user_train.zip",
    ),
    "no csv in the inner zip": (
        outer_of(lambda zips: zips | {"nl_user_train.zip": zip_bytes({"readme.txt": b"x"})}),
        r"nl_user_train.zip must hold one \*.csv, but holds 0; its members: readme.txt",
    ),
    "empty file": (lines("item_train", lambda rows: b""), "nl_item_train.csv is empty"),
    "user row too short": (
        lines("user_train", lambda rows: [*rows[:4], rows[4][:-1], *rows[5:]]),
        "nl_user_train.csv, row 5: 32 columns, expected 33",
    ),
    "item row too long": (
        lines("item_test", lambda rows: [[*rows[0], "7"], *rows[1:]]),
        "nl_item_test.csv, row 1: 50 columns, expected 49",
    ),
    "blank line": (lines("user_test", lambda rows: [*rows[:3], [], *rows[3:]]), "nl_user_test.csv, row 4"),
    "not a number": (
        cell("user_train", 3, 9, "abc"),
        r"nl_user_train.csv, row 3, column 9 \(numerical_1\): 'abc' is not a number",
    ),
    "empty cell": (cell("item_train", 30, 2, ""), r"row 30, column 2 \(numerical_24\): the value is empty"),
    "NULL": (cell("item_train", 2, 20, "NULL"), r"row 2, column 20 \(numerical_41\): 'NULL' is not a number"),
    "NaN": (cell("item_train", 7, 48, "nan"), r"row 7, column 48 \(numerical_63\): nan is not a finite number"),
    "infinite": (cell("user_test", 1, 31, "-inf"), r"row 1, column 31 \(numerical_23\): -inf is not a finite number"),
    "beyond float64": (cell("user_test", 2, 10, "1e999"), r"row 2, column 10 \(numerical_2\): inf is not a finite"),
    "fractional category": (
        cell("item_test", 4, 19, "1.5"),
        r"row 4, column 19 \(categorical_10\): 1.5 is not an integer category",
    ),
    "category beyond exact integers": (cell("user_train", 1, 2, "1e16"), r"column 2 \(categorical_1\): 1e\+16 is not"),
    "label 3": (cell("item_train", 12, 49, "3"), r"row 12, column 49 \(label\): 3 is not a label \(0, 1, 2\)"),
    "label -1": (cell("item_test", 12, 49, "-1"), r"row 12, column 49 \(label\): -1 is not a label"),
    "label 0.5": (cell("item_train", 1, 49, "0.5"), r"row 1, column 49 \(label\): 0.5 is not a label"),
    "search id no integer": (
        cell("item_train", 2, 1, "7.5"),
        r"row 2, column 1 \(search_id\): '7.5' is not an integer",
    ),
    "item row without user row": (
        lines("item_train", lambda rows: [*rows, item_row(4711, 0)]),
        "nl_item_train.csv, row 31: search 4711 has no row in the user file",
    ),
    "two user rows": (
        lines("user_test", lambda rows: [*rows, user_row(3)]),
        "nl_user_test.csv, row 11: search 3 has a row already, row 3",
    ),
    "header in a headerless file": (
        lines("user_train", lambda rows: [[f"c{i}" for i in range(33)], *rows]),
        r"row 1, column 1 \(search_id\): 'c0' is not an integer",
    ),
    "a number beyond sums of squares": (
        cell("item_test", 9, 2, "1e300"),
        r"nl_item_test.csv, row 9, column 2 \(numerical_24\): 1e\+300 is beyond 1e\+30; correct or clip it",
    ),
    "quoted number": (
        cell("item_train", 2, 2, '"0.5"'),
        r"row 2, column 2 \(numerical_24\): '\"0.5\"' is not a number",
    ),
    "a line end in quotes": (cell("item_train", 2, 2, '"0.5\n"'), "nl_item_train.csv, row 2: 2 columns, expected 49"),
    "decimal comma": (cell("item_train", 2, 2, "0,5"), "nl_item_train.csv, row 2: 50 columns, expected 49"),
    "UTF-16": (
        lines("user_train", lambda rows: csv_bytes(rows).decode().encode("utf-16")),
        "nl_user_train.csv, (from )?row 1",
    ),
    "latin-1": (
        lines("user_test", lambda rows: csv_bytes(rows).replace(b"\n2,", b"\n\xb2,")),
        r"nl_user_test.csv, row 2, column 1 \(search_id\): b'\\xb2' is not text in UTF-8",
    ),
    "semicolons": (
        lines("item_test", lambda rows: csv_bytes(rows).replace(b",", b";")),
        "nl_item_test.csv, row 1: 1 columns, expected 49",
    ),
    "search id of 20 digits": (cell("user_test", 1, 1, "9" * 20), r"row 1, column 1 .*: '9{20}' is not an integer"),
    "last row cut": (
        lines("item_train", lambda rows: csv_bytes(rows)[:-40]),
        "nl_item_train.csv, row 30: [0-9]+ columns, expected 49",
    ),
    "a bomb of zeros": (
        lines("item_train", lambda rows: bytes(40 * 2**20)),
        "nl_item_train.csv would unpack to 1,0[0-9]{2} times its size, 41,943,040 bytes",
    ),
    "a bomb of blank lines": (
        lines("user_test", lambda rows: csv_bytes(rows) + b"\n" * (20 * 2**20)),
        "nl_user_test.csv would unpack to 1,0[0-9]{2} times its size",
    ),
    "a column too many in every row": (
        lines("user_train", lambda rows: [[*row, "1"] for row in rows]),
        "nl_user_train.csv, row 1: 34 columns, expected 33",
    ),
    "a column too few in every row": (
        lines("item_train", lambda rows: [row[:-1] for row in rows]),
        "nl_item_train.csv, row 1: 48 columns, expected 49",
    ),
    "source.json missing": (lambda raw: (raw / "source.json").unlink(), "source.json does not exist; run"),
    "source.json damaged": (lambda raw: (raw / "source.json").write_text("{"), "source.json is damaged"),
    "another source": (lambda raw: write_source_file(raw, ["NL"], "synthetic"), "holds synthetic, but data.source is"),
    "scenario not downloaded": (
        lambda raw: write_source_file(raw, ["ES"]),
        "lacks scenarios NL of params.yaml; it holds ES",
    ),
}


def joined_cell(row, column, text, split="train"):
    def change(raw):
        files = {"train": joined_rows(), "test": joined_rows()}
        files[split][row - 1][JOINED_HEADER.index(column)] = text
        write_joined(raw, files["train"], files["test"])

    return change


JOINED_FAULTS = {
    "conversion without click": (joined_cell(2, "conversion", "1"), "train.csv, row 2: conversion is 1 but click is 0"),
    "click 2": (joined_cell(5, "click", "2"), r"row 5, column 81 \(click\): 2 is not a label \(0, 1\)"),
    "header renamed": (joined_cell(1, "numerical_7", "n7"), "row 1: column numerical_7 is missing in the header"),
    "column twice": (joined_cell(1, "numerical_7", "numerical_8"), "numerical_7 is missing.*1 more.*numerical_8"),
    "not a number": (joined_cell(3, "numerical_2", "x", "test"), r"test.csv, row 3, column 19 \(numerical_2\): 'x'"),
    "nan": (joined_cell(4, "numerical_2", "nan"), r"row 4, column 19 \(numerical_2\): nan"),
    "infinite": (joined_cell(4, "numerical_2", "inf"), r"row 4, column 19 \(numerical_2\): inf is not a finite"),
    "beyond float64": (joined_cell(4, "numerical_63", "-1e999"), r"\(numerical_63\): -inf is not a finite number"),
    "huge category": (joined_cell(4, "categorical_9", "1e16"), r"\(categorical_9\): 1e\+16 is not an integer category"),
    "half a category": (joined_cell(4, "categorical_9", "0.5"), r"\(categorical_9\): 0.5 is not an integer category"),
    "missing value": (joined_cell(31, "categorical_16", "", "test"), r"row 31, column 17 .*: the value is empty"),
    "missing search id": (joined_cell(3, "search_id", ""), r"row 3, column 1 \(search_id\): the value is empty"),
    "conversion 2": (joined_cell(4, "conversion", "2"), r"column 82 \(conversion\): 2 is not a label \(0, 1\)"),
    "click -1": (joined_cell(4, "click", "-1"), r"column 81 \(click\): -1 is not a label"),
    "quoted number": (joined_cell(4, "numerical_1", '"1.0"'), r"""\(numerical_1\): '"1.0"' is not a number"""),
    "a line end in quotes": (joined_cell(4, "numerical_1", '"1\n"'), "train.csv, row 4: 18 columns, expected 82"),
    "blank line": (
        lambda raw: write_joined(raw, [*joined_rows()[:9], [], *joined_rows()[9:]], joined_rows()),
        r"train.csv, row 10, column 1 \(search_id\): the value is empty",
    ),
    "a column of a header alone": (joined_cell(1, "conversion", "conversion,more"), "row 2: 82 columns, expected 83"),
    "no header": (lambda raw: write_joined(raw, joined_rows()[1:], joined_rows()), "column search_id is missing"),
    "header twice": (
        lambda raw: write_joined(raw, [joined_rows()[0], *joined_rows()], joined_rows()),
        r"row 2, column 1 \(search_id\): 'search_id' is not an integer",
    ),
    "latin-1": (
        lambda raw: write_joined(raw, joined_rows(), csv_bytes(joined_rows()).replace(b"\n2,", b"\n\xb2,", 1)),
        r"test.csv, row 5, column 1 \(search_id\): b'\\xb2' is not text",
    ),
    "UTF-16": (
        lambda raw: write_joined(raw, csv_bytes(joined_rows()).decode().encode("utf-16"), joined_rows()),
        "train.csv, row 1: the header is not text in UTF-8",
    ),
    "last row cut": (
        lambda raw: write_joined(raw, joined_rows(), csv_bytes(joined_rows())[:-20]),
        "test.csv, row 31: [0-9]+ columns, expected 82",
    ),
    "a zip": (
        lambda raw: write_joined(raw, joined_rows(), zip_bytes({"test.csv": csv_bytes(joined_rows())})),
        "test.csv, row 1: ",
    ),
    "only a header": (lambda raw: write_joined(raw, joined_rows()[:1], joined_rows()), "train.csv has no rows"),
    "empty": (lambda raw: write_joined(raw, [], joined_rows()), "train.csv is empty"),
    "one split": (lambda raw: (raw / "NL" / "test.csv").unlink(), "expected .*, or train.csv and test.csv in NL/ or"),
    "row too short": (
        lambda raw: write_joined(raw, joined_rows(), [*joined_rows(), ["1", "2"]]),
        "test.csv, row 32: 2 columns, expected 82",
    ),
}


OF_THE_FILE = {
    "outer zip missing", "outer zip cut", "outer zip empty", "inner zip cut", "inner zip damaged inside",
    "inner zip missing", "no csv in the inner zip", "empty file", "numbers beyond float32", "UTF-16", "semicolons",
    "numbers without a deviation", "a bomb of zeros", "a bomb of blank lines", "a column too many in every row",
    "a column too few in every row", "source.json missing", "source.json damaged", "another source",
    "scenario not downloaded", "header renamed", "column twice", "a column of a header alone", "no header", "a zip",
    "only a header", "empty", "one split",
}  # fmt: skip
"""Faults of no single row: refused in either mode."""


def item_rows(raw):
    """Lines of the files of items, or of the joined ones without their headers, as they are now."""
    if (raw / "NL").is_dir():
        files = [(raw / "NL" / f"{split}.csv").read_bytes() for split in ("train", "test")]
        return sum(file.rstrip(b"\n").count(b"\n") for file in files)
    with zipfile.ZipFile(raw / OUTER) as outer:
        names = [name for name in outer.namelist() if "item" in name]
        inner = [zipfile.ZipFile(io.BytesIO(outer.read(name))) for name in names]
    return sum(packed.read(packed.namelist()[0]).rstrip(b"\n").count(b"\n") + 1 for packed in inner)


def set_aside(tmp_path, raw, message):
    """The faulty rows, and those alone, are left out, listed and counted."""
    kept = tmp_path / "kept"
    schema = partition(make_config(on_bad_rows="quarantine"), 0, raw, kept, quiet)
    found = pd.read_csv(kept / "quarantine.csv", keep_default_na=False)
    summary = json.loads((kept / "quarantine.json").read_text())
    assert summary["rows"] == len(found) == sum(summary["kinds"].values()) == sum(summary["files"].values()) > 0
    first = found.iloc[0]
    place = f"{first['file']}, row {first['row']}" + (f", column {first['column']}" if first["column"] else "")
    assert re.search(message, f"{place}: {first['problem']}")
    of_items = (~found["file"].str.contains("_user_")).sum()
    counted = sum(count.rows for counts in schema.counts.values() for count in counts.values())
    assert counted + of_items == item_rows(raw)
    assert not (kept / ".scratch").exists()


def good_output(tmp_path, raw):
    """Partition good data; return the output's bytes."""
    partition(make_config(), 0, raw, tmp_path / "clients", quiet)
    return contents_of(tmp_path / "clients")


def refused(tmp_path, raw, message, on_bad_rows="fail"):
    """The fault is reported; an earlier output stays as it was, and nothing comes to stand beside it."""
    config = make_config(on_bad_rows=on_bad_rows)
    before = contents_of(tmp_path / "clients")
    with pytest.raises(DataError, match=message):
        partition(config, 0, raw, tmp_path / "clients", quiet)
    assert contents_of(tmp_path / "clients") == before
    assert sorted(os.listdir(tmp_path)) == ["clients", "raw"]


CASES = [
    *(("published", fault, *case) for fault, case in RAW_FAULTS.items()),
    *(("joined", fault, *case) for fault, case in JOINED_FAULTS.items()),
]


@pytest.mark.slow(0.1)
@pytest.mark.parametrize(
    ("form", "fault", "damage", "message"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_fault_is_named_and_costs_nothing_or_its_row_is_set_aside(form, fault, damage, message, tmp_path):
    if form == "published":
        write_raw(tmp_path / "raw", tables())
    else:
        write_joined(tmp_path / "raw", joined_rows(), joined_rows())
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "earlier").write_text("x")
    damage(tmp_path / "raw")
    refused(tmp_path, tmp_path / "raw", message)
    if fault in OF_THE_FILE:
        refused(tmp_path, tmp_path / "raw", message, "quarantine")
    else:
        set_aside(tmp_path, tmp_path / "raw", message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("category_12", "'category_12' is no column of this source; the nearest .* is 'categorical_12'"),
        ("Categorical_3", "'Categorical_3' is no column of this source; the nearest .* is 'categorical_3'"),
        ("numerical_5", "'numerical_5' is a numerical column"),
    ],
)
def test_an_unknown_private_field_names_the_nearest_column(name, message, tmp_path):
    write_raw(tmp_path / "raw", tables())
    with pytest.raises(ConfigError, match=message):
        partition(make_config(private_fields=(name,)), 0, tmp_path / "raw", tmp_path / "clients", quiet)
    assert not (tmp_path / "clients").exists()


def test_a_part_without_searches_is_refused(tmp_path):
    write_raw(tmp_path / "raw", tables(searches=1))
    message = r"NL: no search's rows fall into (train|val) \(data.validation_fraction is 0.4\)"
    with pytest.raises(DataError, match=message):
        partition(make_config(), 0, tmp_path / "raw", tmp_path / "clients", quiet)
    assert os.listdir(tmp_path) == ["raw"]


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.support.raw_files import make_config, quiet
from pfmsmt.data.prepare.partition import partition
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    partition(make_config(), 0, Path(sys.argv[2]) / "raw", Path(sys.argv[2]) / "clients", quiet)
except OSError as error:
    print("OSError", error.errno)
"""


@pytest.mark.slow(1)
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_when_writing_fails_nothing_half_written_stays(tmp_path):
    write_raw(tmp_path / "raw", tables())
    before = good_output(tmp_path, tmp_path / "raw")
    command = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parents[2]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OSError")
    assert contents_of(tmp_path / "clients") == before
    assert sorted(os.listdir(tmp_path)) == ["clients", "raw"]


HARMLESS = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "no end of the last line": lambda text: text[:-1],
}


@pytest.mark.parametrize("form", [*HARMLESS, "a further column"])
def test_what_is_harmless_changes_nothing_in_the_joined_form_either(form, tmp_path):
    write_joined(tmp_path / "raw", joined_rows(), joined_rows())
    before = good_output(tmp_path, tmp_path / "raw")
    text = csv_bytes([[*row, "note"] for row in joined_rows()] if form == "a further column" else joined_rows())
    changed = HARMLESS.get(form, bytes)(text)
    write_joined(tmp_path / "raw", changed, changed)
    assert good_output(tmp_path, tmp_path / "raw") == before


@pytest.mark.parametrize("form", [*HARMLESS, "members that point outside"])
def test_what_is_harmless_changes_nothing(form, tmp_path):
    write_raw(tmp_path / "raw", tables())
    before = good_output(tmp_path, tmp_path / "raw")
    if form in HARMLESS:
        write_raw(tmp_path / "raw", {part: HARMLESS[form](csv_bytes(rows)) for part, rows in tables().items()})
    else:
        outside = {f"../../{name}": packed for name, packed in inner_zips(tables()).items()}
        (tmp_path / "raw" / OUTER).write_bytes(zip_bytes(outside))
    assert good_output(tmp_path, tmp_path / "raw") == before
    assert sorted(os.listdir(tmp_path)) == ["clients", "raw"]
