"""Download one file over HTTP(S): whole and of the announced size, or not at all."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pfmsmt import atomic
from pfmsmt.errors import ConfigError, DataError

ATTEMPTS = 4
CHUNK_BYTES = 2**20
REPORT_BYTES = 64 * 2**20


class _Interrupted(Exception):
    """The server could not be reached, or stopped before the end: worth another attempt."""


def fetch(
    url: str, target: Path, progress: Callable[[str], None], *, pause: float = 2.0, timeout: float = 60.0
) -> None:
    """Write what `url` holds to `target`, trying again (after `pause`, 2 `pause`, ... seconds) when cut off.

    Raises:
        ConfigError: not an http or https address.
        DataError: refused by the server, or not reached or not complete after all attempts.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"{url!r} is not an http:// or https:// address")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with atomic.new_file(target) as temporary, temporary.open("wb") as out:
                received = 0
                for chunk in _chunks(url, timeout):
                    out.write(chunk)
                    if (received + len(chunk)) // REPORT_BYTES > received // REPORT_BYTES:
                        progress(f"{target.name}: {(received + len(chunk)) / 2**20:,.0f} MiB")
                    received += len(chunk)
            return
        except _Interrupted as error:
            if attempt == ATTEMPTS:
                raise DataError(f"{url}: {error}, {ATTEMPTS} times; check the address and the connection") from None
            progress(f"{target.name}: {error}; trying again ({attempt + 1} of {ATTEMPTS})")
            time.sleep(pause * attempt)


def _chunks(url: str, timeout: float) -> Iterator[bytes]:
    """Yield the body; only faults of the network are turned into _Interrupted, those of the disk are not seen here."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            announced = response.headers.get("Content-Length")
            received = 0
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
                yield chunk
            if announced is not None and received != int(announced):
                raise _Interrupted(f"received {received:,} of {int(announced):,} bytes")
    except urllib.error.HTTPError as error:
        answer = f"the server answered {error.code} {error.reason}"
        if error.code >= 500 or error.code == 429:
            raise _Interrupted(answer) from None
        raise DataError(f"{url}: {answer}; check the address") from None
    except urllib.error.URLError as error:
        raise _Interrupted(f"not reached ({error.reason})") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Interrupted(f"the connection broke ({type(error).__name__})") from None
