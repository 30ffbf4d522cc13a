"""Inception-v3 of December 2015, which defines FID, IS and sFID (torch-fidelity's port).

Pixels of any size are resized to 299 like in TensorFlow 1 (bilinear, corners at 0, no half
pixel). Layers: pool (2048), logits (1008, without bias), spatial (the first 7 channels of
mixed_6/conv, 17 x 17 in the order H, W, C: 2023).
"""

import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing, regular_file
from cmbench.core.paths import cache_folder, user_path
from cmbench.features._resize import colour, corner_resize
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["Inception"]

_DIGEST = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_FILE = "weights-inception-2015-12-05-6726825d.pth"
_SIDE, _SPATIAL = 299, "Mixed_6d"
_BLOCKS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c",
)  # fmt: skip


class Inception(FeatureExtractor):
    """Inception-v3 features; the only ones whose Frechet distance is called FID."""

    layers: ClassVar[dict[str, int]] = {"pool": 2048, "logits": 1008, "spatial": 2023}
    distance_name: ClassVar[str] = "FID"
    plain_titles: ClassVar[bool] = True
    transport: ClassVar[frozenset[str]] = frozenset({"weights"})
    weights: Path | None = Field(
        None, description="weights file; none: CMBENCH_INCEPTION, or the cache's file"
    )

    def weights_digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_sha256(self._path())

    def build(self, device: torch.device) -> Extractor:
        """Builds torch-fidelity's module with the weights, on `device`.

        Raises:
            UserError: If the cache's file is not the official one, or a given file can't be read.
        """
        path, given = self._path(), self._given() is not None
        if not given and file_sha256(path) != _DIGEST:
            raise UserError(
                f"{path} is damaged",
                expected=f"SHA-256 {_DIGEST}",
                fix="delete it, then: cmbench assets fetch inception-2015-12-05",
            )
        return _Extractor(_module(path)).to(device)

    def _given(self) -> Path | None:
        value = os.environ.get("CMBENCH_INCEPTION")
        return self.weights or (user_path(value, where="CMBENCH_INCEPTION") if value else None)

    def _path(self) -> Path:
        given = self._given()
        path = given or cache_folder() / "assets" / _FILE
        if path.is_file():
            return path
        raise Pending(
            "Inception's weights are not on this machine",
            command="cmbench assets fetch inception-2015-12-05",
        )


class _Extractor(Extractor):
    """torch-fidelity's blocks with batch norms folded into the convolutions, channels last.

    The resize is two matrix products. Features differ from those of the original module by 1e-4 of
    their size (`tests/features/test_extractors.py`); on a CPU it is about twice as fast.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: Any = _folded(net.requires_grad_(False).eval())
        self.net.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = (corner_resize(colour(pixels).to(torch.float32), _SIDE) - 128) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        spatial = x
        for name in _BLOCKS:
            if name == _SPATIAL:
                spatial = self.net.Mixed_6d.branch1x1(x)
            x = getattr(self.net, name)(x)
        pool = x.mean((2, 3))
        flat = spatial[:, :7].permute(0, 2, 3, 1).flatten(1)
        return {"pool": pool, "logits": pool @ self.net.fc.weight.T, "spatial": flat.contiguous()}


def _folded(net: Any) -> Any:
    for module in net.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv, module.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return net


def _module(path: Path) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with parsing(regular_file(path, "weights file"), "a plain state dict of Inception's weights"):
        # The file is first read here as data: torch-fidelity would run code from it.
        torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(path),
        )
