"""MovieLens 100K and 1M as several scenarios and tasks: clients are age groups, tasks what a rating says.

`like` is a rating of 4 or 5, `love` a rating of 5, nested in it. The last fifth of each user's ratings, in time, is
the test part, and the last part of what is left is validation: a user's rows are in all three.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.config import Data
from pfmsmt.data.delivery import Delivery, zip_form
from pfmsmt.data.schema import Task
from pfmsmt.data.sources.contract import Columns, Dataset, Opening, Source, record_schema
from pfmsmt.data.sources.movielens_files import GENRES, VARIANTS, Table, Variant, as_numpy, check_members, read_table
from pfmsmt.errors import ConfigError, DataError

OLDEST = 120
SCENARIOS = {"age_under_25": (0, 24), "age_25_34": (25, 34), "age_35_up": (35, OLDEST)}
"""name -> youngest and oldest. The 1M data give an age as the lower end of a range; none crosses these borders."""
GROUP = "user"
COLUMNS = Columns(
    GROUP,
    ("user_id", "item_id", "gender", "occupation", "zip_region", "hour", "weekday"),
    ("age", "release_year", *(f"genre_{genre.lower().replace('-', '_').replace(chr(39), '')}" for genre in GENRES)),
    place="place",
)
TASKS = (Task(name="like", label="liked"), Task(name="love", label="loved", within="like"))

GENDERS = ("F", "M")
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman", "scientist",
    "student", "technician", "writer",
)  # fmt: skip
"""Of the 100K data; the 1M data number theirs from 0 to 20."""
REGIONS = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""First character of a zip code: a digit in the United States, a letter in Canada."""

HIGHEST_ID = 2**31 - 1
HIGHEST_SECOND = 2**32 - 1
BATCH_ROWS = 65_536

Arrays = dict[str, NDArray[Any]]


def obtain(config: Data, seed: int, delivery: Delivery) -> None:
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
        delivery.download(url, packed, zip_form)
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


def read(raw: Path, scenario: str, split: str) -> Iterator[pa.RecordBatch]:
    """Yield the ratings of one age group, by user and time.

    Raises:
        DataError: a file is missing or damaged, a faulty value, an id that stands twice or has no row.
    """
    held = [v for v in VARIANTS.values() if (raw / f"{v.name}.zip").is_file() or (raw / v.name).is_dir()]
    if len(held) != 1:
        names = " and ".join(v.name for v in held) or "neither ml-100k nor ml-1m"
        raise DataError(f"{raw} holds {names}; run `dvc repro -f download`")
    users, items, table = (read_table(raw, held[0], form) for form in (held[0].users, held[0].items, held[0].ratings))
    ratings = _ratings(table)
    user = _places(table, "user_id", ratings, users)
    item = _places(table, "item_id", ratings, items)
    by_user, by_item = _users(users, held[0]), _items(items, held[0])
    youngest, oldest = SCENARIOS[scenario]
    age = by_user["age"][user]
    in_test, place = _split(ratings)
    wanted = (age >= youngest) & (age <= oldest) & (in_test == (split == "test"))
    # Ratings of one second have no order of their own: the item decides, not the file.
    order = np.lexsort((ratings["item_id"], ratings["timestamp"], ratings["user_id"]))
    order = order[wanted[order]]
    form = record_schema(COLUMNS, TASKS)
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        columns = {name: values[user[rows]] for name, values in by_user.items()}
        columns |= {name: values[item[rows]] for name, values in by_item.items()}
        columns |= _of_ratings({name: values[rows] for name, values in ratings.items()})
        columns["place"] = place[rows]
        yield pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in form], schema=form)


def _ratings(table: Table) -> dict[str, NDArray[np.int64]]:
    ratings = {
        "user_id": table.integers("user_id", 1, HIGHEST_ID),
        "item_id": table.integers("item_id", 1, HIGHEST_ID),
        "rating": table.integers("rating", 1, 5),
        "timestamp": table.integers("timestamp", 0, HIGHEST_SECOND),
    }
    order = np.lexsort((ratings["item_id"], ratings["user_id"]))
    user, item = ratings["user_id"][order], ratings["item_id"][order]
    twice = np.flatnonzero((user[1:] == user[:-1]) & (item[1:] == item[:-1]))
    if twice.size:
        at = twice[0]
        raise DataError(
            f"{table.name}: user {user[at]} rates item {item[at]} twice, in rows {order[at] + 1} and "
            f"{order[at + 1] + 1}; keep one"
        )
    return ratings


