"""The contract of a feature extractor: pixels in, named layers out."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.component import Component

__all__ = ["Extractor", "FeatureExtractor"]


class Extractor(nn.Module, ABC):
    """An extractor with its weights, on a device, in evaluation mode."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Features of uint8 pixels (B, C, H, W): layer name to float32 (B, d).

        The result for an image does not depend on its batch-mates.
        """


class FeatureExtractor(Component, ABC):
    """Names an extractor and its parameters, and says where its weights come from."""

    kind: ClassVar[str] = "features"
    layers: ClassVar[dict[str, int]] = {}
    """Layer name to its width d. By convention `pool` feeds distances, `logits` class scores."""
    distance_name: ClassVar[str] = "FD"
    """How the Frechet distance in this space is called. Only Inception's is called FID."""

    @abstractmethod
    def weights_digest(self) -> str:
        """SHA-256 of the weights, part of the protocol fingerprint.

        Raises:
            Pending: If the weights can't be had now, with the command that brings them.
        """

    @abstractmethod
    def build(self, device: torch.device) -> Extractor:
        """Loads the weights and returns the extractor.

        Raises:
            Pending: If the weights can't be had now, with the command that brings them.
        """
