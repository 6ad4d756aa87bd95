"""Damaged files of MovieLens: each fault is named and leaves nothing behind, or its row is set aside and counted."""

import json
import os
import re
import struct
from contextlib import closing

import pandas as pd
import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.sources.movielens.rating_log import read_log
from pfmsmt.data.tables.faults import Faults
from tests.support.raw_files import contents_of, quiet, zip_bytes
from tests.support.raw_movielens import Form1m, Form100k, config_for, logs, packed, text, write_zip


def cell(file, row, column, value):
    """Set one cell (row and column from 1)."""

    def change(contents):
        contents[file][row - 1][column - 1] = value

    return change


def table(file, edit):
    def change(contents):
        contents[file] = edit(contents[file])

    return change


def lacks(file):
    return lambda contents: contents.pop(file)


USERS, RATINGS, ITEMS = "u.user", "u.data", "u.item"
OF_USER, OF_ITEM = 10, 30
"""Ratings that go with a user and with a film."""

# name -> (damage; message; what is listed first: column, or None for the file as such; rows left out)
TEXT_FAULTS_100K = {
    "u.data missing": (lacks(RATINGS), r"ml-100k.zip must hold one u.data, but holds 0", None, 0),
    "u.item missing": (lacks(ITEMS), r"ml-100k.zip must hold one u.item, but holds 0", None, 0),
    "u.data empty": (table(RATINGS, lambda _: b""), "ml-100k.zip/ml-100k/u.data is empty", None, 0),
    "u.user empty": (table(USERS, lambda _: b""), "u.user is empty", None, 0),
    "rating row short": (
        table(RATINGS, lambda r: [*r[:4], r[4][:3], *r[5:]]), "u.data, row 5: 3 columns, expected 4", "", 1
    ),
    "user row long": (table(USERS, lambda r: [*r, [*r[0], "x"]]), "u.user, row 31: 6 columns, expected 5", "", 1),
    "item row short": (
        table(ITEMS, lambda r: [r[0][:-1], *r[1:]]), "u.item, row 1: 23 columns, expected 24", "", 1 + OF_ITEM
    ),
    "a column too many": (table(USERS, lambda r: [[*x, "x"] for x in r]), "row 1: 6 columns, expected 5", None, 0),
    "a column too few": (table(ITEMS, lambda r: [x[:-1] for x in r]), "row 1: 23 columns, expected 24", None, 0),
    "blank line in ratings": (table(RATINGS, lambda r: [*r[:3], [], *r[3:]]), "u.data, row 4", "1 (user_id)", 1),
    "blank line in users": (table(USERS, lambda r: [*r[:3], [], *r[3:]]), "u.user, row 4", "1 (user_id)", 1),
    "commas for tabs": (
        table(RATINGS, lambda r: b"".join(b"%d,%d,%d,%d\n" % tuple(x) for x in r)),
        "u.data, row 1: 1 columns, expected 4", None, 0,
    ),
    "a line end in quotes": (cell(RATINGS, 3, 3, '"4\n"'), "u.data, row 3: 3 columns, expected 4", "", 2),
    "last row cut": (
        table(RATINGS, lambda r: text(Form100k, {RATINGS: r})[RATINGS][:-12]),
        "u.data, row 300: 2 columns, expected 4", "", 1,
    ),
    "text for a rating": (
        cell(RATINGS, 3, 3, "good"),
        r"u.data, row 3, column 3 \(rating\): 'good' is not a whole number from 1 to 5", "3 (rating)", 1,
    ),
    "rating 6": (
        cell(RATINGS, 299, 3, 6),
        r"row 299, column 3 \(rating\): '6' is not a whole number from 1 to 5", "3 (rating)", 1,
    ),
    "rating 0": (cell(RATINGS, 1, 3, 0), r"row 1, column 3 \(rating\): '0' is not", "3 (rating)", 1),
    "half a star": (cell(RATINGS, 2, 3, "3.5"), r"row 2, column 3 \(rating\): '3.5' is not", "3 (rating)", 1),
    "rating NaN": (cell(RATINGS, 2, 3, "nan"), r"row 2, column 3 \(rating\): 'nan' is not", "3 (rating)", 1),
    "rating infinite": (cell(RATINGS, 2, 3, "inf"), r"row 2, column 3 \(rating\): 'inf' is not", "3 (rating)", 1),
    "rating beyond float64": (cell(RATINGS, 2, 3, "1e999"), r"column 3 \(rating\): '1e999' is not", "3 (rating)", 1),
    "rating empty": (
        cell(RATINGS, 4, 3, ""), r"row 4, column 3 \(rating\): the value is empty and is not", "3 (rating)", 1
    ),
    "negative user": (
        cell(RATINGS, 9, 1, -4), r"row 9, column 1 \(user_id\): '-4' is not a whole number from 1 to", "1 (user_id)", 1
    ),
    "huge item": (
        cell(RATINGS, 9, 2, 10**17), r"row 9, column 2 \(item_id\): '10{17}' is not a whole number", "2 (item_id)", 1
    ),
    "time in text": (
        cell(RATINGS, 9, 4, "1997-09-22"), r"row 9, column 4 \(timestamp\): '1997-09-22' is not", "4 (timestamp)", 1
    ),
    "time in milliseconds": (
        cell(RATINGS, 9, 4, 881250949000), r"column 4 \(timestamp\): '881250949000' is not", "4 (timestamp)", 1
    ),
    "spaces": (cell(RATINGS, 9, 1, " 1"), r"row 9, column 1 \(user_id\): ' 1' is not", "1 (user_id)", 1),
    "header": (
        table(RATINGS, lambda r: [["user", "item", "rating", "time"], *r]),
        r"row 1, column 1 .*'user' is not", "1 (user_id)", 1,
    ),
    "user without a row": (
        cell(RATINGS, 17, 1, 99), r"row 17, column 1 \(user_id\): '99' has no row in u.user", "1 (user_id)", 1
    ),
    "item without a row": (
        cell(RATINGS, 17, 2, 99), r"row 17, column 2 \(item_id\): '99' has no row in u.item", "2 (item_id)", 1
    ),
    "user twice": (
        table(USERS, lambda r: [*r, r[4]]),
        r"u.user, row 31, column 1 \(user_id\): '5' has a row already, row 5", "1 (user_id)", 1,
    ),
    "item twice": (
        table(ITEMS, lambda r: [r[2], *r]),
        r"u.item, row 4, column 1 \(item_id\): '3' has a row already, row 1", "1 (item_id)", 1,
    ),
    "rated three times": (
        table(RATINGS, lambda r: [*r, [1, 2, 5, 0], [1, 2, 4, 9]]),
        r"u.data, row 301, column 2 \(item_id\): '2' is rated by the same user already, row 2", "2 (item_id)", 2,
    ),
    "age 0": (
        cell(USERS, 2, 2, 0),
        r"u.user, row 2, column 2 \(age\): '0' is not a whole number from 1 to 120", "2 (age)", 1 + OF_USER,
    ),
    "gender": (
        cell(USERS, 2, 3, "male"),
        r"u.user, row 2, column 3 \(gender\): 'male' is none of F, M", "3 (gender)", 1 + OF_USER,
    ),
    "occupation": (
        cell(USERS, 2, 4, "wizard"),
        r"u.user, row 2, column 4 \(occupation\): 'wizard' is none of administrator, artist, .*, writer",
        "4 (occupation)", 1 + OF_USER,
    ),
    "zip code": (
        cell(USERS, 2, 5, "?5711"),
        r"row 2, column 5 \(zip_code\): '\?5711' does not begin with a digit or a letter",
        "5 (zip_code)", 1 + OF_USER,
    ),
    "no zip code": (
        cell(USERS, 2, 5, ""),
        r"row 2, column 5 \(zip_code\): the value is empty and does not begin", "5 (zip_code)", 1 + OF_USER,
    ),
    "date": (
        cell(ITEMS, 8, 3, "1995"),
        r"row 8, column 3 \(release_date\): '1995' is not a date as 01-Jan-1995", "3 (release_date)", 1 + OF_ITEM,
    ),
    "genre 2": (
        cell(ITEMS, 8, 7, 2),
        r"row 8, column 7 \(Action\): '2' is not a whole number from 0 to 1", "7 (Action)", 1 + OF_ITEM,
    ),
    "no dates at all": (
        table(ITEMS, lambda r: [[*row[:2], "", *row[3:]] for row in r]), "u.item: no film has a release date", None, 0
    ),
    "UTF-16": (
        table(USERS, lambda r: "".join(f"{'|'.join(map(str, row))}\n" for row in r).encode("utf-16")),
        "u.user, row 1: a NUL byte; it must be plain text in latin-1", None, 0,
    ),
    "byte order mark": (
        table(RATINGS, lambda r: b"\xef\xbb\xbf" + text(Form100k, {RATINGS: r})[RATINGS]),
        r"u.data, row 1, column 1 \(user_id\): 'ï»¿1' is not a whole number", "1 (user_id)", 1,
    ),
    "one age group only": (
        table(USERS, lambda r: [[row[0], 20, *row[2:]] for row in r]),
        "age_25_34: no user's rows fall into train", None, 0,
    ),
}  # fmt: skip

