"""Probabilities and losses from logits, against naive formulas in double precision."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from pfmsmt.data.schema import UNLABELLED
from pfmsmt.models.heads import log_probabilities, loss, task_losses
from tests.support.shapes import spec

CHAIN = {"tasks": ("a", "b", "c", "d"), "parents": (None, 0, 1, 0)}


def test_product_head_multiplies_along_the_chain():
    """a; b within a; c within b; d within a."""
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)) * 3)
    p = torch.sigmoid(z).numpy()
    expected = np.stack([p[:, 0], p[:, 0] * p[:, 1], p[:, 0] * p[:, 1] * p[:, 2], p[:, 0] * p[:, 3]], axis=1)
    yes, no = log_probabilities(z, spec(**CHAIN))
    np.testing.assert_allclose(yes.exp().numpy(), expected, rtol=1e-13)
    np.testing.assert_allclose(no.exp().numpy(), 1 - expected, rtol=0, atol=1e-15)


def test_direct_head_is_a_sigmoid_each():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)) * 3)
    yes, no = log_probabilities(z, spec(**CHAIN, product=False))
    np.testing.assert_allclose(yes.exp().numpy(), torch.sigmoid(z).numpy(), rtol=1e-13)
    np.testing.assert_allclose(no.exp().numpy(), torch.sigmoid(-z).numpy(), rtol=1e-13)


@pytest.mark.parametrize("product", [True, False])
def test_extreme_logits_stay_finite_and_so_do_gradients(product):
    extremes = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    z = torch.cartesian_prod(extremes, extremes).requires_grad_()
    for labels in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0]):
        z.grad = None
        value = loss(z, torch.tensor(labels).expand(len(z), 2), torch.ones(2), spec(product=product))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("product", [True, False])
def test_loss_is_weighted_cross_entropy(product):
    """Against sklearn's log-loss and torch's binary_cross_entropy, on probabilities by the naive formula."""
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(200, 2)), (rng.random((200, 2)) < 0.4).astype(float)
    p = 1 / (1 + np.exp(-z))
    if product:
        p[:, 1] *= p[:, 0]
    weights = [0.7, 2.5]
    value = loss(
        torch.from_numpy(z), torch.from_numpy(labels), torch.tensor(weights, dtype=torch.float64), spec(product=product)
    )
    by_sklearn = sum(v * log_loss(labels[:, t], p[:, t]) for t, v in enumerate(weights))
    assert value.item() == pytest.approx(by_sklearn, rel=1e-12)
    each = functional.binary_cross_entropy(torch.from_numpy(p), torch.from_numpy(labels), reduction="none").mean(0)
    assert value.item() == pytest.approx((each @ torch.tensor(weights, dtype=torch.float64)).item(), rel=1e-12)


def test_gradient_of_the_product_loss_is_that_of_the_naive_one():
    z = torch.from_numpy(np.random.default_rng(2).normal(size=(20, 2))).requires_grad_()
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]] * 5).double()
    weights = torch.ones(2).double()
    (ours,) = torch.autograd.grad(loss(z, labels, weights, spec()), z)
    p = torch.sigmoid(z)
    p = torch.stack([p[:, 0], p[:, 0] * p[:, 1]], dim=1)
    naive = functional.binary_cross_entropy(p, labels, reduction="none").mean(0).sum()
    torch.testing.assert_close(ours, torch.autograd.grad(naive, z)[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("product", [True, False])
def test_a_partial_loss_averages_over_each_tasks_labelled_rows(product):
    rng, shape = np.random.default_rng(4), spec(product=product)
    labels = torch.from_numpy((rng.random((40, 2)) < 0.4).astype(np.float64))
    hidden = torch.from_numpy(rng.random((40, 2)) < 0.3)
    hidden[:, 1] |= hidden[:, 0]
    z = torch.from_numpy(rng.normal(size=(40, 2))).requires_grad_()
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    value = loss(z, labels.masked_fill(hidden, UNLABELLED), weights, shape, partial=True)
    alone = [task_losses(z[~hidden[:, t]], labels[~hidden[:, t]], weights, shape)[t] for t in range(2)]
    np.testing.assert_allclose(value.detach().numpy(), sum(alone).detach().numpy(), rtol=1e-12)
    (found,) = torch.autograd.grad(value, z, retain_graph=True)
    (wanted,) = torch.autograd.grad(sum(alone), z)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-9, atol=1e-15)
    assert (found[hidden.all(1)] == 0).all()


def test_a_task_without_a_label_in_the_batch_adds_nothing():
    z = torch.zeros(3, 2, requires_grad=True)
    labels = torch.tensor([[1.0, UNLABELLED], [0.0, UNLABELLED], [1.0, UNLABELLED]])
    each = task_losses(z, labels, torch.ones(2), spec(product=False), partial=True)
    assert float(each[1]) == 0
    each.sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[:, 1] == 0).all()
