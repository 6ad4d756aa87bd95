"""Bodies that nobody meant: damaged Arrow streams, and whatever the OpenAPI document allows."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pfmsmt.serving import bodies
from pfmsmt.serving.app import build_app
from pfmsmt.serving.guards import Refusal
from pfmsmt.serving.rows import FeatureRows, RowReader
from tests.support.shelves import SETTINGS, STREAM, as_stream, frame, schema

INPUTS = 10_000


def seeds() -> list[bytes]:
    """Streams with all that a stream may have."""
    rows = frame(6)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    nulls = table.set_column(2, "price", pa.array([1.0, None, 2.0, 3.0, None, 1.0]))
    strings = table.append_column("text", pa.array(["a", "", "ä", None, "b", "c"]))
    nested = table.append_column("list", pa.array([[1], [], None, [2, 3], [4], []]))
    packed = table.set_column(0, "country", table["country"].combine_chunks().dictionary_encode())
    chunks = pa.concat_tables([table.slice(0, 2), table.slice(2, 4)])
    return [*(as_stream(t) for t in (table, nulls, strings, nested, packed, chunks)), as_stream(table, "zstd")]


def damage(stream: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Flip bits, overwrite words, cut, repeat or join, now and then several at once."""
    body = bytearray(stream)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, max(len(body), 1)))
        match int(rng.integers(0, 7)):
            case 0:
                body[place : place + 1] = bytes([body[place] ^ (1 << int(rng.integers(0, 8)))]) if body else b""
            case 1:
                word = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**30, int(rng.integers(0, 2**32))]))
                at = place - place % 4
                body[at : at + 4] = word.to_bytes(4, "little")
            case 2:
                at = place - place % 8
                body[at : at + 8] = int(rng.choice([2**62, 2**40, 2**63 - 1, 0])).to_bytes(8, "little")
            case 3:
                del body[place:]
            case 4:
                del body[place : place + int(rng.integers(1, 64))]
            case 5:
                body[place:place] = body[place : place + int(rng.integers(1, 64))]
            case 6:
                body[place:] = other[int(rng.integers(0, len(other))) :]
    return bytes(body)


@pytest.mark.slow(1)
def test_damaged_arrow_streams_are_refused_or_read_and_never_more():
    rng, streams = np.random.default_rng(7), seeds()
    reader = RowReader(schema("NL"), ("age",))
    outcomes: Counter[str] = Counter()
    for number in range(INPUTS):
        stream = streams[number % len(streams)]
        body = damage(stream, rng, streams[int(rng.integers(0, len(streams)))])
        try:
            rows = bodies.parse_rows(body, STREAM, reader, 100)
        except Refusal as refusal:
            outcomes[str(refusal.status)] += 1
        else:
            assert isinstance(rows, FeatureRows)
            assert len(rows.categories) <= 100
            assert np.isfinite(rows.numbers).all()
            outcomes["read"] += 1
    assert sum(outcomes.values()) == INPUTS
    assert set(outcomes) == {"read", "413", "422"}
    assert min(outcomes["422"], outcomes["read"], outcomes["413"]) > 10, outcomes


@pytest.mark.slow(1)
def test_a_server_outlives_damaged_streams(start):
    server = start()
    rng, streams = np.random.default_rng(8), seeds()
    statuses = Counter(
        server.client.post(
            "/v1/scenarios/NL/predict",
            content=damage(streams[number % len(streams)], rng, streams[0]),
            headers={"Content-Type": STREAM},
        ).status_code
        for number in range(200)
    )
    assert set(statuses) <= {200, 413, 422}, statuses
    assert server.client.get("/readyz").status_code == 200


@pytest.fixture
def document(make_fleet):
    fleet = make_fleet()
    fleet.refresh()
    # Not at the top: it would take every worker two seconds to load.
    import schemathesis

    return schemathesis.openapi.from_asgi("/openapi.json", build_app(fleet, SETTINGS))


def document_checks() -> list:
    import schemathesis
    from schemathesis.specs.openapi import checks

    return [
        schemathesis.checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]


@pytest.mark.slow(5)
@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_nothing_that_the_openapi_document_allows_or_forbids_fails(document, kind):
    from schemathesis.generation import GenerationMode

    mode, checks = GenerationMode(kind), document_checks()
    statuses: Counter[int] = Counter()
    for found in document.get_all_operations():
        operation = found.ok()
        if mode == GenerationMode.NEGATIVE and not operation.path.endswith("/predict"):
            continue  # nothing in the others could be wrong

        @settings(
            max_examples=60, deadline=None, derandomize=True, database=None, phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            statuses[case.call_and_validate(checks=checks).status_code] += 1

        check()
    assert sum(statuses.values()) >= 60
    assert max(statuses) < 500
