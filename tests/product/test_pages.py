"""The commands of tutorial and README, run as they stand there, in one copy of the project with small parameters.

The tutorial goes first. The README's test then runs what the tutorial has not: most of their commands are the same.
"""

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from pfmsmt.tracking import connect
from pfmsmt.tracking.registry import aliases, versions
from tests.support.checkout import ALL_STAGES, SHARED_STAGES, Checkout, stages_in, stages_of, stop
from tests.support.documents import ROOT, commands
from tests.support.environment import bare_environment

pytestmark = pytest.mark.slow(120)
FOLDERS = ("data", "models", "runs", "evaluation", "reports", "checkpoints", "tuning")


class Results(NamedTuple):
    """All that must come back with earlier settings."""

    runs: set[str]
    versions: dict[str, str]
    """scenario -> newest version"""
    aliases: dict[str, dict[str, str]]
    metrics: dict[str, Any]
    ids: dict[str, str]
    """file of a run -> its id in MLflow"""


class Walk:
    """A checkout, and the commands that have run in it."""

    def __init__(self, folder: Path) -> None:
        """Begin in a fresh copy."""
        self.checkout = Checkout(folder)
        self.folder = folder
        self.done: list[str] = []
        self.answers: list[str] = []
        self.server = None
        self.restoring = False
        """Whether the first run's settings are back, and its results not yet."""

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
            stages = stages_of("pf_msmtrec") | stages_of("local") | SHARED_STAGES
            self._experiment(line.replace("train.rounds=20", "train.rounds=2"), stages)
            assert yaml.safe_load((self.folder / "params.yaml").read_text())["train"]["rounds"] == 2
        elif line.startswith("dvc exp run -S methods.pf_msmtrec."):
            self._experiment(line, stages_of("pf_msmtrec") | SHARED_STAGES)
        elif line == "dvc metrics diff":
            changed = [words.split()[1] for words in run(line).splitlines() if "reports/summary.json" in words]
            assert "pf_msmtrec.mean_auc" in changed
            assert {name.split(".")[0] for name in changed} == {"pf_msmtrec", "local"}
        elif line == "make experiments":
            table = run(line, COLUMNS="200")
            assert "pf_msmtrec.mean_auc" in table
            assert "train.rounds" in table
        elif line == "dvc plots show":
            page = Path(run(line).strip().removeprefix("file://")).read_text()
            assert page.index("reports_rounds_csv") < page.index("reports_roc_csv")
            # It works offline: whatever it needs is in it, or beside it.
            assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=.?http", page) == []
            assert "dvc_plots" not in run("git status --short")
        elif line.startswith("git checkout params.yaml dvc.lock"):
            self._go_back(line)
        elif line == "dvc repro -f -s register":
            assert stages_in(run(line)) == {"register"}
            assert set(self._results().aliases["NL"]) == {"champion", "challenger"}
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
        elif line == "pfmsmt models promote NL --force":
            assert "champion 1 -> 2" in run(line)
        else:
            run(line)
        self.done.append(line)

    def _reproduce(self, line: str) -> None:
        """Run the pipeline; a second time it finds nothing to do."""
        output = self.checkout.run(line)
        if self.restoring:
            self._assert_restored(output)
            return
        if line in self.done:
            assert "up to date" in output
            assert stages_in(output) == set()
            return
        assert stages_in(output) == ALL_STAGES
        assert "Test AUC" in output
        self.first = self._results()
        assert set(self.first.metrics) == {"pf_msmtrec", "local", "oracle"}
        assert set(self.first.versions.values()) == {"1"}
        assert {tuple(found) for found in self.first.aliases.values()} == {("champion",)}

    def _experiment(self, line: str, stages: set[str]) -> None:
        """Run an experiment: it changes no alias and registers no version."""
        before = self._results()
        assert stages_in(self.checkout.run(line)) == stages
        after = self._results()
        assert (after.aliases, after.versions) == (before.aliases, before.versions)
        assert len(after.runs - before.runs) == len({name for name in stages if name.startswith("train@")})

    def _go_back(self, line: str) -> None:
        """Take the first run's settings again; `make repro` may follow on its line."""
        self.before, self.restoring = self._results(), True
        output = self.checkout.run(line)
        if "make repro" in line:
            self._assert_restored(output)

    def _assert_restored(self, output: str) -> None:
        """The first run's results come from the cache, and point to the runs that made them."""
        self.restoring = False
        assert stages_in(output) <= {"register"}
        after = self._results()
        assert (after.runs, after.versions, after.aliases) == self.before[:3]
        assert (after.metrics, after.ids) == (self.first.metrics, self.first.ids)

    def _results(self) -> "Results":
        """Return what the store and the project hold now."""
        with bare_environment():
            store = connect(self.folder)
            runs = {run.info.run_id for run in store.client.search_runs([store.experiment_id])}
            found = aliases(store)
            newest = {scenario: versions(store, scenario)[0].version for scenario in found}
        metrics = json.loads((self.folder / "reports/metrics.json").read_text())
        ids = {path.name: json.loads(path.read_text())["run_id"] for path in (self.folder / "runs").iterdir()}
        return Results(runs, newest, found, metrics, ids)

    def _ask(self, line: str) -> None:
        """Send the request until the other version answers: the server looks at the registry every few seconds."""
        wanted = "121"[len(self.answers) % 3]
        for _ in range(60):
            output = self.checkout.run(line)
            answer = json.loads(output[output.index("{") :])
            if answer["model_version"] == wanted:
                break
            time.sleep(0.5)
        self.answers.append(answer["model_version"])
        assert answer["model_version"] == wanted
        assert len(answer["predictions"]) == 1
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
    assert walk.done.count("make repro") == 3
    assert walk.answers == ["1", "2", "1"]
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
