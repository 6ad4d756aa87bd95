"""The setting `many_ids`: a planted log in which ids matter, and less is linear than in the synthetic source's.

Users are private to a scenario and have about 15 training rows each; items and sellers are everybody's, their
popularity Zipf's. The logit of a click in a scenario is b + k z, with z = sqrt(shared) f + sqrt(cluster) (+-)
f_cluster + sqrt(own) f_scenario as in `pfmsmt.data.sources.synthetic.planted`; a function f is the sum of the parts in
`PARTS`. Main effects, of ids as well, and slopes of numbers are half of its variance. Conversions follow functions of
their own, correlated with the click's.

Legend: B rows, D dimensions of ids' latent vectors, M numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from pfmsmt.core import files
from pfmsmt.core.metrics import task_metrics
from pfmsmt.data.sources.synthetic.planted_scenario import CONVERSION_LIKE_CLICK, generator, solve_logits
from pfmsmt.data.sources.synthetic.synthetic import ORACLE_BINS, ORACLE_FILE

SCENARIOS = {"NL": (75_000, 220_000), "ES": (37_500, 220_000), "FR": (18_750, 220_000), "US": (10_000, 220_000)}
"""Rows of training (validation among them) and test."""
CTR, CVR = 0.08, 0.12
SHARED, CLUSTER, OWN = 0.6, 0.25, 0.15
"""Shares of z; the last scenario's cluster part is reversed."""
PARTS = {"fields": 0.20, "ids": 0.20, "linear": 0.10, "smooth": 0.15, "latent": 0.20, "crossed": 0.15}
"""Shares of a function's variance: main effects of small fields, of ids, slopes and smooth functions of numbers, users'
latent vectors times items', pairs of categories."""

FIELDS = {"age": 6, "gender": 3, "device": 4, "region": 20, "hour": 8, "category": 40}
"""Small fields and their categories; the first four are the user's, `category` is the item's."""
ITEMS, SELLERS = 2000, 300
ROWS_PER_USER, ROWS_PER_SEARCH = 15, 5
NUMBERS = ("spend", "tenure", "activity", "thrift", "price", "quality", "freshness", "discount", "match", "distance")
"""The first four are the user's, the next three the item's, the others the row's."""
SKEWED = ("spend", "price")
"""Written as exponentials."""
DIMENSIONS = 5
EXPLAINED = 0.6
"""Share of an id's latent vector that its fields explain."""
CROSSED = (("category", "region"), ("category", "age"), ("device", "hour"))
COVARIATE_SHIFT = 0.3
POPULARITY = 1.1
"""Exponent of Zipf's law for items; users' is half of it."""

_USER_FIELDS = ("age", "gender", "device", "region")
_USER_NUMBERS, _ITEM_NUMBERS = 4, 3
_HIDDEN, _STEEPNESS = 6, 1.5
_REFERENCE_ROWS, _REFERENCE_USERS = 16_384, 2000
_WORLD, _USERS, _LAW, _SAMPLE, _FUNCTION, _ROWS = range(20, 26)
_Floats = NDArray[np.float64]
_Codes = NDArray[np.int64]


class Ids(NamedTuple):
    """All users of a scenario, or all items."""

    fields: dict[str, _Codes]
    numbers: _Floats
    """[ids, their numbers]"""
    vectors: _Floats
    """[ids, D], each entry of variance 1"""
    weights: _Floats
    """[ids], how often each appears; their sum is 1"""


class Impressions(NamedTuple):
    """Rows of one scenario."""

    codes: dict[str, _Codes]
    """Small fields, and user, item, seller: each [B]."""
    numbers: _Floats
    """[B, M], before those that are skewed are made so"""
    user_vectors: _Floats
    item_vectors: _Floats
    search: _Codes


