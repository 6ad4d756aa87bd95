"""Answers that no honest site gives, and requests that no honest server sends: refused, and nobody else suffers."""

import json
import shutil

import numpy as np
import pytest
import yaml
from flwr.app import Array, ArrayRecord
from pydantic import ValidationError

from pfmsmt.core.errors import FederationError, TrainingError
from pfmsmt.core.types import RUNNING_VARIANCE
from pfmsmt.data.schema import read_schema
from pfmsmt.flower.server.agree import agree_on_schema
from pfmsmt.flower.server.nodes import Nodes
from pfmsmt.flower.site.client_app import client_app
from pfmsmt.flower.site.prepare import prepare_site
from pfmsmt.flower.wire import read_request
from tests.support.faulty_sites import ALL, CHANGES, at, final, raises, step, with_arrays
from tests.support.in_process_grid import InProcessGrid

ONE = {**CHANGES, "federate.rounds": 1}


def with_content(change):
    """Let the site answer, then change the records."""

    def act(grid, site, message):
        node = next(n for n in grid.contexts if grid.site(n) == site)
        reply = client_app(message, grid.contexts[node])
        change(reply.content)
        return reply

    return act


def with_notes(change):
    def edit(content):
        notes = json.loads(content["notes"]["json"])
        change(notes)
        content["notes"]["json"] = json.dumps(notes)

    return with_content(edit)


def with_bytes(data):
    def edit(content):
        found = dict(content["arrays"].items())
        name = next(iter(found))
        like = found[name]
        found[name] = Array(dtype=like.dtype, shape=like.shape, stype=like.stype, data=data)
        content["arrays"] = ArrayRecord(found)

    return with_content(edit)


def nested(content):
    content["notes"]["json"] = "[" * 100_000


def negative(found):
    for name in found:
        if name.endswith(RUNNING_VARIANCE):
            found[name][:] = -3


UPLOADS = {
    "no bytes": (with_bytes(b""), "its answer cannot be read"),
    "a zip": (with_bytes(b"PK\x03\x04" + bytes(60)), "its answer cannot be read"),
    "a header that lies": (
        with_bytes(b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }"
                   .ljust(117) + b"\n"),
        "its answer cannot be read",
    ),
    "nested notes": (with_content(nested), "its answer cannot be read"),
    "no variance": (with_arrays(negative), "is a variance, and below 0"),
    "releases without noise": (with_notes(lambda notes: notes.update(releases=10**400)), "noised uploads"),
    "a failure over many lines": (
        with_notes(lambda notes: notes.update(failure="a\n\x1b[2Jb" + "c" * 2000)), "a [2Jb" + "c" * 294,
    ),
}  # fmt: skip


@pytest.mark.slow(1)
@pytest.mark.parametrize(("act", "fault"), UPLOADS.values(), ids=UPLOADS.keys())
def test_an_upload_that_cannot_be_is_its_sites_failure(configure, grid, serve, capsys, act, fault):
    configure(ONE)
    grid.before = lambda site, m: act(grid, site, m) if (site, step(m)) == ("ES", ("train", 1, 0)) else None
    serve(grid, "fedavg")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "did not answer" in line)
    assert line.startswith("fedavg-seed0: round 1: client ES did not answer: ")
    assert fault in line
    assert len(line) < 400


@pytest.mark.slow(1)
def test_so_many_noised_uploads_nobody_makes(configure, grid, serve, capsys):
    configure({**ONE, "privacy.clip": 1.0, "privacy.noise": 1.0})
    act = with_notes(lambda notes: notes.update(releases=10**400))
    grid.before = lambda site, m: act(grid, site, m) if (site, step(m)) == ("ES", ("train", 1, 0)) else None
    serve(grid, "fedavg")
    assert "client ES did not answer: upload rejected: it says 1000" in capsys.readouterr().out


