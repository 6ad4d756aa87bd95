"""The data sets that `data.source` can name. A new one is one file with a `SOURCE`, and one entry here."""

from pfmsmt.data.sources import aliexpress, movielens, synthetic
from pfmsmt.data.sources.contract import RAW_SPLITS, Columns, Progress, Source, record_schema

__all__ = ["RAW_SPLITS", "SOURCES", "Columns", "Progress", "Source", "record_schema"]

SOURCES: dict[str, Source] = {source.name: source for source in (synthetic.SOURCE, aliexpress.SOURCE, movielens.SOURCE)}
