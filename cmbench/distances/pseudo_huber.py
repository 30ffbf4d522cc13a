"""Pseudo-Huber: sqrt(||x - y||^2 + c^2) - c over the whole image vector.

Improved consistency training (https://arxiv.org/abs/2310.14189): c = 0.00054 sqrt(d), d values.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.distances.base import Distance

__all__ = ["PseudoHuber"]


class PseudoHuber(Distance):
    """Between l1 and l2: quadratic near zero, linear far away; less moved by outliers than l2."""

    c: float | None = Field(default=None, gt=0, description="none: 0.00054 sqrt(values)")

    def build(self, device: torch.device) -> nn.Module:
        """The distance; it has no weights."""
        return _PseudoHuber(self.c)


class _PseudoHuber(nn.Module):
    def __init__(self, c: float | None) -> None:
        super().__init__()
        self.c = c

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        c = self.c or 0.00054 * x[0].numel() ** 0.5
        squares = (x - y).square().flatten(1).sum(1)
        return (squares + c**2).sqrt() - c
