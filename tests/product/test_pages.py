"""The commands of tutorial and README, run as they stand there, in one copy of the project with small parameters.

The tutorial goes first. The README's test then runs what the tutorial has not: most of their commands are the same.
"""

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.support.checkout import ALL_STAGES, SHARED_STAGES, Checkout, stages_in, stages_of, stop
from tests.support.documents import ROOT, commands

pytestmark = pytest.mark.slow(120)
FOLDERS = ("data", "models", "runs", "evaluation", "reports", "checkpoints", "tuning")


class Walk:
    """A checkout, and the commands that have run in it."""

    def __init__(self, folder: Path) -> None:
        """Begin in a fresh copy."""
        self.checkout = Checkout(folder)
        self.folder = folder
        self.done: list[str] = []
        self.answers: list[str] = []
        self.server = None

    def take(self, line: str) -> None:
        """Run one command, and check what it is there for."""
        run = self.checkout.run
        if line == "make repro":
            self._reproduce(line)
        elif line == "make show":
            assert "pf_msmtrec" in run(line)
        elif line == "make test":
            # One file of them: all others run already, where this one does.
            assert " passed" in run(line, PYTEST_ADDOPTS="tests/core/test_files.py")
        elif line == "make ui":
            output = stop(self.checkout.start_server(line, "PORT", "/health"))
            assert "charts" in output
            assert "registry" in output
        elif line.startswith("ls "):
            assert {"NL", "schema.json", "pf_msmtrec-seed0", "comparison.html"} <= set(run(line).split())
        elif line.startswith("head "):
            assert run(line).count("\n") == 5
        elif line.startswith("dvc exp run -S train.rounds"):
            output = run(line.replace("train.rounds=20", "train.rounds=2"))
            assert stages_in(output) == stages_of("pf_msmtrec") | stages_of("local") | SHARED_STAGES
            assert yaml.safe_load((self.folder / "params.yaml").read_text())["train"]["rounds"] == 2
        elif line.startswith("dvc exp run -S methods.pf_msmtrec."):
            assert stages_in(run(line)) == stages_of("pf_msmtrec") | SHARED_STAGES
        elif line == "dvc metrics diff":
            changed = [words.split()[1] for words in run(line).splitlines() if "reports/metrics.json" in words]
            assert "pf_msmtrec.NL.ctr.auc" in changed
            assert {name.split(".")[0] for name in changed} == {"pf_msmtrec", "local"}
        elif line == "dvc plots show":
            assert Path(run(line).strip().removeprefix("file://")).exists()
        elif line == "dvc dag":
            assert "train@pf_msmtrec-0" in run(line)
        elif line.startswith("mlflow run"):
            assert stages_in(run(line)) == set()
        elif line.startswith("make serve"):
            self.server = self.checkout.start_server(line, "SERVE_PORT", "/readyz")
        elif line.startswith("curl") and " -d " in line:
            self._ask(line)
        elif line == "pfmsmt models list NL":
            assert re.findall(r"^pfmsmt-NL +(\d)", run(line), re.MULTILINE) == ["2", "1"]
        elif line == "pfmsmt models rollback NL":
            assert "champion 2 -> 1" in run(line)
        elif line.startswith("pfmsmt models promote NL"):
            assert "champion 1 -> 2" in run(line)
        else:
            run(line)
        self.done.append(line)

    def _reproduce(self, line: str) -> None:
        """Run the pipeline; a second time it finds nothing to do."""
        output = self.checkout.run(line)
        if line in self.done:
            assert "up to date" in output
            assert stages_in(output) == set()
            return
        assert stages_in(output) == ALL_STAGES
        assert "Test AUC" in output
        assert set(json.loads((self.folder / "reports/metrics.json").read_text())) == {"pf_msmtrec", "local", "oracle"}

    def _ask(self, line: str) -> None:
        """Send the request until the other version answers: the server looks at the registry every few seconds."""
        wanted = "21"[len(self.answers)]
        for _ in range(60):
            output = self.checkout.run(line)
            answer = json.loads(output[output.index("{") :])
            if answer["model_version"] == wanted:
                break
            time.sleep(0.5)
        self.answers.append(answer["model_version"])
        assert answer["model_version"] == wanted
        assert len(answer["predictions"]) == 5
        assert all(0 < row["ctcvr"] < row["ctr"] < 1 for row in answer["predictions"])


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    walk = Walk(tmp_path_factory.mktemp("pages") / "pfmsmt")
    yield walk
    if walk.server is not None:
        stop(walk.server)


def test_every_command_of_the_tutorial_works(walk):
    for line in commands((ROOT / "docs/tutorial.md").read_text()):
        walk.take(line)
    assert walk.done.count("make repro") == 2
    assert walk.answers == ["2", "1"]
    assert undocumented(walk.folder) == []


def test_every_other_command_of_the_readme_works(walk):
    lines = commands((ROOT / "README.md").read_text())
    for line in lines:
        if line not in walk.done:
            walk.take(line)
    assert len(lines) >= 13
    assert set(lines) <= set(walk.done)


def undocumented(folder):
    """Return the files in the project's own folders that docs/reference/files.md does not list."""
    page = (ROOT / "docs/reference/files.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` ", page, re.MULTILINE)
    pattern = "|".join(re.sub(r"<\w+>", "[^/]+", re.escape(path)).replace(r"\*", ".+") for path in listed)
    found = [str(path.relative_to(folder)) for place in FOLDERS for path in (folder / place).rglob("*")]
    return [name for name in found if (folder / name).is_file() and not re.fullmatch(pattern, name)]
