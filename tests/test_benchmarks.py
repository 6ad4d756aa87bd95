"""The benchmarks run at tiny sizes and print what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run(*words):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_server_step():
    out = run("benchmarks/server_step.py", "--quick")
    rows = re.findall(r"^(adam|plain) +(\d+) +(\de\+\d+) +(\d+\.\d+) +(\d+\.\d+)$", out, re.MULTILINE)
    assert [row[:3] for row in rows] == [
        (optimizer, clients, parameters)
        for optimizer in ("adam", "plain") for clients in ("2", "4") for parameters in ("1e+03", "1e+04")
    ]  # fmt: skip
    for _, clients, parameters, seconds, nanoseconds in rows:
        assert 0 < float(seconds) < 10
        per_unit = float(seconds) / int(clients) / float(parameters) * 1e9
        assert abs(float(nanoseconds) - per_unit) <= 0.01 + 0.5e-5 / int(clients) / float(parameters) * 1e9
    assert len(re.findall(r"with [PS] at [PS] = \S+ +exponent -?\d+\.\d\d; from each size to the next -?\d", out)) == 8
    share = re.search(r"^share of a round (\d+\.\d\d)%, without validation (\d+\.\d\d)%$", out, re.MULTILINE)
    assert share is not None
    assert 0 < float(share[1]) <= float(share[2]) < 100


def test_server_step_skips_what_does_not_fit():
    """0.00035 GiB are 375,809 bytes; a client needs 30.4 bytes a parameter with Adam, 14.4 with plain steps."""
    out = run("benchmarks/server_step.py", "--quick", "--memory", "0.00035", "--rounds", "0")
    fits = re.findall(r"^(adam|plain) +(\d) +(\de\+\d+) +\d+\.\d+ ", out, re.MULTILINE)
    skipped = re.findall(
        r"^(adam|plain) +(\d) +(\de\+\d+) +skipped: needs \d+\.\d GiB, 0\.0 GiB are free", out, re.MULTILINE
    )
    assert ("plain", "2", "1e+04") in fits
    assert ("plain", "4", "1e+04") in skipped
    assert ("adam", "2", "1e+04") in skipped
    assert ("adam", "4", "1e+03") in fits
    assert len(fits) + len(skipped) == 8
    assert "too few sizes" in out
