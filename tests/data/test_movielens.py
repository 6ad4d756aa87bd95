"""MovieLens 100K and 1M: what each column holds, who is in which part, where the files come from."""

import os
import random
import re
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.config import parse_config
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.prepare.download import obtain, read_contents
from pfmsmt.data.prepare.partition import partition
from pfmsmt.data.schema import SPLITS
from pfmsmt.data.sources.base import record_schema
from pfmsmt.data.sources.movielens.movielens import _COLUMNS, _TASKS
from tests.support.raw_files import collect, contents_of, make_config, quiet, read_all
from tests.support.raw_movielens import (
    DAY,
    SCENARIOS,
    Form1m,
    Form100k,
    config_for,
    flags,
    logs,
    packed,
    text,
    write_zip,
)
from tests.support.shards import read_shard


def read(raw, scenario, split):
    return read_all("movielens", raw, scenario, split)


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
    assert list(young) == record_schema(_COLUMNS, _TASKS).names
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
        "hour": [5], "weekday": [0], "age": [24.0], "release_year": [1971.0], "place": [0.0],
        "liked": [1], "loved": [1],
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
    for split in ("train", "test"):
        batch = read(raw, "age_25_34", split)[0]
        assert batch.schema == record_schema(_COLUMNS, _TASKS)
    assert [(task.name, task.label, task.within) for task in _TASKS] == [
        ("like", "liked", None), ("love", "loved", "like")
    ]  # fmt: skip


def test_the_last_fifth_of_each_user_in_time_is_the_test_part(tmp_path):
    """One of 5 and of 9 ratings, none of 4, two of 10; in one second the higher item is the later one."""
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
        # What comes before a row, of its user's training rows only: 4, 8, 4 and 8 of them.
        assert parts[0]["place"].tolist() == [k / n for n in (4, 8, 4, 8) for k in range(n)]
        assert not parts[1]["place"].any()


@pytest.mark.parametrize("form", [Form100k, Form1m])
def test_line_ends_of_windows_and_a_missing_last_one_are_understood(form, tmp_path):
    raw = write_zip(tmp_path / "plain", form, logs(form))
    crlf = {file: data.replace(b"\n", b"\r\n").rstrip() for file, data in text(form, logs(form)).items()}
    other = write_zip(tmp_path / "crlf", form, crlf)
    for scenario in SCENARIOS:
        first, second = (collect(read(folder, scenario, "train")) for folder in (raw, other))
        assert all(np.array_equal(first[name], second[name]) for name in first)


AGES = (18, 25, 45)
LOG = st.dictionaries(  # (user, item): (rating, time)
    st.tuples(st.integers(1, 9), st.integers(1, 12)),
    st.tuples(st.integers(1, 5), st.integers(0, 10**9)),
    max_size=60,
)


def parts_of(log):
    """The last floor(n / 5) of a user's n ratings are test, the last floor(2 m / 5) of the m others validation."""
    parts = {split: set() for split in SPLITS}
    for user in {user for user, _ in log}:
        own = sorted((time, item, rating) for (u, item), (rating, time) in log.items() if u == user)
        test = len(own) // 5
        val = (len(own) - test) * 2 // 5
        ends = len(own) - test - val, len(own) - test
        for split, part in zip(SPLITS, (own[: ends[0]], own[ends[0] : ends[1]], own[ends[1] :]), strict=True):
            parts[split] |= {(user, item, rating) for _, item, rating in part}
    return parts


@pytest.mark.slow(1)
@pytest.mark.parametrize("form", [Form100k, Form1m])
@settings(max_examples=10, deadline=None)
@given(LOG)
def test_what_goes_in_comes_out(form, log):
    """Every rating is in one shard, of its user's scenario and part, with its labels; users and items keep ids."""
    log = {(user, item): (1 + (user + item) % 5, item) for user in range(1, 7) for item in range(1, 9)} | log
    rows = [[user, item, rating, time] for (user, item), (rating, time) in log.items()]
    contents = {
        form.ratings: rows,
        form.users: [form.user(user, AGES[user % 3]) for user in range(1, 10)],
        form.items: [form.item(item) for item in range(1, 13)],
    }
    with tempfile.TemporaryDirectory() as name:
        raw, out = Path(name, "raw"), Path(name, "out")
        obtain(config_for(form, write_zip(Path(name, "in"), form, contents)), 0, raw, quiet)
        schema = partition(config_for(form, None), 0, raw, out, quiet)
        shards = {(s, split): read_shard(out / s / f"{split}.parquet") for s in SCENARIOS for split in SPLITS}
    assert schema.scenarios == SCENARIOS
    assert [field.name for field in schema.categorical if not field.federated] == ["user_id"]
    parts = parts_of(log)
    trained = {item for _, item, _ in parts["train"]}
    for (scenario, split), shard in shards.items():
        at = SCENARIOS.index(scenario)
        vocabulary = {field.name: [None, *field.vocabulary] for field in schema.scenario(scenario).categorical}
        found = sorted(
            (user, vocabulary["item_id"][item] or 0, like, love)
            for user, item, like, love in shard[["user", "item_id", "like", "love"]].itertuples(index=False)
        )
        assert found == sorted(
            (user, item if item in trained else 0, int(rating >= 4), int(rating == 5))
            for user, item, rating in parts[split]
            if user % 3 == at
        )
        known = {vocabulary["user_id"][code]: user for user, code in zip(shard["user"], shard["user_id"], strict=True)}
        assert all(name == user for name, user in known.items() if name is not None)
        if split == "train":
            assert None not in known


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
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
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


@pytest.mark.parametrize("file", ["u.data", "u.user", "u.item"])
def test_a_folder_without_one_of_its_files(file, tmp_path):
    (tmp_path / "in" / "ml-100k").mkdir(parents=True)
    for name, data in text(Form100k, logs()).items():
        if name != file:
            (tmp_path / "in" / "ml-100k" / name).write_bytes(data)
    untouched(tmp_path, config_for(Form100k, tmp_path / "in"), DataError, f"nor the files .*{re.escape(file)}")


def test_an_unknown_variant_is_named(make_tree):
    message = "data.movielens.variant: '10m' is unknown; .*valid: 100k, 1m"
    with pytest.raises(ConfigError, match=message):
        parse_config(make_tree({"data.movielens.variant": "10m"}))
