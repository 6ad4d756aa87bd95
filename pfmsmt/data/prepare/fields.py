"""Vocabularies, means and deviations, learned from the clients' training rows."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import CategoricalField, Fill, NumericalField, Vocabulary
from pfmsmt.data.shards.writer import RawRows
from pfmsmt.data.sources.base import Columns
from pfmsmt.data.statistics import CategoryCounts, Moments, MomentState, TextCounts
from pfmsmt.data.tables.values import NUMERIC_TEXT

_INTEGER = re.compile(r"^(0|-?[1-9][0-9]{0,14})$")
"""The one way to write a whole number that float64 holds: `7`, not `07` or `+7`, so that no two texts are one."""

_Counts = CategoryCounts | TextCounts


class Fields(NamedTuple):
    """The learned part of a schema."""

    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]
    private: dict[str, dict[str, Vocabulary]]
    """scenario -> private field -> vocabulary"""


def fill_of(columns: Columns, fields: Fields) -> Fill:
    """Return the fills, of the types that the fields have.

    Raises:
        ConfigError: infinite, or no number, for a column of numbers.
    """
    found: Fill = {}
    kinds = {field.name: field.text for field in fields.categorical}
    for name, value in columns.fill.items():
        text = kinds.get(name)
        if text is None and not math.isfinite(float(value)):
            raise ConfigError(f"data.tabular.fill: {name}: {value} is not a finite number")
        if text is False and isinstance(value, str):
            # A file without types. What is no integer stood for nothing in the training rows, and has no code.
            if _INTEGER.match(value):
                found[name] = int(value)
        elif text is False and isinstance(value, float):
            if value.is_integer():
                found[name] = int(value)
        else:
            found[name] = str(value) if text else value
    return found


class FieldSummary(NamedTuple):
    """Training rows of one site, as another learner needs them."""

    categories: Mapping[str, tuple[Sequence[int | str], Sequence[int]]]
    """federated column -> its categories, and the rows of each"""
    moments: MomentState
    private_text: Mapping[str, bool]
    """private column -> whether its categories are text"""


class FieldLearner:
    """Takes training rows of one scenario after the other."""

    def __init__(self, columns: Columns, private: Sequence[str], scenarios: Sequence[str]) -> None:
        """Start with no rows."""
        self._columns = columns
        self._pooled = {name: self._counts(name) for name in columns.categorical if name not in private}
        self._private = {scenario: {name: self._counts(name) for name in private} for scenario in scenarios}
        self._moments = Moments(len(columns.numerical))

    def _counts(self, name: str) -> _Counts:
        return TextCounts() if name in self._columns.text else CategoryCounts()

    def add(self, scenario: str, rows: RawRows, chosen: NDArray[np.bool_]) -> None:
        """Take in the chosen rows [B] of a batch."""
        counts: dict[str, Any] = {**self._pooled, **self._private[scenario]}
        for name, column in counts.items():
            column.add(rows[name][chosen])
        with np.errstate(over="ignore", invalid="ignore"):  # reported by `result`, with its column
            self._moments.add([np.asarray(rows[name][chosen], np.float64) for name in self._columns.numerical])

    def summary(self) -> FieldSummary:
        """Return the part of the rows' statistics that may leave a site.

        Of private fields that is only whether they are text.
        """
        counted = {name: counts.result() for name, counts in self._pooled.items()}
        return FieldSummary(
            {name: (list(values), [int(count) for count in rows]) for name, (values, rows) in counted.items()},
            self._moments.state(),
            {name: self._is_text(name) for name in self._columns.categorical if name not in self._pooled},
        )

    def add_summary(self, summary: FieldSummary) -> None:
        """Take in what was learned elsewhere."""
        for name, counts in self._pooled.items():
            column: Any = counts
            column.add_counted(*summary.categories[name])
        self._moments.add_state(summary.moments)

    def result(self, min_count: int) -> Fields:
        """Return the learned fields.

        A category seen in fewer than `min_count` rows is out of vocabulary.

        Raises:
            DataError: a column whose numbers have no finite deviation.
        """
        mean, std = self._moments.result()
        broken = np.flatnonzero(~np.isfinite(std))
        if broken.size:
            name = self._columns.numerical[broken[0]]
            raise DataError(f"column {name}: its numbers are too large for a standard deviation")
        text = {name: self._is_text(name) for name in self._columns.categorical}

        def vocabulary(name: str, counts: _Counts) -> Vocabulary:
            found = counts.vocabulary(min_count)
            return found if text[name] == (name in self._columns.text) else tuple(sorted(int(entry) for entry in found))

        return Fields(
            tuple(
                CategoricalField(
                    name=name, federated=True, text=text[name], vocabulary=vocabulary(name, self._pooled[name])
                )
                if name in self._pooled
                else CategoricalField(name=name, federated=False, text=text[name])
                for name in self._columns.categorical
            ),
            tuple(
                NumericalField(name=name, mean=float(m), std=float(s))
                for name, m, s in zip(self._columns.numerical, mean, std, strict=True)
            ),
            {
                scenario: {name: vocabulary(name, counts) for name, counts in own.items()}
                for scenario, own in self._private.items()
                if own
            },
        )

    def _is_text(self, name: str) -> bool:
        return name in self._columns.text and (not self._columns.untyped or self._no_integer(name) is not None)

    def _values(self, name: str) -> Iterator[int | str]:
        """Yield the categories of all clients, in order of each client's."""
        counts = [self._pooled[name]] if name in self._pooled else [own[name] for own in self._private.values()]
        return itertools.chain.from_iterable(column.vocabulary(1) for column in counts)

    def _no_integer(self, name: str) -> str | None:
        """Return the first category that is not written as an integer is."""
        return next((str(entry) for entry in self._values(name) if not _INTEGER.match(str(entry))), None)

    def surprises(self) -> Iterator[str]:
        """Yield a line for each text column that also holds numbers.

        Only columns of files without types are looked at.
        """
        for name in self._columns.text if self._columns.untyped else ():
            odd = self._no_integer(name)
            if odd is not None and any(NUMERIC_TEXT.match(str(entry)) for entry in self._values(name)):
                yield (
                    f"{name} is text, as {odd!r} is among its values: integers are written as 7 or -7 is, with "
                    "at most 15 digits; models ask for text, too"
                )
