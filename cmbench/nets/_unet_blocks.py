"""Parts of the U-Nets of EDM, ADM and OpenAI: resampling, convolution, residual block, embedding.

The three families share one network up to constants and the order of qkv rows: group norm, SiLU,
3x3 convolution, noise embedding, the same again, shortcut, then optional attention
(https://arxiv.org/abs/2206.00364, appendix C.4; https://arxiv.org/abs/2105.05233, appendix A;
https://arxiv.org/abs/2011.13456, appendix H). Here qkv rows are ordered (three, heads, width).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

__all__ = ["Block", "BlockStyle", "Conv", "NoiseEmbedding", "Norm", "Resample", "Strided"]

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class BlockStyle:
    """Constants of a family's residual blocks.

    Args:
        embedding: Width of the noise embedding.
        dropout: Dropout before the second convolution.
        skip_scale: Factor after each residual sum: sqrt(1/2) in NCSN++ and DDPM++, else 1.
        eps: Epsilon of the group norms.
        least_group: Least number of channels per group; 1 if there are always `groups`.
        groups: Greatest number of groups of the group norms.
        scale_shift: Whether the embedding scales and shifts after the norm, or is added before it.
        project_resampled: Whether an up or down block has a 1x1 shortcut at equal widths too.
        taps: One-dimensional resampling filter.
    """

    embedding: int
    dropout: float = 0.0
    skip_scale: float = 1.0
    eps: float = 1e-5
    least_group: int = 1
    scale_shift: bool = True
    project_resampled: bool = False
    taps: tuple[float, ...] = (1, 1)
    groups: int = 32


class Norm(nn.GroupNorm):
    """Group norm, with fewer groups if a group would have fewer than `least_group` channels."""

    def __init__(self, channels: int, style: BlockStyle) -> None:
        groups = min(style.groups, channels // style.least_group)
        super().__init__(groups, channels, eps=style.eps)


class Resample(nn.Module):
    """Doubles or halves the sides with a separable filter; taps (1, 1) repeat or average."""

    kernel: Tensor

    def __init__(self, direction: Direction, taps: tuple[float, ...]) -> None:
        super().__init__()
        self.direction, self.taps = direction, tuple(taps)
        self.simple = len(set(self.taps)) == 1 and len(self.taps) == 2
        line = torch.tensor(self.taps, dtype=torch.float32)
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.filtered(x, (len(self.taps) - 1) // 2)

    def filtered(self, x: Tensor, padding: int) -> Tensor:
        """Resamples x (B, C, H, W) with zero padding for the filter."""
        if self.simple and padding == 0:
            if self.direction == "down":
                return nnf.avg_pool2d(x, 2)
            return nnf.interpolate(x, scale_factor=2.0, mode="nearest")
        kernel = self.kernel.to(x.dtype).repeat(x.shape[1], 1, 1, 1)
        if self.direction == "down":
            return nnf.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])
        return nnf.conv_transpose2d(x, kernel * 4, stride=2, padding=padding, groups=x.shape[1])


class Conv(nn.Conv2d):
    """Convolution with an odd kernel that keeps the sides, after an optional resampling.

    `fused` convolves at full size first and then filters, with one padding for both.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        resample: Resample | None = None,
        *,
        fused: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.resample, self.fused = resample, fused

    def forward(self, x: Tensor) -> Tensor:
        if self.resample is None:
            return super().forward(x)
        if not self.fused:
            return super().forward(self.resample(x))
        margin = self.kernel_size[0] // 2 + (len(self.resample.taps) - 1) // 2
        wide = nnf.conv2d(x, self.weight, padding=margin)
        return self.resample.filtered(wide, 0) + self.bias[:, None, None]  # type: ignore[index]


class Strided(nn.Module):
    """Resampling without a residual block: strided down, repeated and convolved up, or unlearned.

    With padding 0, as in DDPM, the strided convolution pads only after the last row and column.
    """

    def __init__(
        self, channels: int, direction: Direction, *, learned: bool, padding: int = 1
    ) -> None:
        super().__init__()
        self.direction = direction
        stride, padding = (2, padding) if direction == "down" else (1, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding) if learned else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.direction == "up":
            x = nnf.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.conv is None:
            x = nnf.avg_pool2d(x, 2)
        elif self.conv.padding == (0, 0):
            x = nnf.pad(x, (0, 1, 0, 1))
        return x if self.conv is None else self.conv(x)


