"""Diagnostics over rounds: metrics, thinning, the long table."""

import numpy as np
import pandas as pd
import pytest

from pfmsmt.training.history import DIAGNOSTICS_COLUMNS, MOST_VALUES, History, summary
from pfmsmt.training.rounds import RoundResult

NAN = np.nan


def diagnosis(listening, cosine, coefficients, drift):
    values = {"listening": listening, "cosine": cosine, "coefficients": coefficients, "drift": drift}
    return {name: np.array(value, float) for name, value in values.items()}


def two_experts():
    """Clients A, B, C; C missed the phase. A and B agree in one expert and conflict in the other."""
    first = diagnosis(
        [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 1]],
        [[1, 0.5, NAN], [0.5, 1, NAN], [NAN] * 3],
        [0.25, 0.75, NAN],
        [0.125, 0.25, NAN],
    )
    second = diagnosis(
        [[0.25, 0.75, 0], [0, 1, 0], [0, 0, 1]],
        [[1, -1, NAN], [-1, 1, NAN], [NAN] * 3],
        [0.5, 0.5, NAN],
        [0.375, 0.5, NAN],
    )
    return RoundResult(1, {}, ("A", "B", "C"), diagnostics={"expert/0": first, "expert/1": second})


def test_groups_of_a_kind_become_one_metric_and_absentees_none():
    assert summary(two_experts()) == {
        "server/expert_conflicts": 0.5,
        "server/expert_cosine": -0.25,
        "server/expert_drift": 0.3125,
        "server/A/expert_coefficient": 0.375,
        "server/A/expert_own_weight": 0.5,
        "server/A/expert_drift": 0.25,
        "server/A/cosine/A_expert": 1.0,
        "server/A/cosine/B_expert": -0.25,
        "server/A/listens_to/B_expert": 0.5,
        "server/A/listens_to/C_expert": 0.0,
        "server/B/expert_coefficient": 0.625,
        "server/B/expert_own_weight": 0.75,
        "server/B/expert_drift": 0.375,
        "server/B/cosine/A_expert": -0.25,
        "server/B/cosine/B_expert": 1.0,
        "server/B/listens_to/A_expert": 0.25,
        "server/B/listens_to/C_expert": 0.0,
    }


def many(clients, round, groups=("expert/0",)):
    names = tuple(f"c{number:02d}" for number in range(clients))
    square, vector = np.full((clients, clients), round / 8), np.full(clients, round / 8)
    return RoundResult(round, {}, names, diagnostics={g: diagnosis(square, square, vector, vector) for g in groups})


@pytest.mark.parametrize(("clients", "pairs"), [(1, 1), (2, 6), (8, 120), (9, 0), (64, 0)])
def test_metrics_of_many_clients_are_bounded(clients, pairs):
    """Three of the kind (a single client has no mean cosine) and three of each client; rows of A (without the diagonal,
    which is the own weight) and cosines (with it) only of few clients: S (S - 1) + S^2."""
    assert len(summary(many(clients, 1))) == 3 - (clients == 1) + 3 * clients + pairs


def test_a_method_without_diagnostics_has_no_table():
    history = History()
    history.add(RoundResult(1, {}, ("A",)))
    assert history.diagnostics() is None


def test_the_table_holds_every_value():
    history = History()
    result = two_experts()
    history.add(result)
    table = history.diagnostics()
    assert tuple(table) == DIAGNOSTICS_COLUMNS
    found = {tuple(row[:5]): row[5] for row in table.astype(object).itertuples(index=False)}
    expected = {}
    for group, quantities in result.diagnostics.items():
        expected[1, group, "conflicts", "", ""] = 0.0 if group == "expert/0" else 1.0
        for i, client in enumerate(result.clients):
            for name in ("coefficients", "drift"):
                expected[1, group, name, client, ""] = quantities[name][i]
            for j, other in enumerate(result.clients):
                for name in ("listening", "cosine"):
                    expected[1, group, name, client, other] = quantities[name][i, j]
    assert len(table) == len(found)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal([found[key] for key in expected], list(expected.values()))


def test_matrices_of_many_clients_are_thinned_and_vectors_are_not():
    """64 x 64 values: 16 rounds fit, so of 40 rounds every fourth is left; 16 * 4 rounds of vectors fit and more."""
    assert MOST_VALUES == 16 * 64 * 64
    history = History()
    for number in range(1, 41):
        history.add(many(64, number))
    table = history.diagnostics()
    rounds = {name: part["round"].unique().tolist() for name, part in table.groupby("quantity", observed=True)}
    every = list(range(1, 41))
    assert rounds == {
        "listening": every[3::4], "cosine": every[3::4], "coefficients": every, "drift": every, "conflicts": every,
    }  # fmt: skip
    matrices = table[table["quantity"] == "listening"]
    np.testing.assert_array_equal(matrices["value"], matrices["round"] / 8)


@pytest.mark.parametrize("stop", [1, 16, 17])
def test_saved_in_the_middle_it_ends_the_same(stop):
    whole, first, second = History(), History(), History()
    for number in range(1, 20):
        whole.add(many(64, number))
    for number in range(1, stop + 1):
        first.add(many(64, number))
    second.load(*first.save())
    for number in range(stop + 1, 20):
        second.add(many(64, number))
    found, expected = second.diagnostics(), whole.diagnostics()
    # Categories by their codes: pandas compares 76,000 categories one by one, which takes seconds.
    for column in expected.select_dtypes("category"):
        pd.testing.assert_index_equal(found[column].cat.categories, expected[column].cat.categories)
    pd.testing.assert_frame_equal(coded(found), coded(expected))


def coded(table):
    """Replace categorical columns by their codes."""
    return table.assign(**{name: table[name].cat.codes for name in table.select_dtypes("category")})
