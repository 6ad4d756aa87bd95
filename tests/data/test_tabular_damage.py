"""Damaged tables: each fault is named and leaves nothing behind, or its row is set aside, listed and counted."""

import gzip
import json
import re

import pandas as pd
import pyarrow as pa
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.prepare.partition import partition
from tests.support.raw_files import contents_of, quiet
from tests.support.raw_tables import HEADER, config_for, csv_text, parquet_bytes, rows, table, write_raw_folder

FILE = "QB-video.csv"


def cell(row, column, value):
    """Set one cell; the header is row 1."""

    def edit(held):
        held[row - 1][HEADER.index(column)] = value
        return held

    return edit


def cell_of_all(column, value):
    """Set a cell of each row."""
    at = HEADER.index(column)
    return lambda held: [held[0], *([*row[:at], value, *row[at + 1 :]] for row in held[1:])]


def text(edit):
    """Edit the file's bytes."""
    return lambda held: edit(csv_text(held))


def renamed(old, new):
    return lambda held: [[new if name == old else name for name in held[0]], *held[1:]]


def noted(cells):
    """Add a column that no one asked for, the last, as it stands in the file: row -> cell."""

    def edit(held):
        lines = csv_text(held).decode().splitlines()
        return "".join(f"{line},{cells.get(row, 'note')}\n" for row, line in enumerate(lines, start=1)).encode()

    return edit


# name -> (edit of the rows, or of the bytes; message; what is listed: column, or None for the file as such)
SHARED = {
    "row too short": (lambda h: [*h[:4], h[4][:-1], *h[5:]], "row 5: 9 columns, expected 10", ""),
    "row too long": (lambda h: [*h[:4], [*h[4], "1"], *h[5:]], "row 5: 11 columns, expected 10", ""),
    "blank line": (text(lambda t: t.replace(b"\n", b"\n\n", 1)), r"row 2, column 8 .*: the value is empty", "8 (age)"),
    "last row cut": (text(lambda t: t[:-9]), "row 121: [0-9] columns, expected 10", ""),
    "a comma in a value": (cell(9, "age", "1,5"), r"row 9, column 8 \(age\): '1,5' is not a number", "8 (age)"),
    "text in numbers": (cell(9, "age", "old"), r"row 9, column 8 \(age\): 'old' is not a number", "8 (age)"),
    "NULL": (cell(9, "age", "NULL"), r"row 9, column 8 \(age\): 'NULL' is not a number", "8 (age)"),
    "hexadecimal": (cell(9, "age", "0x1F"), r"row 9, column 8 \(age\): '0x1F' is not a number", "8 (age)"),
    "an unclosed quote": (text(lambda t: t.replace(b"\n1,1,", b'\n"1,1,', 1)), "row 15: a quote opens there and", None),
    "one in an ignored column": (noted({20: '"note'}), "row 20: a quote opens there and is never closed", None),
    "one that is closed far below": (noted({20: '"note', 90: 'note"'}), "row 20: .*: a line of its value is a", None),
    "one that is closed in the next row": (noted({20: '"note', 21: 'note"'}), "row 20: .*: a line of its value", None),
    "one closed by the next that opens": (noted({20: '"note', 90: '"a, b"'}), "row 20: .*: text follows its", None),
    "one after rows of two lines": (noted({9: '"a\nb"', 20: '"note'}), "row 20: a quote opens there and is", None),
    "missing number": (cell(121, "age", ""), r"row 121, column 8 \(age\): the value is empty", "8 (age)"),
    "NaN": (cell(9, "age", "NaN"), r"row 9, column 8 \(age\): nan is not a finite number", "8 (age)"),
    "infinite": (cell(9, "age", "-inf"), r"row 9, column 8 \(age\): -inf is not a finite number", "8 (age)"),
    "beyond sums of squares": (cell(9, "age", "-1.1e30"), r"row 9, column 8 \(age\): -1.1e\+30 is beyond", "8 (age)"),
    "beyond float64": (cell(9, "age", "1e999"), r"row 9, column 8 \(age\): inf is not a finite number", "8 (age)"),
    "label 2": (cell(2, "click", "2"), r"row 2, column 3 \(click\): 2 is not a label \(0, 1\)", "3 (click)"),
    "label -1": (cell(2, "like", "-1"), r"row 2, column 5 \(like\): -1 is not a label", "5 (like)"),
    "label 257": (cell(2, "like", "257"), r"row 2, column 5 \(like\): 257 is not a label", "5 (like)"),
    "half a label": (cell(2, "click", "0.5"), r"row 2, column 3 \(click\): 0.5 is not a label", "3 (click)"),
    "label missing": (cell(2, "click", ""), r"row 2, column 3 \(click\): the value is empty", "3 (click)"),
    "label in text": (cell(2, "click", "yes"), r"row 2, column 3 \(click\): 'yes' is not a number", "3 (click)"),
    "label NaN": (cell(2, "like", "nan"), r"row 2, column 5 \(like\): nan is not a finite number", "5 (like)"),
    "category missing": (cell(7, "item_id", ""), r"row 7, column 2 \(item_id\): the value is empty", "2 (item_id)"),
    "user missing": (cell(7, "user_id", ""), r"row 7, column 1 \(user_id\): the value is empty", "1 (user_id)"),
    "latin-1": (
        text(lambda t: t.replace(b"\n5,0,", b"\n5,\xe9,", 1)),
        r"row 7, column 2 \(item_id\): b'\\xe9' is not text",
        "2 (item_id)",
    ),
    "header renamed": (renamed("click", "clicks"), "row 1: column click is missing .*columns: user_id,", None),
    "column twice": (renamed("share", "click"), "row 1: column click stands there twice", None),
    "no header": (lambda h: h[1:], "row 1: column .* is missing in the header", None),
    "semicolons": (text(lambda t: t.replace(b",", b";")), "row 1: column .* is missing in the header", None),
    "empty file": (text(lambda t: b""), f"{FILE} is empty", None),
    "only a header": (lambda h: h[:1], f"{FILE} has no rows", None),
    "UTF-16": (text(lambda t: t.decode().encode("utf-16")), "row 1: the header is not text in UTF-8", None),
    "UTF-16 without a mark": (text(lambda t: t.decode().encode("utf-16-le")), "row 1: a NUL byte", None),
    "a zip": (text(lambda t: b"PK\x03\x04\x14\x00\x00\x00" + bytes(range(256))), "row 1: ", None),
    "line ends of a Macintosh": (text(lambda t: t.replace(b"\n", b"\r")), "row 1: |has no rows", None),
    "one class and one row": (lambda h: h[:2], "no .*rows fall into|column", None),
}  # fmt: skip