class Block(nn.Module):
    """Residual block, followed by attention with `heads` heads if heads > 0."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: BlockStyle,
        *,
        heads: int = 0,
        resample: Direction | None = None,
    ) -> None:
        super().__init__()
        self.style, self.heads = style, heads
        self.norm0 = Norm(inputs, style)
        self.conv0 = Conv(inputs, outputs, 3, _resampler(resample, style))
        self.affine = nn.Linear(style.embedding, outputs * (2 if style.scale_shift else 1))
        self.norm1 = Norm(outputs, style)
        self.conv1 = Conv(outputs, outputs, 3)
        projects = inputs != outputs or (resample is not None and style.project_resampled)
        self.skip: nn.Module = nn.Identity()
        if projects:
            self.skip = Conv(inputs, outputs, 1, _resampler(resample, style))
        elif resample is not None:
            self.skip = Resample(resample, style.taps)
        if heads:
            self.norm2 = Norm(outputs, style)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(nnf.silu(self.norm0(x)))
        condition = self.affine(emb)[:, :, None, None]
        if self.style.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = nnf.silu(self.norm1(h) * (1 + scale) + shift)
        else:
            h = nnf.silu(self.norm1(h + condition))
        h = self.conv1(nnf.dropout(h, self.style.dropout, self.training))
        x = (h + self.skip(x)) * self.style.skip_scale
        return (x + self._attended(x)) * self.style.skip_scale if self.heads else x

    def _attended(self, x: Tensor) -> Tensor:
        rows, channels, high, wide = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(rows, 3, self.heads, -1, high * wide)
        query, key, value = qkv.transpose(-1, -2).contiguous().unbind(1)
        attention = nnf.scaled_dot_product_attention(query, key, value)
        return self.proj(attention.transpose(-1, -2).reshape(rows, channels, high, wide))


class NoiseEmbedding(nn.Module):
    """Maps c_noise, labels and augmentation labels to the embedding for the blocks.

    Args:
        features: Number of sines and cosines.
        width: Width of the embedding.
        fourier: Random frequencies (16 N(0, 1), saved with the weights) instead of geometric ones.
        endpoint: Whether the geometric frequencies end exactly at 1/10000.
        sine_first: Whether sines precede cosines.
        classes: Number of class labels.
        augments: Number of augmentation labels (EDM's training only).
        label_inside: Labels are added to the sines, scaled by sqrt(classes), with a bias;
            otherwise to the output, without a bias.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        fourier: bool = False,
        endpoint: bool = False,
        sine_first: bool = False,
        classes: int = 0,
        augments: int = 0,
        label_inside: bool = False,
    ) -> None:
        super().__init__()
        self.sine_first, self.label_inside, self.classes = sine_first, label_inside, classes
        half = features // 2
        if fourier:
            self.register_buffer("freqs", torch.randn(half) * 16)
        else:
            # In float32, as in the authors' code: its rounding is visible at times up to 999.
            steps = torch.arange(half, dtype=torch.float32) / (half - int(endpoint))
            self.register_buffer("freqs", 1e-4**steps, persistent=False)
        self.turns = 2 * math.pi if fourier else 1.0
        joined = features if label_inside else width
        self.map_label = nn.Linear(classes, joined, bias=label_inside) if classes else None
        self.map_augment = nn.Linear(augments, features, bias=False) if augments else None
        self.map_layer0 = nn.Linear(features, width)
        self.map_layer1 = nn.Linear(width, width)

    freqs: Tensor

    def forward(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        phase = torch.outer(c_noise.to(self.freqs.dtype), self.freqs * self.turns)
        waves = [phase.sin(), phase.cos()] if self.sine_first else [phase.cos(), phase.sin()]
        emb = torch.cat(waves, dim=1).to(self.map_layer0.weight.dtype)
        label_emb = self._labels(labels, emb)
        if label_emb is not None and self.label_inside:
            emb = emb + label_emb
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment.to(emb.dtype))
        emb = self.map_layer1(nnf.silu(self.map_layer0(emb)))
        if label_emb is not None and not self.label_inside:
            emb = emb + label_emb
        return nnf.silu(emb)

    def _labels(self, labels: Tensor | None, emb: Tensor) -> Tensor | None:
        """Embeds the labels; None counts as zeros, which leaves the bias if there is one."""
        if self.map_label is None:
            return None
        if labels is None:
            rows = emb.new_zeros(len(emb), self.classes)
        elif labels.ndim == 2:
            rows = labels.to(emb.dtype)
        else:
            rows = nnf.one_hot(labels, self.classes).to(emb.dtype)
        embedding: Tensor = self.map_label(
            rows * math.sqrt(self.classes) if self.label_inside else rows
        )
        return embedding


def _resampler(direction: Direction | None, style: BlockStyle) -> Resample | None:
    return None if direction is None else Resample(direction, style.taps)