TEXT_FAULTS_1M = {
    "single colons": (
        table("ratings.dat", lambda r: b"".join(b"%d:%d:%d:%d\n" % tuple(x) for x in r)),
        "ratings.dat, row 1: 1 columns, expected 4", None, 0,
    ),
    "rating 6": (
        cell("ratings.dat", 3, 3, 6),
        r"ml-1m.zip/ml-1m/ratings.dat, row 3, column 3 \(rating\): '6' is not", "3 (rating)", 1,
    ),
    "occupation 21": (
        cell("users.dat", 1, 4, 21),
        r"users.dat, row 1, column 4 \(occupation\): '21' is not", "4 (occupation)", 1 + OF_USER,
    ),
    "no year": (
        cell("movies.dat", 5, 2, "Film"),
        r"movies.dat, row 5, column 2 \(title\): 'Film' is not a title that ends in its year",
        "2 (title)", 1 + OF_ITEM,
    ),
    "unknown genre": (
        cell("movies.dat", 6, 3, "Drama|Western|Anime"),
        r"movies.dat, row 6, column 3 \(genres\): 'Drama\|Western\|Anime' names a genre other than Action,",
        "3 (genres)", 1 + OF_ITEM,
    ),
    "no genre": (
        cell("movies.dat", 6, 3, ""),
        r"row 6, column 3 \(genres\): the value is empty and names a genre", "3 (genres)", 1 + OF_ITEM,
    ),
    "user without a row": (
        cell("ratings.dat", 7, 1, 31), r"row 7, column 1 .*: '31' has no row in users.dat", "1 (user_id)", 1
    ),
    "quoted newline in a title": (
        cell("movies.dat", 5, 2, '"Film\n (1995)"'), "movies.dat, row 5: 2 columns, expected 3", "", 2 + OF_ITEM
    ),
}  # fmt: skip


