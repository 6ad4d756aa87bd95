"""MovieLens 100K and 1M: what each column holds, who is in which part, where the files come from, what is refused."""

import os
import random
import re
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from raw_files import collect, contents_of, make_config, quiet, zip_bytes

from pfmsmt.config import parse_config
from pfmsmt.data.download import obtain, read_contents
from pfmsmt.data.partition import partition
from pfmsmt.data.sources import SOURCES, record_schema
from pfmsmt.data.sources.movielens import read
from pfmsmt.errors import ConfigError, DataError

SCENARIOS = ("age_under_25", "age_25_34", "age_35_up")
DAY = 86_400


def flags(*at):
    """The 19 genre cells of u.item, `unknown` first."""
    return ["1" if i in at else "0" for i in range(19)]


class Form100k:
    zip, ratings, users, items = "ml-100k", "u.data", "u.user", "u.item"
    separators = MappingProxyType({"u.data": "\t", "u.user": "|", "u.item": "|"})

    @staticmethod
    def user(user, age, gender="M", occupation="writer", code="85711"):
        return [user, age, gender, occupation, code]

    @staticmethod
    def item(item, year=1995, at=(1,)):
        return [item, f"Film {item} é ({year})", f"01-Jan-{year}", "", "http://us.imdb.com/x", *flags(*at)]


class Form1m:
    zip, ratings, users, items = "ml-1m", "ratings.dat", "users.dat", "movies.dat"
    separators = MappingProxyType(dict.fromkeys(("ratings.dat", "users.dat", "movies.dat"), "::"))

    @staticmethod
    def user(user, age, gender="M", occupation="20", code="85711-1234"):
        return [user, gender, age, occupation, code]

    @staticmethod
    def item(item, year=1995, at=()):
        return [item, f"Film: {item}, é ({year})", "|".join(["Action", *at])]


def text(form, contents):
    """File name -> bytes; a file may also be given as bytes."""
    return {
        file: table if isinstance(table, bytes)
        else "".join(form.separators[file].join(map(str, row)) + "\n" for row in table).encode("latin-1")
        for file, table in contents.items()
    }  # fmt: skip


def packed(form, contents):
    return zip_bytes({f"{form.zip}/{file}": data for file, data in text(form, contents).items()})


def write_zip(folder, form, contents):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{form.zip}.zip").write_bytes(packed(form, contents))
    return folder


def logs(form=Form100k, users=30, items=10):
    """A complete data set: ages 45, 18 and 25 in turn, every user rates every item, in an order of their own."""
    people = [form.user(u, (18, 25, 45)[u % 3]) for u in range(1, users + 1)]
    pairs = [(u, i) for u in range(1, users + 1) for i in range(1, items + 1)]
    rated = [[u, i, 1 + (u * 7 + i * 3) % 5, (100 + u * i % 11) * DAY] for u, i in pairs]
    return {form.ratings: rated, form.users: people, form.items: [form.item(i) for i in range(1, items + 1)]}


def config_for(form, path, **changes):
    block = {"variant": {"ml-100k": "100k", "ml-1m": "1m"}[form.zip], "path": str(path) if path else None}
    return make_config("movielens", movielens={**block, **changes}, private_fields=("user_id",))


# -- what the columns hold


RATINGS = [  # of users 7 (24 years), 8 (25), 9 (34), 10 (35)
    [7, 30, 5, 4 * DAY + 3600 * 5],  # a Monday, as day 0 was a Thursday
    [8, 10, 3, 3 * DAY + 86_399],
    [9, 20, 4, 0],
    [10, 40, 1, 2**32 - 1],
]


