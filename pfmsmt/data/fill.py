"""What stands for a missing value of a request's column: what stood for one in the training rows, if anything did."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pfmsmt.data.encoder import CategoryEncoder
from pfmsmt.data.schema import OUT_OF_VOCABULARY, ScenarioSchema


def stand_ins(schema: ScenarioSchema) -> Mapping[str, int | float]:
    """Return for each column what stands for a missing value: a number, a category, or for text its code.

    Of numbers without a fill it is the training mean; categories without one, or with one that has no code, are left
    out: missing ones are out of vocabulary.
    """
    found: dict[str, int | float] = {}
    found |= {field.name: float(schema.fill.get(field.name, field.mean)) for field in schema.numerical}
    for field in schema.categorical:
        value = schema.fill.get(field.name)
        if value is None:
            continue
        code = int(CategoryEncoder(field)(np.asarray([value], object if field.text else np.int64))[0])
        if code != OUT_OF_VOCABULARY:
            found[field.name] = code if field.text else int(value)
    return found


def filled(frame: pd.DataFrame, schema: ScenarioSchema) -> pd.DataFrame:
    """Return B rows whose missing values are filled in the columns of `schema.fill`, absent columns included."""
    lost = {
        name: value if name not in frame else frame[name].astype(object).where(frame[name].notna(), value)
        for name, value in schema.fill.items()
        if name not in frame or frame[name].isna().any()
    }
    return frame.assign(**lost) if lost else frame
