"""The terminal: lines, progress, and errors as one readable message."""

import errno
import os
import sys
import time
from collections.abc import Callable, Sequence

from pfmsmt.core.errors import PfmsmtError

PLAIN_EVERY = 5.0
"""Seconds between two plain lines of progress, where the output is no terminal."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


class Progress:
    """Progress of work whose length is known.

    In a terminal one line that is rewritten; elsewhere, such as in a log, a plain line now and then.
    """

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        """Begin with `done` of `total` parts done already."""
        self._name, self._total, self._first = name, total, done
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def show(self, done: int, detail: str) -> None:
        """Show that `done` parts are done."""
        now = time.monotonic()
        last = done >= self._total
        if not self._terminal and not last and now - self._shown < PLAIN_EVERY:
            return
        self._shown = now
        elapsed = now - self._start
        left = elapsed / max(done - self._first, 1) * (self._total - done)
        line = f"{self._name} {done}/{self._total}  {detail}  {_clock(elapsed)} done, {_clock(left)} left"
        if self._terminal:
            width = (os.get_terminal_size().columns if os.isatty(1) else 0) or 120
            print(f"\r\x1b[K{line[: width - 1]}", end="\n" if last else "", flush=True)
        else:
            say(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def run_main(main: Callable[[], None], words: Sequence[str] | None = None) -> None:
    """Call `main`, and end with a readable message on an error.

    Errors that the user or the machine caused end with exit code 1, an interruption with 130; any other is a fault of
    the program's and shows its traceback. `--debug` among the words, or PFMSMT_DEBUG=1, lets the traceback through.
    """
    debug = "--debug" in (sys.argv[1:] if words is None else words) or os.environ.get("PFMSMT_DEBUG") == "1"
    try:
        main()
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("interrupted; run the same command again to go on", 130)
    except PfmsmtError as error:
        if debug:
            raise
        _fail(str(error))
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        _fail(f"{error.strerror}: {error.filename or 'writing a file'}; nothing half-written was left")


def _fail(message: str, code: int = 1) -> None:
    print(f"\nERROR: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)