def test_columns_of_100k(tmp_path):
    contents = {
        "u.user": [
            [7, 24, "M", "technician", "00501"],
            [8, 25, "F", "administrator", "94043"],
            [9, 34, "M", "writer", "V3N4P"],
            [10, 35, "F", "none", "t8h1n"],
        ],
        "u.item": [
            [30, "Café, The (1995)", "4-Feb-1971", "", "", *flags(3, 4, 5)],
            [10, "GoldenEye (1995)", "17-Nov-1996", "", "http://x", *flags(1, 18)],
            [20, "unknown", "", "", "", *flags(0)],
            [40, "Four Rooms (1995)", "01-Jan-1995", "", "http://x", *flags(8)],
        ],
        "u.data": RATINGS,
    }
    raw = write_zip(tmp_path, Form100k, contents)
    young, middle, old = (collect(read(raw, scenario, "train")) for scenario in SCENARIOS)
    assert list(young) == record_schema(SOURCES["movielens"].columns, SOURCES["movielens"].tasks).names
    one = {name: values.tolist() for name, values in young.items()}
    assert {name: one.pop(name) for name in one.copy() if name.startswith("genre_") and one[name] == [1.0]} == {
        "genre_animation": [1.0], "genre_childrens": [1.0], "genre_comedy": [1.0]
    }  # fmt: skip
    assert {name: one.pop(name) for name in one.copy() if name.startswith("genre_")}.keys() == {
        f"genre_{name}" for name in (
            "action", "adventure", "crime", "documentary", "drama", "fantasy", "film_noir", "horror", "musical",
            "mystery", "romance", "sci_fi", "thriller", "war", "western",
        )
    }  # fmt: skip
    assert one == {
        "user": [7], "user_id": [7], "item_id": [30], "gender": [1], "occupation": [19], "zip_region": [0],
        "hour": [5], "weekday": [0], "age": [24.0], "release_year": [1971.0], "liked": [1], "loved": [1],
    }  # fmt: skip
    assert middle["user"].tolist() == [8, 9]
    assert middle["gender"].tolist() == [0, 1]
    assert middle["occupation"].tolist() == [0, 20]
    assert middle["zip_region"].tolist() == [9, 10 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index("V")]
    assert middle["hour"].tolist() == [23, 0]
    assert middle["weekday"].tolist() == [6, 3]
    # The film without a date has the median of 1971, 1995 and 1996.
    assert middle["release_year"].tolist() == [1996.0, 1995.0]
    assert middle["genre_western"].tolist() == [1.0, 0.0]
    assert middle["genre_action"].tolist() == [1.0, 0.0]
    assert middle["liked"].tolist() == [0, 1]
    assert middle["loved"].tolist() == [0, 0]
    assert (old["user"].tolist(), old["zip_region"].tolist(), old["liked"].tolist()) == ([10], [29], [0])
    assert old["genre_drama"].tolist() == [1.0]


def test_columns_of_1m(tmp_path):
    contents = {
        "users.dat": [
            [7, "F", 1, 10, "48067"], [8, "M", 25, 0, "70072-1234"], [9, "M", 25, 20, "V3N4P"], [10, "F", 56, 6, "9"],
        ],
        "movies.dat": [
            [10, "Toy: Story, The (1995)", "Animation|Children's|Comedy"],
            [20, "Misérables, Les (1919)", "Film-Noir"],
            [30, "X (1999) (2000)", "Sci-Fi|War"],
            [40, "Y (1998)", "Action|Action"],
        ],
        "ratings.dat": RATINGS,
    }  # fmt: skip
    raw = write_zip(tmp_path, Form1m, contents)
    young, middle, old = (collect(read(raw, scenario, "train")) for scenario in SCENARIOS)
    assert (young["age"].tolist(), middle["age"].tolist(), old["age"].tolist()) == ([1.0], [25.0, 25.0], [56.0])
    assert young["release_year"].tolist() == [2000.0]
    assert middle["release_year"].tolist() == [1995.0, 1919.0]
    assert middle["occupation"].tolist() == [0, 20]
    assert middle["zip_region"].tolist() == [7, 31]
    ones = {name: values.tolist() for name, values in middle.items() if name.startswith("genre_") and values.any()}
    assert ones == {
        "genre_animation": [1.0, 0.0], "genre_childrens": [1.0, 0.0], "genre_comedy": [1.0, 0.0],
        "genre_film_noir": [0.0, 1.0],
    }  # fmt: skip
    assert old["genre_action"].tolist() == [1.0]


