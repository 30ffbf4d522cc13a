"""A small GAN (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661): one call per image."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.api import Classes, ImageShape, Model, OneShot, UserError, Width, Widths

__all__ = ["GAN"]


class GAN(Model):
    """A convolutional generator; `channels` go from the coarsest map to the image's size."""

    makes: ClassVar[frozenset[str]] = frozenset({"oneshot"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "oneshot"}

    shape: ImageShape
    classes: Classes = 0
    latent: Width = 64
    channels: Widths = Field(default=(128, 64), min_length=1)

    def build(self) -> nn.Module:
        """Builds the generator.

        Raises:
            UserError: If the image's side can't be halved often enough.
        """
        return _Generator(self)


class _Generator(OneShot):
    def __init__(self, spec: GAN) -> None:
        super().__init__(spec.shape, spec.latent, classes=spec.classes)
        fold = 2 ** (len(spec.channels) - 1)
        if spec.shape[1] % fold or spec.shape[2] % fold:
            raise UserError(
                f"gan: {spec.shape[1]} pixels can't be halved {fold.bit_length() - 1} times"
            )
        self.coarse = (spec.channels[0], spec.shape[1] // fold, spec.shape[2] // fold)
        self.label = nn.Embedding(spec.classes, spec.latent) if spec.classes else None
        self.first = nn.Linear(spec.latent, self.coarse[0] * self.coarse[1] * self.coarse[2])
        widths = zip(spec.channels, (*spec.channels[1:], spec.channels[-1]), strict=True)
        self.blocks = nn.ModuleList(_Block(now, then, spec.latent) for now, then in widths)
        self.last = nn.Conv2d(spec.channels[-1], spec.shape[0], 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        if self.label is not None and labels is not None:
            z = z + self.label(labels)
        h = self.first(z).reshape(len(z), *self.coarse)
        for place, block in enumerate(self.blocks):
            if place:
                h = nnf.interpolate(h, scale_factor=2, mode="nearest")
            h = block(h, z)
        return torch.tanh(self.last(nnf.leaky_relu(h, 0.2)))


class _Block(nn.Module):
    """A convolution whose input is normalised, then scaled and shifted by the latent."""

    def __init__(self, now: int, then: int, latent: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(max(1, now // 16), now, affine=False)
        self.style = nn.Linear(latent, 2 * now)
        self.conv = nn.Conv2d(now, then, 3, padding=1)
        self.skip = nn.Conv2d(now, then, 1, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.style(z)[:, :, None, None].chunk(2, 1)
        h = self.conv(nnf.leaky_relu(self.norm(x) * (1 + scale) + shift, 0.2))
        return self.skip(x) + h
