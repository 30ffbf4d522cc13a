"""DINOv2's ViT-L/14 features; their Frechet distance is FD-DINOv2.

Oquab et al. (2023, https://arxiv.org/abs/2304.07193), with the protocol of Stein et al. (2023,
https://arxiv.org/abs/2306.04675): pixels are resized to 224 (bicubic, antialiased, in float,
clipped) and normalised by ImageNet's mean and deviation; the feature is the class token after the
last norm (1024).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.features._transformer_features import TransformerFeatures, Triple
from cmbench.features._vision_transformer import VisionTransformer, dinov2_layout

__all__ = ["DINOv2"]


class DINOv2(TransformerFeatures):
    """Class token (pool, 1024) of the official ViT-L/14, weights on demand."""

    layers: ClassVar[dict[str, int]] = {"pool": 1024}
    distance_name: ClassVar[str] = "FD-DINOv2"
    network: ClassVar[str] = "DINOv2"
    variable: ClassVar[str] = "CMBENCH_DINOV2"
    asset: ClassVar[tuple[str, str]] = ("dinov2-vitl14", "dinov2_vitl14_pretrain.pth")
    mean: ClassVar[Triple] = (0.485, 0.456, 0.406)
    deviation: ClassVar[Triple] = (0.229, 0.224, 0.225)

    size: int = Field(224, ge=14, le=1022, multiple_of=14, description="side of the resized image")
    weights: Path | None = Field(
        None, description="weights file; none: CMBENCH_DINOV2, or the cache's file"
    )

    @staticmethod
    def read(state: Mapping[str, Tensor]) -> VisionTransformer:
        """Builds the network from the authors' state dict."""
        return VisionTransformer.of(*dinov2_layout(state))
