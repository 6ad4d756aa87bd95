"""Sites that fail, are late, missing or wrong; a server that is killed. The apps are Flower's, in one process."""

import json

import numpy as np
import pandas as pd
import pytest
from flwr.app import Error, Message

from pfmsmt.core.errors import FederationError, TrainingError
from pfmsmt.flower.plan import across_sites
from pfmsmt.flower.server.participants import Sites
from pfmsmt.flower.wire import read_request
from tests.support.faulty_sites import ALL, CHANGES, at, final, raises, step, with_arrays
from tests.support.in_process_grid import InProcessGrid

RUN = "models/fedavg-seed0"


def traffic(project):
    return pd.read_csv(project / RUN / "traffic.csv").set_index(["round", "client"])["tensors_up"]


@pytest.mark.parametrize("name", ["joint", "centralized"])
def test_sites_are_not_asked_to_train_a_reference(make_config, schema, name):
    def never(*_):
        raise AssertionError("no site may be reached")

    with pytest.raises(FederationError, match=f"{name} is a reference, with an exchange at every step"):
        Sites(across_sites(make_config(), schema), schema, name, 0, "run", never)


def is_late(message):
    raise TimeoutError


def goes_away(message):
    return Message(Error(5, "node unavailable"), reply_to=message)


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (is_late, "no answer within 0.3 s (federate.deadline)"),
        (raises, "Flower's error 2: <class 'OSError'>:<'disk gone'>"),
        (goes_away, "its site went away"),
    ],
)
def test_a_site_that_does_not_answer_is_named_and_the_round_goes_on(
    configure, grid, serve, project, capsys, act, reason
):
    configure(CHANGES)
    grid.before = at("ES", ("train", 1, 0), act)
    serve(grid, "fedavg")
    assert f"fedavg-seed0: round 1: client ES did not answer: {reason}\n" in capsys.readouterr().out
    up = traffic(project)
    assert (up[1, "ES"], up[1, "NL"] > 0, up[2, "ES"] == up[2, "NL"]) == (0, True, True)
    history = pd.read_csv(project / RUN / "history.csv")
    assert all(set(found) == ALL for found in history.groupby("round")["scenario"].unique())


@pytest.mark.slow(3)
def test_a_missing_site_keeps_its_parameters_and_joins_again_under_another_node(
    configure, grid, serve, project, capsys, equal_arrays
):
    configure({**CHANGES, "methods.pf_msmtrec.tower_steps": 0})
    grid.absent = {"US"}

    def back(site, message):
        if step(message) == ("validate", 1, 0):
            grid.absent = set()

    grid.before = back
    node = next(n for n in grid.contexts if grid.site(n) == "US")
    grid.contexts[node + 1000] = grid.contexts.pop(node)
    serve(grid, "pf_msmtrec")
    said = capsys.readouterr().out
    assert "waiting for sites US\n" in said
    assert "round 1: client US did not answer: its site is not connected\n" in said
    assert "round 2" not in "".join(line for line in said.splitlines() if "did not answer" in line)
    first, second = (
        read_request(m.content).request.arrays
        for m in grid.passed
        if (m.site, m.direction) == ("US", "down") and step(m) in (("train", 2, 0), ("validate", 2, 0))
    )
    # It missed round 1, so round 2 starts from what everybody started from; only then its parameters move.
    start = next(read_request(m.content).request.arrays for m in grid.passed if step(m) == ("train", 1, 0))
    assert equal_arrays(first, start)
    assert not equal_arrays(second, start)


def with_nan(found):
    next(iter(found.values())).flat[0] = np.nan


def far_away(found):
    for array in found.values():
        array += 1e4


def of_another_shape(found):
    name = next(iter(found))
    found[name] = found[name].ravel()[:1]


def with_more(found):
    found["private/table"] = np.zeros((5, 2), np.float32)


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (with_nan, "is not finite"),
        (far_away, "away from what was sent; at most"),
        (of_another_shape, "of shape (1,), expected float32 of shape"),
        (lambda found: found.pop(next(iter(found))), "it lacks"),
        (with_more, "it holds 'private/table', which is not to be uploaded"),
    ],
)
def test_a_wrong_upload_is_rejected_and_changes_nothing(
    configure, grid, serve, project, capsys, equal_arrays, change, fault
):
    """The round goes on as if the site had not answered."""
    configure({**CHANGES, "federate.rounds": 1})
    grid.before = lambda site, message: (
        with_arrays(change)(grid, site, message) if (site, step(message)) == ("ES", ("train", 1, 0)) else None
    )
    serve(grid, "fedavg")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "did not answer" in line)
    assert line.startswith("fedavg-seed0: round 1: client ES did not answer: upload rejected: ")
    assert fault in line
    silent = InProcessGrid({grid.site(n): c.node_config["data-dir"] for n, c in grid.contexts.items()})
    silent.before = at("ES", ("train", 1, 0), raises)
    serve(silent, "fedavg")
    assert all(equal_arrays(final(grid)[site], final(silent)[site]) for site in ALL)
    assert all(np.isfinite(array).all() for array in final(grid)["NL"].values())


