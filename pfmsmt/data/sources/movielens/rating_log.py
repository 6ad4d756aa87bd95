"""All of MovieLens in memory: ratings, users and films, every row checked.

Legend: R ratings, U users, I films, B rows of a file.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pfmsmt.core.errors import DataError
from pfmsmt.data.sources.movielens.archive import GENRES, VARIANTS, ArchiveTable, Variant, as_numpy, read_archive_table
from pfmsmt.data.tables.faults import Faults

OLDEST = 120
GENDERS = ("F", "M")
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman", "scientist",
    "student", "technician", "writer",
)  # fmt: skip
"""Genres of the 100K data; the 1M data number theirs from 0 to 20."""
REGIONS = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""First character of a zip code: a digit in the United States, a letter in Canada."""
GENRE_COLUMNS = tuple(f"genre_{genre.lower().replace('-', '_').replace(chr(39), '')}" for genre in GENRES)

HIGHEST_ID = 2**31 - 1
HIGHEST_SECOND = 2**32 - 1

Arrays = dict[str, NDArray[Any]]


class Log(NamedTuple):
    """The good rows of all three files."""

    ratings: Arrays
    """user_id, item_id, rating and timestamp: [R], in the order of the file"""
    user: NDArray[np.int64]
    """[R], the place of a rating's user in `users`"""
    item: NDArray[np.int64]
    """[R], the place of a rating's film in `items`"""
    users: Arrays
    """[U]"""
    items: Arrays
    """[I]"""


def read_log(raw: Path, faults: Faults) -> Log:
    """Read the one variant that a folder holds.

    Ratings of a user or film that was left out are left out as well.

    Raises:
        DataError: no variant or two, a file is missing or damaged, no film has a date, no row of a file is good, or
            what `faults` refuses: a faulty value, an id that has a row already or none, a film that is rated again.
    """
    held = [v for v in VARIANTS.values() if (raw / f"{v.name}.zip").is_file() or (raw / v.name).is_dir()]
    if len(held) != 1:
        names = " and ".join(v.name for v in held) or "neither ml-100k nor ml-1m"
        raise DataError(f"{raw} holds {names}; run `dvc repro -f download`")
    variant = held[0]
    user_table, item_table, table = (
        read_archive_table(raw, variant, form) for form in (variant.users, variant.items, variant.ratings)
    )
    users, items = _users(user_table, variant, faults), _items(item_table, variant, faults)
    ratings = {
        "user_id": table.integers("user_id", 1, HIGHEST_ID),
        "item_id": table.integers("item_id", 1, HIGHEST_ID),
        "rating": table.integers("rating", 1, 5),
        "timestamp": table.integers("timestamp", 0, HIGHEST_SECOND),
    }
    user = _places(table, "user_id", ratings, users, variant.users.file)
    item = _places(table, "item_id", ratings, items, variant.items.file)
    pairs = {name: ratings[name] for name in ("user_id", "item_id")}
    _refuse_repeated(table, pairs, "item_id", "is rated by the same user already")
    good = table.settle(faults)
    return Log({name: values[good] for name, values in ratings.items()}, user[good], item[good], users, items)


def _places(table: ArchiveTable, column: str, ratings: Arrays, described: Arrays, file: str) -> NDArray[np.int64]:
    """Return the place of each rating's user or film, [B].

    Places count the good rows of that one's own file.
    """
    ids = described[column]
    order = np.argsort(ids)
    found = np.minimum(np.searchsorted(ids, ratings[column], sorter=order), len(ids) - 1)
    table.refuse(ids[order[found]] != ratings[column], column, f"has no row in {file}")
    return np.asarray(order[found])


def _refuse_repeated(table: ArchiveTable, key: Arrays, column: str, what: str) -> None:
    """Refuse rows whose key (name -> [B]) an earlier good row has."""
    rows = np.flatnonzero(~table.bad)
    frame = pd.DataFrame({name: values[rows] for name, values in key.items()})
    repeated = np.zeros(table.rows, np.bool_)
    repeated[rows] = frame.duplicated()
    if repeated.any():
        frame["row"] = table.numbers[rows]
        earlier = dict(zip(rows, frame.groupby(list(key))["row"].transform("first"), strict=True))
        table.refuse(repeated, column, what, lambda at: f", row {earlier[at]}")


