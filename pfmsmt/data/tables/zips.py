"""One CSV out of a zip inside a zip, as a stream.

Nothing is unpacked to disk or held in memory as a whole.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pfmsmt.core.errors import DataError

ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
"""Errors that reading a damaged zip raises."""

LARGEST_RATIO = 200
"""Ratio of a CSV's size to its size in the zip; text of numbers comes to less than 20."""
_SMALL = 2**24
"""Bytes that do no harm, whatever the ratio."""


class Member(NamedTuple):
    """An open CSV and what errors call it."""

    stream: IO[bytes]
    name: str


@contextmanager
def open_nested(outer: Path, inner: str) -> Iterator[Member]:
    """Open the only CSV of a zip in a zip.

    `inner` is a lower-case file name in any folder of the zip `outer`.

    Raises:
        DataError: a zip or member is missing, damaged, or a bomb; also when damage shows only while reading.
    """
    name = str(outer)
    try:
        with zipfile.ZipFile(outer) as outer_zip:
            entry = _only(outer_zip, inner, name)
            name = f"{outer}/{entry.filename}"
            with outer_zip.open(entry) as raw, zipfile.ZipFile(raw) as inner_zip:
                csv = _only(inner_zip, "*.csv", name)
                name = f"{name}/{csv.filename}"
                ratio = csv.file_size / max(csv.compress_size, 1)
                if csv.file_size > _SMALL and ratio > LARGEST_RATIO:
                    raise DataError(
                        f"{name} would unpack to {ratio:,.0f} times its size, {csv.file_size:,} bytes, as no log does; "
                        "obtain the file again"
                    )
                with inner_zip.open(csv) as stream:
                    yield Member(stream, name)
    except FileNotFoundError:
        raise DataError(f"{outer} does not exist; run `dvc repro download`") from None
    except ZIP_DAMAGE as error:
        raise DataError(f"{name} is damaged or cut short ({error}); obtain the file again") from None


def _only(container: zipfile.ZipFile, pattern: str, name: str) -> zipfile.ZipInfo:
    """Return the one member whose lower-case file name fits the pattern.

    Folders are left aside.
    """
    found = [
        entry
        for entry in container.infolist()
        if fnmatchcase(PurePosixPath(entry.filename).name.lower(), pattern)
        and not entry.filename.startswith("__MACOSX/")
    ]
    if len(found) != 1:
        held = ", ".join(entry.filename for entry in container.infolist()[:8]) or "nothing"
        raise DataError(f"{name} must hold one {pattern}, but holds {len(found)}; its members: {held}")
    if found[0].flag_bits & 1:
        raise DataError(f"{name}/{found[0].filename} is encrypted; unpack it and pack it again without a password")
    return found[0]
