"""EfficientNet-Lite0: inverted residuals with ReLU6, no squeeze and excitation.

Blocks of Tan and Le (2019, https://arxiv.org/abs/1905.11946, table 1) without their attention;
stem and head are not scaled. Padding is TensorFlow's "same", uneven at stride 2. Parameter names
are those of the published state dict, which is loaded strictly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["EfficientNetLite0"]

_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Repeats, kernel, stride of the first block, expansion, output channels."""


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's padding, which depends on the input's size."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        high = self._total(input.shape[-2], kernel, stride)
        wide = self._total(input.shape[-1], kernel, stride)
        if high % 2 == 0 and high == wide:
            return functional.conv2d(
                input, self.weight, self.bias, stride, high // 2, 1, self.groups
            )
        pad = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        padded = functional.pad(input, pad)
        return functional.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)

    @staticmethod
    def _total(size: int, kernel: int, stride: int) -> int:
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class _Block(nn.Module):
    def __init__(self, entering: int, leaving: int, kernel: int, stride: int, grow: int) -> None:
        super().__init__()
        wide = entering * grow
        self.residual = stride == 1 and entering == leaving
        self.grows = grow != 1
        if self.grows:
            self._expand_conv = _SameConv(entering, wide, 1, bias=False)
            self._bn0: nn.Module = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1: nn.Module = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = _SameConv(wide, leaving, 1, bias=False)
        self._bn2: nn.Module = nn.BatchNorm2d(leaving, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x
        if self.grows:
            h = functional.relu6(self._bn0(self._expand_conv(h)))
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.residual else h

    def fold(self) -> None:
        if self.grows:
            self._expand_conv, self._bn0 = _folded(self._expand_conv, self._bn0)
        self._depthwise_conv, self._bn1 = _folded(self._depthwise_conv, self._bn1)
        self._project_conv, self._bn2 = _folded(self._project_conv, self._bn2)


class EfficientNetLite0(nn.Module):
    """Maps normalised images (B, 3, H, W) to pooled features (B, 1280) and logits (B, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0: nn.Module = nn.BatchNorm2d(32, eps=1e-3)
        blocks, entering = [], 32
        for repeats, kernel, stride, grow, leaving in _STAGES:
            for i in range(repeats):
                blocks.append(_Block(entering, leaving, kernel, stride if i == 0 else 1, grow))
                entering = leaving
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(320, 1280, 1, bias=False)
        self._bn1: nn.Module = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns pooled features (B, 1280) and logits (B, 1000)."""
        h = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            h = block(h)
        pooled = functional.relu6(self._bn1(self._conv_head(h))).mean((2, 3))
        logits: Tensor = self._fc(pooled)
        return pooled, logits

    @torch.no_grad()
    def fold(self) -> "EfficientNetLite0":
        """Folds batch norms into the convolutions, in evaluation mode; returns `self`."""
        self.eval()
        self._conv_stem, self._bn0 = _folded(self._conv_stem, self._bn0)
        self._conv_head, self._bn1 = _folded(self._conv_head, self._bn1)
        for block in self._blocks:
            if isinstance(block, _Block):
                block.fold()
        return self


def _folded(conv: _SameConv, norm: nn.Module) -> tuple[_SameConv, nn.Module]:
    if not isinstance(norm, nn.BatchNorm2d):
        return conv, norm
    return fuse_conv_bn_eval(conv, norm), nn.Identity()
