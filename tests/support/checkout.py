"""A copy of the project as a user has it, and the commands of a page run in it one after the other."""

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
from typing import Any

import yaml

from pfmsmt.config.keys import set_values

ROOT = Path(__file__).parents[2]

SMALL: dict[str, Any] = {
    "data.synthetic.scenarios": {
        name: {"train_rows": 400, "test_rows": 300} for name in ("NL", "US")
    },
    "train.methods": ["pf_msmtrec", "local"],
    "train.rounds": 3,
    "train.local_steps": 2,
    "evaluate.bootstrap": 10,
}  # fmt: skip


class Checkout:
    """A folder with the project's files under git, small parameters, and this environment as its .venv."""

    def __init__(self, folder: Path) -> None:
        """Copy all files that git knows or would add."""
        self.folder = folder
        words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        for file, changes in (("params.yaml", SMALL), ("tune.yaml", {"trials": 2})):
            tree = yaml.safe_load((folder / file).read_text())
            set_values(tree, changes)
            (folder / file).write_text(yaml.safe_dump(tree, sort_keys=False))
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / ".venv" / ".ready").touch()
        # As `make setup` does.
        (folder / ".dvc/config.local").write_text("[plots]\n    html_template = ../.venv/plots.html\n")
        # What `make` passes on to its own kind is left out.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTEST_", "COV_", "MAKE"))}
        self.ports = {"PORT": str(_free_port()), "SERVE_PORT": str(_free_port())}
        who = {f"GIT_{role}_{what}": "test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self._environment = {**kept, **self.ports, **who, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
        self.run("git init -q")
        self.commit("small")

    def commit(self, message: str) -> None:
        """Commit all files."""
        self.run(f"git add -A && git commit -qm '{message}'")

    def start(self, line: str, **variables: str) -> "subprocess.Popen[str]":
        """Start one line in an activated environment."""
        line = line.replace("127.0.0.1:5001", f"127.0.0.1:{self.ports['SERVE_PORT']}")
        return subprocess.Popen(
            ["bash", "-c", f"source .venv/bin/activate 2>/dev/null || PATH=$PWD/.venv/bin:$PATH; {line}"],
            cwd=self.folder, env=self._environment | variables, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, line: str, **variables: str) -> str:
        """Run one line to its end, and return what it printed."""
        process = self.start(line, **variables)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, f"{line}\n{output[-3000:]}"
        return output

    def start_server(self, line: str, port: str, path: str) -> "subprocess.Popen[str]":
        """Start a line that goes on, and wait until it answers at a path of one of `ports`."""
        process = self.start(line)
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        for _ in range(240):
            assert process.poll() is None, process.stdout.read()[-3000:]
            try:
                urllib.request.urlopen(url, timeout=2).read()
                return process
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"{url} did not answer")


def stop(process: "subprocess.Popen[str]") -> str:
    """Stop a line as Ctrl-C does, and return what it printed."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def stages_in(output: str) -> set[str]:
    """Return the stages that DVC ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def stages_of(method: str) -> set[str]:
    """Return the stages of one method's run."""
    return {f"train@{method}-0", f"evaluate@{method}-0"}


SHARED_STAGES = {"compare", "register"}
ALL_STAGES = {"download", "partition", "card"} | stages_of("pf_msmtrec") | stages_of("local") | SHARED_STAGES


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
