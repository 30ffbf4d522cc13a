"""A small U-Net for small budgets: pixel-unshuffle, few wide levels, optional attention.

Residual blocks as in ADM (https://arxiv.org/abs/2105.05233, appendix A): group norm, SiLU, 3x3
convolution, scale and shift by the noise embedding; zero-initialised outputs. Pixel-unshuffle
halves the side and so the cost: convolutions on a CPU are efficient on few, wide maps.
"""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Depth, Width, Widths
from cmbench.nets.base import Network

__all__ = ["CompactUNet"]


class CompactUNet(Network):
    """U-Net with levels of `channels`, each of half the side of the one before."""

    channels: Widths = Field(default=(64, 128), min_length=1)
    blocks: int = Field(
        default=1, ge=1, le=256, description="residual blocks per level of the encoder"
    )
    attention: tuple[Depth, ...] = Field(default=(), description="levels (from 0) with attention")
    unshuffle: Width = Field(default=1, description="pixels per side folded into channels")
    embedding: int = Field(
        default=128, ge=8, le=16_384, description="width of the noise embedding"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")
    times: Width = Field(default=1, description="noise inputs; 2: time and step")

    @model_validator(mode="after")
    def _levels(self) -> "CompactUNet":
        if any(level not in range(len(self.channels)) for level in self.attention):
            raise ValueError(f"attention levels must lie in 0..{len(self.channels) - 1}")
        if any(width % 8 for width in self.channels):
            raise ValueError("channels must be multiples of 8")
        return self

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for sides divisible by unshuffle * 2^(levels - 1)."""
        fold = self.unshuffle * 2 ** (len(self.channels) - 1)
        if shape[1] % fold or shape[2] % fold:
            raise ValueError(f"image side {shape[1]} is not divisible by {fold}")
        return _UNet(self, shape[0], classes)


class _UNet(nn.Module):
    def __init__(self, spec: CompactUNet, image_channels: int, classes: int) -> None:
        super().__init__()
        self.unshuffle = spec.unshuffle
        folded = spec.unshuffle**2
        outputs = (spec.outputs or image_channels) * folded
        width = spec.embedding
        self.embed = _NoiseEmbedding(width)
        self.embed_more = nn.ModuleList(_NoiseEmbedding(width) for _ in range(spec.times - 1))
        self.label = nn.Embedding(classes, width) if classes else None
        self.first = nn.Conv2d(image_channels * folded, spec.channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, now = [spec.channels[0]], spec.channels[0]
        for level, target in enumerate(spec.channels):
            heads = level in spec.attention
            for _ in range(spec.blocks):
                self.down.append(_Block(now, target, width, heads, spec.dropout))
                now = target
                skips.append(now)
            if level + 1 < len(spec.channels):
                self.down.append(_Down(now))
                skips.append(now)
        self.middle = _Block(now, now, width, bool(spec.attention), spec.dropout)
        for level, target in reversed(list(enumerate(spec.channels))):
            heads = level in spec.attention
            for _ in range(spec.blocks + 1):
                self.up.append(_Block(now + skips.pop(), target, width, heads, spec.dropout))
                now = target
            if level:
                self.up.append(_Up(now))
        self.norm = _norm(now)
        self.last = _zeroed(nn.Conv2d(now, outputs, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *others = c_noise.reshape(len(c_noise), -1).unbind(1)
        emb = self.embed(first)
        for embed, value in zip(self.embed_more, others, strict=True):
            emb = emb + embed(value)
        if self.label is not None and labels is not None:
            emb = emb + self.label(labels)
        emb = nnf.silu(emb)
        h = self.first(nnf.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb)
            skips.append(h)
        h = self.middle(h, emb)
        for layer in self.up:
            h = (
                layer(h, emb)
                if isinstance(layer, _Up)
                else layer(torch.cat([h, skips.pop()], 1), emb)
            )
        h = self.last(nnf.silu(self.norm(h)))
        return nnf.pixel_shuffle(h, self.unshuffle) if self.unshuffle > 1 else h


class _NoiseEmbedding(nn.Module):
    """sin and cos of c_noise at low frequencies, since consistency training needs smoothness."""

    frequencies: Tensor

    def __init__(self, width: int, *, lowest: float = 0.1, highest: float = 4.0) -> None:
        super().__init__()
        steps = torch.linspace(math.log(lowest), math.log(highest), width // 2)
        self.register_buffer("frequencies", 2 * math.pi * steps.exp(), persistent=False)
        self.inner = nn.Linear(width // 2 * 2, width)
        self.outer = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        hidden = self.inner(torch.cat([angles.sin(), angles.cos()], 1))
        embedded: Tensor = self.outer(nnf.silu(hidden))
        return embedded


class _Block(nn.Module):
    def __init__(self, now: int, target: int, width: int, attention: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(now), nn.Conv2d(now, target, 3, padding=1)
        self.shift = nn.Linear(width, 2 * target)
        self.norm2, self.conv2 = _norm(target), _zeroed(nn.Conv2d(target, target, 3, padding=1))
        self.skip = nn.Conv2d(now, target, 1) if now != target else nn.Identity()
        self.attend = _Attention(target) if attention else None
        self.dropout = dropout

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(nnf.silu(self.norm1(x)))
        scale, shift = self.shift(emb)[:, :, None, None].chunk(2, 1)
        h = nnf.silu(torch.addcmul(shift, self.norm2(h), scale + 1))
        if self.dropout:
            h = nnf.dropout(h, self.dropout, self.training)
        h = self.skip(x) + self.conv2(h)
        return h if self.attend is None else self.attend(h)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.norm, self.qkv = _norm(width), nn.Conv2d(width, 3 * width, 1)
        self.out = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        attended = nnf.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = x + self.out(attended.transpose(-1, -2).reshape(b, c, h, w))
        return mixed


class _Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        reduced: Tensor = self.conv(x)
        return reduced


class _Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        enlarged: Tensor = self.conv(nnf.interpolate(x, scale_factor=2, mode="nearest"))
        return enlarged


def _norm(width: int) -> nn.GroupNorm:
    groups = next(g for g in range(max(1, width // 16), 0, -1) if width % g == 0)
    return nn.GroupNorm(groups, width, eps=1e-5)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