def test_the_declared_types_and_nesting(tmp_path):
    raw = write_zip(tmp_path, Form100k, logs())
    source = SOURCES["movielens"]
    for split in ("train", "test"):
        batch = next(read(raw, "age_25_34", split))
        assert batch.schema == record_schema(source.columns, source.tasks)
    assert [(task.name, task.label, task.within) for task in source.tasks] == [
        ("like", "liked", None), ("love", "loved", "like")
    ]  # fmt: skip


def test_the_last_fifth_of_each_user_in_time_is_the_test_part(tmp_path):
    """Of 5 and 9 ratings one, of 4 none, of 10 two; in one second the higher item is the later one."""
    sizes = {3: 5, 6: 9, 9: 4, 12: 10}
    contents = logs()
    contents["u.data"] = [[u, i, 3, 1000 - i if u == 3 else 7] for u, n in sizes.items() for i in range(1, n + 1)]
    expected = {(3, 1), (6, 9), (12, 9), (12, 10)}
    for seed in range(3):
        random.Random(seed).shuffle(contents["u.data"])
        raw = write_zip(tmp_path, Form100k, contents)
        parts = [collect(read(raw, "age_under_25", split)) for split in ("train", "test")]
        pairs = [list(zip(part["user_id"].tolist(), part["item_id"].tolist(), strict=True)) for part in parts]
        assert set(pairs[1]) == expected
        assert len(pairs[1]) == 4
        assert sorted(pairs[0] + pairs[1]) == [(u, i) for u, n in sizes.items() for i in range(1, n + 1)]
        assert pairs[0][:4] == [(3, 5), (3, 4), (3, 3), (3, 2)]  # by time


@pytest.mark.parametrize("form", [Form100k, Form1m])
def test_line_ends_of_windows_and_a_missing_last_one_are_understood(form, tmp_path):
    raw = write_zip(tmp_path / "plain", form, logs(form))
    crlf = {file: data.replace(b"\n", b"\r\n").rstrip() for file, data in text(form, logs(form)).items()}
    other = write_zip(tmp_path / "crlf", form, crlf)
    for scenario in SCENARIOS:
        first, second = (collect(read(folder, scenario, "train")) for folder in (raw, other))
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", [Form100k, Form1m])
def test_shards(form, tmp_path):
    contents = logs(form)
    obtain(config_for(form, write_zip(tmp_path / "in", form, contents)), 0, tmp_path / "raw", quiet)
    schema = partition(config_for(form, None), 0, tmp_path / "raw", tmp_path / "out", quiet)
    assert schema.scenarios == SCENARIOS
    assert [field.name for field in schema.categorical if not field.federated] == ["user_id"]
    rating = {(u, i): r for u, i, r, _ in contents[form.ratings]}
    seen = 0
    for at, scenario in enumerate(SCENARIOS):
        shards = {
            split: pd.read_parquet(tmp_path / "out" / scenario / f"{split}.parquet")
            for split in schema.counts[scenario]
        }
        items = np.array([0, *next(field for field in schema.categorical if field.name == "item_id").vocabulary])
        for shard in shards.values():
            assert set(shard["user"] % 3) == {at}
            true = np.array([rating[u, i] for u, i in zip(shard["user"], items[shard["item_id"]], strict=True)])
            assert shard["like"].tolist() == (true >= 4).tolist()
            assert shard["love"].tolist() == (true == 5).tolist()
            seen += len(shard)
        assert len(shards["test"]) == 20  # 10 users, 2 of 10 ratings each
        assert len(shards["train"]) + len(shards["val"]) == 80
        known = shards["train"][["user", "user_id"]].drop_duplicates()
        assert sorted(known["user_id"]) == list(range(1, len(known) + 1))
    assert seen == 300


# -- where it comes from


