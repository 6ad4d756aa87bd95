"""Looks and heat maps."""

import numpy as np
import pytest

from pfmsmt.report.drawing import MOST_NAMED, empty_figure, heat_map, looks


def test_a_method_keeps_its_look_in_any_company():
    alone, together = looks(["fedavg"]), looks(["mine", "fedavg", "other", "oracle"])
    assert alone["fedavg"] == together["fedavg"]
    assert len({look.colour for look in together.values()}) == 4


@pytest.mark.parametrize(("clients", "numbers"), [(MOST_NAMED, MOST_NAMED**2 - 1), (MOST_NAMED + 1, 0)])
def test_a_heat_map_of_few_clients_holds_numbers(clients, numbers):
    axes = empty_figure(3, 3).subplots()
    matrix = np.full((clients, clients), -0.001)
    matrix[0, 0] = np.nan
    heat_map(axes, matrix, [f"site-{k}" for k in range(clients)], "RdBu", (-1, 1), form=".2f", size=8, widest=4)
    assert [text.get_text() for text in axes.texts] == ["0.00"] * numbers
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [f"site-{k}" for k in range(0, clients, 1 if numbers else 2)]
