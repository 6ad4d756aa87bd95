import errno
import os
import pty
import subprocess
import sys

import pytest

from pfmsmt.core.console import Progress, run_main
from pfmsmt.core.errors import DataError

PROGRAM = """
import sys, pfmsmt.core.console as console
from pfmsmt.core.errors import DataError
def main():
    {body}
console.run_main(main)
"""


def run(body, *words, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PFMSMT_DEBUG"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), *words],
        env={**environment, "PYTHONPATH": os.getcwd(), **variables}, capture_output=True, text=True,
    )  # fmt: skip


def test_an_error_is_one_message_and_exit_code_1():
    done = run("raise DataError('NL: row 3 is bad\\ncorrect it')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "\nERROR: NL: row 3 is bad\ncorrect it\n")


@pytest.mark.parametrize(("words", "variables"), [(["--debug"], {}), ([], {"PFMSMT_DEBUG": "1"})])
def test_debug_shows_the_traceback(words, variables):
    for body in ("raise DataError('NL: bad')", "raise OSError(28, 'No space left on device')"):
        done = run(body, *words, **variables)
        assert done.returncode == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert "ERROR:" not in done.stderr


def test_an_interrupt_ends_with_130():
    done = run("raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "\nERROR: interrupted; run the same command again to go on\n")


def test_a_fault_of_the_program_keeps_its_traceback():
    done = run("raise ValueError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_success_says_nothing():
    done = run("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_errors_of_the_disk_name_the_file(code, capsys):
    def main():
        raise OSError(code, os.strerror(code), "models/x")

    with pytest.raises(SystemExit) as stop:
        run_main(main, [])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"\nERROR: {os.strerror(code)}: models/x; ")


def test_errors_without_a_file_name_are_readable(capsys):
    def main():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit):
        run_main(main, [])
    assert "No space left on device: writing a file" in capsys.readouterr().err


def test_words_decide_about_debug():
    def main():
        raise DataError("x")

    with pytest.raises(DataError):
        run_main(main, ["--debug"])


def test_progress_in_plain_lines(capsys):
    progress = Progress("fedavg-seed0", 4)
    for done in range(1, 5):
        progress.show(done, f"loss {done}")
    # Fast work is told once, at its end; slow work now and then.
    assert capsys.readouterr().out == "fedavg-seed0 4/4  loss 4  0:00 done, 0:00 left\n"


def test_slow_progress_in_plain_lines(capsys):
    progress = Progress("x", 100, done=90)
    progress._start -= 125
    progress._shown -= 125
    progress.show(95, "loss")
    progress.show(96, "loss")
    assert capsys.readouterr().out == "x 95/100  loss  2:05 done, 2:05 left\n"


def test_progress_in_a_terminal_rewrites_one_line():
    code = "from pfmsmt.core.console import Progress\np = Progress('x', 2)\np.show(1, 'a' * 300)\np.show(2, 'end')"
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=follower, env={**os.environ, "COLUMNS": ""})
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 1000)
        except OSError:
            break
        if not part:
            break
        text += part
    assert process.wait() == 0
    os.close(leader)
    first, second = text.decode().split("\r\x1b[K")[1:]
    assert len(first) < 300
    assert "\n" not in first
    assert second.startswith("x 2/2  end")
    assert second.endswith("\n")
