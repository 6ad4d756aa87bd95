"""The data sets that `data.source` can name. A new one is one file with a `SOURCE`, and one entry here."""

from pfmsmt.data.sources import aliexpress, movielens, synthetic, tabular, tenrec
from pfmsmt.data.sources.contract import Source

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (synthetic.SOURCE, aliexpress.SOURCE, movielens.SOURCE, tenrec.SOURCE, tabular.SOURCE)
}
