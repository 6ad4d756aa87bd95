"""Files that are either whole or absent, even after a kill.

They are written under a temporary name beside their own, then renamed. The temporary name holds the process id, so
that what a killed process left can be told from what a living one is writing.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def recover(path: Path) -> None:
    """Clear up what a killed process left beside `path`.

    A folder that it had moved aside, to put a new one in its place, comes back.
    """
    for left in sorted(path.parent.glob(f".{path.name}.*")):
        process, _, kind = left.name.removeprefix(f".{path.name}.").partition(".")
        if kind not in ("tmp", "old") or not process.isdigit() or _alive(int(process)):
            continue
        if kind == "old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` on success.

    On any error it is removed, and an older file at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` on success.

    On any error it is removed, and an older folder at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        # The system renames no folder over a full one, so the old one steps aside first.
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Keys are sorted, so that equal values give equal files.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")