TENREC = {
    "a label in words": (cell(2, "click", "True"), r"row 2, column 3 \(click\): 'True' is not a number", "3 (click)"),
    "a category in text": (cell(3, "item_id", "x"), r"row 3, column 2 \(item_id\): 'x' is not a number", "2 (item_id)"),
    "half a category": (cell(3, "item_id", "1.5"), r"\(item_id\): 1.5 is not an integer category", "2 (item_id)"),
    "huge category": (cell(3, "item_id", "1e16"), r"\(item_id\): 1e\+16 is not an integer category", "2 (item_id)"),
    "infinite category": (cell(3, "user_id", "inf"), r"\(user_id\): inf is not a finite number", "1 (user_id)"),
    "negative user": (cell(3, "user_id", "-4"), r"row 3, column 1 \(user_id\): -4 is below 0", "1 (user_id)"),
    "negative category": (cell(3, "video_category", "-1"), r"\(video_category\): -1 is below 0", "7 (video_category)"),
    "unknown item": (cell(3, "item_id", r"\N"), r"row 3, column 2 \(item_id\): the value is empty", "2 (item_id)"),
    "unknown number": (cell(3, "age", r"\N"), r"row 3, column 8 \(age\): the value is empty", "8 (age)"),
    "unknown label": (cell(3, "like", r"\N"), r"row 3, column 5 \(like\): the value is empty", "5 (like)"),
}  # fmt: skip

