"""Snow: streaks of a layer drawn once per image, denser and longer as severity grows.

Every severity starts from the clean image. Cold Diffusion (https://arxiv.org/abs/2208.09392),
section 4.4; the layer is ImageNet-C's snow (https://arxiv.org/abs/1903.12261) with thresholds
that depend on the severity.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as nnf

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Snow"]

LAYER_DRAW, COIN_DRAW = 6, 7
"""Indices of the noise draws for the layer and for the streaks' direction."""


class _Preset(NamedTuple):
    """Mean and deviation of the layer, zoom, taps of the streak; then the first and last value
    of threshold, streak deviation and brightness.
    """

    mean: float
    deviation: float
    zoom: float
    taps: int
    threshold: tuple[float, float]
    streak: tuple[float, float]
    brightness: tuple[float, float]


_PRESETS = {
    1: _Preset(0.1, 0.3, 3.0, 5, (0.7, 0.3), (0.5, 5.0), (0.95, 0.7)),
    2: _Preset(0.55, 0.3, 2.5, 11, (1.15, 0.7), (0.05, 12.0), (0.95, 0.55)),
    3: _Preset(0.55, 0.3, 2.5, 11, (1.15, 0.7), (0.05, 16.0), (0.95, 0.4)),
    4: _Preset(0.55, 0.3, 2.5, 11, (1.15, 0.55), (0.05, 20.0), (0.95, 0.3)),
}


class Snow(Degradation):
    """Adds the layer and its rotation by 180 degrees to the image in [0, 1], and clips."""

    levels: Steps = 200
    level: Literal[1, 2, 3, 4] = Field(
        default=3, description="preset: 3 for CIFAR-10, 4 for CelebA"
    )
    fix_brightness: bool = Field(default=True, description="false: snow also fades colours")

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Adds snow to x0 (B, C, H, W) of severity (B,) in 0..levels.

        Raises:
            UserError: If `noise` is None: the layer is drawn from it.
        """
        if noise is None:
            raise UserError("snow needs noise to draw its layer from", fix="pass noise=")
        layer = self.layers(self._base(noise, x0), severity, self._vertical(noise))
        return self.blend(x0, layer, severity)

    def start(self, noise: Noise) -> Tensor:
        """Returns the heaviest snow on mid-grey."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(
            torch.zeros(len(noise), *noise.shape, device=noise.device), last, noise
        )

    def blend(self, x0: Tensor, layer: Tensor, severity: Tensor) -> Tensor:
        """Adds a layer (B, 1, H, W) in [0, 1] to x0 (B, C, H, W); severity 0 returns x0."""
        picture = (x0 + 1) / 2
        if not self.fix_brightness:
            share = self._at(_PRESETS[self.level].brightness, severity).to(x0)
            picture = share * picture + (1 - share) * torch.maximum(
                picture, _grey(picture) * 1.5 + 0.5
            )
        snowy = (picture + layer + layer.rot90(2, (2, 3))).clamp(0, 1) * 2 - 1
        return torch.where((severity > 0).reshape(-1, 1, 1, 1), snowy, x0)

    def layers(self, base: Tensor, severity: Tensor, vertical: Tensor) -> Tensor:
        """Returns streaks (B, 1, H, W) of standard normal `base` (B, 1, H, W)."""
        preset = _PRESETS[self.level]
        flakes = _zoomed(base * preset.deviation + preset.mean, preset.zoom)
        flakes = torch.where(flakes < self._at(preset.threshold, severity).to(base), 0.0, flakes)
        return _streaked(
            flakes.clamp(0, 1), preset.taps, self._at(preset.streak, severity).to(base), vertical
        )

    def _at(self, ends: tuple[float, float], severity: Tensor) -> Tensor:
        """Returns the value at each severity, (B, 1, 1, 1), linear from the first to the last."""
        share = (severity.double() - 1).clamp(min=0) / max(1, self.levels - 1)
        return (ends[0] + (ends[1] - ends[0]) * share).reshape(-1, 1, 1, 1)

    def _base(self, noise: Noise, x0: Tensor) -> Tensor:
        return noise.normal(LAYER_DRAW)[:, :1].to(x0)

    def _vertical(self, noise: Noise) -> Tensor:
        return noise.uniform(COIN_DRAW).flatten(1)[:, 0] < 0.5


def _grey(picture: Tensor) -> Tensor:
    if picture.shape[1] != 3:
        return picture.mean(1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=picture.dtype, device=picture.device)
    return (picture * weights.reshape(1, 3, 1, 1)).sum(1, keepdim=True)


def _zoomed(layer: Tensor, factor: float) -> Tensor:
    """Returns the middle of the layer, upsampled bilinearly to the layer's size."""
    side = layer.shape[-1]
    part = math.ceil(side / factor)
    top = (side - part) // 2
    middle = layer[..., top : top + part, top : top + part]
    large = nnf.interpolate(
        middle, size=[round(part * factor)] * 2, mode="bilinear", align_corners=True
    )
    trim = (large.shape[-1] - side) // 2
    return large[..., trim : trim + side, trim : trim + side]


def _streaked(layer: Tensor, taps: int, deviation: Tensor, vertical: Tensor) -> Tensor:
    """Blurs each image along its own direction with a Gaussian of its own deviation."""
    layer_rows = torch.where(vertical.reshape(-1, 1, 1, 1), layer.transpose(2, 3), layer)
    offsets = torch.arange(taps, dtype=layer.dtype, device=layer.device) - taps // 2
    weights = torch.exp(-(offsets**2) / (2 * deviation.reshape(-1, 1) ** 2))
    weights = weights / weights.sum(1, keepdim=True)
    padded = nnf.pad(layer_rows, (taps // 2, taps // 2, 0, 0))
    blurred = (padded.unfold(3, taps, 1) * weights.reshape(-1, 1, 1, 1, taps)).sum(-1)
    return torch.where(vertical.reshape(-1, 1, 1, 1), blurred.transpose(2, 3), blurred)
