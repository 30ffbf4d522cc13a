"""Pseudo-Huber distance: sqrt(||x - y||^2 + c^2) - c over all values of an image.

Improved consistency training (https://arxiv.org/abs/2310.14189): c = 0.00054 sqrt(d) for d values.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.distances.base import Distance

__all__ = ["PseudoHuber"]


class PseudoHuber(Distance):
    """Distance between l1 and l2, quadratic near zero and linear far away; robust to outliers."""

    c: float | None = Field(default=None, gt=0, description="none: 0.00054 sqrt(number of values)")

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance, which has no weights."""
        return _PseudoHuber(self.c)


class _PseudoHuber(nn.Module):
    def __init__(self, c: float | None) -> None:
        super().__init__()
        self.c = c

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        c = self.c or 0.00054 * x[0].numel() ** 0.5
        squares = (x - y).square().flatten(1).sum(1)
        return (squares + c**2).sqrt() - c
