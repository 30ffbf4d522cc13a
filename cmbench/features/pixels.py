"""Pixels themselves as features, for sets of very small images."""

import hashlib
from typing import ClassVar

import torch
from torch import Tensor

from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["Pixels"]


class Pixels(FeatureExtractor):
    """Pool: pixels / 255 in the order C, H, W; its width is that of the images."""

    layers: ClassVar[dict[str, int]] = {"pool": 0}
    distance_name: ClassVar[str] = "FD-pixels"

    def weights_digest(self) -> str:
        """The SHA-256 of nothing: there are no weights."""
        return hashlib.sha256(b"").hexdigest()

    def build(self, device: torch.device) -> Extractor:
        """The flattening."""
        return _Extractor()


class _Extractor(Extractor):
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"pool": pixels.flatten(1).to(torch.float32) / 255}
