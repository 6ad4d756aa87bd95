import numpy as np
import pytest

from pfmsmt.core import arrays
from pfmsmt.core.types import ANCHOR, Role, Slot


@pytest.fixture
def pair():
    first = {"a": np.array([[1.0, 2.0]], np.float32), "b": np.array(3.0)}
    second = {"b": np.array(-1.0), "a": np.array([[0.5, 4.0]], np.float32)}
    for array in (*first.values(), *second.values()):
        array.setflags(write=False)
    return first, second


def test_subtract(pair):
    difference = arrays.subtract(*pair)
    np.testing.assert_array_equal(difference["a"], [[0.5, -2.0]])
    assert difference["b"] == 4
    assert difference["a"].dtype == np.float32


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


@pytest.mark.parametrize("operation", [arrays.subtract, lambda a, b: arrays.combine([a, b], [1, 1])])
def test_other_names_are_refused(operation):
    with pytest.raises(KeyError, match="'c'"):
        operation({"a": np.ones(1)}, {"a": np.ones(1), "c": np.ones(1)})


def test_combine_refuses_what_does_not_pair():
    for terms, coefficients in (([], []), ([{"a": np.ones(1)}], [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"\d terms but \d coefficients"):
            arrays.combine(terms, coefficients)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="int64"):
        arrays.subtract({"a": np.array([1])}, {"a": np.array([1])})


def test_products_are_inner_products_in_double_precision():
    first, second = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    np.testing.assert_array_equal(arrays.products(first, second), [[1, 4, 6], [0, -1, -3]])
    large = np.array([[1e30, 1.0]], np.float32)
    assert arrays.products(large, -large)[0, 0] == pytest.approx(-1e60)  # float64: float32 would overflow
    np.testing.assert_array_equal(arrays.products(np.zeros((2, 0)), np.zeros((2, 0))), np.zeros((2, 2)))


@pytest.mark.parametrize("extra", [-1, 0, 1, arrays.PRODUCT_COLUMNS + 3])
def test_products_by_blocks_are_the_whole_product(extra):
    """Small whole numbers: every sum is exact, in whatever order. Around the first block's border they count most."""
    border = arrays.PRODUCT_COLUMNS
    drawn = np.random.default_rng(0).integers(-3, 4, size=(2, 3, border + extra))
    drawn[:, :, border - 2 : border + 2] *= 1000
    np.testing.assert_array_equal(arrays.products(*drawn.astype(np.float32)), drawn[0] @ drawn[1].T)


def test_flatten_takes_the_names_in_their_order():
    first, second = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array(5.0, np.float32)
    flat = arrays.flatten({"b": first, "a": second})
    np.testing.assert_array_equal(flat, [1, 2, 3, 4, 5])
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(arrays.flatten({"a": second, "b": first}), [5, 1, 2, 3, 4])
    flat[0] = 9
    assert first[0, 0] == 1
    with pytest.raises(TypeError, match="int64"):
        arrays.flatten({"a": np.array([1])})


def test_unflatten_undoes_flatten():
    like = {"w": np.arange(6.0).reshape(2, 3), "scalar": np.array(7.0), "none": np.zeros((0, 2)), "b": np.array([8.0])}
    back = arrays.unflatten(arrays.flatten(like), like)
    assert list(back) == list(like)
    for name, array in like.items():
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    one = arrays.unflatten(np.array([1.0, 2.0]), {"a": np.zeros((2, 1))})
    np.testing.assert_array_equal(one["a"], [[1], [2]])
    for numbers in (7, 9):
        with pytest.raises(ValueError, match=f"{numbers} numbers for arrays that hold 8"):
            arrays.unflatten(np.zeros(numbers), like)


def test_lengths_are_summed_in_double_precision_over_all_columns(monkeypatch):
    monkeypatch.setattr(arrays, "PRODUCT_COLUMNS", 2)
    found = arrays.lengths(np.array([[3.0, 0.0, 4.0], [1e-3, 0.0, 1e3]], np.float32))
    assert found.dtype == np.float64
    assert found[0] == 5.0
    small, large = (float(np.float32(x)) for x in (1e-3, 1e3))
    assert found[1] == np.sqrt(small**2 + large**2) != large


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


def test_faults_and_union():
    values = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2)}
    assert arrays.first_not_finite(values) is None
    assert arrays.first_not_finite({**values, "c": np.array([np.nan]), "d": np.array([np.inf])}) == "c"
    assert arrays.merge({"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}


def test_anchors_are_told_from_what_they_stand_beside():
    own, anchor = np.zeros(1), np.ones(1)
    found = arrays.split_anchor({"tower/ctr/w": own, f"{ANCHOR}tower/ctr/w": anchor})
    assert found == ({"tower/ctr/w": own}, {"tower/ctr/w": anchor})
    assert arrays.split_anchor({"tower/ctr/w": own}) == ({"tower/ctr/w": own}, {})
