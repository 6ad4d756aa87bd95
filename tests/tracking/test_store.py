import pytest

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking import Store


def trained(start, model_folder, rows, **changes) -> dict:
    """The ids of a finished run with one model, as the stage `train` writes them down."""
    with start(**changes) as run:
        model = run.log_scenario_model("fedavg-NL", model_folder, rows, {"scenario": "NL"}, step=1)
    return {"run_id": run.id, "models": {"NL": model}, "fingerprint": changes["computation"]}


def test_a_restored_result_points_to_the_run_that_made_it(tracking: Store, start, model_folder, rows) -> None:
    first = trained(start, model_folder, rows, computation="a" * 64)
    again = trained(start, model_folder, rows, computation="a" * 64)
    other = trained(start, model_folder, rows, computation="b" * 64)
    # A run that is here is the right one, whatever newer ones there are.
    for ids in (first, again, other):
        assert tracking.locate_run(ids, "train@fedavg-0") == ids
    # The ids of another store: the newest finished run of the same computation has that place here.
    foreign = {"run_id": "0" * 32, "models": {"NL": "m-0"}, "fingerprint": "a" * 64}
    assert tracking.locate_run(foreign, "train@fedavg-0") == again
    tracking.client.delete_run(again["run_id"])
    assert tracking.locate_run(again, "train@fedavg-0") == first


def test_a_result_that_no_run_here_made_is_named(tracking: Store, start, model_folder, rows) -> None:
    trained(start, model_folder, rows, computation="a" * 64)
    with pytest.raises(RuntimeError), start(computation="c" * 64):
        raise RuntimeError
    # The one run of that computation did not finish; files of earlier versions have no fingerprint.
    for fingerprint in ({"fingerprint": "c" * 64}, {}):
        foreign = {"run_id": "0" * 32, "models": {"NL": "m-0"}, **fingerprint}
        with pytest.raises(TrackingError, match="--single-item train@fedavg-0"):
            tracking.locate_run(foreign, "train@fedavg-0")
