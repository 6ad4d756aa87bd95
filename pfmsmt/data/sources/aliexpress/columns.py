"""The columns of AliExpress, by their place in its headerless files.

The data set: Li et al., CIKM 2020.
"""

from pfmsmt.data.schema import Task
from pfmsmt.data.sources.base import Columns
from pfmsmt.data.tables.values import Column

SEARCH_ID = "search_id"
CATEGORICAL = tuple(f"categorical_{i}" for i in range(1, 17))
NUMERICAL = tuple(f"numerical_{i}" for i in range(1, 64))
ALIEXPRESS_COLUMNS = Columns(SEARCH_ID, CATEGORICAL, NUMERICAL)
ALIEXPRESS_TASKS = (Task(name="ctr", label="click"), Task(name="ctcvr", label="conversion", within="ctr"))

LABEL = "label"
"""Column of an item row: 0 nothing, 1 clicked, 2 clicked and bought."""

_USER_CATEGORICAL = (*range(2, 9), 32, 33)
_ITEM_CATEGORICAL = (19, 34, 35, 36, 40, 41, 42)


def _features(width: int, categorical: tuple[int, ...], first_category: int, first_number: int) -> tuple[Column, ...]:
    """Name the columns 2 to `width` of a file.

    `categorical` are the places (from 1) of its categorical ones.
    """
    names = {at: Column(f"categorical_{first_category + i}", "category") for i, at in enumerate(categorical)}
    numbers = [at for at in range(2, width + 1) if at not in names]
    names |= {at: Column(f"numerical_{first_number + i}", "number") for i, at in enumerate(numbers)}
    return tuple(names[at] for at in sorted(names))


USER_FILE = (Column(SEARCH_ID, "id"), *_features(33, _USER_CATEGORICAL, 1, 1))
"""33 columns, one row a search."""

ITEM_FILE = (Column(SEARCH_ID, "id"), *_features(48, _ITEM_CATEGORICAL, 10, 24), Column(LABEL, "label", highest=2))
"""49 columns, one row an impression."""
