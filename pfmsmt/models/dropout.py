"""Dropout that draws from a generator of its own: clients may train in parallel threads of one process."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Set each element to zero with probability `rate` while training, and scale up the others.

    `generator` must be set before a training step; torch's own dropout knows only the global one.
    """

    def __init__(self, rate: float) -> None:
        """`rate` in [0, 1)."""
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        if not self.training or self.rate == 0:
            return x
        if self.generator is None:
            raise RuntimeError("dropout has no generator; set one before training")
        keep = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
        return x * keep.div_(1 - self.rate)
