"""Damaged files of MovieLens: each fault is named, with file, row, column and value, and costs nothing."""

import os
import struct

import pytest
from raw_files import contents_of, quiet, zip_bytes
from raw_movielens import Form1m, Form100k, config_for, logs, packed, text, write_zip

from pfmsmt.data.download import obtain
from pfmsmt.data.partition import partition
from pfmsmt.errors import DataError


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


TEXT_FAULTS_100K = {
    "u.data missing": (lacks("u.data"), r"ml-100k.zip must hold one u.data, but holds 0"),
    "u.item missing": (lacks("u.item"), r"ml-100k.zip must hold one u.item, but holds 0"),
    "u.data empty": (table("u.data", lambda _: b""), "ml-100k.zip/ml-100k/u.data is empty"),
    "u.user empty": (table("u.user", lambda _: b""), "u.user is empty"),
    "rating row short": (table("u.data", lambda r: [*r[:4], r[4][:3], *r[5:]]), "u.data, row 5: 3 columns, expected 4"),
    "user row long": (table("u.user", lambda r: [*r, [*r[0], "x"]]), "u.user, row 31: 6 columns, expected 5"),
    "item row short": (table("u.item", lambda r: [r[0][:-1], *r[1:]]), "u.item, row 1: 23 columns, expected 24"),
    "blank line": (table("u.user", lambda r: [*r[:3], [], *r[3:]]), "u.user, row 4"),
    "commas for tabs": (
        table("u.data", lambda r: b"".join(b"%d,%d,%d,%d\n" % tuple(x) for x in r)),
        "u.data, row 1: 1 columns, expected 4",
    ),
    "text for a rating": (
        cell("u.data", 3, 3, "good"),
        r"u.data, row 3, column 3 \(rating\): 'good' is not a whole number from 1 to 5",
    ),
    "rating 6": (cell("u.data", 299, 3, 6), r"row 299, column 3 \(rating\): '6' is not a whole number from 1 to 5"),
    "rating 0": (cell("u.data", 1, 3, 0), r"row 1, column 3 \(rating\): '0' is not"),
    "half a star": (cell("u.data", 2, 3, "3.5"), r"row 2, column 3 \(rating\): '3.5' is not"),
    "rating NaN": (cell("u.data", 2, 3, "nan"), r"row 2, column 3 \(rating\): 'nan' is not"),
    "rating empty": (cell("u.data", 4, 3, ""), r"row 4, column 3 \(rating\): the value is empty and is not"),
    "negative user": (cell("u.data", 9, 1, -4), r"row 9, column 1 \(user_id\): '-4' is not a whole number from 1 to"),
    "huge item": (cell("u.data", 9, 2, 10**17), r"row 9, column 2 \(item_id\): '10{17}' is not a whole number"),
    "time in text": (cell("u.data", 9, 4, "1997-09-22"), r"row 9, column 4 \(timestamp\): '1997-09-22' is not"),
    "time in milliseconds": (cell("u.data", 9, 4, 881250949000), r"column 4 \(timestamp\): '881250949000' is not"),
    "spaces": (cell("u.data", 9, 1, " 1"), r"row 9, column 1 \(user_id\): ' 1' is not"),
    "header": (table("u.data", lambda r: [["user", "item", "rating", "time"], *r]), r"row 1, column 1 .*'user' is not"),
    "user without a row": (cell("u.data", 17, 1, 99), r"row 17, column 1 \(user_id\): '99' has no row in .*u.user"),
    "item without a row": (cell("u.data", 17, 2, 99), r"row 17, column 2 \(item_id\): '99' has no row in .*u.item"),
    "user twice": (table("u.user", lambda r: [*r, r[4]]), "u.user: user_id 5 has two rows, 5 and 31; keep one"),
    "item twice": (table("u.item", lambda r: [r[2], *r]), "u.item: item_id 3 has two rows, 1 and 4; keep one"),
    "rated twice": (
        table("u.data", lambda r: [*r, [1, 2, 5, 0]]),
        "u.data: user 1 rates item 2 twice, in rows 2 and 301; keep one",
    ),
    "age 0": (cell("u.user", 2, 2, 0), r"u.user, row 2, column 2 \(age\): '0' is not a whole number from 1 to 120"),
    "gender": (cell("u.user", 2, 3, "male"), r"u.user, row 2, column 3 \(gender\): 'male' is none of F, M"),
    "occupation": (
        cell("u.user", 2, 4, "wizard"),
        r"u.user, row 2, column 4 \(occupation\): 'wizard' is none of administrator, artist, .*, writer",
    ),
    "zip code": (
        cell("u.user", 2, 5, "?5711"),
        r"row 2, column 5 \(zip_code\): '\?5711' does not begin with a digit or a letter",
    ),
    "no zip code": (cell("u.user", 2, 5, ""), r"row 2, column 5 \(zip_code\): the value is empty and does not begin"),
    "date": (cell("u.item", 8, 3, "1995"), r"row 8, column 3 \(release_date\): '1995' is not a date as 01-Jan-1995"),
    "genre 2": (cell("u.item", 8, 7, 2), r"row 8, column 7 \(Action\): '2' is not a whole number from 0 to 1"),
    "no dates at all": (
        table("u.item", lambda r: [[*row[:2], "", *row[3:]] for row in r]),
        "u.item: no film has a release date",
    ),
    "UTF-16": (
        table("u.user", lambda r: "".join(f"{'|'.join(map(str, row))}\n" for row in r).encode("utf-16")),
        "u.user, row 1: a NUL byte; it must be plain text in latin-1",
    ),
    "byte order mark": (
        table("u.data", lambda r: b"\xef\xbb\xbf" + text(Form100k, {"u.data": r})["u.data"]),
        r"u.data, row 1, column 1 \(user_id\): 'ï»¿1' is not a whole number",
    ),
    "one age group only": (
        table("u.user", lambda r: [[row[0], 20, *row[2:]] for row in r]),
        "age_25_34: no user's rows fall into train",
    ),
}  # fmt: skip

