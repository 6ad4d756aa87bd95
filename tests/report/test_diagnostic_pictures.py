"""Pictures that explain a run, of few clients and of many."""

import itertools

import numpy as np
import pandas as pd
import pytest

from pfmsmt.report.comparison.diagnostic_pictures import diagnostic_pictures
from pfmsmt.report.comparison.inputs import Diagnostics


@pytest.mark.slow(2)
@pytest.mark.parametrize("clients", [1, 14])
def test_diagnostics_of_one_client_or_of_many_with_one_that_never_answers(clients):
    names, last = [f"site-{number:02d}" for number in range(clients)], f"site-{clients:02d}"
    rows = []
    for number, quantity in itertools.product((8, 16), ("listening", "cosine")):
        for pair in itertools.product([*names, last], repeat=2):
            value = float(pair[0] == pair[1]) if quantity == "listening" or last not in pair else np.nan
            rows.append((number, "expert/0", quantity, *pair, value))
    for number, quantity in itertools.product((8, 16), ("coefficients", "drift")):
        rows += [(number, "expert/0", quantity, k, "", np.nan if k == last else 0.5) for k in [*names, last]]
    rows += [(number, "expert/0", "conflicts", "", "", 0.0) for number in (8, 16)]
    table = pd.DataFrame(rows, columns=["round", "group", "quantity", "client", "other", "value"])
    traffic = pd.DataFrame({"round": 1, "client": [*names, last], "bytes_up": 0, "bytes_down": 0})
    pictures = diagnostic_pictures("mine", Diagnostics(table, traffic))
    assert [picture.name for picture in pictures] == ["listening-mine", "cosine-mine", "course-mine"]
    assert "round 16" in pictures[0].caption
    assert ("median over clients" in pictures[2].caption) is (clients == 14)


@pytest.mark.slow(3)
def test_clients_keep_the_order_that_is_asked_for():
    """Pictures of the same numbers differ where clients change places, and are equal where names are sorted anyway."""
    pairs = list(itertools.product(("ES", "NL"), repeat=2))
    rows = [
        (1, "expert/0", q, *pair, v)
        for q in ("listening", "cosine")
        for pair, v in zip(pairs, (1.0, 0.5, 0.0, 1.0), strict=True)
    ]
    rows += [(1, "expert/0", q, k, "", v) for q in ("coefficients", "drift") for k, v in (("ES", 0.25), ("NL", 0.75))]
    rows += [(1, "expert/0", "conflicts", "", "", 0.0)]
    table = pd.DataFrame(rows, columns=["round", "group", "quantity", "client", "other", "value"])
    traffic = pd.DataFrame({"round": 1, "client": ["ES", "NL"], "bytes_up": [1024, 2048], "bytes_down": 512})
    by_name, same, other = (
        diagnostic_pictures("mine", Diagnostics(table, traffic), order) for order in ((), ("ES", "NL"), ("NL", "ES"))
    )
    assert by_name == same
    for one, two in zip(by_name, other, strict=True):
        assert one.png != two.png, one.name