@pytest.mark.slow(1)
@pytest.mark.parametrize(("auc", "logloss"), [(1.5, 0.2), (-0.1, 0.2), (0.5, -1.0)])
def test_figures_that_cannot_be_are_rejected(configure, grid, serve, capsys, auc, logloss):
    configure(ONE)

    def change(notes):
        notes["validation"]["ES"]["ctr"] = {"auc": auc, "logloss": logloss}

    act = with_notes(change)
    grid.before = lambda site, m: act(grid, site, m) if (site, step(m)) == ("ES", ("validate", 1, 0)) else None
    serve(grid, "fedavg")
    assert "client ES did not answer: validation rejected" in capsys.readouterr().out


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    "best", [{"round": "x"}, {"mean_auc": "<script>"}, {"validation": [1]}, {"round": 0}, {"round": 2}]
)
def test_what_a_site_tells_at_the_end_is_checked(configure, grid, serve, project, capsys, best):
    configure(ONE)
    act = with_notes(lambda notes: notes["best"].update(best))
    grid.before = lambda site, m: act(grid, site, m) if site == "ES" and step(m) is None else None
    serve(grid, "fedavg")
    assert "site ES did not save a model: its answer does not fit" in capsys.readouterr().out
    assert json.loads((project / "models/fedavg-seed0/result.json").read_text())["best"].keys() == ALL - {"ES"}


@pytest.mark.slow(2)
def test_a_site_whose_best_round_is_not_known_is_not_trained_again(configure, grid, serve, project, capsys):
    configure({**ONE, "train.refit": True})
    done = {"ES": 0, "NL": 0}

    def act(site, message):
        """ES fails at the end of the first training; NL validates in the second."""
        if site == "ES" and step(message) is None and not read_request(message.content).plan.refits:
            return raises(message)
        if site == "NL" and step(message) == ("validate", 1, 0) and read_request(message.content).plan.refits:
            done["NL"] += 1
            return with_notes(lambda notes: notes.update(validation={"NL": {}}))(grid, site, message)
        return None

    grid.before = act
    with pytest.raises(TrainingError, match="1 clients answered, the quorum is 2"):
        serve(grid, "fedavg")
    output = capsys.readouterr().out
    assert "site ES did not find its best round: " in output
    assert done["NL"] == 1
    grid.before = lambda site, message: None
    serve(grid, "fedavg")
    output = capsys.readouterr().out
    assert "going on after round 0 of the second training" in output
    assert "client ES did not answer: site ES has no best round of this run's first training to train again" in output
    assert "site ES did not save a model: site ES has no best round" in output
    assert json.loads((project / "models/fedavg-seed0/result.json").read_text())["best"].keys() == ALL - {"ES"}


@pytest.mark.slow(1)
def test_a_site_that_is_connected_twice_is_left_out(configure, grid, serve, capsys):
    configure(ONE)
    node = next(n for n in grid.contexts if grid.site(n) == "US")
    grid.contexts[node + 1000] = grid.contexts[node]
    serve(grid, "fedavg")
    assert "client US did not answer: two nodes are connected as it; stop one of them" in capsys.readouterr().out


# -- the schema exchange


@pytest.fixture(scope="module")
def proposed(tmp_path_factory, make_tree):
    """The folders of sites that have proposed, made once."""
    root = tmp_path_factory.mktemp("proposed")
    for scenario in ALL:
        (root / scenario).mkdir()
        (root / scenario / "params.yaml").write_text(yaml.safe_dump(make_tree({})))
        prepare_site(root / scenario, scenario)
    return root


@pytest.fixture
def raw_sites(configure, project, proposed):
    """Sites of the test's own that have proposed."""
    configure({"federate.deadline": 5.0})
    (project / "data/clients/schema.json").unlink()
    sites = shutil.copytree(proposed, project.parent / "sites")
    return {scenario: sites / scenario for scenario in sorted(ALL)}


def tells(change):
    """Change the counts that a site answers."""

    def edit(notes):
        schema = json.loads(notes["text"])
        change(schema["counts"]["ES"])
        notes["text"] = json.dumps(schema)

    return with_notes(edit)


ANSWERS = {
    "no rows": ("prepare", tells(lambda c: c["train"].update(rows=0)), "reports no rows, groups or positives of train"),
    "less than none": (
        "prepare",
        tells(lambda c: c["val"].update(rows=-5)),
        "reports no rows, groups or positives of val",
    ),
    "a part is missing": ("prepare", tells(lambda c: c.pop("test")), "reports no rows, groups or positives of test"),
    "more positives": (
        "prepare",
        tells(lambda c: c["test"]["positives"].update(ctr=10**9)),
        "reports more positives of test",
    ),
    "no proposal": ("propose", with_notes(lambda notes: notes.update(text="{}")), "its answer is no proposal"),
    "no text": ("propose", with_notes(lambda notes: notes.pop("text")), "its answer cannot be read"),
}


