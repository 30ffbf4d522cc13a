"""The contract of a feature extractor: pixels in, named layers out."""

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
        """Features of uint8 pixels (B, C, H, W): layer name to float32 (B, d).

        The result for an image does not depend on its batch-mates.
        """

    @torch.inference_mode()
    def features(self, pixels: Pixels, device: torch.device, first: int = 0) -> Rows:
        """Features of one batch of pixels as arrays: layer name to float32 (B, d).

        Args:
            pixels: uint8 (B, C, H, W).
            device: Where the extractor is.
            first: Index of the batch's first image, for errors.

        Raises:
            CmbenchError: For a feature that is not finite, naming layer and image.
        """
        block = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        found = {name: rows.float().cpu().numpy() for name, rows in self(block).items()}
        for name, rows in found.items():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise CmbenchError(f"feature '{name}' of image {first + bad[0]} is not finite")
        return found

    def rows(self, batches: Iterable[Pixels], device: torch.device) -> Rows:
        """Features of all batches, joined: layer name to float32 (N, d).

        Raises:
            CmbenchError: For a feature that is not finite, naming layer and image.
        """
        parts: dict[str, list[NDArray[np.float32]]] = {}
        done = 0
        for pixels in batches:
            for name, rows in self.features(pixels, device, done).items():
                parts.setdefault(name, []).append(rows)
            done += len(pixels)
        return {name: np.concatenate(rows) for name, rows in parts.items()}


class FeatureExtractor(Component, ABC):
    """Names an extractor and its parameters, and says where its weights come from."""

    kind: ClassVar[str] = "features"
    layers: ClassVar[dict[str, int]] = {}
    """Layer name to its width d. By convention `pool` feeds distances, `logits` class scores."""
    distance_name: ClassVar[str] = "FD"
    """How the Frechet distance in this space is called. Only Inception's is called FID."""
    plain_titles: ClassVar[bool] = False
    """Whether other scores are titled without this space's name: it is a suite's usual one."""

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
