"""A table trained in place: lazy Adam beside dense Adam, and the way back."""

import numpy as np
import pytest
import torch

from pfmsmt.core.errors import CheckpointError
from pfmsmt.models.large_table import LargeTable

RATE, DECAY = 0.05, 2.0


def start(rows=6):
    generator = torch.Generator().manual_seed(0)
    return torch.nn.Parameter(torch.randn(rows, 3, generator=generator))


def pull(table, places, seed):
    """A loss whose gradient meets some rows, one of them twice; sparse or dense as the embedding says."""
    targets = torch.randn(len(places), 3, generator=torch.Generator().manual_seed(seed))
    return lambda sparse: (
        (torch.nn.functional.embedding(torch.tensor(places), table, sparse=sparse) - targets) ** 2
    ).sum()


def lazily(table, steps, large=None):
    large = large or LargeTable(table)
    large.begin(large.version, RATE, DECAY)
    for seed, places in enumerate(steps):
        table.grad = None
        pull(table, places, seed)(True).backward()
        assert table.grad.is_sparse
        large.step()
    large.finish()
    return large


def densely(table, steps, decay=DECAY):
    adam = torch.optim.AdamW([table], lr=RATE, weight_decay=decay)
    for seed, places in enumerate(steps):
        table.grad = None
        pull(table, places, seed)(False).backward()
        adam.step()
    return table.detach()


def test_where_each_step_meets_all_rows_it_is_dense_adam():
    steps = [(0, 1, 2, 3, 4, 5, 5), (5, 4, 3, 2, 1, 0, 0), (1, 0, 3, 2, 5, 4, 1)] * 3
    one, two = start(), start()
    lazily(one, steps)
    torch.testing.assert_close(one.detach(), densely(two, steps), rtol=2e-6, atol=2e-6)


def test_the_first_step_that_meets_a_row_moves_it_as_dense_adam_does():
    """Row 4 is met in the third step first: until then its gradient, and so its moments, were 0."""
    steps = [(0, 1), (1, 2), (4, 4)]
    one, two = start(), start()
    before = two[4].detach().clone()
    lazily(one, steps)
    dense = densely(two, steps, decay=0.0)
    shrunk = before * (1 - RATE * DECAY)  # lazily, a row decays in the steps that meet it
    torch.testing.assert_close(one[4].detach() - shrunk, dense[4] - before, rtol=2e-5, atol=2e-6)


def test_rows_that_a_step_does_not_meet_stay_where_dense_adam_moves_them():
    steps = [(0, 1), (1, 1)]
    one, two = start(), start()
    first = start()
    lazily(first, steps[:1])
    lazily(one, steps)
    dense = densely(two, steps)
    assert torch.equal(one[0], first[0])
    assert not torch.allclose(dense[0], first[0])
    assert torch.equal(one[2:], start()[2:])
    torch.testing.assert_close(dense[2:], start()[2:] * (1 - RATE * DECAY) ** 2)


def state(large):
    return [large.table.detach().clone(), *(m.clone() for m in large._moments), large._adam.state[large.table]["step"]]


def same(one, two):
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, two, strict=True))


TRAININGS = [[(0, 1), (1, 2)], [(1, 3), (0, 0)], [(5, 1)], [(2, 2), (2, 4)]]


def test_it_goes_back_to_any_version_that_is_kept_and_on_from_there():
    large, states = LargeTable(start()), []
    for steps in TRAININGS:
        states.append(state(large))
        lazily(large.table, steps, large)
    states.append(state(large))
    for version in (3, 1, 0):
        large.rewind(version)
        assert same(state(large), states[version])
        assert large.version == version
    for steps in TRAININGS:
        lazily(large.table, steps, large)
    assert same(state(large), states[4])
    large.forget(3)
    with pytest.raises(ValueError, match="version 2 of a large table is gone; it is at 4"):
        large.rewind(2)
    with pytest.raises(ValueError, match="version 5 of a large table is gone"):
        large.rewind(5)
    large.rewind(3)
    assert same(state(large), states[3])


def test_a_training_that_breaks_off_is_undone():
    large = lazily(start(), TRAININGS[0])
    before = state(large)
    large.begin(1, RATE, DECAY)
    large.table.grad = None
    pull(large.table, (1, 4), 0)(True).backward()
    large.step()
    assert not same(state(large), before)
    large.begin(1, RATE, DECAY)
    assert same(state(large), before)
    large.finish()
    assert large.version == 2


def test_the_best_values_are_those_when_it_was_marked():
    large = LargeTable(start())
    initial = large.table.detach().clone().numpy()
    lazily(large.table, TRAININGS[0], large)
    np.testing.assert_array_equal(large.best(), initial)
    large.mark_best()
    marked = large.table.detach().clone().numpy()
    for steps in TRAININGS[1:]:
        lazily(large.table, steps, large)
        np.testing.assert_array_equal(large.best(), marked)
    # Going back before the best does not change it.
    large.rewind(0)
    np.testing.assert_array_equal(large.table.detach().numpy(), initial)
    np.testing.assert_array_equal(large.best(), marked)
    large.restore_best()
    np.testing.assert_array_equal(large.table.detach().numpy(), marked)
    with pytest.raises(ValueError, match="is gone"):
        large.begin(0, RATE, DECAY)


@pytest.mark.parametrize("version", [4, 3, 2])
@pytest.mark.parametrize("best", [0, 2, 4])
def test_any_version_is_saved_and_goes_on(tmp_path, version, best):
    large, states = LargeTable(start(200)), []
    for number, steps in enumerate(TRAININGS):
        states.append(state(large))
        lazily(large.table, steps, large)
        if number + 1 == best:
            large.mark_best()
    states.append(state(large))
    expected = large.best()
    large.save(tmp_path / "t.npz", version)
    assert same(state(large), states[4])  # saving changes nothing
    again = LargeTable(start(200))
    again.load(tmp_path / "t.npz")
    assert same(state(again), states[version])
    np.testing.assert_array_equal(again.best(), expected)
    again.save(tmp_path / "again.npz", version)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "t.npz").read_bytes()
    for steps in TRAININGS[version:]:
        lazily(again.table, steps, again)
    assert same(state(again), states[4])
    np.testing.assert_array_equal(again.best(), expected)
    # Rows that were not trained are not written: 6 of 200.
    with np.load(tmp_path / "t.npz") as file:
        assert set(file["places"].tolist()) <= set(range(6))


@pytest.mark.parametrize("damage", ["missing", "cut", "another table"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "NL.table.npz"
    large = lazily(start(), TRAININGS[0])
    large.save(path, 1)
    other = LargeTable(start())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        other = LargeTable(torch.nn.Parameter(torch.zeros(2, 3)))
    with pytest.raises(CheckpointError, match=r"NL\.table\.npz cannot be read .*remove .* to start anew"):
        other.load(path)
