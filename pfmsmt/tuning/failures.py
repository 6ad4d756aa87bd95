"""Why trials fail, and when there is no point in going on."""

import re
from collections import Counter

from pfmsmt.errors import ConfigError, DataError, TrainingError

IN_A_ROW = 5
"""So many failures, without a trial in between that did not fail, end the search."""

_MEMORY = re.compile(r"MemoryError|OutOfMemory|out of memory|can't allocate memory", re.IGNORECASE)
_NOT_FINITE = re.compile(r"became (nan|-?inf)|is nan|not finite")


def cause_of(error: BaseException) -> str:
    """Return the kind of a failure in few words."""
    text = f"{type(error).__name__}: {error}"
    if _MEMORY.search(text):
        return "out of memory"
    if isinstance(error, TrainingError):
        return "training diverged" if _NOT_FINITE.search(text) else "training could not go on"
    if isinstance(error, ConfigError):
        return "values that do not go together"
    if isinstance(error, DataError):
        return "unreadable data"
    return type(error).__name__


class Streak:
    """Failures in a row."""

    def __init__(self) -> None:
        """Start with none."""
        self._failures: list[tuple[str, str]] = []

    def good(self) -> None:
        """Take in a trial that did not fail."""
        self._failures.clear()

    def bad(self, cause: str, reason: str) -> str | None:
        """Take in a failure; return why the search ends, None while it goes on."""
        self._failures.append((cause, reason))
        if len(self._failures) < IN_A_ROW:
            return None
        causes = Counter(cause for cause, _ in self._failures)
        common, times = causes.most_common(1)[0]
        if times == 1:
            listed = "\n".join(f"  {cause}: {reason}" for cause, reason in self._failures)
            return f"{IN_A_ROW} trials in a row failed, each for another cause:\n{listed}"
        last = next(reason for cause, reason in reversed(self._failures) if cause == common)
        return (
            f"{IN_A_ROW} trials in a row failed; common cause: {common} ({times} of {IN_A_ROW}). The last one: {last}"
        )
