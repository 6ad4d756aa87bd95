"""The README's commands, run as they stand there, in a copy of the project with small parameters."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

SMALL = {
    "params.yaml": {
        r"train_rows: \d+, test_rows: \d+": "train_rows: 400, test_rows: 300",
        r"methods: \[pf_msmtrec, fedavg, local, centralized\]": "methods: [pf_msmtrec, local]",
        r"rounds: 60": "rounds: 3",
        r"local_steps: 8": "local_steps: 2",
        r"bootstrap: 200": "bootstrap: 10",
    },
    "tune.yaml": {r"trials: 30": "trials: 2"},
}


def readme_commands() -> list[str]:
    """Every line of the README's shell blocks, without its comment."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [line.split("  #")[0].strip() for kind, text in blocks if not kind for line in text.splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project's files under git, with this environment as its .venv."""
    folder = tmp_path_factory.mktemp("readme") / "pfmsmt"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for name, changes in SMALL.items():
        text = (folder / name).read_text()
        for pattern, small in changes.items():
            assert re.search(pattern, text), pattern
            text = re.sub(pattern, small, text)
        (folder / name).write_text(text)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".venv" / ".ready").touch()
    git(folder, "init", "-q")
    commit(folder, "small")
    return folder


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


@pytest.fixture(scope="module")
def shell(checkout):
    """Run one line in the checkout, in an activated environment; what `make` passes on to its own kind is left out."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTEST_", "COV_", "MAKE"))}
    environment |= {"PORT": str(free_port()), "SERVE_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(checkout)

    def start(line: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", f"source .venv/bin/activate 2>/dev/null || PATH=$PWD/.venv/bin:$PATH; {line}"],
            cwd=checkout, env=environment | options, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    start.environment = environment
    return start


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3000:]
    return output


def wait_for(url: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, process.stdout.read()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer")


def stop(process: subprocess.Popen) -> str:
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def stages_in(output: str) -> set[str]:
    """The stages that DVC ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def of_run(method: str) -> set[str]:
    return {f"train@{method}-0", f"evaluate@{method}-0"}


SHARED = {"compare", "register"}
ALL = {"download", "partition", "card"} | of_run("pf_msmtrec") | of_run("local") | SHARED


def test_every_command_of_the_readme_works(checkout, shell):
    done = []
    for line in readme_commands():
        if line == "make repro":
            output = finish(shell(line))
            assert stages_in(output) == ALL
            assert "Test AUC" in output
            assert set(json.loads((checkout / "reports/metrics.json").read_text())) == {"pf_msmtrec", "local", "oracle"}
            again = finish(shell(line))
            assert "up to date" in again
            assert stages_in(again) == set()
            commit(checkout, "reproduced")
        elif line == "make test":
            # One file of them: all others run already, where this one does.
            assert " passed" in finish(shell(line, PYTEST_ADDOPTS="tests/test_atomic.py"))
        elif line == "make ui":
            process = shell(line)
            wait_for(f"http://127.0.0.1:{shell.environment['PORT']}/health", process)
            assert "charts" in stop(process)
        elif line.startswith("dvc exp run -S train.rounds"):
            output = finish(shell(line.replace("train.rounds=20", "train.rounds=2")))
            assert stages_in(output) == of_run("pf_msmtrec") | of_run("local") | SHARED
            assert yaml.safe_load((checkout / "params.yaml").read_text())["train"]["rounds"] == 2
        elif line.startswith("dvc exp run -S methods.pf_msmtrec."):
            assert stages_in(finish(shell(line))) == of_run("pf_msmtrec") | SHARED
        elif line == "dvc metrics diff":
            changed = [
                words.split()[1] for words in finish(shell(line)).splitlines() if "reports/metrics.json" in words
            ]
            assert {name.split(".")[0] for name in changed} == {"pf_msmtrec", "local"}
        elif line == "dvc plots show":
            assert Path(finish(shell(line)).strip().removeprefix("file://")).exists()
        elif line == "dvc dag":
            assert "train@pf_msmtrec-0" in finish(shell(line))
        elif line.startswith("mlflow run"):
            assert stages_in(finish(shell(line))) == set()
        elif line.startswith("make serve"):
            server = shell(line)
            wait_for(f"http://127.0.0.1:{shell.environment['SERVE_PORT']}/readyz", server)
        elif line.startswith("curl"):
            rows = pd.read_parquet(checkout / "data/clients/NL/example.parquet")
            (checkout / "rows.json").write_text(json.dumps({"records": rows.to_dict("records")}))
            answer = finish(shell(line.replace("5001", shell.environment["SERVE_PORT"])))
            stop(server)
            predictions = json.loads(answer[answer.index("{") :])["predictions"]
            assert len(predictions) == len(rows)
            assert all(0 < row["ctcvr"] < row["ctr"] < 1 for row in predictions)
        else:
            finish(shell(line))
        done.append(line)
    assert len(done) >= 13
