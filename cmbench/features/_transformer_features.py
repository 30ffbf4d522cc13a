"""Base of the CLIP and DINOv2 extractors: resizing, normalisation, official weights."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.features._asset_weights import read_state, weights_path
from cmbench.features._resize import colour
from cmbench.features._vision_transformer import VisionTransformer
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["TransformerFeatures"]

Triple = tuple[float, float, float]


class TransformerFeatures(FeatureExtractor):
    """Features (pool) of an official ViT-L/14.

    Pixels are resized (bicubic, antialiased, in float, clipped) and normalised. Weights are
    downloaded on demand.
    """

    transport: ClassVar[frozenset[str]] = frozenset({"weights"})
    network: ClassVar[str]
    """Name of the network in error messages."""
    variable: ClassVar[str]
    """Environment variable that holds the path of the weights file."""
    asset: ClassVar[tuple[str, str]]
    """Name of the weights' asset, and of its file in the cache."""
    mean: ClassVar[Triple]
    deviation: ClassVar[Triple]

    size: int = Field(224, ge=14, le=1022, multiple_of=14, description="side of the resized image")
    weights: Path | None = Field(None, description="weights file; none: the cache's")

    @staticmethod
    @abstractmethod
    def read(state: Mapping[str, Tensor]) -> VisionTransformer:
        """Builds the network from the authors' state dict.

        Raises:
            KeyError: If the state dict belongs to another network.
            RuntimeError: If a tensor has another shape.
        """

    def weights_digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_sha256(self._path())

    def build(self, device: torch.device) -> Extractor:
        """Loads the network and moves it to `device`.

        Raises:
            UserError: If the file holds no weights of this network.
        """
        path = self._path()
        try:
            net = self.read(read_state(path))
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path} does not hold {self.network} weights: {error}") from None
        return _Extractor(net, self.size, self.mean, self.deviation).to(device)

    def _path(self) -> Path:
        asset, file = self.asset
        return weights_path(self.weights, self.variable, file, asset)


class _Extractor(Extractor):
    mean: Tensor
    deviation: Tensor

    def __init__(self, net: VisionTransformer, size: int, mean: Triple, deviation: Triple) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = colour(pixels).to(torch.float32)
        x = functional.interpolate(
            x, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 255)
        return {"pool": self.net((x / 255 - self.mean) / self.deviation)}
