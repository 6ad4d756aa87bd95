"""The page that describes requests: whole without a network, with examples that are answered as they stand."""

import re

import pytest

from pfmsmt.data.schema import CategoricalField, NumericalField
from pfmsmt.serving.app import build_app
from tests.support.shelves import SETTINGS, Server

FIELDS = {
    "categorical": (
        CategoricalField(name="device", federated=True, text=True, vocabulary=("phone", "tablet")),
        CategoricalField(name="customer", federated=False, text=True, vocabulary=("Ada", "Bob")),
        CategoricalField(name="rare", federated=True),
        CategoricalField(name="user", federated=False, vocabulary=(17, 18)),
    ),
    "numerical": (NumericalField(name="price", mean=1234.56789, std=2.0), NumericalField(name="age", mean=-3, std=1.0)),
}


def loaded_by(page: str) -> list[str]:
    """What a page makes a browser load: scripts, styles, pictures, and the document that Swagger reads."""
    return re.findall(r"(?:src|href)=\"([^\"]+)\"", page) + re.findall(r"url: '([^']+)'", page)


def test_the_page_loads_all_from_the_server(served):
    page = served.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loaded = loaded_by(page.text)
    assert len(loaded) == 4
    kinds = {}
    for path in loaded:
        answer = served.get(path)
        assert answer.status_code == 200, path
        kinds[path.rpartition(".")[2]] = answer.headers["content-type"].partition(";")[0]
    assert kinds == {"js": "text/javascript", "css": "text/css", "png": "image/png", "json": "application/json"}
    # Without a scheme or a host no browser asks anybody else.
    assert not [path for path in loaded if not re.match(r"/[^/]", path)]
    assert "http" not in re.sub(r"<!--.*?-->", "", page.text)


@pytest.mark.parametrize("prefix", ["", "/models"])
def test_the_root_leads_to_the_page(make_fleet, prefix):
    server = Server(build_app(make_fleet(), SETTINGS), root_path=prefix)
    try:
        # A proxy takes the prefix away; uvicorn puts it before the path again.
        first = server.client.get("/", allow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (307, f"{prefix}/docs")
        loaded = loaded_by(server.client.get("/docs").text)
        assert all(path.startswith(f"{prefix}/") for path in loaded)
        assert [server.client.get(path.removeprefix(prefix)).status_code for path in loaded] == [200] * 4
    finally:
        server.stop()


def test_the_page_wants_the_token_as_all_others(start):
    client = start("a token of many letters").client
    for path in ("/", "/docs", "/static-offline-docs/swagger-ui.css", "/v1/scenarios/NL/example"):
        assert client.get(path).status_code == 401


def test_examples_are_answered_as_they_stand(start, shelf):
    shelf.add("US", seed=4, alias="champion", **FIELDS)
    client = start().client
    document = client.get("/openapi.json").json()
    (path,) = [path for path in document["paths"] if path.endswith("/predict")]
    operation = document["paths"][path]["post"]
    bodies = operation["requestBody"]["content"]["application/json"]["examples"]
    names = next(p for p in operation["parameters"] if p["name"] == "scenario")["examples"]
    # In one order: a page fills in the first of both.
    assert list(bodies) == list(names) == ["ES", "NL", "US"]
    for scenario, example in bodies.items():
        assert names[scenario] == {"value": scenario}
        answer = client.post(path.format(scenario=scenario), json=example["value"])
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == 1
        alone = client.get(f"/v1/scenarios/{scenario}/example")
        assert alone.json() == example["value"]
        sent = {"content": alone.content, "headers": {"Content-Type": "application/json"}}
        assert client.post(path.format(scenario=scenario), **sent).status_code == 200


def test_examples_give_no_private_category_away(start, shelf):
    shelf.add("US", seed=4, alias="champion", **FIELDS)
    client = start().client
    assert client.get("/v1/scenarios/US/example").json() == {
        "records": [
            {"device": "phone", "customer": "example", "rare": 0, "user": 0, "price": 1234.57, "age": -3.0},
        ]
    }  # fmt: skip
    assert client.get("/v1/scenarios/NL/example").json() == {
        "records": [{"country": 3, "user": 0, "price": 10.0, "age": 1.0}]
    }


def test_a_new_champion_changes_the_examples(start, shelf):
    server = start()
    shelf.add("NL", seed=4, alias="champion", **FIELDS)
    server.fleet.refresh()
    (path,) = [path for path in server.client.get("/openapi.json").json()["paths"] if path.endswith("/predict")]
    operation = server.client.get("/openapi.json").json()["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]["examples"]["NL"]["value"]
    assert server.client.post(path.format(scenario="NL"), json=body).status_code == 200
    assert body["records"][0]["device"] == "phone"


def test_an_example_of_an_unknown_scenario_is_refused(served):
    answer = served.get("/v1/scenarios/XX/example")
    assert (answer.status_code, "'XX'" in answer.json()["detail"]) == (404, True)
