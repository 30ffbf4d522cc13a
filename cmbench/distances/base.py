"""The contract of a training distance d(x, y), which consistency training minimises."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from cmbench.core.component import Component

__all__ = ["Distance"]


class Distance(Component, ABC):
    """A distance between images, differentiable in x.

    Not to be confused with a metric, which evaluates a set of samples (the consistency-models
    paper calls d a "metric function").
    """

    kind: ClassVar[str] = "distance"

    @abstractmethod
    def build(self, device: torch.device) -> nn.Module:
        """Builds a module with forward(x, y) -> (B,) for images (B, C, H, W) in [-1, 1].

        d(x, x) = 0 with a finite gradient. Its weights are frozen.
        """
