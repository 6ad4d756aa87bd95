"""Shards as tests look at them: under the raw columns' names."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from pfmsmt.data.schema import encoded_column

_PREFIX = encoded_column("")


def read_shard(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Read a shard's rows, all columns or some."""
    shard = pd.read_parquet(path).rename(columns=lambda name: name.removeprefix(_PREFIX))
    return shard if columns is None else shard[list(columns)]


def write_shard(rows: pd.DataFrame, path: Path, features: Collection[str], row_group_size: int | None = None) -> None:
    """Write rows as a shard whose feature columns are these."""
    named = rows.rename(columns={name: encoded_column(name) for name in features})
    named.to_parquet(path, index=False, row_group_size=row_group_size)
