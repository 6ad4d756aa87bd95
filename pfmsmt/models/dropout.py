"""Dropout that draws from a generator of its own.

Clients may train in parallel threads of one process.
"""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout: each element is zero with probability `rate` while training.

    The others are scaled up by 1 / (1 - rate).

    On the CPU the rate is rounded to a multiple of 2^-16, and is never 0 or 1.

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
        if x.device.type != "cpu":
            keep = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
            return x * keep.div_(1 - self.rate)
        # Four 16-bit numbers from each 64-bit one: several times faster than bernoulli_ here.
        chance = min(max(1, round((1 - self.rate) * 2**16)), 2**16 - 1)  # of 2^16 numbers
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
        words.random_(-(2**63), None, generator=self.generator)
        keep = words.view(torch.int16)[: x.numel()].view(x.shape) < chance - 2**15
        return x * keep.to(x.dtype).mul_(2**16 / chance)
