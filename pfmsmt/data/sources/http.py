"""Download one file over HTTP(S): whole and unaltered, or not at all.

A broken download goes on where it broke, if the server still has the same version; checksums are compared. The
standard library is used on purpose: this module decides itself when to resume, retry or start anew, and nothing in
between (a session, transparent decompression, hidden retries) changes the bytes that are counted and hashed.
"""

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pfmsmt.core import files
from pfmsmt.core.errors import ConfigError, DataError

ATTEMPTS = 5
CHUNK_BYTES = 2**20
CHECKSUMS_FILE = "checksums.json"
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Interrupted(Exception):
    """The server was out of reach or stopped early: worth another attempt."""


class _Refused(Exception):
    """The server answered, but with something else: another attempt is in vain."""


class _Part(NamedTuple):
    """The part of a file that is there, and its version's mark.

    The mark is the ETag, or the date, by which the server knows the version.
    """

    path: Path
    mark_path: Path

    @property
    def mark(self) -> str:
        """The mark; empty if there is none, so that nothing can continue."""
        return self.mark_path.read_text(encoding="utf-8") if self.mark_path.exists() else ""

    @property
    def bytes(self) -> int:
        """The number of bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def remove(self) -> None:
        """Start again from nothing."""
        self.path.unlink(missing_ok=True)
        self.mark_path.unlink(missing_ok=True)


def download_url(
    url: str,
    target: Path,
    progress: Callable[[str], None],
    *,
    cache: Path,
    sha256: str | None = None,
    form: Callable[[Path], str] | None = None,
    instead: str = "",
    pause: float = 2.0,
    timeout: float = 60.0,
    report_every: float = 5.0,
) -> None:
    """Write what `url` holds to `target`.

    Tries again when cut off, after `pause`, 2 `pause`, 4 `pause`, ... seconds, and asks for what is missing only (HTTP
    Range) if the server marks its versions; so does the next call, from the part that is left in `cache`. The SHA-256
    must be `sha256`, or, if none is given, the one that `cache` remembers from the first download of this address.
    `form` says what is wrong with the file as such, before anything is remembered; empty if nothing is. Nothing is
    remembered either where the server does not say how long the file is, as it may be cut short. `instead` is what else
    may be done; errors say it where the file was not obtained.
    `progress` gets a line every `report_every` seconds.

    Raises:
        ConfigError: not an http or https address.
        DataError: refused by the server, not reached or not complete after all attempts, a web page, of another form
            or checksum.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"{url!r} is not an http:// or https:// address")
    cache.mkdir(parents=True, exist_ok=True)
    other = f", or {instead}" if instead else ""
    stem = f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    part = _Part(cache / f"{stem}.part", cache / f"{stem}.mark")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            whole = _receive(url, part, target.name, progress, timeout, report_every)
            break
        except _Interrupted as error:
            if not part.mark:
                part.remove()
            if attempt == ATTEMPTS:
                left = (
                    f"; the {part.bytes / 2**20:,.1f} MiB received are kept, run again to go on" if part.bytes else ""
                )
                _tidy(cache)
                raise DataError(
                    f"{url}: {error}, {ATTEMPTS} times; check the address and the connection{other}{left}"
                ) from None
            progress(f"{target.name}: {error}; trying again ({attempt + 1} of {ATTEMPTS})")
            time.sleep(pause * 2 ** (attempt - 1))
        except _Refused as error:
            _tidy(cache)
            raise DataError(f"{error}{other}") from None
        except BaseException:
            _tidy(cache)
            raise
    fault = form(part.path) if form else ""
    if fault:
        part.remove()
        _tidy(cache)
        raise DataError(f"{url} {fault}{other}")
    if not whole and not sha256:
        progress(f"{target.name}: the server does not say how long it is, so its checksum is not remembered")
    _check(url, part, target.name, sha256, cache / CHECKSUMS_FILE, whole)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part.path, target)
    part.remove()
    _tidy(cache)


