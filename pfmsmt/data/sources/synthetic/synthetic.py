"""The embedded data set: generated, and written in AliExpress's raw form.

So it is read by the same code.
"""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pfmsmt.config import Data, ScenarioSize, Synthetic
from pfmsmt.core import files
from pfmsmt.core.metrics import task_metrics
from pfmsmt.data.sources.aliexpress import aliexpress, tianchi
from pfmsmt.data.sources.aliexpress.columns import CATEGORICAL, ITEM_FILE, LABEL, NUMERICAL, SEARCH_ID, USER_FILE
from pfmsmt.data.sources.base import RAW_SPLITS, Notify, Source
from pfmsmt.data.sources.delivery import Delivery
from pfmsmt.data.sources.synthetic.planted import (
    USER_CATEGORICAL,
    USER_NUMERICAL,
    Features,
    draw_items,
    draw_users,
    join,
)
from pfmsmt.data.sources.synthetic.planted_scenario import PlantedScenario, generator, plant
from pfmsmt.data.tables.values import Column

ORACLE_FILE = "oracle.json"
ORACLE_BINS = 15
CHUNK_ROWS = 65_536

_SIZES, _ROWS = 10, 11


class Truth(NamedTuple):
    """Labels of B rows and what they were drawn from."""

    groups: NDArray[np.int64]
    click: NDArray[np.uint8]
    conversion: NDArray[np.uint8]
    click_probability: NDArray[np.float64]
    conversion_probability: NDArray[np.float64]
    """AUCs of click and conversion, over all impressions."""


def generate(config: Synthetic, seed: int, folder: Path, progress: Notify) -> None:
    """Write `aliexpress_<scenario>_datasets.zip` for each scenario, and `oracle.json`, into an existing folder.

    `oracle.json` holds {"scenarios": {scenario: {task: metrics}}}, the metrics of the true probabilities against the
    drawn labels of the test rows: no model can be expected to do better.
    """
    oracle: dict[str, dict[str, dict[str, float | None]]] = {}
    for scenario, size in config.scenarios.items():
        truth = _write_scenario(config, seed, scenario, size, folder)
        oracle[scenario] = {
            "ctr": task_metrics(truth.click, truth.click_probability, truth.groups, bins=ORACLE_BINS),
            "ctcvr": task_metrics(truth.conversion, truth.conversion_probability, truth.groups, bins=ORACLE_BINS),
        }
        progress(
            f"{scenario}: {size.train_rows:,} training and {size.test_rows:,} test rows generated; oracle AUC "
            + ", ".join(f"{task} {_shown(values['auc'])}" for task, values in oracle[scenario].items())
        )
    files.write_json(folder / ORACLE_FILE, {"scenarios": oracle})


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _write_scenario(config: Synthetic, seed: int, scenario: str, size: ScenarioSize, folder: Path) -> Truth:
    """Write one scenario's zip; return the truth about its test rows."""
    world = plant(config, seed, scenario)
    truth: list[Truth] = []
    # Stored: the members are compressed already.
    with zipfile.ZipFile(folder / tianchi.zip_name(scenario), "w", zipfile.ZIP_STORED) as outer:
        for split, rows in zip(RAW_SPLITS, (size.train_rows, size.test_rows), strict=True):
            paths = {part: folder / tianchi.member_name(scenario, part, split) for part in ("user", "item")}
            with ExitStack() as stack:
                user_csv, item_csv = (stack.enter_context(_csv_in_zip(path)) for path in paths.values())
                truth = []
                for users, items, chunk in _chunks(world, config.rows_per_search, seed, scenario, split, rows):
                    ids = np.unique(chunk.groups)
                    _write_csv(user_csv, USER_FILE, _named(users, 0, 0) | {SEARCH_ID: ids})
                    labels = (chunk.click + chunk.conversion).astype(np.int64)
                    columns = _named(items, USER_CATEGORICAL, USER_NUMERICAL)
                    _write_csv(item_csv, ITEM_FILE, columns | {SEARCH_ID: chunk.groups, LABEL: labels})
                    truth.append(chunk)
            for path in paths.values():
                with path.open("rb") as packed, outer.open(path.name, "w", force_zip64=True) as member:
                    shutil.copyfileobj(packed, member, 2**20)
                path.unlink()
    return Truth(*(np.concatenate(column) for column in zip(*truth, strict=True)))


def _chunks(
    world: PlantedScenario, rows_per_search: float, seed: int, scenario: str, split: str, rows: int
) -> Iterator[tuple[Features, Features, Truth]]:
    """Yield user rows, item rows and their truth, by whole searches.

    There is one user row for each search.
    """
    part = RAW_SPLITS.index(split)
    sizes = _search_sizes(generator(seed, _SIZES, part, name=scenario), rows, rows_per_search)
    ends = np.cumsum(sizes)
    first = 0
    chunk = 0
    while first < len(sizes):
        start = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, start + CHUNK_ROWS, side="right")), first + 1)
        rng = generator(seed, _ROWS, part, chunk, name=scenario)
        search = np.repeat(np.arange(last - first), sizes[first:last])
        users, items = draw_users(world.law, rng, last - first), draw_items(world.law, rng, len(search))
        true = world.probabilities(join(users, items, search))
        click = rng.random(len(search)) < true.click
        conversion = click & (rng.random(len(search)) < true.conversion)
        yield (
            users,
            items,
            Truth(
                search + first + 1,
                click.astype(np.uint8),
                conversion.astype(np.uint8),
                true.click,
                true.click * true.conversion,
            ),
        )
        first, chunk = last, chunk + 1


def _search_sizes(rng: np.random.Generator, rows: int, mean: float) -> NDArray[np.int64]:
    """Return each search's row count: 1 + Poisson, summing to `rows`.

    The last ones are cut so that the sum is met.
    """
    # One row a search is the least, so `rows` searches always suffice.
    ends = np.cumsum(1 + rng.poisson(mean - 1, size=rows))
    searches = int(np.searchsorted(ends, rows)) + 1
    return np.diff(np.minimum(ends[:searches], rows), prepend=0)


def _named(features: Features, first_category: int, first_number: int) -> dict[str, NDArray[np.generic]]:
    named: dict[str, NDArray[np.generic]] = {}
    for i in range(features.categories.shape[1]):
        named[CATEGORICAL[first_category + i]] = features.categories[:, i]
    for i in range(features.numbers.shape[1]):
        named[NUMERICAL[first_number + i]] = features.numbers[:, i]
    return named


def _write_csv(stream: IO[bytes], columns: tuple[Column, ...], values: dict[str, NDArray[np.generic]]) -> None:
    table = pa.table({column.name: np.ascontiguousarray(values[column.name]) for column in columns})
    pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=False, quoting_style="none", batch_size=8192))


@contextmanager
def _csv_in_zip(path: Path) -> Iterator[IO[bytes]]:
    """Open the one CSV of a new zip.

    Opened by name, a member's time stamp is always 1980, so bytes repeat.
    """
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        packed.open(f"{path.stem}.csv", "w", force_zip64=True) as stream,
    ):
        yield stream


def _obtain(config: Data, seed: int, delivery: Delivery) -> None:
    generate(config.synthetic, seed, delivery.folder, delivery.progress)


SYNTHETIC = Source(
    name="synthetic",
    scenarios=lambda config: tuple(config.synthetic.scenarios),
    obtain=_obtain,
    open=aliexpress.open_aliexpress,
)
