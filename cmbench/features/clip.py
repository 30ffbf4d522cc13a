"""CLIP's ViT-L/14 image embeddings at 336 pixels, the features of CMMD.

Radford et al. (2021, https://arxiv.org/abs/2103.00020), with the protocol of Jayasumana et al.
(2024, https://arxiv.org/abs/2401.09603): pixels are resized to 336 (bicubic, antialiased, in
float, clipped) and normalised by CLIP's mean and deviation; the feature is the projected class
token (768), which is not normalised: the metric `cmmd` scales it to length 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.features._transformer_features import TransformerFeatures, Triple
from cmbench.features._vision_transformer import VisionTransformer, clip_layout

__all__ = ["CLIP"]


class CLIP(TransformerFeatures):
    """Image embedding (pool, 768) of the official ViT-L/14 at 336 pixels, weights on demand."""

    layers: ClassVar[dict[str, int]] = {"pool": 768}
    distance_name: ClassVar[str] = "FD-CLIP"
    network: ClassVar[str] = "CLIP"
    variable: ClassVar[str] = "CMBENCH_CLIP"
    asset: ClassVar[tuple[str, str]] = (
        "clip-vit-large-patch14-336",
        "clip-vit-large-patch14-336.bin",
    )
    mean: ClassVar[Triple] = (0.48145466, 0.4578275, 0.40821073)
    deviation: ClassVar[Triple] = (0.26862954, 0.26130258, 0.27577711)

    size: int = Field(336, ge=14, le=1022, multiple_of=14, description="side of the resized image")
    weights: Path | None = Field(
        None, description="weights file; none: CMBENCH_CLIP, or the cache's file"
    )

    @staticmethod
    def read(state: Mapping[str, Tensor]) -> VisionTransformer:
        """Builds the network from the authors' state dict."""
        return VisionTransformer.of(*clip_layout(state))
