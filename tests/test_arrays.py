import numpy as np
import pytest

from pfmsmt import arrays
from pfmsmt.types import Role, Slot


@pytest.fixture
def pair():
    first = {"a": np.array([[1.0, 2.0]], np.float32), "b": np.array(3.0)}
    second = {"b": np.array(-1.0), "a": np.array([[0.5, 4.0]], np.float32)}
    for array in (*first.values(), *second.values()):
        array.setflags(write=False)
    return first, second


def test_add_and_subtract(pair):
    total, difference = arrays.add(*pair), arrays.subtract(*pair)
    np.testing.assert_array_equal(total["a"], [[1.5, 6.0]])
    np.testing.assert_array_equal(difference["a"], [[0.5, -2.0]])
    assert total["b"] == 2
    assert difference["b"] == 4
    assert total["a"].dtype == difference["a"].dtype == np.float32


def test_combine_keeps_precision_and_order_of_summation(pair):
    combined = arrays.combine(pair, np.array([2.0, -1.0]))
    np.testing.assert_array_equal(combined["a"], [[1.5, 0.0]])
    assert combined["b"] == 7
    assert combined["a"].dtype == np.float32
    terms = [{"x": np.array([value])} for value in (1e16, 1.0, -1e16)]
    assert arrays.combine(terms, [1, 1, 1])["x"] == 0.0  # (1e16 + 1) - 1e16, left to right
    assert arrays.combine([terms[0], terms[2], terms[1]], [1, 1, 1])["x"] == 1.0


def test_combine_never_returns_its_input():
    term = {"x": np.ones(2)}
    arrays.combine([term], [1.0])["x"][0] = 5
    np.testing.assert_array_equal(term["x"], [1, 1])


@pytest.mark.parametrize("operation", [arrays.add, arrays.subtract, lambda a, b: arrays.combine([a, b], [1, 1])])
def test_other_names_are_refused(operation):
    with pytest.raises(KeyError, match="'c'"):
        operation({"a": np.ones(1)}, {"a": np.ones(1), "c": np.ones(1)})


def test_combine_refuses_what_does_not_pair():
    for terms, coefficients in (([], []), ([{"a": np.ones(1)}], [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"\d terms but \d coefficients"):
            arrays.combine(terms, coefficients)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="int64"):
        arrays.add({"a": np.array([1])}, {"a": np.array([1])})


def test_gram_is_the_inner_products_of_flattened_sets():
    terms = [{"a": np.array([[1.0, 2.0]]), "b": np.array(3.0)}, {"b": np.array(-1.0), "a": np.array([[4.0, 0.0]])}]
    np.testing.assert_array_equal(arrays.gram(terms), [[14, 1], [1, 17]])
    large = [{"a": np.array([1e30, 1.0], np.float32)}]
    assert arrays.gram(large)[0, 0] == pytest.approx(1e60)  # float64: float32 would overflow


TEMPLATE = {
    "expert/1/w": Slot(Role.EXPERT, "expert/1"),
    "expert/0/w": Slot(Role.EXPERT, "expert/0"),
    "expert/0/v": Slot(Role.EXPERT, "expert/0"),
    "norm/m": Slot(Role.NORM, "norm"),
}


def test_select_and_group():
    values = {name: np.ones(1) for name in TEMPLATE}
    assert list(arrays.select(values, TEMPLATE, {Role.NORM})) == ["norm/m"]
    groups = arrays.by_group(values, TEMPLATE)
    assert [(group, list(part)) for group, part in groups.items()] == [
        ("expert/0", ["expert/0/v", "expert/0/w"]), ("expert/1", ["expert/1/w"]), ("norm", ["norm/m"]),
    ]  # fmt: skip
    for function in (lambda v: arrays.select(v, TEMPLATE, set(Role)), lambda v: arrays.by_group(v, TEMPLATE)):
        with pytest.raises(KeyError, match="stray"):
            function({"stray": np.ones(1)})


def test_sizes_faults_and_union():
    values = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2)}
    assert arrays.nbytes(values) == 24 + 16
    assert arrays.first_not_finite(values) is None
    assert arrays.first_not_finite({**values, "c": np.array([np.nan]), "d": np.array([np.inf])}) == "c"
    assert arrays.merge({"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}
