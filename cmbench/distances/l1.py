"""L1: the mean absolute difference over an image's values."""

import torch
from torch import Tensor, nn

from cmbench.distances.base import Distance

__all__ = ["L1"]


class L1(Distance):
    """The distance mean |x - y|."""

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance, which has no weights."""
        return _L1()


class _L1(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().flatten(1).mean(1)