def of_another_version(plan):
    plan["version"] = "0.0.1"


def of_another_schema(plan):
    plan["agreement"] = "0" * 64


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (of_another_version, "the server 0.0.1; install the same version"),
        (of_another_schema, "the server has 000000000000; agree on the schema again"),
    ],
)
def test_a_site_that_does_not_fit_refuses(configure, grid, serve, capsys, change, reason):
    configure({**CHANGES, "federate.rounds": 1})

    def before(site, message):
        if site == "ES":
            notes = json.loads(message.content["notes"]["json"])
            change(notes["plan"])
            message.content["notes"]["json"] = json.dumps(notes)

    grid.before = before
    serve(grid, "fedavg")
    said = capsys.readouterr().out
    assert "round 1: client ES did not answer: site ES " in said
    assert reason in said
    assert "site ES did not save a model" in said


@pytest.mark.slow(1)
def test_a_sites_own_errors_do_not_quote_its_data(configure, grid, serve, sites, capsys):
    configure({**CHANGES, "federate.rounds": 1})
    (sites["ES"] / "data/clients/ES/train.parquet").write_bytes(b"damaged")
    serve(grid, "fedavg")
    said = capsys.readouterr().out
    assert "client ES did not answer: DataError; the site's own log says more\n" in said
    assert "parquet" not in said


@pytest.mark.slow(1)
def test_a_key_that_is_registered_for_another_scenario_is_refused(configure, grid, serve, sites, capsys):
    configure({**CHANGES, "federate.rounds": 1})
    for context in grid.contexts.values():
        if context.node_config["scenario"] == "ES":
            context.node_config["data-dir"] = str(sites["NL"])
    serve(grid, "fedavg")
    assert "client ES did not answer: site ES holds data of NL; prepare its own\n" in capsys.readouterr().out


@pytest.mark.slow(1)
def test_below_the_quorum_the_run_ends_and_says_why(configure, grid, serve):
    configure({**CHANGES, "train.quorum": 1.0})
    grid.before = at("ES", ("train", 2, 0), raises)
    with pytest.raises(TrainingError, match=r"round 2: 2 clients answered, the quorum is 3\. ES: Flower's error 2"):
        serve(grid, "fedavg")


class Killed(BaseException):
    """Nothing can be done about it, as of SIGKILL."""


def dies(message):
    raise Killed


@pytest.mark.slow(2)
def test_without_authentication_sites_say_who_they_are(configure, project, sites, monkeypatch, serve):
    configure({**CHANGES, "federate.rounds": 1})
    nameless = InProcessGrid(sites, names=False)
    monkeypatch.setenv("PFMSMT_INSECURE", "1")
    serve(nameless, "fedavg")
    assert (traffic(project) > 0).all()


@pytest.mark.slow(5)
@pytest.mark.parametrize(("name", "when"), [("pf_msmtrec", ("train", 2, 1)), ("fedavg", ("validate", 2, 0))])
def test_a_killed_server_goes_on_after_its_last_complete_round(
    configure, grid, serve, project, sites, capsys, equal_arrays, name, when
):
    """Bit for bit, although sites have trained in the broken round already; no round is counted twice."""
    configure({**CHANGES, "federate.rounds": 3})
    history, best = project / f"models/{name}-seed0/history.csv", f"models/{name}-seed0"
    serve(grid, name)
    whole = history.read_text()
    kept = {site: (folder / best / site / "weights.safetensors").read_bytes() for site, folder in sites.items()}

    broken = InProcessGrid(sites)
    broken.before = at("NL", when, dies)
    with pytest.raises(Killed):
        serve(broken, name)
    resumed = InProcessGrid(sites)
    capsys.readouterr()
    serve(resumed, name)
    assert f"{name}-seed0: going on after round 1\n" in capsys.readouterr().out
    assert next(step(m) for m in resumed.passed if m.direction == "down") == ("train", 2, 0)
    assert all(equal_arrays(final(resumed)[site], final(grid)[site]) for site in ALL)
    assert history.read_text() == whole
    for site, folder in sites.items():
        assert (folder / best / site / "weights.safetensors").read_bytes() == kept[site]
