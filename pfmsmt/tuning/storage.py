"""The store of studies: a journal file, or a shared database."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pfmsmt.core.errors import TuningError
from pfmsmt.core.layout import TUNING_JOURNAL
from pfmsmt.tuning.trials import retry_trial

HEARTBEAT = 60
"""Seconds between two signs of life that a running trial leaves in a database."""
GRACE = 180
"""Seconds without a sign of life after which a trial is taken for dead, and retried."""
_DATABASES = ("sqlite", "postgresql", "mysql")


def full_address(address: str | None, root: Path) -> str:
    """Complete the address of a store; the journal file's without one.

    Args:
        address: a path of a journal file, or a URL of a database.
        root: the folder that paths are relative to, those in sqlite's URLs too.

    Raises:
        TuningError: `address` is neither.
    """
    if not address:
        return str(root.absolute() / TUNING_JOURNAL)
    if not is_database(address):
        return str(root.absolute() / address)
    try:
        url = make_url(address)
    except ArgumentError:
        raise TuningError(f"--storage {address}: not an address; use sqlite:///studies.db, or a path") from None
    kind = url.get_backend_name()
    if kind not in _DATABASES:
        raise TuningError(
            f"--storage {without_password(address)}: unknown kind of database {kind!r}; use {', '.join(_DATABASES)}, "
            "or a path for a journal file"
        )
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise TuningError(f"--storage {address} names no file, and workers need one; use sqlite:///studies.db")
        url = url.set(database=str(root.absolute() / url.database))
    return url.render_as_string(hide_password=False)


def is_database(address: str) -> bool:
    """Tell a database, which many machines may use, from a journal file."""
    return "://" in address


def check_store_exists(address: str) -> None:
    """Make sure that a store in a file exists.

    Raises:
        TuningError: it does not.
    """
    name = (make_url(address).database or "") if is_database(address) else address
    if (name == address or address.startswith("sqlite")) and not Path(name).exists():
        raise TuningError(f"--resume: {name} does not exist, so there is nothing to continue; leave --resume out")


def without_password(address: str) -> str:
    """Return an address without its password."""
    return make_url(address).render_as_string() if is_database(address) else address


def open_store(address: str) -> BaseStorage:
    """Open the store; make it where it is missing.

    Call it once before workers are started: processes that make a database's tables at the same time get in each
    other's way.

    Raises:
        TuningError: it cannot be opened.
    """
    try:
        if not is_database(address):
            return JournalStorage(_journal(Path(address)))
        url = make_url(address)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if url.get_backend_name() == "sqlite":
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": 60}}
        return RDBStorage(
            address,
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=retry_trial,
        )
    except ImportError as error:
        # Optuna raises its own, from the one that names the package.
        package = getattr(error.__cause__, "name", None) or error.name or "its driver"
        raise TuningError(
            f"{without_password(address)} needs the Python package {package}; install it, or name an installed driver, "
            "as in postgresql+psycopg://..."
        ) from error
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise TuningError(f"the store of studies {without_password(address)} cannot be opened: {reason}") from error


def _journal(path: Path) -> JournalFileBackend:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _Lock(path)
    lock.acquire()
    try:
        _mend(path)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock)  # type: ignore[arg-type]


class _Lock:
    """A lock of the operating system, which a killed process gives up.

    Optuna's own lock is a link beside the file; one that a killed process left holds up all others for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _mend(path: Path) -> None:
    """Cut off a half-written last line, as a power failure leaves it.

    With it, no study of the journal could be read again.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
