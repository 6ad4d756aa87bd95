"""Promotion, rollback and the rest of `pfmsmt models`, on a real registry."""

import pytest
import yaml
from typer.testing import CliRunner

from pfmsmt.commands.main import app
from pfmsmt.core.errors import TrackingError
from pfmsmt.data.schema import CategoricalField, NumericalField, Task
from pfmsmt.tracking import promotion, registry
from tests.support.shelves import schema


@pytest.fixture
def run(shelf, make_tree):
    """Return a function that runs a `pfmsmt models` command in a project whose margin is 0.01."""
    (shelf.root / "params.yaml").write_text(yaml.safe_dump(make_tree({"register.margin": 0.01})))

    def invoke(*words):
        return CliRunner().invoke(app, ["models", *words])

    return invoke


def champion(shelf, scenario="NL"):
    return promotion.current(shelf.tracking, scenario).version


@pytest.mark.slow(1)
def test_promote_moves_the_alias_and_is_recorded(run, shelf):
    done = run("promote", "NL")
    assert (done.exit_code, done.output) == (0, "pfmsmt-NL: champion 1 -> 2\n")
    assert registry.aliases(shelf.tracking)["NL"] == {"champion": "2"}
    first, last = promotion.history(shelf.tracking, "NL")
    assert (first.action, first.before, first.after) == ("register", None, "1")
    assert (last.action, last.before, last.after, last.forced, last.objections) == ("promote", "1", "2", False, ())
    assert last.time > first.time


@pytest.mark.slow(1)
def test_promote_refuses_what_validated_worse_by_more_than_the_margin(run, shelf):
    near, far, unknown = (shelf.add("NL", val=val) for val in (0.695, 0.685, None))
    for version, text in ((far, "0.6850, the champion's 0.7000"), (unknown, "undefined")):
        done = run("promote", "NL", "--version", version)
        assert isinstance(done.exception, TrackingError)
        assert text in str(done.exception)
        assert champion(shelf) == "1"
    assert len(promotion.history(shelf.tracking, "NL")) == 1
    assert run("promote", "NL", "--version", near).exit_code == 0
    forced = run("promote", "NL", "--version", unknown, "--force")
    assert forced.exit_code == 0
    assert forced.output.startswith("forced, although its val_mean_auc is undefined")
    assert promotion.history(shelf.tracking, "NL")[-1].forced
    assert champion(shelf) == unknown


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"numerical": (NumericalField(name="weight", mean=0.0, std=1.0),)}, "that requests do not have: weight"),
        ({"categorical": (CategoricalField(name="price", federated=True, vocabulary=(1,)),),
          "numerical": ()}, "of another kind: price"),
        ({"fill": {"age": 1}}, "no fill for columns that requests may lack: user"),
        ({"tasks": (Task(name="ctr", label="click"),)}, "does not predict ctcvr"),
    ],
)  # fmt: skip
def test_schemas_that_do_not_fit(changes, text):
    old = schema("NL", fill={"user": 12, "age": 0.5} if "fill" in changes else {})
    assert text in promotion.schema_faults(old, schema("NL", **changes))[0]


def test_schemas_that_fit():
    fewer = schema("NL", numerical=(NumericalField(name="age", mean=5.0, std=9.0),))
    wider = schema("NL", categorical=(CategoricalField(name="user", federated=True, vocabulary=(1, 2)),))
    weight = (*schema("NL").numerical, NumericalField(name="weight", mean=0.0, std=1.0))
    filled = schema("NL", numerical=weight, fill={"weight": 0})
    for new in (schema("NL"), fewer, wider, filled):
        assert promotion.schema_faults(schema("NL"), new) == []


def test_promote_refuses_another_schema(run, shelf):
    numerical = (*schema("NL").numerical, NumericalField(name="weight", mean=0.0, std=1.0))
    version = shelf.add("NL", numerical=numerical, val=0.9)
    done = run("promote", "NL", "--version", version)
    assert "columns that requests do not have: weight" in str(done.exception)
    assert champion(shelf) == "1"


