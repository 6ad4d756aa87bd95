"""The order of rows: windows of row groups, drawn anew for each epoch."""

import itertools

import numpy as np
import pytest

from pfmsmt.core.types import Stream
from pfmsmt.data.shards.order import RowOrder, Shuffle, batch_rows

NL = Stream(0, "NL", 0)
SIZES = (5, 3, 4, 1, 7, 2)


def epochs(shuffle, count, stream=NL):
    return [RowOrder(shuffle).rows(stream, epoch).tolist() for epoch in range(count)]


@pytest.mark.parametrize("window", [1, 4, 8, 21, 22, 100, None])
def test_every_row_once_in_each_epoch_and_another_order_each_time(window):
    found = epochs(Shuffle(SIZES, window), 4)
    assert all(sorted(order) == list(range(22)) for order in found)
    assert len({tuple(order) for order in found}) == 4


@pytest.mark.parametrize("window", [1, 4, 8, 21])
def test_windows_are_whole_row_groups_and_no_larger_than_asked(window):
    shuffle = Shuffle(SIZES, window)
    owner = np.repeat(np.arange(len(SIZES)), SIZES)
    for epoch in range(3):
        windows = shuffle.windows(NL._replace(round=epoch))
        order = RowOrder(shuffle).rows(NL, epoch)
        assert sorted(group for one in windows for group in one.groups) == list(range(len(SIZES)))
        assert [one.number for one in windows] == list(range(len(windows)))
        for one in windows:
            assert one.rows == sum(SIZES[group] for group in one.groups)
            assert one.rows <= window or len(one.groups) == 1
            assert one.rows <= shuffle.largest_window
            assert set(owner[order[one.first : one.first + one.rows]]) == set(one.groups)
        # As full as they can be: the first row group of the next window would not have fitted.
        for one, following in itertools.pairwise(windows):
            assert one.rows + SIZES[following.groups[0]] > window
    assert len({shuffle.windows(NL._replace(round=epoch))[0].groups for epoch in range(6)}) > 1


def test_without_windows_the_order_is_a_single_permutation_as_ever():
    expected = NL._replace(round=3).generator("order of rows").permutation(22)
    np.testing.assert_array_equal(RowOrder(Shuffle(SIZES, None)).rows(NL, 3), expected)


def test_seeds_clients_and_phases_have_orders_of_their_own():
    streams = [NL, NL._replace(client="ES"), NL._replace(seed=1), NL._replace(phase=1)]
    order = RowOrder(Shuffle(SIZES, 8))
    assert len({tuple(order.rows(stream, 0)) for stream in streams}) == 4
    # What is kept of each does not stand in for another.
    assert all(epochs(Shuffle(SIZES, 8), 2, s) == [order.rows(s, e).tolist() for e in (0, 1)] for s in streams)


def test_batches_follow_the_order_from_any_step():
    shuffle = Shuffle(SIZES, 8)
    flat = [row for epoch in epochs(shuffle, 3) for row in epoch]
    for first in range(8):
        chosen = list(batch_rows(NL._replace(round=9), 22, 5, first, 5, RowOrder(shuffle)))
        assert [row for part in chosen for row in part.tolist()] == flat[5 * first : 5 * first + 25]


@pytest.mark.parametrize(("window", "largest"), [(1, 7), (8, 8), (100, 22), (None, 22)])
def test_the_largest_window(window, largest):
    assert Shuffle(SIZES, window).largest_window == largest
