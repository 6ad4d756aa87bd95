import subprocess
import sys

import optuna
import pytest

from pfmsmt.core.errors import TuningError
from pfmsmt.tuning.storage import full_address, open_store, without_password


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, "{root}/tuning/optuna.journal"),
        ("a/b.journal", "{root}/a/b.journal"),
        ("/abs/b.journal", "/abs/b.journal"),
        ("sqlite:///a.db", "sqlite:///{root}/a.db"),
        ("sqlite:////abs/a.db", "sqlite:////abs/a.db"),
        ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
    ],
)
def test_addresses_do_not_depend_on_the_working_directory(tmp_path, address, expected):
    assert full_address(address, tmp_path) == expected.format(root=tmp_path)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("redis://h/0", "unknown kind of database 'redis'; use sqlite, postgresql, mysql, or a path"),
        ("oracle://u:geheim@h/0", "unknown kind of database 'oracle'"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("://x", "not an address"),
    ],
)
def test_addresses_that_cannot_be_used(tmp_path, address, expected):
    with pytest.raises(TuningError) as caught:
        full_address(address, tmp_path)
    assert expected in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:geheim@host/d") == "postgresql://me:***@host/d"


def test_a_driver_that_is_not_installed_is_named():
    with pytest.raises(TuningError, match="needs the Python package pymysql; install it") as caught:
        open_store("mysql+pymysql://me:geheim@127.0.0.1:9/d")
    assert "geheim" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "a.db").write_text("no database")
    with pytest.raises(TuningError, match=r"a\.db cannot be opened"):
        open_store(f"sqlite:///{tmp_path / 'a.db'}")


def test_a_half_written_last_line_does_not_spoil_the_journal(tmp_path):
    path = tmp_path / "new" / "a.journal"
    study = optuna.create_study(storage=open_store(str(path)), study_name="s")
    study.add_trial(optuna.create_trial(value=0.5))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    study = optuna.load_study(storage=open_store(str(path)), study_name="s")
    assert path.read_bytes() == whole
    study.add_trial(optuna.create_trial(value=0.25))
    assert [t.value for t in optuna.load_study(storage=open_store(str(path)), study_name="s").trials] == [0.5, 0.25]


KILLED_IN_THE_LOCK = """
import os, signal, sys
from pathlib import Path
from pfmsmt.tuning.storage import _Lock
_Lock(Path(sys.argv[1])).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow(1)
def test_a_process_killed_while_it_writes_does_not_hold_up_the_others(tmp_path):
    path = tmp_path / "a.journal"
    done = subprocess.run([sys.executable, "-c", KILLED_IN_THE_LOCK, str(path)], timeout=60)
    assert done.returncode == -9
    # Optuna's own locks would be waited for half a minute here; pytest's timeout would show it.
    optuna.create_study(storage=open_store(str(path)), study_name="s")
    assert optuna.get_all_study_names(open_store(str(path))) == ["s"]