def _receive(
    url: str, part: _Part, name: str, progress: Callable[[str], None], timeout: float, report_every: float
) -> bool:
    """Append what is missing, and say whether that is certainly all.

    Faults of the network become _Interrupted, those of the disk do not.
    """
    start = part.bytes
    headers = {"Range": f"bytes={start}-", "If-Range": part.mark} if start and part.mark else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            if response.headers.get_content_type() == "text/html":
                raise _Refused(f"{url} is a web page (of a login, or of an error?) and no data; check the address")
            length = response.headers.get("Content-Length")
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                whole = _whole_of_range(response, part, start)
            else:
                whole = None if length is None else int(length)
                start = 0
                part.remove()
                part.mark_path.write_text(_mark(response), encoding="utf-8")
            _copy(response, part, start, whole, name, progress, report_every)
            return whole is not None or bool(response.chunked)
    except urllib.error.HTTPError as error:
        answer = f"the server answered {error.code} {error.reason}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.remove()
            raise _Interrupted(answer) from None
        if error.code >= 500 or error.code in (408, 429):
            raise _Interrupted(answer) from None
        raise _Refused(f"{url}: {answer}; check the address") from None
    except urllib.error.URLError as error:
        raise _Interrupted(f"not reached ({error.reason})") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Interrupted(f"the connection broke ({type(error).__name__})") from None


def _whole_of_range(response: Any, part: _Part, start: int) -> int | None:
    """Return the whole file's length, from an answer that begins at `start`.

    None if the server does not say it.
    """
    found = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
    if found is None or int(found[1]) != start:
        part.remove()
        raise _Interrupted("the server sent other bytes than it was asked for")
    return None if found[2] == "*" else int(found[2])


def _mark(response: Any) -> str:
    """Return the mark of the version that a server sends.

    It is a strong ETag, or else the date.
    """
    tag = response.headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified") or ""


def _copy(
    response: Any,
    part: _Part,
    start: int,
    whole: int | None,
    name: str,
    progress: Callable[[str], None],
    report_every: float,
) -> None:
    begun = reported = time.monotonic()
    received = start
    with part.path.open("ab") as out:
        while chunk := response.read(CHUNK_BYTES):
            out.write(chunk)
            received += len(chunk)
            now = time.monotonic()
            if now - reported >= report_every:
                progress(f"{name}: {progress_text(received, whole, (received - start) / (now - begun))}")
                reported = now
    if whole is not None and received != whole:
        raise _Interrupted(f"received {received:,} of {whole:,} bytes")


def progress_text(received: int, whole: int | None, speed: float) -> str:
    """Return the progress of a download as text.

    `whole` is in bytes, if it is known, and `speed` in bytes a second.
    """
    text = f"{received / 2**20:,.1f}"
    if whole is not None:
        text += f" of {whole / 2**20:,.1f}"
    text += f" MiB, {speed / 2**20:,.1f} MiB/s"
    if whole is not None and speed > 0:
        minutes, seconds = divmod(round((whole - received) / speed), 60)
        text += f", {minutes}:{seconds:02} min left"
    return text


def _check(url: str, part: _Part, name: str, given: str | None, path: Path, whole: bool) -> None:
    """Compare the checksum with the one given or remembered in `path`.

    That of a whole file is remembered.
    """
    with part.path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    expected = given.lower() if given else known.get(url, found)
    if found != expected:
        part.remove()
        origin = "data.sha256 of params.yaml" if given else f"the first download, as {path} remembers,"
        raise DataError(
            f"{url}: the SHA-256 of {name} is {found}, but {origin} says {expected}; the file was altered. "
            f"If that is meant, correct the checksum{'' if given else ' there'}"
        )
    if (whole or given) and known.get(url) != found:
        files.write_json(path, known | {url: found})


def _tidy(cache: Path) -> None:
    """Leave no empty folder behind."""
    if not any(cache.iterdir()):
        cache.rmdir()
