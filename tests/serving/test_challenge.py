"""Challengers beside champions."""

import time

import numpy as np
import pytest

from pfmsmt.data.schema import NumericalField
from pfmsmt.serving.challenge import takes
from pfmsmt.tracking.registry import set_alias
from tests.support.shelves import frame, saved, schema

ROWS = frame(6)
BODY = {"records": ROWS.to_dict("records")}
PATH = "/v1/scenarios/NL/predict"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_keys_goes_to_the_challenger(share):
    keys = [f"user-{number}" for number in range(20_000)]
    taken = [takes(key, "NL", share) for key in keys]
    # Four standard deviations of a binomial share.
    assert np.mean(taken) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(keys)))
    assert taken == [takes(key, "NL", share) for key in keys]
    assert all(takes(key, "NL", 0.6) for key, one in zip(keys, taken, strict=True) if one and share < 0.6)


def test_scenarios_draw_for_themselves():
    keys = [f"user-{number}" for number in range(2_000)]
    assert [takes(key, "NL", 0.5) for key in keys] != [takes(key, "ES", 0.5) for key in keys]


@pytest.mark.slow(2)
def test_split_answers_by_key(start, shelf):
    client = start(challenger="split", challenger_share=0.5).client
    expected = {v: saved(shelf, "NL", v).predict(ROWS).to_numpy() for v in ("1", "2")}
    for number in range(20):
        key = f"user-{number}"
        answer = client.post(PATH, json=BODY, headers={"X-Request-Key": key}).json()
        challenged = takes(key, "NL", 0.5)
        assert (answer["alias"], answer["model_version"]) == (("challenger", "2") if challenged else ("champion", "1"))
        found = np.array([[row["ctr"], row["ctcvr"]] for row in answer["predictions"]])
        np.testing.assert_allclose(found, expected[answer["model_version"]], rtol=0, atol=1e-6)
    assert client.post(PATH, json=BODY).json()["model_version"] == "1"
    assert 'pfmsmt_split_without_key_total{scenario="NL"} 1.0' in client.get("/metrics").text
    one = client.post(PATH.replace("NL", "ES"), json=BODY, headers={"X-Request-Key": "user-1"}).json()
    assert one["alias"] == "champion", "ES has no challenger"


def metric(client, name):
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


def test_a_shadow_is_compared_and_not_returned(start, shelf):
    client = start(challenger="shadow").client
    answer = client.post(PATH, json=BODY).json()
    assert answer["model_version"] == "1"
    name = 'pfmsmt_shadow_difference_count{scenario="NL",task="ctr"}'
    end = time.monotonic() + 10
    while metric(client, name) < 1:
        assert time.monotonic() < end
    first, second = (saved(shelf, "NL", v).predict(ROWS).to_numpy() for v in ("1", "2"))
    for place, task in enumerate(("ctr", "ctcvr")):
        found = metric(client, f'pfmsmt_shadow_difference_sum{{scenario="NL",task="{task}"}}')
        assert found == pytest.approx(np.abs(first - second).mean(axis=0)[place], abs=1e-6)


@pytest.mark.slow(1)
def test_a_challenger_with_other_columns_is_not_shadowed(start, shelf):
    numerical = (NumericalField(name="price", mean=10.0, std=2.0),)
    set_alias(shelf.tracking, "NL", "challenger", shelf.add("NL", 4, numerical=numerical))
    client = start(challenger="shadow").client
    assert client.post(PATH, json=BODY).status_code == 200
    assert metric(client, 'pfmsmt_shadow_lost_total{reason="other columns",scenario="NL"}') == 1


@pytest.mark.slow(2)
@pytest.mark.parametrize("mode", ["split", "shadow"])
def test_a_challenger_that_needs_more_than_requests_have_gets_none(mode, start, shelf):
    more = (*schema("NL").numerical, NumericalField(name="weight", mean=0.0, std=1.0))
    set_alias(shelf.tracking, "NL", "challenger", shelf.add("NL", 4, numerical=more))
    server = start(challenger=mode, challenger_share=1.0)
    answer = server.client.post(PATH, json=BODY, headers={"X-Request-Key": "user-1"})
    assert (answer.status_code, answer.json()["alias"]) == (200, "champion")
    ready = server.client.get("/readyz").json()
    text = "NL: challenger version 3 gets no requests: it needs columns that requests do not have: weight"
    assert (ready["ready"], ready["stale"], ready["faults"]) == (True, True, [text])
    server.fleet.refresh()
    assert server.fleet.told.count(text) == 1
    set_alias(shelf.tracking, "NL", "challenger", "2")
    server.fleet.refresh()
    assert server.client.get("/readyz").json()["stale"] is False
    taken = server.client.post(PATH, json=BODY, headers={"X-Request-Key": "user-1"}).json()
    assert taken["alias"] == ("challenger" if mode == "split" else "champion")
