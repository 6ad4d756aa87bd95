"""Champions that change while the server runs."""

import gc
import shutil
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from pfmsmt.serving.deployments import Offer
from pfmsmt.tracking.registry import aliases, register_version, set_alias
from tests.support.shelves import frame, saved

ROWS = frame(6)
BODY = {"records": ROWS.to_dict("records")}
PATH = "/v1/scenarios/NL/predict"


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "nothing changed"
        time.sleep(0.01)


@pytest.mark.slow(3)
def test_only_models_of_the_data_here_are_served(make_fleet, shelf):
    """One registry has models of two projects: countries and, from other data, age groups."""
    shelf.add("18-24", alias="champion", tags={"dataset": "movielens"})
    shelf.add("NL", 5, alias="champion", tags={"dataset": "synthetic"})
    assert aliases(shelf.tracking).keys() == {"18-24", "ES", "NL"}
    every, countries, others, named = (
        make_fleet(offer=offer)
        for offer in (
            Offer(), Offer(("ES", "NL"), "synthetic"), Offer(("NL", "18-24"), "movielens"), Offer(("NL", "18-24")),
        )
    )  # fmt: skip
    for fleet, served in ((every, "18-24 ES NL"), (countries, "ES NL"), (others, "18-24"), (named, "18-24 NL")):
        fleet.refresh()
        # ES has a version that does not say its data set, as those of earlier versions.
        assert [name for name in fleet.scenarios if fleet.scorer(name)] == served.split()
    why = next(line for line in others.told if line.startswith("NL: champion"))
    assert "it is a model of the data set synthetic, and the data here are movielens" in why
    assert "`pfmsmt serve --scenario NL`" in why


@pytest.mark.slow(12)
def test_fifty_swaps_under_load_lose_no_request(start, shelf):
    server = start(poll_seconds=0.01)
    expected = {v: saved(shelf, "NL", v).predict(ROWS).to_numpy() for v in ("1", "2")}
    assert np.abs(expected["1"] - expected["2"]).max() > 1e-3
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(server.post(PATH, json=BODY))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    first = server.fleet.swaps
    for swap in range(50):
        set_alias(shelf.tracking, "NL", "champion", "12"[(swap + 1) % 2])
        wait_for(lambda swap=swap: server.fleet.swaps == first + swap + 1)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-model-version"] for answer in answers} == {"1", "2"}
    for answer in answers:
        body = answer.json()
        assert body["model_version"] == answer.headers["x-model-version"]
        found = np.array([[row["ctr"], row["ctcvr"]] for row in body["predictions"]])
        np.testing.assert_allclose(found, expected[body["model_version"]], rtol=0, atol=1e-6)


def files_of(shelf, version) -> Path:
    """Where the artifacts of NL's version lie."""
    source = shelf.tracking.client.get_model_version("pfmsmt-NL", version).source
    place = shelf.tracking.client.get_logged_model(source.removeprefix("models:/")).artifact_location
    return Path(place.removeprefix("file://"))


def damage(shelf, edit) -> str:
    """Register a third version of NL and edit its files."""
    version = shelf.add("NL", 5)
    edit(files_of(shelf, version))
    return version


FAULTS = {
    "pickle": (lambda folder: (folder / "python_model.pkl").write_bytes(b"\x80\x04."), "the pickle python_model.pkl"),
    "pickle by its content": (
        lambda folder: (folder / "notes.txt").write_bytes(b"\x80\x05abc"),
        "the pickle notes.txt",
    ),
    "no weights": (lambda folder: (folder / "artifacts/NL/weights.safetensors").unlink(), "no readable model"),
    "no model": (lambda folder: shutil.rmtree(folder / "artifacts"), "0 saved models"),
}


@pytest.mark.slow(2)
@pytest.mark.parametrize(("edit", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_a_version_that_cannot_be_loaded_leaves_the_old_one(start, shelf, edit, text):
    server = start()
    version = damage(shelf, edit)
    set_alias(shelf.tracking, "NL", "champion", version)
    wait_for(lambda: server.client.get("/readyz").json()["stale"])
    told = server.client.get("/readyz")
    assert (told.status_code, told.json()["ready"]) == (200, True)
    assert f"NL: champion version {version} is not served: " in told.json()["faults"][0]
    assert text in told.json()["faults"][0]
    assert server.client.post(PATH, json=BODY).json()["model_version"] == "1"
    assert 'pfmsmt_model_fault{alias="champion",scenario="NL"} 1.0' in server.client.get("/metrics").text
    set_alias(shelf.tracking, "NL", "champion", "2")
    wait_for(lambda: not server.client.get("/readyz").json()["stale"])
    assert server.client.post(PATH, json=BODY).json()["model_version"] == "2"
    assert len([line for line in server.fleet.told if f"version {version} is not served" in line]) == 1


@pytest.mark.slow(1)
def test_a_model_of_another_scenario_is_refused(start, shelf):
    server = start()
    wrong = shelf.tracking.client.get_model_version("pfmsmt-ES", "1").source.removeprefix("models:/")
    version = register_version(shelf.tracking, "NL", wrong, {})
    set_alias(shelf.tracking, "NL", "champion", version)
    wait_for(lambda: server.client.get("/readyz").json()["stale"])
    assert "is a model of scenario ES" in server.client.get("/readyz").json()["faults"][0]


@pytest.mark.slow(2)
def test_not_ready_while_a_scenario_has_no_model(start, shelf):
    version = damage(shelf, lambda folder: shutil.rmtree(folder / "artifacts"))
    set_alias(shelf.tracking, "NL", "champion", version)
    server = start()
    assert server.client.get("/readyz").status_code == 503
    answer = server.client.post(PATH, json=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert server.client.post(PATH.replace("NL", "ES"), json=BODY).status_code == 200
    set_alias(shelf.tracking, "NL", "champion", "1")
    wait_for(lambda: server.client.get("/readyz").status_code == 200)
    assert server.client.post(PATH, json=BODY).status_code == 200


@pytest.mark.slow(1)
def test_a_lost_alias_or_registry_leaves_all_in_service(start, shelf):
    server = start()
    shelf.tracking.client.delete_registered_model_alias("pfmsmt-NL", "champion")
    wait_for(lambda: server.client.get("/readyz").json()["stale"])
    assert "no version has the alias champion any more" in server.client.get("/readyz").json()["faults"][0]
    assert server.client.post(PATH, json=BODY).status_code == 200
    (shelf.root / "mlflow.db").write_bytes(b"no database" * 1000)
    wait_for(lambda: server.fleet.registry_fault)
    assert server.client.post(PATH, json=BODY).json()["model_version"] == "1"


@pytest.mark.slow(2)
def test_a_new_scenario_is_found(start, shelf):
    server = start()
    assert server.client.post(PATH.replace("NL", "FR"), json=BODY).status_code == 404
    shelf.add("FR", 7, "champion")
    wait_for(lambda: server.client.post(PATH.replace("NL", "FR"), json=BODY).status_code == 200)


@pytest.mark.slow(2)
def test_an_old_champion_is_let_go(start, shelf):
    """Tables and all, once the new one has answered: each swap would cost a model's memory."""
    server = start(poll_seconds=0.01)
    server.post(PATH, json=BODY)
    old = weakref.ref(server.fleet.scorer("NL"))
    set_alias(shelf.tracking, "NL", "champion", "2")
    wait_for(lambda: server.fleet.scorer("NL").version == "2")
    assert server.post(PATH, json=BODY).json()["model_version"] == "2"
    gc.collect()
    assert old() is None