TEXT_FAULTS_1M = {
    "single colons": (
        table("ratings.dat", lambda r: b"".join(b"%d:%d:%d:%d\n" % tuple(x) for x in r)),
        "ratings.dat, row 1: 1 columns, expected 4",
    ),
    "rating 6": (cell("ratings.dat", 3, 3, 6), r"ml-1m.zip/ml-1m/ratings.dat, row 3, column 3 \(rating\): '6' is not"),
    "occupation 21": (cell("users.dat", 1, 4, 21), r"users.dat, row 1, column 4 \(occupation\): '21' is not"),
    "no year": (
        cell("movies.dat", 5, 2, "Film"),
        r"movies.dat, row 5, column 2 \(title\): 'Film' is not a title that ends in its year",
    ),
    "unknown genre": (
        cell("movies.dat", 6, 3, "Drama|Western|Anime"),
        r"movies.dat, row 6, column 3 \(genres\): 'Drama\|Western\|Anime' names a genre other than Action,",
    ),
    "no genre": (cell("movies.dat", 6, 3, ""), r"row 6, column 3 \(genres\): the value is empty and names a genre"),
    "user without a row": (cell("ratings.dat", 7, 1, 31), r"row 7, column 1 .*: '31' has no row in .*users.dat"),
}  # fmt: skip


def refused(tmp_path, form, message):
    """The damaged raw folder is refused, on first use and over an earlier output; neither leaves anything."""
    for folder, before in ((tmp_path / "new", {}), (tmp_path / "out", contents_of(tmp_path / "out"))):
        with pytest.raises(DataError, match=message):
            partition(config_for(form, None), 0, tmp_path / "raw", folder, quiet)
        assert (contents_of(folder) if folder.exists() else {}) == before
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def good_then(tmp_path, form):
    """Obtain and partition good data."""
    (tmp_path / "in.zip").write_bytes(packed(form, logs(form)))
    obtain(config_for(form, tmp_path / "in.zip"), 0, tmp_path / "raw", quiet)
    (tmp_path / "in.zip").unlink()
    partition(config_for(form, None), 0, tmp_path / "raw", tmp_path / "out", quiet)
    return tmp_path / "raw" / f"{form.zip}.zip"


@pytest.mark.parametrize(
    ("form", "fault"),
    [*((Form100k, fault) for fault in TEXT_FAULTS_100K), *((Form1m, fault) for fault in TEXT_FAULTS_1M)],
    ids=lambda value: value if isinstance(value, str) else value.zip,
)
def test_a_fault_in_the_text_is_named_and_costs_nothing(form, fault, tmp_path):
    damage, message = (TEXT_FAULTS_100K if form is Form100k else TEXT_FAULTS_1M)[fault]
    path = good_then(tmp_path, form)
    contents = logs(form)
    damage(contents)
    path.write_bytes(packed(form, contents))
    refused(tmp_path, form, message)


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
    refused(tmp_path, Form100k, message)


def test_members_that_point_outside_are_read_in_place(tmp_path):
    path = good_then(tmp_path, Form100k)
    path.write_bytes(zip_bytes({f"../../{file}": data for file, data in text(Form100k, logs()).items()}))
    before = contents_of(tmp_path / "out")
    partition(config_for(Form100k, None), 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert contents_of(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def test_a_raw_folder_without_files_or_with_both_variants(tmp_path):
    path = good_then(tmp_path, Form100k)
    write_zip(tmp_path / "raw", Form1m, logs(Form1m))
    refused(tmp_path, Form100k, "raw holds ml-100k and ml-1m; run `dvc repro -f download`")
    path.unlink()
    (tmp_path / "raw" / "ml-1m.zip").unlink()
    refused(tmp_path, Form100k, "raw holds neither ml-100k nor ml-1m; run")