TABULAR = {
    "a label in other words": (cell(2, "click", "YES"), r"\(click\): 'YES' is not a number", "3 (click)"),
    "nesting": (cell(2, "like", "1"), "row 2: like is 1 but click is 0", ""),
    "scenario missing": (cell(3, "app", ""), r"row 3, column 9 \(app\): the value is empty", "9 (app)"),
    "scenario of another form": (cell(3, "app", "a/b"), r"row 3, column app: 'a/b' cannot name a scenario", "app"),
    "path as scenario": (cell(3, "app", "../x"), r"row 3, column app: '../x' cannot name a scenario", "app"),
    "long category": (cell(3, "item_id", "é" * 200), r"\(item_id\): 'é{40}'\.\.\. is longer", "2 (item_id)"),
    "time in words": (cell(3, "at", "noon"), r"row 3, column 10 \(at\): 'noon' is no number", "10 (at)"),
}  # fmt: skip


def nulled(name, row):
    return lambda held: held.set_column(
        held.schema.get_field_index(name),
        name,
        pa.array([*held[name].to_pylist()[: row - 1], None, *held[name].to_pylist()[row:]]),
    )


def put(name, row, value, kind=None):
    def edit(held):
        values = held[name].to_pylist()
        values[row - 1] = value
        return held.set_column(held.schema.get_field_index(name), name, pa.array(values, kind))

    return edit


def cast(name, convert, kind=None):
    def edit(held):
        values = [convert(value) for value in held[name].to_pylist()]
        return held.set_column(held.schema.get_field_index(name), name, pa.array(values, kind))

    return edit


def cut_row_group(data):
    """Overwrite the first pages of the second row group; the footer stays as it was."""
    at = len(data) // 3
    return data[:at] + b"\xff" * 200 + data[at + 200 :]


GROUP = r"t.parquet, row group 1, row 60, column"
PARQUET = {
    "number missing": (nulled("age", 60), rf"{GROUP} age: the value is empty", "age"),
    "number NaN": (put("age", 60, float("nan"), pa.float64()), rf"{GROUP} age: nan is not a finite", "age"),
    "number infinite": (put("age", 60, float("inf"), pa.float64()), rf"{GROUP} age: inf is not a finite", "age"),
    "number too large": (put("age", 60, 1e200, pa.float64()), rf"{GROUP} age: 1e\+200 is beyond 1e\+30", "age"),
    "label missing": (nulled("click", 60), rf"{GROUP} click: the value is empty", "click"),
    "label 3": (put("click", 60, 3), rf"{GROUP} click: 3 is not a label", "click"),
    "label -1": (put("like", 60, -1), rf"{GROUP} like: -1 is not a label", "like"),
    "half a label": (put("like", 60, 0.5, pa.float64()), rf"{GROUP} like: 0.5 is not a label", "like"),
    "nesting": (put("like", 1, 1), "t.parquet, row 1: like is 1 but click is 0", ""),
    "category missing": (nulled("item_id", 60), rf"{GROUP} item_id: the value is empty", "item_id"),
    "unsigned category": (
        put("item_id", 60, 2**64 - 5, pa.uint64()), rf"{GROUP} item_id: 18446744073709551611 is 2\^63 or", "item_id"
    ),
    "half a category": (put("item_id", 60, 1.5, pa.float64()), rf"{GROUP} item_id: 1.5 is not an integer", "item_id"),
    "huge category": (put("item_id", 60, 1e17, pa.float64()), rf"{GROUP} item_id: 1e\+17 is not an integer", "item_id"),
    "group missing": (nulled("user_id", 60), rf"{GROUP} user_id: the value is empty", "user_id"),
    "scenario missing": (nulled("app", 60), rf"{GROUP} app: the value is empty", "app"),
    "scenario empty": (put("app", 60, ""), rf"{GROUP} app: the value is empty", "app"),
    "time missing": (nulled("at", 60), rf"{GROUP} at: the value is empty", "at"),
    "a far time": (
        put("at", 60, 2**62, pa.timestamp("ms")), rf"{GROUP} at: 4.61169e\+15 s since 1970 is not within", "at"
    ),
    "long text": (cast("item_id", lambda v: "x" * 300 if v == 9 else str(v)), "'x+'... is longer", "item_id"),
    "a shard": (
        lambda t: t.append_column("encoded:kind", t["like"]),
        r"t\.parquet holds encoded rows \(column encoded:kind\).*must be the log itself",
        None,
    ),
    "column missing": (lambda t: t.drop_columns("like"), "t.parquet: column like is missing in the header", None),
    "column twice": (lambda t: t.append_column("like", t["like"]), "t.parquet: column like stands there twice", None),
    "numbers in text": (cast("age", str), "t.parquet: column age is of type string, .* of kind number", None),
    "labels in text": (cast("click", str), "t.parquet: column click is of type string", None),
    "lists": (cast("item_id", lambda v: [v]), "t.parquet: column item_id is of type list<", None),
    "times as categories": (
        cast("item_id", lambda v: v, pa.timestamp("s")), "column item_id is of type timestamp.* of kind category", None
    ),
    "no rows": (lambda t: t.slice(0, 0), "t.parquet has no rows", None),
    "not Parquet": (lambda t: b"user_id,item_id\n1,2\n" * 20, "t.parquet is no Parquet file, or damaged", None),
    "empty file": (lambda t: b"", "t.parquet is no Parquet file, or damaged", None),
    "cut short": (lambda t: parquet_bytes(t)[:-100], "t.parquet is no Parquet file, or damaged", None),
    "row group damaged": (lambda t: cut_row_group(parquet_bytes(t)), "t.parquet, row group [0-9], is damaged", None),
}  # fmt: skip

