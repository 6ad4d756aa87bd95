"""MLflow's server with our script in its page: on a free port, as `pfmsmt ui` starts it."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from pfmsmt.flower.operate.programs import free_port

REPOSITORY = Path(__file__).parents[2]
ENTRY_POINT = "[mlflow.app]\npfmsmt = pfmsmt.tracking.ui_app:mlflow_ui\n"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The entry point as an installation of this version has it; the environment's may be older."""
    place = tmp_path / "site" / "pfmsmt_ui-0.dist-info"
    place.mkdir(parents=True)
    (place / "entry_points.txt").write_text(ENTRY_POINT)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: pfmsmt-ui\nVersion: 0\n")
    return place.parent


def test_the_entry_point_is_declared() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert '[project.entry-points."mlflow.app"]\npfmsmt = "pfmsmt.tracking.ui_app:mlflow_ui"\n' in text


@pytest.mark.slow(20)
def test_the_page_is_prepared_and_sigterm_ends_all_processes(root: Path, installed: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{installed}"}
    # As a user would: make starts pfmsmt, which starts MLflow, which starts its server.
    (root / "Makefile").write_text(f"ui:\n\t@{sys.executable} -m pfmsmt ui --port {port}\n")
    log = root / "ui.log"
    with log.open("w") as output:
        make = subprocess.Popen(["make", "ui"], cwd=root, env=environment, stdout=output, stderr=output)
    try:
        page = _first_page(address, make, log)
        began = psutil.Process(make.pid).children(recursive=True)
        assert len(began) >= 2, began
    finally:
        make.send_signal(signal.SIGTERM)
        make.wait(60)
    assert not psutil.wait_procs(began, timeout=30)[1]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
    script = re.search("<head><script>(.*?)</script>", page)
    assert script, page[:500]
    for key in ("mlflow.workflowType_v1", "autoOpenedOnFirstLoad_v1", "promo_modal_dismissed_v1"):
        assert key in script[1]
    assert "static/js/main" in page, "MLflow's own page"


def _first_page(address: str, make: subprocess.Popen, log: Path) -> str:
    end = time.monotonic() + 120
    while make.poll() is None and time.monotonic() < end:
        try:
            # A page that the browser has of an earlier version must not stay in place of this one.
            request = urllib.request.Request(address, headers={"If-Modified-Since": "Sun, 01 Jan 2090 00:00:00 GMT"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())
