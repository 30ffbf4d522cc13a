"""The contract of a network architecture: fields are hyperparameters, `build` the module."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from cmbench.core.component import Component

__all__ = ["Network"]


class Network(Component, ABC):
    """An architecture and its hyperparameters, in a recipe `{name: compact_unet, ...}`.

    The module that it builds is the raw network F: forward(x (B, C, H, W), c_noise (B,),
    labels (B,) int64 | None) -> (B, C', H, W).
    """

    kind: ClassVar[str] = "network"

    @abstractmethod
    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the network for images of `shape`, initialised from torch's global RNG."""
