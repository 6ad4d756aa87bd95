import pytest
import torch

from pfmsmt.models.dropout import Dropout
from pfmsmt.models.mmoe import MMoE
from tests.support.shapes import batch, scrambled, spec


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_refuses_to_train_without_a_generator():
    with pytest.raises(RuntimeError, match="no generator"):
        Dropout(0.5).train()(torch.ones(2, 2))


def test_evaluation_and_rate_zero_need_none():
    x = torch.randn(3, 3)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


def test_zeroes_a_share_and_scales_up_the_rest():
    dropout = Dropout(0.25).train()
    dropout.generator = seeded(0)
    y = dropout(torch.full((1000, 100), 3.0))
    assert set(y.unique().tolist()) == {0.0, 4.0}
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("rate", [1e-9, 1e-6, 0.9999999])
def test_extreme_rates_neither_zero_everything_nor_blow_up(rate):
    """At least one of 2^16 numbers is kept, and one dropped: kept values are 1 / (1 - 2^-16) or 2^16."""
    dropout = Dropout(rate).train()
    dropout.generator = seeded(0)
    y = dropout(torch.ones(1000, 300))
    assert (y != 0).float().mean().item() == pytest.approx(1 - rate, abs=1e-4)
    assert y.max().item() == pytest.approx(2**16 / (2**16 - 1) if rate < 0.5 else 2**16)


def test_same_generator_same_mask_whatever_the_global_seed():
    model = scrambled(MMoE(spec(dropout=0.5))).train()
    results = []
    for global_seed, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(global_seed)
        model.dropout.generator = seeded(seed)
        results.append(model(*batch()).detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_every_hidden_layer_draws_a_mask_of_its_own():
    dropout = Dropout(0.5).train()
    dropout.generator = seeded(0)
    assert not torch.equal(dropout(torch.ones(50)), dropout(torch.ones(50)))