def _users(table: ArchiveTable, variant: Variant, faults: Faults) -> Arrays:
    named = variant is VARIANTS["100k"]
    found = {
        "user_id": table.integers("user_id", 1, HIGHEST_ID),
        "age": table.integers("age", 1, OLDEST),
        "gender": table.positions("gender", GENDERS),
        "occupation": table.positions("occupation", OCCUPATIONS) if named else table.integers("occupation", 0, 20),
        "zip_region": _regions(table),
    }
    _refuse_repeated(table, {"user_id": found["user_id"]}, "user_id", "has a row already")
    good = table.settle(faults)
    return {name: values[good] for name, values in found.items()}


def _regions(table: ArchiveTable) -> NDArray[np.int64]:
    first = pc.utf8_upper(pc.utf8_slice_codeunits(table.text("zip_code"), 0, 1))
    found = pc.index_in(first, value_set=pa.array(REGIONS))
    table.refuse(as_numpy(pc.is_null(found)), "zip_code", "does not begin with a digit or a letter")
    return as_numpy(pc.cast(pc.fill_null(found, 0), pa.int64()))


def _items(table: ArchiveTable, variant: Variant, faults: Faults) -> Arrays:
    """Return id, year and genres of each film [I].

    A film without a date gets the median year.
    """
    found = {"item_id": table.integers("item_id", 1, HIGHEST_ID)}
    if variant is VARIANTS["100k"]:
        year = _years(
            table, "release_date", r"^(?:[0-9]{1,2}-[A-Z][a-z]{2}-(?P<year>[0-9]{4}))?$", "a date as 01-Jan-1995"
        )
        table.integers("unknown", 0, 1)
        genres = np.stack([table.integers(genre, 0, 1) for genre in GENRES], axis=1)
    else:
        year = _years(table, "title", r"\((?P<year>[0-9]{4})\)$", "a title that ends in its year, as (1995)")
        genres = _genre_flags(table)
    _refuse_repeated(table, {"item_id": found["item_id"]}, "item_id", "has a row already")
    good = table.settle(faults)
    year, genres = year[good], genres[good]
    known = year > 0
    if not known.any():
        raise DataError(f"{table.name}: no film has a release date; obtain the file again")
    named = {"item_id": found["item_id"][good], "release_year": np.where(known, year, np.median(year[known]))}
    return named | dict(zip(GENRE_COLUMNS, genres.T.astype(np.float64), strict=True))


def _years(table: ArchiveTable, column: str, pattern: str, expected: str) -> NDArray[np.int64]:
    """Return the year in each text [B], 0 for an empty match."""
    found = pc.extract_regex(table.text(column), pattern)
    table.refuse(as_numpy(pc.is_null(found)), column, f"is not {expected}")
    year = pc.fill_null(pc.struct_field(found, "year"), "")
    return as_numpy(pc.cast(pc.if_else(pc.equal(year, ""), "0", year), pa.int64()))


def _genre_flags(table: ArchiveTable) -> NDArray[np.int64]:
    """Return genre flags 0 or 1, [B, 18], from names between bars."""
    names = pc.split_pattern(table.text("genres"), "|")
    film = as_numpy(pc.list_parent_indices(names))
    genre = pc.index_in(pc.list_flatten(names), value_set=pa.array(GENRES))
    unknown = np.zeros(table.rows, np.bool_)
    unknown[film[as_numpy(pc.is_null(genre))]] = True
    table.refuse(unknown, "genres", f"names a genre other than {', '.join(GENRES)}")
    flags = np.zeros((table.rows, len(GENRES)), np.int64)
    flags[film, as_numpy(pc.fill_null(genre, 0))] = 1
    return flags
