"""The plan of a run whose method is of another package: what a site is sent, and what it must have."""

import json

import pytest

from pfmsmt.config import Methods
from pfmsmt.core.errors import FederationError
from pfmsmt.flower.plan import RunPlan, check_package
from tests.support.toy_package import install, printed_method, run_beside

PLAN = """
import json
from pfmsmt.config import Config
from pfmsmt.flower.plan import RunPlan, check_package

config, found = Config(), {}
for method in ("fedavg", "fedavgm"):
    plan = RunPlan(
        run_id="0" * 16, version="1", agreement="", method=method, seed=0, mean_rows=1.0, refits=False,
        model=config.model, train=config.train, run=config.run, privacy=config.privacy, methods=config.methods,
    )
    found[method] = plan.model_dump(mode="json")
    check_package(found[method])
    assert RunPlan.model_validate(found[method]) == plan
print(json.dumps(found))
"""


def test_a_site_needs_the_package_of_the_runs_method_and_no_other(tmp_path):
    packages = install(tmp_path, "fedavgm", {"fedavgm": "fedavgm:FEDAVGM"}, {"fedavgm": printed_method()})
    done = run_beside("-c", PLAN, packages=packages)
    assert done.returncode == 0, done.stderr
    plans = json.loads(done.stdout)
    # This process has no such package.
    check_package(plans["fedavg"])
    assert RunPlan.model_validate(plans["fedavg"]).methods == Methods()
    with pytest.raises(
        FederationError, match=r"the server's fedavgm is of fedavgm 1\.0, this site's of pfmsmt, or miss"
    ):
        check_package(plans["fedavgm"])


@pytest.mark.slow(2)
def test_a_site_without_the_package_says_what_to_install(configure, grid, serve, capsys):
    configure({"federate.rounds": 1, "federate.local_epochs": 0.25})

    def before(site, message):
        if site == "ES":
            notes = json.loads(message.content["notes"]["json"])
            notes["plan"]["methods"]["fedavg"]["package"] = "better 2.0"
            message.content["notes"]["json"] = json.dumps(notes)

    grid.before = before
    serve(grid, "fedavg")
    said = "client ES did not answer: the server's fedavg is of better 2.0, this site's of pfmsmt, or missing; install"
    assert said in capsys.readouterr().out
