"""Who may ask, how much, how often and how long."""

import asyncio
import logging
import socket
import threading
import time

import pytest

from pfmsmt.core.errors import ServingError
from pfmsmt.serving.http_server import TOKEN, find_token
from tests.support.shelves import STREAM, as_stream, frame

PATH = "/v1/scenarios/NL/predict"
BODY = {"records": frame(2).to_dict("records")}
SECRET = "a token of many letters"


def test_a_token_is_needed_where_there_is_one(start):
    client = start(SECRET).client
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"Basic {SECRET}"},
                    {"Authorization": f"Bearer {SECRET}x"}, {"Authorization": "Bearer "}):  # fmt: skip
        answer = client.post(PATH, json=BODY, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/v1/scenarios", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 401
    assert client.post(PATH, json=BODY, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_faults_are_told_to_those_with_the_token(start, shelf):
    server = start(SECRET)
    server.fleet.registry_fault = "sqlite file lost"
    assert server.client.get("/readyz").json() == {"ready": True, "stale": True, "faults": []}
    told = server.client.get("/readyz", headers={"Authorization": f"Bearer {SECRET}"}).json()
    assert told["faults"] == ["the registry cannot be read: sqlite file lost"]


@pytest.mark.parametrize(
    ("host", "token", "authenticate", "outcome"),
    [
        ("127.0.0.1", "", True, None),
        ("::1", "", True, None),
        ("localhost", "", True, None),
        ("127.0.0.1", SECRET, True, SECRET),
        ("0.0.0.0", SECRET, True, SECRET),
        ("0.0.0.0", f"{SECRET}\n", True, SECRET),  # as mounted files end
        ("0.0.0.0", "", False, None),
        ("0.0.0.0", "", True, "open to other machines"),
        ("10.1.2.3", "", True, "open to other machines"),
        ("localhost.example.org", "", True, "open to other machines"),
        ("127.0.0.1", "short", True, "5 characters"),
    ],
)
def test_other_addresses_need_a_token(monkeypatch, host, token, authenticate, outcome):
    monkeypatch.setenv(TOKEN, token)
    if outcome in (None, SECRET):
        assert find_token(host, authenticate) == outcome
    else:
        with pytest.raises(ServingError, match=outcome):
            find_token(host, authenticate)


def test_too_many_bytes_or_rows(start):
    client = start(max_body_mib=0.01, max_rows=3).client
    assert client.post(PATH, json={"records": frame(3).to_dict("records")}).status_code == 200
    four = frame(4)
    for answer in (
        client.post(PATH, json={"records": four.to_dict("records")}),
        client.post(PATH, json={"columns": four.to_dict("list")}),
        client.post(PATH, content=as_stream(four), headers={"Content-Type": STREAM}),
    ):
        assert (answer.status_code, "serve.max_rows" in answer.json()["detail"]) == (413, True)
    large = b" " * 10_486
    for content in (large, iter([large[:9000], large[:9000]])):
        answer = client.post(PATH, content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, "serve.max_body_mib" in answer.json()["detail"]) == (413, True)


@pytest.fixture
def slow(monkeypatch):
    """Make scoring wait until the test lets it go."""
    from pfmsmt.serving.scorer import Scorer

    gate, score = threading.Event(), Scorer.score

    def wait(self, encoded):
        gate.wait(10)
        return score(self, encoded)

    def begin():
        monkeypatch.setattr(Scorer, "score", wait)
        return gate

    yield begin
    gate.set()


def test_too_many_at_a_time(start, slow):
    server = start(concurrency=2)
    gate = slow()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(server.post(PATH, json=BODY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 10
    while "pfmsmt_requests_running 2.0" not in server.client.get("/metrics").text:
        assert time.monotonic() < end
    refused = server.client.post(PATH, json=BODY)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    gate.set()
    for thread in threads:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert server.client.post(PATH, json=BODY).status_code == 200


def test_too_slow(start, slow):
    server = start(timeout_seconds=0.2)
    gate = slow()
    assert server.client.post(PATH, json=BODY).status_code == 504
    gate.set()
    assert server.client.post(PATH, json=BODY).status_code == 200


def test_a_body_that_does_not_come(start):
    server = start(timeout_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"
        line.sendall(head.encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(head.encode())
    asyncio.run(asyncio.sleep(0.1))
    assert server.client.post(PATH, json=BODY).status_code == 200


def test_a_failure_of_ours_says_nothing_of_the_rows(start, monkeypatch, caplog):
    from pfmsmt.serving.scorer import Scorer

    server = start()

    def fail(self, encoded):
        raise RuntimeError(f"secret {encoded.values.tolist()} 8675309")

    monkeypatch.setattr(Scorer, "score", fail)
    with caplog.at_level(logging.DEBUG):
        answer = server.client.post(
            PATH, json={"records": [{"country": 3, "user": 12, "price": 8675309.0, "age": 1.5}]}
        )
    assert answer.status_code == 500
    assert "RuntimeError" in caplog.text
    for text in (answer.text, caplog.text):
        assert "secret" not in text
        assert "8675309" not in text
        assert "Traceback" not in text


def test_the_log_holds_no_values_of_requests(start, caplog):
    server = start()
    with caplog.at_level(logging.DEBUG):
        server.client.post(PATH, json={"records": [{"country": 3, "user": 12, "price": 8675309.0, "age": 1.5}]})
        server.client.post(PATH, json={"records": [{"country": 3, "user": 12, "price": "8675309", "age": 1.5}]})
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")]
    assert not [text for text in logged if "8675309" in text]