@pytest.mark.slow(1)
def test_rollback_goes_back_champion_by_champion(run, shelf):
    third = shelf.add("NL", val=0.8)
    for version in ("2", third):
        assert run("promote", "NL", "--version", version).exit_code == 0
    assert run("rollback", "NL").output == f"pfmsmt-NL: champion {third} -> 2\n"
    assert run("rollback", "NL").output == "pfmsmt-NL: champion 2 -> 1\n"
    assert "no champion before this one" in str(run("rollback", "NL").exception)
    assert champion(shelf) == "1"
    assert run("promote", "NL", "--version", third).exit_code == 0
    assert run("rollback", "NL").output == f"pfmsmt-NL: champion {third} -> 1\n"
    assert [entry.action for entry in promotion.history(shelf.tracking, "NL")] == [
        "register", "promote", "promote", "rollback", "rollback", "promote", "rollback",
    ]  # fmt: skip


@pytest.mark.slow(1)
def test_rollback_after_an_alias_was_moved_by_hand(run, shelf):
    run("promote", "NL")
    registry.set_alias(shelf.tracking, "NL", "champion", shelf.add("NL"))
    assert run("rollback", "NL").output.endswith("-> 2\n")


def test_what_is_not_there_is_named(run):
    for words, text in (
        (("promote", "XX"), "no scenario 'XX' is registered"),
        (("promote", "NL", "--version", "9"), "no version or alias '9'; it has 2 (challenger), 1 (champion)"),
        (("promote", "NL", "--version", "1"), "is the champion already"),
        (("promote", "ES"), "no version or alias 'challenger'"),
        (("rollback", "ES"), "no champion before"),
    ):
        assert text in str(run(*words).exception)


@pytest.mark.slow(1)
def test_list_show_and_diff(run, shelf):
    listed = run("list").output.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [
        ["pfmsmt-ES", "1", "champion"], ["pfmsmt-NL", "2", "challenger"], ["pfmsmt-NL", "1", "champion"],
    ]  # fmt: skip
    assert "0.7200" in listed[2]
    assert len(run("list", "ES").output.splitlines()) == 2
    shown = run("show", "NL").output
    assert shown.startswith("pfmsmt-NL version 1  champion\n")
    assert "schema.numerical" in shown
    assert "register  - -> 1" in shown
    found = run("diff", "NL").output
    lines = {line.split()[0]: line.split()[1:] for line in found.splitlines()[1:-1]}
    assert lines["val_mean_auc"] == ["0.7", "0.72"]
    assert lines["seed"] == ["0", "1"]
    assert "method" not in lines
    assert found.splitlines()[-1] == "nothing speaks against 2"
    assert "against version 1: its val_mean_auc is 0.7000" in run("diff", "NL", "2", "1").output


@pytest.mark.slow(1)
def test_rollback_counts_what_was_moved_by_hand(run, shelf):
    """Champions 1, 2, then 3 by hand, then 4: back to 3, to 2, to 1."""
    third, fourth = shelf.add("NL", val=0.8), shelf.add("NL", val=0.9)
    run("promote", "NL")
    registry.set_alias(shelf.tracking, "NL", "champion", third)
    run("promote", "NL", "--version", fourth)
    for expected in (third, "2", "1"):
        assert run("rollback", "NL").output.endswith(f"-> {expected}\n")


@pytest.mark.slow(1)
def test_rollback_after_a_rollback_from_what_was_moved_by_hand(run, shelf):
    """Champions 1, 2, then 3 by hand, back to 2, then 4: back to 2, not to 1."""
    third, fourth = shelf.add("NL", val=0.8), shelf.add("NL", val=0.9)
    run("promote", "NL")
    registry.set_alias(shelf.tracking, "NL", "champion", third)
    assert run("rollback", "NL").output.endswith("-> 2\n")
    run("promote", "NL", "--version", fourth)
    assert run("rollback", "NL").output.endswith("-> 2\n")


@pytest.mark.slow(1)
@pytest.mark.parametrize("text", ["n/a", "nan", "inf"])
def test_a_metric_that_is_no_number_is_undefined(run, shelf, text):
    version = shelf.add("NL", val=text)
    done = run("promote", "NL", "--version", version)
    assert "is undefined, the champion's 0.7000" in str(done.exception)
    assert run("list").exit_code == 0


def test_promote_refuses_the_model_of_another_scenario():
    assert promotion.schema_faults(schema("NL"), schema("ES")) == ["it is a model of scenario ES"]
