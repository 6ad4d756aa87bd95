"""The data sets that `data.source` can name.

A new one is one module with a `Source`, and one entry here.
"""

from pfmsmt.data.sources import tenrec
from pfmsmt.data.sources.aliexpress import aliexpress
from pfmsmt.data.sources.base import Source
from pfmsmt.data.sources.movielens import movielens
from pfmsmt.data.sources.synthetic import synthetic
from pfmsmt.data.sources.tabular import tabular

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (synthetic.SYNTHETIC, aliexpress.ALIEXPRESS, movielens.MOVIELENS, tenrec.TENREC, tabular.TABULAR)
}
