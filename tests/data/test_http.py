"""Downloads over real HTTP that break, go on, are altered or refused."""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pfmsmt.core.errors import DataError
from pfmsmt.data.sources.http import ATTEMPTS, CHUNK_BYTES, download_url, progress_text
from tests.support.raw_files import quiet

BODY = bytes(range(256)) * 4_000
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` at every path; `cuts` are how many bytes each answer in turn sends before it breaks off.

    `kind` is the Content-Type, `length` says how the length is told ("", "chunked", or None: not at all), and `ranges`
    replaces the Content-Range of each partial answer in turn, which then holds the whole body.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.mark, self.cuts, self.asked, self.times = BODY, '"one"', [], [], []
        self.kind, self.length, self.ranges = "application/octet-stream", "", []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/data.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked, expected = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((asked, expected))
        server.times.append(time.monotonic())
        start = 0
        if asked and server.mark and expected == server.mark:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if server.mark:
            self.send_header("ETag", server.mark)
        self.send_header("Content-Type", server.kind)
        if start:
            whole = f"bytes {start}-{len(server.body) - 1}/{len(server.body)}"
            told = server.ranges.pop(0) if server.ranges else whole
            start = start if told == whole else 0
            if told:
                self.send_header("Content-Range", told)
        send = server.cuts.pop(0) if server.cuts else len(server.body)
        sent = server.body[start : start + send]
        if server.length == "":
            self.send_header("Content-Length", str(len(server.body) - start))
        elif server.length == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if send == len(server.body) else b"")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server():
    with Server() as held:
        thread = threading.Thread(target=held.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield held
        held.shutdown()
        thread.join()


def get(server, tmp_path, progress=quiet, **options):
    options = {"cache": tmp_path / "kept", "pause": 0.0} | options
    download_url(server.url, tmp_path / "raw" / "data.bin", progress, **options)
    return (tmp_path / "raw" / "data.bin").read_bytes()


def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    server.cuts = [300_000, 200_000]
    assert get(server, tmp_path) == BODY
    assert server.asked == [(None, None), ("bytes=300000-", '"one"'), ("bytes=500000-", '"one"')]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["checksums.json"]


def test_what_is_left_of_a_failed_download_is_used_by_the_next(server, tmp_path):
    server.cuts = [100_000] * ATTEMPTS
    with pytest.raises(
        DataError, match=r"received 500,000 of 1,024,000 bytes, 5 times; .*0.5 MiB received are kept, run"
    ):
        get(server, tmp_path)
    assert not (tmp_path / "raw").exists()
    server.asked.clear()
    assert get(server, tmp_path) == BODY
    assert server.asked == [("bytes=500000-", '"one"')]


def test_another_version_is_not_glued_to_the_first_part(server, tmp_path):
    server.cuts = [100_000] * ATTEMPTS
    with pytest.raises(DataError):
        get(server, tmp_path)
    server.body, server.mark, server.cuts = BODY[::-1], '"two"', []
    assert get(server, tmp_path) == BODY[::-1]


def test_without_a_mark_a_download_starts_again_and_a_failed_one_leaves_nothing(server, tmp_path):
    server.mark, server.cuts = None, [300_000]
    assert get(server, tmp_path) == BODY
    assert server.asked == [(None, None)] * 2
    server.cuts = [10] * ATTEMPTS
    (tmp_path / "kept" / "checksums.json").unlink()
    with pytest.raises(DataError, match=r"5 times; check the address and the connection$"):
        get(server, tmp_path)
    assert not (tmp_path / "kept").exists()


def test_a_part_that_is_whole_already_does_not_stop_the_download(server, tmp_path):
    """Killed between the last byte and the renaming: the server has nothing to add (416)."""
    server.cuts = [100_000] * ATTEMPTS
    with pytest.raises(DataError):
        get(server, tmp_path)
    (part,) = (tmp_path / "kept").glob("*.part")
    part.write_bytes(BODY)
    server.cuts = []
    assert get(server, tmp_path) == BODY


def test_the_first_checksum_is_remembered_and_demanded_ever_after(server, tmp_path):
    get(server, tmp_path)
    assert json.loads((tmp_path / "kept" / "checksums.json").read_text()) == {server.url: SHA}
    server.body, server.mark = BODY[:-1] + b"x", '"two"'
    with pytest.raises(
        DataError, match=rf"the SHA-256 of data.bin is .*the first download.*says {SHA}; the file was altered"
    ):
        get(server, tmp_path)
    assert (tmp_path / "raw" / "data.bin").read_bytes() == BODY
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["checksums.json"]


def test_a_checksum_that_is_given_goes_before_the_remembered_one(server, tmp_path):
    with pytest.raises(DataError, match=f"is {SHA}, but data.sha256 of params.yaml says {'0' * 64}"):
        get(server, tmp_path, sha256="0" * 64)
    assert not (tmp_path / "raw").exists()
    assert get(server, tmp_path, sha256=SHA.upper()) == BODY


def test_a_file_of_another_form_is_not_remembered(server, tmp_path):
    with pytest.raises(DataError, match=r"data\.bin is not what it should be"):
        get(server, tmp_path, form=lambda path: "is not what it should be")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "told", [None, "bytes 0-1023999/1024000", "bytes 300000-/1024000", "items 300000-1023999/1024000"]
)
def test_other_bytes_than_were_asked_for_are_not_appended(told, server, tmp_path):
    """The part is thrown away, and the whole file asked for."""
    server.cuts, server.ranges = [300_000], [told]
    assert get(server, tmp_path) == BODY
    assert server.asked == [(None, None), ("bytes=300000-", '"one"'), (None, None)]


def test_a_web_page_is_refused_before_anything_is_remembered(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"data\.bin is a web page \(of a login, or of an error\?\) and no data; check"):
        get(server, tmp_path)
    assert not (tmp_path / "kept").exists()
    server.kind = "text/csv"
    assert get(server, tmp_path) == BODY


def test_what_may_be_cut_short_is_not_remembered(server, tmp_path):
    """Without a length the end of the connection is the end of the file, whatever broke it."""
    server.length, server.cuts, lines = None, [1001], []
    assert get(server, tmp_path, lines.append) == BODY[:1001]
    assert lines == ["data.bin: the server does not say how long it is, so its checksum is not remembered"]
    assert not (tmp_path / "kept").exists()
    assert get(server, tmp_path) == BODY
    server.cuts = [1001]
    with pytest.raises(DataError, match=r"but data\.sha256 of params.yaml says"):
        get(server, tmp_path, sha256=SHA)


def test_pieces_that_say_which_is_the_last_are_a_length(server, tmp_path):
    server.length, server.cuts = "chunked", [1001]
    Handler.protocol_version, before = "HTTP/1.1", Handler.protocol_version
    try:
        assert get(server, tmp_path) == BODY
    finally:
        Handler.protocol_version = before
    assert json.loads((tmp_path / "kept" / "checksums.json").read_text()) == {server.url: SHA}


def test_pauses_double(server, tmp_path):
    server.cuts = [10] * 4
    get(server, tmp_path, pause=0.02)
    pauses = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert [pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.16), strict=True)] == [True] * 4


def test_progress_says_how_far_how_fast_and_how_long(server, tmp_path):
    server.body = BODY * 2
    assert CHUNK_BYTES < len(server.body) < 2 * CHUNK_BYTES
    lines = []
    get(server, tmp_path, lines.append, report_every=0.0)
    assert len(lines) == 2
    assert re.fullmatch(r"data.bin: 1.0 of 2.0 MiB, [\d,.]+ MiB/s, 0:00 min left", lines[0])
    assert progress_text(2**20, 601 * 2**20, 2.0 * 2**20) == "1.0 of 601.0 MiB, 2.0 MiB/s, 5:00 min left"
    assert progress_text(3 * 2**20, None, 2.0**20) == "3.0 MiB, 1.0 MiB/s"
