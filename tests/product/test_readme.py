"""The README's commands, run as they stand there, in a copy of the project with small parameters."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.support.checkout import ALL_STAGES, SHARED_STAGES, Checkout, stages_in, stages_of, stop
from tests.support.documents import ROOT, commands

pytestmark = pytest.mark.slow(150)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("readme") / "pfmsmt")


def test_every_command_of_the_readme_works(checkout):
    folder, done = checkout.folder, []
    for line in commands((ROOT / "README.md").read_text()):
        if line == "make repro":
            output = checkout.run(line)
            assert stages_in(output) == ALL_STAGES
            assert "Test AUC" in output
            assert set(json.loads((folder / "reports/metrics.json").read_text())) == {"pf_msmtrec", "local", "oracle"}
            again = checkout.run(line)
            assert "up to date" in again
            assert stages_in(again) == set()
            checkout.commit("reproduced")
        elif line == "make test":
            # One file of them: all others run already, where this one does.
            assert " passed" in checkout.run(line, PYTEST_ADDOPTS="tests/core/test_files.py")
        elif line == "make ui":
            assert "charts" in stop(checkout.start_server(line, "PORT", "/health"))
        elif line.startswith("dvc exp run -S train.rounds"):
            output = checkout.run(line.replace("train.rounds=20", "train.rounds=2"))
            assert stages_in(output) == stages_of("pf_msmtrec") | stages_of("local") | SHARED_STAGES
            assert yaml.safe_load((folder / "params.yaml").read_text())["train"]["rounds"] == 2
        elif line.startswith("dvc exp run -S methods.pf_msmtrec."):
            assert stages_in(checkout.run(line)) == stages_of("pf_msmtrec") | SHARED_STAGES
        elif line == "dvc metrics diff":
            changed = [words.split()[1] for words in checkout.run(line).splitlines() if "reports/metrics.json" in words]
            assert {name.split(".")[0] for name in changed} == {"pf_msmtrec", "local"}
        elif line == "dvc plots show":
            assert Path(checkout.run(line).strip().removeprefix("file://")).exists()
        elif line == "dvc dag":
            assert "train@pf_msmtrec-0" in checkout.run(line)
        elif line.startswith("mlflow run"):
            assert stages_in(checkout.run(line)) == set()
        elif line.startswith("make serve"):
            server = checkout.start_server(line, "SERVE_PORT", "/readyz")
        elif line.startswith("curl"):
            rows = pd.read_parquet(folder / "data/clients/NL/example.parquet")
            (folder / "rows.json").write_text(json.dumps({"records": rows.to_dict("records")}))
            answer = checkout.run(line)
            stop(server)
            predictions = json.loads(answer[answer.index("{") :])["predictions"]
            assert len(predictions) == len(rows)
            assert all(0 < row["ctcvr"] < row["ctr"] < 1 for row in predictions)
        else:
            checkout.run(line)
        done.append(line)
    assert len(done) >= 13