@pytest.mark.slow(2)
@pytest.mark.parametrize(("kind", "act", "fault"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_to_the_schema_that_cannot_be_is_refused_by_name(raw_sites, project, kind, act, fault):
    grid = InProcessGrid(raw_sites)
    kind = f"query.{kind}"
    grid.before = lambda site, m: act(grid, site, m) if (site, m.metadata.message_type) == ("ES", kind) else None
    with pytest.raises(FederationError, match=f"site ES:? {fault}"):
        agree_on_schema(Nodes(grid, deadline=5.0, trust_nodes=False), project)
    assert not (project / "data/clients/schema.json").exists()


# -- what a site agrees to


@pytest.mark.slow(1)
@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"privacy.clip": 0.5}, "nothing longer than clip 0.5, or with less noise than 0"),
        ({"privacy.clip": 2.0, "privacy.noise": 1.0}, "or with less noise than 1"),
        ({"federate.methods": ["pf_msmtrec", "fedbn"]}, "takes part in pf_msmtrec, fedbn alone"),
    ],
)
def test_no_more_leaves_than_a_sites_params_allow(configure, grid, serve, sites, make_tree, capsys, terms, reason):
    configure({**ONE, "privacy.clip": 1.0, "privacy.noise": 0.5})
    (sites["ES"] / "params.yaml").write_text(yaml.safe_dump(make_tree(terms)))
    (sites["NL"] / "params.yaml").write_text(yaml.safe_dump(make_tree({"privacy.clip": 1.0, "privacy.noise": 0.5})))
    serve(grid, "fedavg")
    said = capsys.readouterr().out
    assert "client ES did not answer: site ES " in said
    assert reason in said
    assert "client NL" not in said
    up = [m for m in grid.passed if (m.site, m.direction) == ("ES", "up")]
    assert not any("arrays" in m.content for m in up)


@pytest.mark.slow(1)
@pytest.mark.parametrize("run", ["../../escaped", "", "e67ce88de15487c", "E67CE88DE15487CA", "e67ce88de15487ca/x"])
def test_a_runs_name_is_no_path(configure, grid, serve, sites, capsys, run):
    configure(ONE)

    def before(site, message):
        if site == "ES":
            notes = json.loads(message.content["notes"]["json"])
            notes["plan"]["run_id"] = run
            message.content["notes"]["json"] = json.dumps(notes)

    grid.before = before
    serve(grid, "fedavg")
    assert "client ES did not answer: the request is none that this version of pfmsmt knows" in capsys.readouterr().out
    assert not (sites["ES"] / "state").exists()
    request = next(m for m in grid.passed if m.site == "NL").content
    with pytest.raises(ValidationError):
        type(read_request(request).plan).model_validate({**read_request(request).plan.model_dump(), "run_id": run})


@pytest.mark.slow(1)
def test_a_run_goes_on_when_the_quorum_that_ended_it_is_lowered(configure, grid, serve, sites, capsys):
    configure({**CHANGES, "train.quorum": 1.0})
    grid.before = at("ES", ("train", 2, 0), raises)
    with pytest.raises(TrainingError, match="the quorum is 3"):
        serve(grid, "fedavg")
    configure({**CHANGES, "train.quorum": 0.5})
    serve(grid, "fedavg")
    assert "fedavg-seed0: going on after round 1\n" in capsys.readouterr().out


@pytest.mark.slow(1)
def test_a_site_forgets_a_run_that_was_begun_anew(configure, grid, serve, sites, capsys):
    configure({**CHANGES, "train.quorum": 1.0})
    grid.before = at("ES", ("train", 2, 0), raises)
    with pytest.raises(TrainingError, match="the quorum is 3"):
        serve(grid, "fedavg")
    (old,) = (path for path in (sites["NL"] / "state").iterdir() if path.is_dir())
    configure({**CHANGES, "methods.fedavg.learning_rate": 0.011})
    again = InProcessGrid(sites)
    serve(again, "fedavg")
    assert "starting anew" in capsys.readouterr().out
    (new,) = (path for path in (sites["NL"] / "state").iterdir() if path.is_dir())
    assert new != old
    assert read_schema(sites["NL"] / "data/clients/schema.json").scenarios == ("NL",)
    assert np.isfinite(next(iter(final(again)["NL"].values()))).all()
