"""The data card's figures: the shards' profile, and distances between them.

The distances are those between splits and those between scenarios.

Legend: S scenarios.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.card.drift import Drift, category_bins, drift, quantile_bins, rebin
from pfmsmt.data.card.profile import Profile, Split, profile
from pfmsmt.data.schema import Schema
from pfmsmt.data.tables.faults import SUMMARY_FILE


class DataCard(NamedTuple):
    """All figures of the card."""

    schema: Schema
    profile: Profile
    in_time: dict[str, dict[str, Drift]]
    """column -> scenario -> from training to test rows"""
    between: dict[str, dict[tuple[str, str], Drift]]
    """column -> pair of scenarios -> their training rows; private columns are left out: codes are each client's own"""

    left_out: dict[str, int]
    """Cause -> number of rows that `partition` left out; nothing where bad rows are refused"""

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns, categorical first."""
        return (*(field.name for field in self.schema.categorical), *(field.name for field in self.schema.numerical))

    def rate(self, scenario: str, split: str, task: str) -> float:
        """Return the share of rows with label 1."""
        counts = self.profile[scenario][split].counts
        return counts.positives[task] / max(counts.labels(task), 1)

    def constant(self, column: str) -> tuple[str, ...]:
        """Return the scenarios in whose training rows a column is constant."""
        return tuple(s for s, splits in self.profile.items() if splits["train"].column(column).constant)

    def missing(self, column: str) -> int:
        """Return the rows of all scenarios and splits that have no value."""
        return sum(split.column(column).missing for splits in self.profile.values() for split in splits.values())

    def distances(self) -> NDArray[np.float64]:
        """Return the columns' mean divergence between scenarios, [S, S], in bits."""
        names = self.schema.scenarios
        matrix = np.zeros((len(names), len(names)))
        for found in self.between.values():
            for (first, second), one in found.items():
                i, j = names.index(first), names.index(second)
                matrix[i, j] += one.divergence / len(self.between)
        return matrix + matrix.T


def make_card(schema: Schema, shards: Path) -> DataCard:
    """Read all shards once and compare them.

    Raises:
        DataError: a shard, or the summary of what was left out, is missing or damaged.
    """
    found = profile(schema, shards)
    names = schema.scenarios
    private = {field.name for field in schema.categorical if not field.federated}
    in_time: dict[str, dict[str, Drift]] = {}
    between: dict[str, dict[tuple[str, str], Drift]] = {}
    categorical = {field.name for field in schema.categorical}
    for column in (*(field.name for field in schema.categorical), *(field.name for field in schema.numerical)):
        make_bins = category_bins if column in categorical else quantile_bins
        training = {s: found[s]["train"] for s in names}
        if column in private:
            bins = {s: make_bins(training[s].column(column).counts) for s in names}
        else:
            pooled = np.sum([training[s].column(column).counts for s in names], axis=0)
            bins = dict.fromkeys(names, make_bins(pooled))
        in_time[column] = {s: _compare(column, training[s], found[s]["test"], bins[s]) for s in names}
        if column not in private:
            between[column] = {
                (a, b): _compare(column, training[a], training[b], bins[a])
                for i, a in enumerate(names)
                for b in names[i + 1 :]
            }
    return DataCard(schema, found, in_time, between, _left_out(shards / SUMMARY_FILE))


def _left_out(path: Path) -> dict[str, int]:
    try:
        kinds = json.loads(path.read_text(encoding="utf-8"))["kinds"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `dvc repro -f partition`") from error
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def _compare(column: str, first: Split, second: Split, bins: NDArray[np.int64]) -> Drift:
    one, two = (rebin(split.column(column).counts, bins) for split in (first, second))
    return drift(one, two, (max(first.counts.groups, 1), max(second.counts.groups, 1)))