@pytest.fixture
def server(tmp_path):
    """An HTTP server over the folder `served`."""
    (tmp_path / "served").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the test's output clean."""

    handler = partial(Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("form", [Form100k, Form1m])
def test_a_download(form, server, tmp_path):
    write_zip(tmp_path / "served" / "movielens", form, logs(form))
    obtain(config_for(form, None, url=f"{server}movielens/"), 0, tmp_path / "raw", quiet)
    assert sorted(os.listdir(tmp_path / "raw")) == [f"{form.zip}.zip", "source.json"]
    assert read_contents(tmp_path / "raw") == ("movielens", SCENARIOS)
    assert len(collect(read(tmp_path / "raw", "age_35_up", "train"))["liked"]) == 80


@pytest.mark.parametrize("form", [Form100k, Form1m])
def test_every_form_of_a_path(form, tmp_path):
    write_zip(tmp_path / "zip", form, logs(form))
    (tmp_path / "named.zip").write_bytes(packed(form, logs(form)))
    for folder in ("flat", f"deep/{form.zip}"):
        (tmp_path / folder).mkdir(parents=True)
        for file, data in text(form, logs(form)).items():
            (tmp_path / folder / file).write_bytes(data)
    kept = contents_of(tmp_path)
    found = []
    for path in ("zip", f"zip/{form.zip}.zip", "named.zip", "flat", "deep"):
        obtain(config_for(form, tmp_path / path), 0, tmp_path / "raw", quiet)
        found.append(collect(read(tmp_path / "raw", "age_25_34", "test")))
    assert {name: data for name, data in contents_of(tmp_path).items() if not name.startswith("raw")} == kept
    assert all(np.array_equal(found[0][name], other[name]) for other in found for name in found[0])


def untouched(tmp_path, config, error, message):
    """`obtain` fails and leaves an earlier raw folder as it was, and nothing beside it."""
    obtain(make_config("synthetic"), 0, tmp_path / "raw", quiet)
    before = contents_of(tmp_path)
    with pytest.raises(error, match=message):
        obtain(config, 0, tmp_path / "raw", quiet)
    assert contents_of(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_page_in_place_of_the_zip(server, tmp_path):
    (tmp_path / "served" / "ml-100k.zip").write_text("moved")
    untouched(tmp_path, config_for(Form100k, None, url=server), DataError, "ml-100k.zip is not a zip file")


def test_a_server_that_does_not_have_it(server, tmp_path):
    untouched(tmp_path, config_for(Form1m, None, url=server), DataError, "ml-1m.zip: the server answered 404")


def test_a_path_that_does_not_exist(tmp_path):
    message = "data.movielens.path: .*/nowhere does not exist"
    untouched(tmp_path, config_for(Form100k, tmp_path / "nowhere"), ConfigError, message)


def test_the_other_variant_is_not_taken_for_this_one(tmp_path):
    path = write_zip(tmp_path / "zip", Form1m, logs(Form1m)) / "ml-1m.zip"
    message = r"ml-100k.zip must hold one u.data, but holds 0; its members: ml-1m/ratings.dat, ml-1m/users.dat"
    untouched(tmp_path, config_for(Form100k, path), DataError, message)
    message = "zip holds neither ml-100k.zip nor the files u.data, u.user, u.item"
    untouched(tmp_path, config_for(Form100k, tmp_path / "zip"), DataError, message)


def test_an_unknown_variant_is_named(make_tree):
    message = "data.movielens.variant: '10m' is unknown; .*valid: 100k, 1m"
    with pytest.raises(ConfigError, match=message):
        parse_config(make_tree({"data.movielens.variant": "10m"}))


# -- what is refused


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
        "age_25_34: no search falls into train",
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


@pytest.mark.parametrize("file", ["u.data", "u.user", "u.item"])
def test_a_folder_without_one_of_its_files(file, tmp_path):
    (tmp_path / "in" / "ml-100k").mkdir(parents=True)
    for name, data in text(Form100k, logs()).items():
        if name != file:
            (tmp_path / "in" / "ml-100k" / name).write_bytes(data)
    untouched(tmp_path, config_for(Form100k, tmp_path / "in"), DataError, f"nor the files .*{re.escape(file)}")