def refused(tmp_path, config, message):
    """The damaged raw folder is refused; an earlier output stays as it was, and nothing comes to stand beside it."""
    before = contents_of(tmp_path / "out")
    with pytest.raises(DataError, match=message):
        partition(config, 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert contents_of(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def setting_aside(form):
    return config_for(form, None).model_copy(update={"on_bad_rows": "quarantine"})


def good_then(tmp_path, form):
    """Obtain good data, beside an earlier output."""
    (tmp_path / "in.zip").write_bytes(packed(form, logs(form)))
    obtain(config_for(form, tmp_path / "in.zip"), 0, tmp_path / "raw", quiet)
    (tmp_path / "in.zip").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").write_text("x")
    return tmp_path / "raw" / f"{form.zip}.zip"


@pytest.mark.slow(0.1)
@pytest.mark.parametrize(
    ("form", "fault"),
    [*((Form100k, fault) for fault in TEXT_FAULTS_100K), *((Form1m, fault) for fault in TEXT_FAULTS_1M)],
    ids=lambda value: value if isinstance(value, str) else value.zip,
)
def test_a_fault_in_the_text_is_named_or_its_row_set_aside(form, fault, tmp_path):
    damage, message, column, left_out = (TEXT_FAULTS_100K if form is Form100k else TEXT_FAULTS_1M)[fault]
    path = good_then(tmp_path, form)
    contents = logs(form)
    damage(contents)
    path.write_bytes(packed(form, contents))
    refused(tmp_path, config_for(form, None), message)
    if column is None:
        refused(tmp_path, setting_aside(form), f"{message}|holds no good row")
        return
    schema = partition(setting_aside(form), 0, tmp_path / "raw", tmp_path / "kept", quiet)
    found = pd.read_csv(tmp_path / "kept" / "quarantine.csv", keep_default_na=False)
    summary = json.loads((tmp_path / "kept" / "quarantine.json").read_text())
    assert len(found) == left_out
    assert summary["rows"] == left_out == sum(summary["kinds"].values()) == sum(summary["files"].values())
    first = found.iloc[0]
    assert first["column"] == column
    place = f"{first['file']}, row {first['row']}" + (f", column {first['column']}" if first["column"] else "")
    assert re.search(message, f"{place}: {first['problem']}")
    lines = text(form, contents)[form.ratings].rstrip(b"\n").count(b"\n") + 1
    ratings_left_out = found["file"].str.endswith(form.ratings).sum()
    assert sum(count.rows for counts in schema.counts.values() for count in counts.values()) == lines - ratings_left_out


@pytest.mark.slow(1)
def test_the_faults_of_a_large_file_are_counted_through(tmp_path):
    """More than one block of pyarrow's: row numbers go on, with rows of another width between."""
    path = good_then(tmp_path, Form100k)
    contents = logs(users=300, items=300)
    assert len(text(Form100k, contents)[RATINGS]) > 2**20
    for row, broken in ((10, [1, 1]), (80_000, [1, 1]), (89_999, [1, 1, "x", 0])):
        contents[RATINGS][row - 1] = broken
    path.write_bytes(packed(Form100k, contents))
    with closing(Faults(tmp_path)) as faults:
        log = read_log(tmp_path / "raw", faults)
    assert pd.read_csv(tmp_path / "quarantine.csv")["row"].tolist() == [10, 80_000, 89_999]
    assert len(log.user) == 89_997


def test_all_rows_of_one_age_group_set_aside(tmp_path):
    path = good_then(tmp_path, Form100k)
    contents = logs()
    for row in contents[USERS]:
        row[3] = "wizard" if row[1] == 25 else row[3]
    path.write_bytes(packed(Form100k, contents))
    refused(tmp_path, setting_aside(Form100k), "age_25_34: no user's rows fall into train")


def flipped(data):
    """Damage the compressed ratings and leave the directory of the zip as it was."""
    at = data.index(b"u.data") + 30
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 16]) + data[at + 16 :]


