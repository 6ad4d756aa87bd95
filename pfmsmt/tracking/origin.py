"""The origin of a run: commit, packages, machine."""

import getpass
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("pfmsmt", "torch", "numpy", "scipy", "pandas", "pyarrow", "safetensors", "pydantic", "mlflow", "dvc")
_WRITTEN_BY_STAGES = (":!dvc.lock", ":!reports")


def installed(package: str) -> str | None:
    """Return the installed version of a package, without its local part.

    `2.13.0`, not `2.13.0+cpu`; None where it is not installed.
    """
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def environment() -> dict[str, object]:
    """Describe what a run ran on."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "absent"
    return {
        "python": platform.python_version(),
        "torch": torch,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {package: installed(package) for package in _PACKAGES},
    }


def git_state(root: Path) -> dict[str, str]:
    """Return the tags `git_commit` and `git_dirty` of `root`.

    `unknown` outside a repository or before a commit. What the stages write themselves (dvc.lock, reports) does not
    make the tree dirty.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN_BY_STAGES)
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"git_commit": commit, "git_dirty": dirty, "mlflow.source.git.commit": commit}


def source_tags() -> dict[str, str]:
    """Return the tags that MLflow's UI shows as user and source."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    return {
        "mlflow.user": user,
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.source.type": "LOCAL",
    }


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
