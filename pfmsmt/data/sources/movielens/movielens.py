"""MovieLens 100K and 1M as several scenarios and tasks.

Clients are age groups, and tasks are read from a rating.

`like` is a rating of 4 or 5, `love` a rating of 5, nested in it. The last fifth of each user's ratings, in time, is
the test part, and the last part of what is left is validation: a user's rows are in all three.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pfmsmt.config import Data
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.schema import Task
from pfmsmt.data.sources.base import Columns, Dataset, Opening, Source, record_schema
from pfmsmt.data.sources.delivery import Delivery, zip_form
from pfmsmt.data.sources.movielens.archive import VARIANTS, Variant, check_members
from pfmsmt.data.sources.movielens.rating_log import GENRE_COLUMNS, OLDEST, Arrays, Log, read_log

SCENARIOS = {"age_under_25": (0, 24), "age_25_34": (25, 34), "age_35_up": (35, OLDEST)}
"""name -> youngest and oldest. The 1M data give an age as the lower end of a range; none crosses these borders."""
_GROUP = "user"
_COLUMNS = Columns(
    _GROUP,
    ("user_id", "item_id", "gender", "occupation", "zip_region", "hour", "weekday"),
    ("age", "release_year", *GENRE_COLUMNS),
    place="place",
)
_TASKS = (Task(name="like", label="liked"), Task(name="love", label="loved", within="like"))

_BATCH_ROWS = 65_536


def _obtain(config: Data, seed: int, delivery: Delivery) -> None:
    """Take the data set from `data.movielens.path`, or download it from `data.movielens.url`.

    Raises:
        ConfigError: the path does not exist.
        DataError: files are missing, or the server cannot be reached.
    """
    block = config.movielens
    variant = VARIANTS[block.variant]
    packed = f"{variant.name}.zip"
    if block.path is not None:
        _from_path(Path(block.path).expanduser(), variant, delivery)
    else:
        url = f"{block.url.rstrip('/')}/{packed}"
        delivery.download(url, packed, "data.movielens.path", zip_form)
    check_members(delivery.folder, variant)
    delivery.progress(f"MovieLens: {packed if (delivery.folder / packed).exists() else variant.name} is there")


def _from_path(path: Path, variant: Variant, delivery: Delivery) -> None:
    packed = f"{variant.name}.zip"
    if not path.exists():
        raise ConfigError(f"data.movielens.path: {path} does not exist")
    if path.is_file() or (path / packed).is_file():
        delivery.take(path if path.is_file() else path / packed, packed)
        return
    files = [form.file for form in (variant.ratings, variant.users, variant.items)]
    for origin in (path, path / variant.name):
        if all((origin / file).is_file() for file in files):
            for file in files:
                delivery.take(origin / file, f"{variant.name}/{file}")
            return
    raise DataError(f"data.movielens.path: {path} holds neither {packed} nor the files {', '.join(files)}")


def _read(log: Log, scenario: str, split: str) -> Iterator[pa.RecordBatch]:
    """Yield the ratings of one age group, by user and time."""
    ratings = log.ratings
    youngest, oldest = SCENARIOS[scenario]
    age = log.users["age"][log.user]
    in_test, place = _split(ratings)
    wanted = (age >= youngest) & (age <= oldest) & (in_test == (split == "test"))
    # Ratings of one second have no order of their own: the item decides, not the file.
    order = np.lexsort((ratings["item_id"], ratings["timestamp"], ratings["user_id"]))
    order = order[wanted[order]]
    form = record_schema(_COLUMNS, _TASKS)
    for start in range(0, len(order), _BATCH_ROWS):
        rows = order[start : start + _BATCH_ROWS]
        columns = {name: values[log.user[rows]] for name, values in log.users.items()}
        columns |= {name: values[log.item[rows]] for name, values in log.items.items()}
        columns |= _of_ratings({name: values[rows] for name, values in ratings.items()})
        columns["place"] = place[rows]
        yield pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in form], schema=form)


def _split(ratings: Arrays) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Say for each rating [B] whether its user's last fifth holds it.

    The fifth is rounded down. The second result is the place among the user's other ratings.
    """
    order = np.lexsort((ratings["item_id"], ratings["timestamp"], ratings["user_id"]))
    _, start, index, count = np.unique(
        ratings["user_id"][order], return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.arange(len(order)) - start[index]
    training = (count - count // 5)[index]
    in_test, place = np.zeros(len(order), np.bool_), np.zeros(len(order))
    in_test[order] = rank >= training
    place[order] = np.where(rank < training, rank / training, 0.0)
    return in_test, place


def _of_ratings(ratings: Arrays) -> Arrays:
    """Return a rating's own columns: user, item, time in UTC, and labels."""
    seconds, rating = ratings["timestamp"], ratings["rating"]
    return {
        _GROUP: ratings["user_id"],
        "user_id": ratings["user_id"],
        "item_id": ratings["item_id"],
        "hour": seconds // 3600 % 24,
        # The first of January 1970 was a Thursday; Monday is 0.
        "weekday": (seconds // 86_400 + 3) % 7,
        "liked": (rating >= 4).astype(np.int8),
        "loved": (rating == 5).astype(np.int8),
    }


def _open_folder(opening: Opening) -> Dataset:
    """Read and check all files: MovieLens fits into memory.

    Raises:
        DataError: see `read_log`.
    """
    log = read_log(opening.raw, opening.faults)
    return Dataset(_COLUMNS, _TASKS, opening.scenarios, lambda scenario, split, _: _read(log, scenario, split))


MOVIELENS = Source(name="movielens", scenarios=lambda config: tuple(SCENARIOS), obtain=_obtain, open=_open_folder)
