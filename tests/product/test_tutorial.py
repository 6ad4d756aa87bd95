"""The tutorial's commands, run as they stand there, in a copy of the project with small parameters."""

import json
import re
import time

import pytest

from tests.support.checkout import ALL_STAGES, SHARED_STAGES, Checkout, stages_in, stages_of, stop
from tests.support.documents import ROOT, commands

pytestmark = pytest.mark.slow(120)
FOLDERS = ("data", "models", "runs", "evaluation", "reports", "checkpoints", "tuning")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("tutorial") / "pfmsmt")


def test_every_command_of_the_tutorial_works(checkout):
    folder, repro, asked = checkout.folder, [], []
    for line in commands((ROOT / "docs/tutorial.md").read_text()):
        if line == "make repro":
            repro.append(stages_in(checkout.run(line)))
        elif line == "make show":
            assert "pf_msmtrec" in checkout.run(line)
        elif line == "make ui":
            assert "registry" in stop(checkout.start_server(line, "PORT", "/health"))
        elif line.startswith("ls "):
            assert {"NL", "schema.json", "pf_msmtrec-seed0", "comparison.html"} <= set(checkout.run(line).split())
        elif line.startswith("head "):
            assert checkout.run(line).count("\n") == 5
        elif line.startswith("dvc exp run -S train.rounds"):
            output = checkout.run(line.replace("train.rounds=20", "train.rounds=2"))
            assert stages_in(output) == stages_of("pf_msmtrec") | stages_of("local") | SHARED_STAGES
        elif line.startswith("dvc exp run -S methods.pf_msmtrec."):
            assert stages_in(checkout.run(line)) == stages_of("pf_msmtrec") | SHARED_STAGES
        elif line == "dvc metrics diff":
            assert "pf_msmtrec.NL.ctr.auc" in checkout.run(line)
        elif line == "make serve":
            server = checkout.start_server(line, "SERVE_PORT", "/readyz")
        elif line.startswith("curl"):
            asked.append(ask(checkout, line, wanted="21"[len(asked)]))
        elif line == "pfmsmt models list NL":
            assert re.findall(r"^pfmsmt-NL +(\d)", checkout.run(line), re.MULTILINE) == ["2", "1"]
        elif line == "pfmsmt models rollback NL":
            assert "champion 2 -> 1" in checkout.run(line)
        elif line.startswith("pfmsmt models promote NL"):
            assert "champion 1 -> 2" in checkout.run(line)
        else:
            checkout.run(line)
    stop(server)
    assert repro == [ALL_STAGES, set()]
    assert [answer["model_version"] for answer in asked] == ["2", "1"]
    assert all(len(answer["predictions"]) == 5 for answer in asked)
    assert undocumented(folder) == []


def ask(checkout, line, wanted):
    """Send the request until the wanted version answers: the server looks at the registry every few seconds."""
    for _ in range(60):
        output = checkout.run(line)
        answer = json.loads(output[output.index("{") :])
        if answer["model_version"] == wanted:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"version {wanted} never answered, but {answer['model_version']}")


def undocumented(folder):
    """Return the files in the project's own folders that docs/reference/files.md does not list."""
    page = (ROOT / "docs/reference/files.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` ", page, re.MULTILINE)
    pattern = "|".join(re.sub(r"<\w+>", "[^/]+", re.escape(path)).replace(r"\*", ".+") for path in listed)
    found = [str(path.relative_to(folder)) for place in FOLDERS for path in (folder / place).rglob("*")]
    return [name for name in found if (folder / name).is_file() and not re.fullmatch(pattern, name)]
