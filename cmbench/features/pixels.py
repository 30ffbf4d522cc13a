"""Pixels as features, for sets of very small images."""

import hashlib
from typing import ClassVar

import torch
from torch import Tensor

from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["Pixels"]


class Pixels(FeatureExtractor):
    """The layer `pool` is pixels / 255 in the order C, H, W; its width is that of the images."""

    layers: ClassVar[dict[str, int]] = {"pool": 0}
    distance_name: ClassVar[str] = "FD-pixels"

    def weights_digest(self) -> str:
        """SHA-256 of the empty string, as there are no weights."""
        return hashlib.sha256(b"").hexdigest()

    def build(self, device: torch.device) -> Extractor:
        """Builds the module that flattens pixels."""
        return _Extractor()


class _Extractor(Extractor):
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"pool": pixels.flatten(1).to(torch.float32) / 255}