def announced(data, size):
    """Let the directory of the zip say that its first file unpacks to `size` bytes."""
    at = data.index(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def encrypted(data):
    at = data.index(b"PK\x01\x02") + 8
    return data[:at] + struct.pack("<H", 1) + data[at + 2 :]


ZIP_FAULTS = {
    "cut": (lambda data: data[: len(data) // 2], "ml-100k.zip is damaged or cut short"),
    "empty": (lambda data: b"", "ml-100k.zip is damaged or cut short"),
    "damaged inside": (flipped, "ml-100k.zip/ml-100k/u.data is damaged or cut short"),
    "larger than announced": (lambda data: announced(data, 100), "u.data is damaged or cut short"),
    "bomb": (lambda data: announced(data, 2**31), "u.data has 2,147,483,648 bytes, too many for MovieLens"),
    "encrypted": (encrypted, "u.data is encrypted; unpack it"),
    "twice": (
        lambda data: zip_bytes({f"{at}/{file}": x for at in "ab" for file, x in text(Form100k, logs()).items()}),
        "must hold one u.user, but holds 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", ZIP_FAULTS)
def test_a_fault_of_the_zip_is_named_and_costs_nothing(fault, tmp_path):
    damage, message = ZIP_FAULTS[fault]
    path = good_then(tmp_path, Form100k)
    path.write_bytes(damage(path.read_bytes()))
    refused(tmp_path, config_for(Form100k, None), message)
    refused(tmp_path, setting_aside(Form100k), message)


def test_members_that_point_outside_are_read_in_place(tmp_path):
    path = good_then(tmp_path, Form100k)
    partition(config_for(Form100k, None), 0, tmp_path / "raw", tmp_path / "out", quiet)
    path.write_bytes(zip_bytes({f"../../{file}": data for file, data in text(Form100k, logs()).items()}))
    before = contents_of(tmp_path / "out")
    partition(config_for(Form100k, None), 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert contents_of(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def test_a_raw_folder_without_files_or_with_both_variants(tmp_path):
    path = good_then(tmp_path, Form100k)
    write_zip(tmp_path / "raw", Form1m, logs(Form1m))
    config = config_for(Form100k, None)
    refused(tmp_path, config, "raw holds ml-100k and ml-1m; run `dvc repro -f download`")
    path.unlink()
    (tmp_path / "raw" / "ml-1m.zip").unlink()
    refused(tmp_path, config, "raw holds neither ml-100k nor ml-1m; run")