CASES = [
    *(("tenrec", FILE, name, *case) for name, case in (SHARED | TENREC).items()),
    *(("tabular", FILE, name, *case) for name, case in (SHARED | TABULAR).items()),
    *(("tabular", "t.parquet", name, *case) for name, case in PARQUET.items()),
]
NAMES = [f"{source}, {file}, {name}" for source, file, name, *_ in CASES]


def content(file, edit):
    edited = edit(table() if file.endswith(".parquet") else rows())
    if isinstance(edited, bytes):
        return edited
    return parquet_bytes(edited) if file.endswith(".parquet") else csv_text(edited)


def refused(tmp_path, config, message):
    """The error is as it should be, and an earlier output stays as it was."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "earlier").write_text("x")
    with pytest.raises(DataError, match=message):
        partition(config, 0, tmp_path / "raw", out, quiet)
    assert contents_of(out) == {"earlier": b"x"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


@pytest.mark.parametrize(
    ("source", "file", "name", "edit", "message", "listed"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_fault_is_named_or_its_row_set_aside(source, file, name, edit, message, listed, tmp_path):
    write_raw_folder(tmp_path / "raw", source, {file: content(file, edit)})
    refused(tmp_path, config_for(source), message)
    if listed is None:
        (tmp_path / "out" / "earlier").unlink()
        (tmp_path / "out").rmdir()
        refused(tmp_path, config_for(source, on_bad_rows="quarantine"), message)
        return
    schema = partition(config_for(source, on_bad_rows="quarantine"), 0, tmp_path / "raw", tmp_path / "kept", quiet)
    found = pd.read_csv(tmp_path / "kept" / "quarantine.csv", keep_default_na=False)
    summary = json.loads((tmp_path / "kept" / "quarantine.json").read_text())
    assert summary["rows"] == len(found) == sum(summary["kinds"].values()) == sum(summary["files"].values())
    total = sum(count.rows for counts in schema.counts.values() for count in counts.values())
    blank = name == "blank line"  # a line more than before
    assert total + len(found) == len(rows()) - 1 + blank
    assert set(found["column"]) == {listed}
    fault = found.iloc[0]
    place = f"{fault['file']}, row {fault['row']}" + (f", column {fault['column']}" if fault["column"] else "")
    assert re.search(message, f"{place}: {fault['problem']}")
    assert not (tmp_path / "kept" / ".scratch").exists()


HARMLESS = {
    "byte order mark": lambda t: b"\xef\xbb\xbf" + t,
    "CRLF": lambda t: t.replace(b"\n", b"\r\n"),
    "no end of the last line": lambda t: t[:-1],
    "quoted numbers": lambda t: t.replace(b"\n1,", b'\n"1",'),
    "numbers with a point": lambda t: re.sub(rb",(2[0-9]),", rb",\1.0,", t),
    "a further column": lambda t: t.replace(b"\n", b',"a, ""b""\nc"\n').replace(b',"a, ""b""\nc"', b",note", 1),
}


@pytest.mark.parametrize("source", ["tenrec", "tabular"])
@pytest.mark.parametrize("form", HARMLESS)
def test_what_is_harmless_changes_nothing(source, form, tmp_path):
    write_raw_folder(tmp_path / "raw", source, {FILE: csv_text(rows())})
    plain = partition(config_for(source), 0, tmp_path / "raw", tmp_path / "a", quiet)
    (tmp_path / "raw" / FILE).write_bytes(HARMLESS[form](csv_text(rows())))
    assert partition(config_for(source), 0, tmp_path / "raw", tmp_path / "b", quiet) == plain
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b")


OTHERS = {
    "gzip cut short": ({"a.csv.gz": gzip.compress(csv_text(rows()))[:-30]}, "a.csv.gz (is damaged|cannot be read)"),
    "no gzip": ({"a.csv.gz": csv_text(rows())}, "a.csv.gz cannot be read"),
    "CSV and Parquet": ({"a.csv": csv_text(rows()), "b.parquet": parquet_bytes(table())}, "holds CSV and Parquet"),
    "no tables": ({"readme.txt": b"x"}, "holds no tables; run `dvc repro -f download`"),
    "another header in the second file": (
        {"a.csv": csv_text(rows()), "b.csv": csv_text(renamed("age", "years")(rows()))},
        "b.csv, row 1: column age is missing in the header",
    ),
    "another schema in the second file": (
        {"a.parquet": parquet_bytes(table()), "b.parquet": parquet_bytes(cast("item_id", str)(table()))},
        "b.parquet: column item_id is of type string, which does not fit a column of kind category",
    ),
    "times of another kind in the second file": (
        {"a.csv": csv_text(rows()), "b.csv": csv_text(cell_of_all("at", "2026-03-01")(rows()))},
        "b.csv, from row 2 on, column at: dates, but numbers before, as in .*a.csv; write all times in one way",
    ),
    "times of another type in the second file": (
        {"a.parquet": parquet_bytes(cast("at", lambda v: v, pa.timestamp("s"))(table())),
         "b.parquet": parquet_bytes(table())},
        "b.parquet, from row 1 on, column at: numbers, but dates before",
    ),
    "too many scenarios": (
        {"a.csv": csv_text([HEADER, *([*row[:8], f"s{at}", row[9]] for at, row in enumerate(rows(30)[1:]))])},
        "column app has more than 200 values",
    ),
    "an endless line": ({"a.csv": csv_text(rows()) + b"1" * (40 * 2**20)}, "row 122: longer than 16,777,216 bytes"),
}  # fmt: skip


@pytest.mark.slow(0.3)
@pytest.mark.parametrize("name", OTHERS)
def test_a_fault_of_several_files_or_the_whole(name, tmp_path):
    files, message = OTHERS[name]
    write_raw_folder(tmp_path / "raw", "tabular", files)
    refused(tmp_path, config_for("tabular"), message)


def test_a_scenario_without_rows_says_which_there_are(tmp_path):
    write_raw_folder(tmp_path / "raw", "tabular", {"a.csv": csv_text(rows())})
    config = config_for("tabular", tabular={"scenarios": ("A", "C")})
    refused(tmp_path, config, "scenario C has no rows: no value of column app stands for it; values there: A, B")


def test_a_part_column_that_says_something_else(tmp_path):
    held = [[*row, ("part" if at == 0 else "train")] for at, row in enumerate(rows())]
    held[7][-1] = "holdout"
    write_raw_folder(tmp_path / "raw", "tabular", {"a.csv": csv_text(held)})
    config = config_for("tabular", tabular={"split": "part", "time": None})
    refused(tmp_path, config, "row 8, column part: 'holdout' is none of train, val, test")
