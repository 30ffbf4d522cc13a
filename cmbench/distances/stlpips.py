"""ST-LPIPS: the shift-tolerant perceptual metric, whose package contains its weights.

Ghildyal and Liu 2022 (https://arxiv.org/abs/2207.13686). It substitutes LPIPS where the weights of
LPIPS can't be downloaded; the two differ, and results name the one that was used.
"""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.distances.base import Distance

__all__ = ["STLPIPS"]


class STLPIPS(Distance):
    """ST-LPIPS of images resized to `size`; the cost grows with the square of the size."""

    net: Literal["alex", "vgg"] = "alex"
    size: int | None = Field(
        default=64, ge=32, le=4096, description="side of the resized image; none: no resizing"
    )

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance with its frozen network."""
        with warnings.catch_warnings(), _stand_ins():
            warnings.simplefilter("ignore")
            from stlpips_pytorch.stlpips import LPIPS

            net = LPIPS(net=self.net, variant="shift_tolerant", verbose=False, use_dropout=True)
        net = net.eval().requires_grad_(False).to(device)
        return _STLPIPS(net, self.size)


_UNUSED = {"IPython": "embed", "torchsummary": "summary"}
"""Modules that the package imports without requiring them; they are not used here."""


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Substitutes empty modules for those not installed, while the package is imported."""
    missing = [name for name in _UNUSED if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], _UNUSED[name], None)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


class _STLPIPS(nn.Module):
    def __init__(self, net: nn.Module, size: int | None) -> None:
        super().__init__()
        self.net, self.size = net, size

    def train(self, mode: bool = True) -> "_STLPIPS":
        """Stays in evaluation mode, as the package's dropout would make the distance random."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        distance: Tensor = self.net(self._seen(x), self._seen(y))
        return distance.flatten(1).sum(1)

    def _seen(self, images: Tensor) -> Tensor:
        coloured = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if self.size is None or coloured.shape[-1] == self.size:
            return coloured
        return nnf.interpolate(coloured, (self.size, self.size), mode="bilinear")