def generate(seed: int, folder: Path, sizes: Mapping[str, tuple[int, int]] = SCENARIOS) -> None:
    """Write `<scenario>.parquet` for each scenario into `folder/tables`, and `folder/oracle.json`.

    The oracle has the form of `pfmsmt.data.sources.synthetic.synthetic.generate`'s.
    """
    tables = folder / "tables"
    tables.mkdir(parents=True)
    items = _items(seed)
    neutral = generator(seed, _SAMPLE)
    reference = _impressions(neutral, _users(seed, "", _REFERENCE_USERS), items, _REFERENCE_ROWS)
    oracle = {}
    for position, (scenario, (train_rows, test_rows)) in enumerate(sizes.items()):
        sign = -1.0 if position == len(sizes) - 1 else 1.0
        weights = {"shared": np.sqrt(SHARED), f"cluster {position % 2}": sign * np.sqrt(CLUSTER),
                   f"own {scenario}": np.sqrt(OWN)}  # fmt: skip
        functions = [
            [(w, Function(generator(seed, _FUNCTION, task, name=name), reference)) for name, w in weights.items()]
            for task in range(2)
        ]
        users = _users(seed, scenario, max(train_rows // ROWS_PER_USER, 10))
        shifted = items._replace(weights=_shifted(items.weights, generator(seed, _LAW, name=scenario)))

        def scores(rows: Impressions, functions: Any = functions) -> tuple[_Floats, _Floats]:
            click, rest = (sum(weight * function(rows) for weight, function in task) for task in functions)
            return click, CONVERSION_LIKE_CLICK * click + np.sqrt(1 - CONVERSION_LIKE_CLICK**2) * rest

        rng = generator(seed, _ROWS, name=scenario)
        sample = scores(_impressions(rng, users, shifted, _REFERENCE_ROWS))
        logits = solve_logits(*sample, CTR, CVR)
        written = []
        for split, rows in (("train", train_rows), ("test", test_rows)):
            drawn = _impressions(rng, users, shifted, rows)
            click_true, conversion_true = (
                expit(intercept + slope * z) for z, (intercept, slope) in zip(scores(drawn), logits, strict=True)
            )
            click = rng.random(rows) < click_true
            bought = click & (rng.random(rows) < conversion_true)
            written.append(_table(scenario, split, drawn, click, bought))
        pq.write_table(pa.concat_tables(written), tables / f"{scenario}.parquet")
        truths = (("ctr", click, click_true), ("ctcvr", bought, click_true * conversion_true))
        oracle[scenario] = {
            task: task_metrics(label, true, drawn.search, bins=ORACLE_BINS) for task, label, true in truths
        }
    files.write_json(folder / ORACLE_FILE, {"scenarios": oracle})


class Function:
    """A random function of impressions, with mean 0 and variance 1 over the reference's."""

    def __init__(self, rng: np.random.Generator, reference: Impressions) -> None:
        """Draw it, and standardise it and its parts."""
        columns = len(NUMBERS)
        self._effects = {name: rng.standard_normal(size) for name, size in FIELDS.items()}
        self._of_id = {"item": rng.standard_normal(ITEMS), "seller": rng.standard_normal(SELLERS)}
        self._of_user = rng.standard_normal(DIMENSIONS) / np.sqrt(DIMENSIONS)
        self._slopes = rng.standard_normal(columns)
        self._inner = rng.standard_normal((columns, _HIDDEN))
        self._inner *= _STEEPNESS / np.sqrt((self._inner**2).sum(axis=0))
        self._bias, self._outer = rng.standard_normal(_HIDDEN), rng.standard_normal(_HIDDEN)
        self._match = rng.standard_normal((DIMENSIONS, DIMENSIONS))
        self._crossed = [rng.standard_normal([FIELDS[name] for name in pair]) for pair in CROSSED]
        self._center, self._scale = reference.numbers.mean(axis=0), reference.numbers.std(axis=0)
        parts = self._parts(reference)
        self._part_mean, self._part_std = parts.mean(axis=0), parts.std(axis=0)
        self._mean, self._std = 0.0, 1.0
        whole = self(reference)
        self._mean, self._std = float(whole.mean()), float(whole.std())

    def __call__(self, rows: Impressions) -> _Floats:
        """Return its value for each row [B]."""
        parts = (self._parts(rows) - self._part_mean) / self._part_std
        value: _Floats = (parts @ np.sqrt(list(PARTS.values())) - self._mean) / self._std
        return value

    def _parts(self, rows: Impressions) -> _Floats:
        """Return [B, 6], in the order of PARTS."""
        scaled = (rows.numbers - self._center) / self._scale
        return np.stack(
            [
                sum(effect[rows.codes[name]] for name, effect in self._effects.items()),
                rows.user_vectors @ self._of_user + sum(held[rows.codes[name]] for name, held in self._of_id.items()),
                scaled @ self._slopes,
                np.tanh(scaled @ self._inner + self._bias) @ self._outer,
                ((rows.user_vectors @ self._match) * rows.item_vectors).sum(axis=1),
                sum(
                    effect[rows.codes[one], rows.codes[other]]
                    for effect, (one, other) in zip(self._crossed, CROSSED, strict=True)
                ),
            ],
            axis=1,
        )  # fmt: skip


def _items(seed: int) -> Ids:
    rng = generator(seed, _WORLD)
    fields = {"category": _draw(rng, _zipf(FIELDS["category"], 0.7), ITEMS)}
    fields["seller"] = _draw(rng, _zipf(SELLERS, 0.7), ITEMS)
    vectors = _explained(rng, rng.standard_normal((FIELDS["category"], DIMENSIONS))[fields["category"]])
    loadings = rng.standard_normal((DIMENSIONS, _ITEM_NUMBERS)) / np.sqrt(DIMENSIONS)
    numbers = _explained(rng, vectors @ loadings)
    return Ids(fields, numbers, vectors, rng.permutation(_zipf(ITEMS, POPULARITY)))


def _users(seed: int, scenario: str, count: int) -> Ids:
    """Draw a scenario's users; what fields and vectors mean is the same everywhere, their shares are not."""
    common, own = generator(seed, _USERS), generator(seed, _USERS, name=scenario or "reference")
    means, loadings = {}, common.standard_normal((DIMENSIONS, _USER_NUMBERS)) / np.sqrt(DIMENSIONS)
    fields = {}
    for name in _USER_FIELDS:
        shares = _shifted(common.permutation(_zipf(FIELDS[name], 0.7)), own)
        means[name] = common.standard_normal((FIELDS[name], DIMENSIONS)) / np.sqrt(len(_USER_FIELDS))
        fields[name] = _draw(own, shares, count)
    vectors = _explained(own, sum(mean[fields[name]] for name, mean in means.items()))
    numbers = _explained(own, vectors @ loadings) + COVARIATE_SHIFT * own.standard_normal(_USER_NUMBERS)
    return Ids(fields, numbers, vectors, own.permutation(_zipf(count, POPULARITY / 2)))


def _impressions(rng: np.random.Generator, users: Ids, items: Ids, rows: int) -> Impressions:
    """Draw rows by searches: a user at an hour sees some items."""
    search = np.repeat(np.arange(rows), 1 + rng.poisson(ROWS_PER_SEARCH - 1, rows))[:rows]
    searches = int(search[-1]) + 1
    user = _draw(rng, users.weights, searches)[search]
    item = _draw(rng, items.weights, rows)
    codes = {name: field[user] for name, field in users.fields.items()}
    codes["hour"] = rng.integers(0, FIELDS["hour"], searches)[search]
    codes |= {name: field[item] for name, field in items.fields.items()} | {"user": user, "item": item}
    of_row = rng.standard_normal((rows, len(NUMBERS) - _USER_NUMBERS - _ITEM_NUMBERS))
    numbers = np.concatenate([users.numbers[user], items.numbers[item], of_row], axis=1)
    return Impressions(codes, numbers, users.vectors[user], items.vectors[item], search)


def _table(
    scenario: str, split: str, rows: Impressions, click: NDArray[np.bool_], bought: NDArray[np.bool_]
) -> pa.Table:
    """Return rows as the tabular source reads them; searches of both splits have numbers of their own."""
    count = len(click)
    columns: dict[str, Any] = {"scenario": [scenario] * count, "split": [split] * count}
    columns["search"] = 2 * rows.search + (split == "test")
    columns |= {name if name in FIELDS else f"{name}_id": codes for name, codes in rows.codes.items()}
    for place, name in enumerate(NUMBERS):
        values = rows.numbers[:, place]
        columns[name] = np.round(np.exp(values) if name in SKEWED else values, 4)
    return pa.table({**columns, "click": click, "buy": bought})


def _explained(rng: np.random.Generator, means: _Floats) -> _Floats:
    """Add noise to what is explained, so that its share is EXPLAINED and the variance about 1."""
    scale = np.sqrt(EXPLAINED) / means.std(axis=0)
    noise = rng.standard_normal(means.shape) * np.sqrt(1 - EXPLAINED)
    found: _Floats = (means - means.mean(axis=0)) * scale + noise
    return found


def _zipf(count: int, exponent: float) -> _Floats:
    weights = np.arange(1, count + 1) ** -exponent
    found: _Floats = weights / weights.sum()
    return found


def _shifted(weights: _Floats, rng: np.random.Generator) -> _Floats:
    moved = weights * np.exp(COVARIATE_SHIFT * rng.standard_normal(len(weights)))
    found: _Floats = moved / moved.sum()
    return found


def _draw(rng: np.random.Generator, weights: _Floats, count: int) -> _Codes:
    return np.minimum(np.searchsorted(np.cumsum(weights), rng.random(count), side="right"), len(weights) - 1)
