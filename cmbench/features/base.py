"""The contract of a feature extractor, which maps pixels to named layers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmbench.core.component import Component
from cmbench.core.errors import CmbenchError

__all__ = ["Extractor", "FeatureExtractor"]


Pixels = NDArray[np.uint8]
Rows = dict[str, NDArray[np.float32]]


class Extractor(nn.Module, ABC):
    """An extractor with its weights, on a device, in evaluation mode."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Maps uint8 pixels (B, C, H, W) to features: layer name to float32 (B, d).

        The features of an image do not depend on the rest of its batch.
        """

    @torch.inference_mode()
    def features(self, pixels: Pixels, device: torch.device, first: int = 0) -> Rows:
        """Computes the features of one batch as arrays: layer name to float32 (B, d).

        Args:
            pixels: uint8 (B, C, H, W).
            device: The extractor's device.
            first: Index of the batch's first image, for error messages.

        Raises:
            CmbenchError: If a feature is not finite; names layer and image.
        """
        block = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        features = {name: rows.float().cpu().numpy() for name, rows in self(block).items()}
        for name, rows in features.items():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise CmbenchError(f"feature '{name}' of image {first + bad[0]} is not finite")
        return features

    def rows(self, batches: Iterable[Pixels], device: torch.device) -> Rows:
        """Computes the features of all batches: layer name to float32 (N, d).

        Raises:
            CmbenchError: If a feature is not finite; names layer and image.
        """
        parts: dict[str, list[NDArray[np.float32]]] = {}
        done = 0
        for pixels in batches:
            for name, rows in self.features(pixels, device, done).items():
                parts.setdefault(name, []).append(rows)
            done += len(pixels)
        return {name: np.concatenate(rows) for name, rows in parts.items()}


class FeatureExtractor(Component, ABC):
    """An extractor's parameters and the source of its weights."""

    kind: ClassVar[str] = "features"
    layers: ClassVar[dict[str, int]] = {}
    """Width d per layer. By convention distances use `pool` and class scores use `logits`."""
    distance_name: ClassVar[str] = "FD"
    """Name of the Frechet distance in this space. Only Inception's is called FID."""
    plain_titles: ClassVar[bool] = False
    """If true, titles of other scores leave out this space's name, as a suite's usual one."""

    @abstractmethod
    def weights_digest(self) -> str:
        """SHA-256 of the weights, part of the protocol fingerprint.

        Raises:
            Pending: If the weights are not on this machine, with the command that downloads them.
        """

    @abstractmethod
    def build(self, device: torch.device) -> Extractor:
        """Loads the weights and returns the extractor.

        Raises:
            Pending: If the weights are not on this machine, with the command that downloads them.
        """