def _split(ratings: dict[str, NDArray[np.int64]]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Say for each rating [B] whether it is in its user's last fifth, rounded down; and its place in what is left."""
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


def _places(table: Table, column: str, ratings: dict[str, NDArray[np.int64]], described: Table) -> NDArray[np.int64]:
    """Return for each rating [B] the row of its user or item in that one's own file."""
    ids = described.integers(column, 1, HIGHEST_ID)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if twice.size:
        first, second = order[twice[0]], order[twice[0] + 1]
        rows = f"{first + 1} and {second + 1}"
        raise DataError(f"{described.name}: {column} {ids[first]} has two rows, {rows}; keep one")
    found = np.minimum(np.searchsorted(ids, ratings[column], sorter=order), len(ids) - 1)
    table.refuse(ids[order[found]] != ratings[column], column, f"has no row in {described.name}")
    return np.asarray(order[found])


def _users(table: Table, variant: Variant) -> Arrays:
    named = variant is VARIANTS["100k"]
    return {
        "age": table.integers("age", 1, OLDEST),
        "gender": table.positions("gender", GENDERS),
        "occupation": table.positions("occupation", OCCUPATIONS) if named else table.integers("occupation", 0, 20),
        "zip_region": _regions(table),
    }


def _regions(table: Table) -> NDArray[np.int64]:
    first = pc.utf8_upper(pc.utf8_slice_codeunits(table.text("zip_code"), 0, 1))
    found = pc.index_in(first, value_set=pa.array(REGIONS))
    table.refuse(as_numpy(pc.is_null(found)), "zip_code", "does not begin with a digit or a letter")
    return as_numpy(pc.cast(found, pa.int64()))


def _items(table: Table, variant: Variant) -> Arrays:
    """Return year and genres of each item [I]; a film without a date gets the median year."""
    if variant is VARIANTS["100k"]:
        year = _years(
            table, "release_date", r"^(?:[0-9]{1,2}-[A-Z][a-z]{2}-(?P<year>[0-9]{4}))?$", "a date as 01-Jan-1995"
        )
        table.integers("unknown", 0, 1)
        genres = np.stack([table.integers(genre, 0, 1) for genre in GENRES], axis=1)
    else:
        year = _years(table, "title", r"\((?P<year>[0-9]{4})\)$", "a title that ends in its year, as (1995)")
        genres = _genre_flags(table)
    known = year > 0
    if not known.any():
        raise DataError(f"{table.name}: no film has a release date; obtain the file again")
    named = {"release_year": np.where(known, year, np.median(year[known]))}
    return named | dict(zip(COLUMNS.numerical[2:], genres.T.astype(np.float64), strict=True))


def _years(table: Table, column: str, pattern: str, expected: str) -> NDArray[np.int64]:
    """Return the year in each text [I], 0 where the pattern matches an empty one."""
    found = pc.extract_regex(table.text(column), pattern)
    table.refuse(as_numpy(pc.is_null(found)), column, f"is not {expected}")
    year = pc.struct_field(found, "year")
    return as_numpy(pc.cast(pc.if_else(pc.equal(year, ""), "0", year), pa.int64()))


def _genre_flags(table: Table) -> NDArray[np.int64]:
    """Return 0 or 1 for each film and genre, [I, 18], from names between bars."""
    names = pc.split_pattern(table.text("genres"), "|")
    film = as_numpy(pc.list_parent_indices(names))
    genre = pc.index_in(pc.list_flatten(names), value_set=pa.array(GENRES))
    unknown = np.zeros(table.rows, np.bool_)
    unknown[film[as_numpy(pc.is_null(genre))]] = True
    table.refuse(unknown, "genres", f"names a genre other than {', '.join(GENRES)}")
    flags = np.zeros((table.rows, len(GENRES)), np.int64)
    flags[film, as_numpy(genre)] = 1
    return flags


def _of_ratings(ratings: dict[str, NDArray[np.int64]]) -> Arrays:
    """Return what a rating itself says: its user and item, its time in UTC, and the labels."""
    seconds, rating = ratings["timestamp"], ratings["rating"]
    return {
        GROUP: ratings["user_id"],
        "user_id": ratings["user_id"],
        "item_id": ratings["item_id"],
        "hour": seconds // 3600 % 24,
        # The first of January 1970 was a Thursday; Monday is 0.
        "weekday": (seconds // 86_400 + 3) % 7,
        "liked": (rating >= 4).astype(np.int8),
        "loved": (rating == 5).astype(np.int8),
    }


def open_folder(opening: Opening) -> Dataset:
    """Open a raw folder; MovieLens fits into memory, and is checked as a whole each time it is read."""
    return Dataset(
        COLUMNS, TASKS, opening.scenarios, lambda scenario, split, faults: read(opening.raw, scenario, split)
    )


SOURCE = Source(name="movielens", scenarios=lambda config: tuple(SCENARIOS), obtain=obtain, open=open_folder)
