"""L2: the mean squared difference over an image's values (the paper's squared l2, per value)."""

import torch
from torch import Tensor, nn

from cmbench.distances.base import Distance

__all__ = ["L2"]


class L2(Distance):
    """The distance mean (x - y)^2."""

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance, which has no weights."""
        return _L2()


class _L2(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().flatten(1).mean(1)
