"""CLIP's ViT-L/14 image embeddings at 336 pixels, the features of CMMD.

Radford et al. (2021, https://arxiv.org/abs/2103.00020) as Jayasumana et al. (2024,
https://arxiv.org/abs/2401.09603) measure with it: pixels resized to 336 (bicubic, antialiased, in
float, clipped), CLIP's mean and deviation, the projected class token (768), of any length: the
metric `cmmd` brings it to length 1.
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
from cmbench.features._vision_transformer import VisionTransformer, clip_layout
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["CLIP"]

_ASSET, _FILE = "clip-vit-large-patch14-336", "clip-vit-large-patch14-336.bin"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class CLIP(FeatureExtractor):
    """Image embedding (pool, 768) of the official ViT-L/14 at 336 pixels, weights on demand."""

    layers: ClassVar[dict[str, int]] = {"pool": 768}
    distance_name: ClassVar[str] = "FD-CLIP"
    transport: ClassVar[frozenset[str]] = frozenset({"weights"})
    size: int = Field(336, ge=14, le=1022, multiple_of=14, description="side of the resized image")
    weights: Path | None = Field(
        None, description="weights file; else CMBENCH_CLIP, else the cache's file"
    )

    def weights_digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_sha256(self._path())

    def build(self, device: torch.device) -> Extractor:
        """The network on `device`.

        Raises:
            UserError: If the file holds no CLIP weights.
        """
        path = self._path()
        try:
            net = VisionTransformer.of(*clip_layout(read_state(path)))
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path} does not hold CLIP weights: {error}") from None
        return _Extractor(net, self.size).to(device)

    def _path(self) -> Path:
        return weights_path(self.weights, "CMBENCH_CLIP", _FILE, _ASSET)


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
