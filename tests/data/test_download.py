"""The raw folder is complete or as it was; data comes from a path, an address, or the generator."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.prepare.download import obtain, read_contents
from pfmsmt.data.sources.http import download_url
from tests.support.raw_files import (
    collect,
    contents_of,
    inner_zips,
    joined_rows,
    make_config,
    quiet,
    read_all,
    tables,
    write_joined,
    write_raw,
    zip_bytes,
)
from tests.support.raw_tables import config_for, csv_text, rows

OUTER = "aliexpress_NL_datasets.zip"


@pytest.fixture
def server():
    """An HTTP server; `answers` maps a path to the (status, announced length, body) of each request in turn."""
    answers = {}
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            queue = answers.get(self.path, [(404, 0, b"")])
            status, length, body = queue.pop(0) if len(queue) > 1 else queue[0]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        httpd.answers, httpd.asked = answers, asked
        httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield httpd
        httpd.shutdown()
        thread.join()


def from_path(path, scenarios=("NL",)):
    return make_config(scenarios=scenarios, aliexpress={"path": str(path)})


def test_generated_data_replace_the_folder_as_a_whole(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "stale").write_text("x")
    obtain(make_config("synthetic"), 0, raw, quiet)
    assert sorted(os.listdir(raw)) == [OUTER, "oracle.json", "source.json"]
    assert read_contents(raw) == ("synthetic", ("NL",))
    assert os.listdir(tmp_path) == ["raw"]


def test_a_path_is_taken_over_in_either_form(tmp_path):
    write_raw(tmp_path / "packed", tables())
    write_joined(tmp_path / "joined", joined_rows(), joined_rows(), "AliExpress_NL")
    for origin in ("packed", "joined"):
        obtain(from_path(tmp_path / origin), 0, tmp_path / "raw", quiet)
        assert json.loads((tmp_path / "raw" / "source.json").read_text()) == {
            "source": "aliexpress",
            "scenarios": ["NL"],
        }
        assert len(collect(read_all("aliexpress", tmp_path / "raw", "NL", "train"))["click"]) == 30
    assert (tmp_path / "packed" / OUTER).exists()


def test_a_path_may_name_the_zip_itself_or_a_link_to_it(tmp_path):
    write_raw(tmp_path / "packed", tables())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / OUTER).symlink_to(tmp_path / "packed" / OUTER)
    obtain(from_path(tmp_path / "linked" / OUTER), 0, tmp_path / "raw", quiet)
    assert not (tmp_path / "raw" / OUTER).is_symlink()
    assert (tmp_path / "raw" / OUTER).read_bytes() == (tmp_path / "packed" / OUTER).read_bytes()


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (
            {},
            DataError,
            "(?s)https://tianchi.aliyun.com/dataset/74690, wants a login.*aliexpress_NL_datasets.zip.*path",
        ),
        ({"path": "/does/not/exist"}, ConfigError, "data.aliexpress.path: /does/not/exist does not exist"),
        ({"path": "x", "url": "http://x"}, ConfigError, "both data.aliexpress.path and data.aliexpress.url"),
        ({"url": "ftp://x/y"}, ConfigError, "'ftp://x/y/aliexpress_NL_datasets.zip' is not an http:// or https://"),
    ],
)
def test_what_cannot_be_had_is_explained_and_the_folder_stays(block, error, message, tmp_path):
    obtain(make_config("synthetic"), 0, tmp_path / "raw", quiet)
    before = contents_of(tmp_path / "raw")
    with pytest.raises(error, match=message):
        obtain(make_config(aliexpress=block), 0, tmp_path / "raw", quiet)
    assert contents_of(tmp_path / "raw") == before
    assert os.listdir(tmp_path) == ["raw"]


def test_every_missing_scenario_is_listed(tmp_path):
    write_raw(tmp_path / "packed", tables())
    with pytest.raises(DataError, match=r"(?s)lacks scenarios\n  ES: expected aliexpress_ES.*\n  FR: expected"):
        obtain(from_path(tmp_path / "packed", ("NL", "ES", "FR")), 0, tmp_path / "raw", quiet)
    assert os.listdir(tmp_path) == ["packed"]


def test_an_address_is_downloaded(server, tmp_path):
    body = zip_bytes(inner_zips(tables()))
    server.answers[f"/files/{OUTER}"] = [(200, len(body), body)]
    config = make_config(aliexpress={"url": f"{server.url}/files/"})
    obtain(config, 0, tmp_path / "raw", quiet)
    assert (tmp_path / "raw" / OUTER).read_bytes() == body
    assert sorted(os.listdir(tmp_path / "raw")) == [OUTER, "source.json"]


def test_a_page_in_place_of_the_zip_is_refused(server, tmp_path):
    server.answers[f"/{OUTER}"] = [(200, 12, b"please login")]
    with pytest.raises(DataError, match="is not a zip file"):
        obtain(make_config(aliexpress={"url": server.url}), 0, tmp_path / "raw", quiet)
    assert os.listdir(tmp_path) == []


def test_a_broken_download_is_tried_again(server, tmp_path):
    server.answers["/x"] = [(200, 10, b"half"), (503, 0, b""), (200, 10, b"0123456789")]
    lines = []
    download_url(f"{server.url}/x", tmp_path / "x", lines.append, cache=tmp_path / "kept", pause=0.0)
    assert (tmp_path / "x").read_bytes() == b"0123456789"
    assert len(server.asked) == 3
    assert [line.rsplit("; ")[1] for line in lines] == ["trying again (2 of 5)", "trying again (3 of 5)"]


def test_a_download_that_stays_short_leaves_nothing(server, tmp_path):
    server.answers["/x"] = [(200, 10, b"half")]
    with pytest.raises(DataError, match="5 times; check the address and the connection"):
        download_url(f"{server.url}/x", tmp_path / "x", quiet, cache=tmp_path / "kept", pause=0.0)
    assert len(server.asked) == 5
    assert os.listdir(tmp_path) == []


def test_a_refusal_is_not_tried_again(server, tmp_path):
    with pytest.raises(DataError, match="the server answered 404 Not Found"):
        download_url(f"{server.url}/nothing", tmp_path / "x", quiet, cache=tmp_path / "kept", pause=0.0)
    assert server.asked == ["/nothing"]


@pytest.mark.parametrize(
    ("source", "block"),
    [
        ("movielens", {}),
        ("aliexpress", {"scenarios": ("NL",)}),
        ("tenrec", {}),
        ("tabular", {"labels": ({"task": "a", "column": "x"},), "numerical": ("y",)}),
    ],
)
def test_a_download_that_fails_names_the_key_of_a_copy(source, block, tmp_path, server):
    url = f"{server.url}/t.csv" if source == "tabular" else server.url
    config = make_config(source, **{source: {**block, "url": url}})
    with pytest.raises(DataError, match=rf"the server answered 404 .*, or set data\.{source}\.path to a copy"):
        obtain(config, 0, tmp_path / "raw", quiet)


def test_an_unreachable_server_is_named(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x"
        with pytest.raises(DataError, match=f"{url}: not reached .*5 times.* connection, or take a copy$"):
            download_url(url, tmp_path / "x", quiet, cache=tmp_path / "kept", pause=0.0, instead="take a copy")


@pytest.mark.parametrize("way", ["copy", "link"])
def test_a_local_file_is_copied_or_linked(way, tmp_path):
    write_raw(tmp_path / "packed", tables())
    config = from_path(tmp_path / "packed").model_copy(update={"local_files": way})
    obtain(config, 0, tmp_path / "raw", quiet)
    origin, taken = tmp_path / "packed" / OUTER, tmp_path / "raw" / OUTER
    assert taken.read_bytes() == origin.read_bytes()
    assert taken.samefile(origin) == (way == "link")


def test_tenrec_behind_its_licence_says_where_what_and_which_line(tmp_path):
    message = (
        r"(?s)https://tenrec0.github.io, wants a signed licence.*QB-video.csv.*set data.tenrec.path in params.yaml"
    )
    with pytest.raises(DataError, match=message):
        obtain(config_for("tenrec"), 0, tmp_path / "raw", quiet)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("given", ["file", "folder", "glob"])
def test_tables_of_a_file_a_folder_or_a_glob_keep_their_places(given, tmp_path):
    for name in ("a.csv", "b/c.csv", "b/notes.txt"):
        (tmp_path / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs" / name).write_bytes(csv_text(rows()))
    path = {"file": "logs/a.csv", "folder": "logs", "glob": "logs/**/*.csv"}[given]
    config = config_for("tabular", tabular={"path": str(tmp_path / path)})
    obtain(config, 0, tmp_path / "raw", quiet)
    assert sorted(contents_of(tmp_path / "raw")) == ["a.csv", *(["b/c.csv"] * (given != "file")), "source.json"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "set either path .* or url"),
        ({"path": "nowhere.csv"}, "data.tabular.path: nowhere.csv does not exist"),
        ({"url": "http://127.0.0.1:9/log"}, "does not end in one of .csv"),
        ({"labels": ()}, "data.tabular.labels: name at least one task"),
        ({"numerical": ("age", "follow")}, "the feature 'follow' is the name of an outcome.*data.outcomes_as_features"),
        ({"outcomes": ("age",)}, "the feature 'age' is an outcome: it is not known when"),
        ({"scenario": None, "scenarios": ("A",)}, "data.tabular.scenario names no column"),
    ],
)
def test_a_block_of_tabular_that_cannot_work(block, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        obtain(config_for("tabular", tabular=block), 0, tmp_path / "raw", quiet)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("source", ["tabular", "tenrec"])
def test_a_login_page_in_place_of_a_table_is_refused_and_not_remembered(source, server, tmp_path):
    page, good = b"\n<!DOCTYPE html><title>Log in</title>", csv_text(rows())
    server.answers["/QB-video.csv"] = [(200, len(page), page), (200, len(good), good)]
    url = server.url + ("/QB-video.csv" if source == "tabular" else "")
    config = config_for(source, **{source: {"url": url}})
    with pytest.raises(DataError, match=r"QB-video\.csv is a web page \(of a login, or of an error\?\) and no table"):
        obtain(config, 0, tmp_path / "raw", quiet)
    assert not (tmp_path / "raw").exists()
    obtain(config, 0, tmp_path / "raw", quiet)
    assert (tmp_path / "raw/QB-video.csv").read_bytes() == good
