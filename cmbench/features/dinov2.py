"""DINOv2's ViT-L/14 features; their Frechet distance is FD-DINOv2.

Oquab et al. (2023, https://arxiv.org/abs/2304.07193) as Stein et al. (2023,
https://arxiv.org/abs/2306.04675) measure with it: pixels resized to 224 (bicubic, antialiased, in
float, clipped), ImageNet's mean and deviation, the class token after the last norm (1024).
"""

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
from cmbench.features._vision_transformer import VisionTransformer, dinov2_layout
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["DINOv2"]

_ASSET, _FILE = "dinov2-vitl14", "dinov2_vitl14_pretrain.pth"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DINOv2(FeatureExtractor):
    """Class token (pool, 1024) of the official ViT-L/14, weights on demand."""

    layers: ClassVar[dict[str, int]] = {"pool": 1024}
    distance_name: ClassVar[str] = "FD-DINOv2"
    transport: ClassVar[frozenset[str]] = frozenset({"weights"})
    size: int = Field(224, ge=14, le=1022, multiple_of=14, description="side of the resized image")
    weights: Path | None = Field(
        None, description="weights file; else CMBENCH_DINOV2, else the cache's file"
    )

    def weights_digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_sha256(self._path())

    def build(self, device: torch.device) -> Extractor:
        """The network on `device`.

        Raises:
            UserError: If the file holds no DINOv2 weights.
        """
        path = self._path()
        try:
            net = VisionTransformer.of(*dinov2_layout(read_state(path)))
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path} does not hold DINOv2 weights: {error}") from None
        return _Extractor(net, self.size).to(device)

    def _path(self) -> Path:
        return weights_path(self.weights, "CMBENCH_DINOV2", _FILE, _ASSET)


class _Extractor(Extractor):
    mean: Tensor
    deviation: Tensor

    def __init__(self, net: VisionTransformer, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = colour(pixels).to(torch.float32)
        x = functional.interpolate(
            x, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 255)
        return {"pool": self.net((x / 255 - self.mean) / self.deviation)}
