r"""The RefineNets of NCSN and NCSNv2, whose parts differ in two points only.

RefineNet (https://arxiv.org/abs/1611.06612) with instance norm++ and dilation, as in NCSN
(https://arxiv.org/abs/1907.05600, appendix A) and NCSNv2 (https://arxiv.org/abs/2006.09011,
appendix B). NCSN's norms are conditioned on the noise level and precede every convolution, and
its chained pooling takes means; NCSNv2's norms are unconditional, its refinement has no norms, and
its pooling takes maxima.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

__all__ = ["Activation", "NormPlus", "RefineNet", "Stage", "Style"]

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of the encoder: two residual blocks.

    Args:
        name: The authors' name of the stage, after `res` and `refine`.
        width: Output channels, in multiples of the network's width.
        down: Whether the first block has a convolution as shortcut; unless it is dilated, it then
            halves the sides.
        dilation: Dilation of the stage's convolutions.
    """

    name: str
    width: int
    down: bool = True
    dilation: int = 1


@dataclass(frozen=True)
class Style:
    """Differences between NCSN's and NCSNv2's networks.

    Args:
        levels: Noise levels that the norms are conditioned on; 0 for none.
        activation: Non-linearity.
        refine_norms: Whether norms precede the convolutions of the refinement.
        mean_pool: Whether chained pooling takes means instead of maxima.
    """

    levels: int
    activation: Activation
    refine_norms: bool
    mean_pool: bool


class NormPlus(nn.Module):
    r"""Instance norm++: gamma (IN(x) + alpha m) + beta, with the standardised channel means m.

    The means are standardised by their unbiased variance over channels. With levels,
    (gamma, alpha, beta) are one row of `embed` per level.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        if levels:
            self.embed = nn.Embedding(levels, 3 * channels)
            nn.init.normal_(self.embed.weight[:, : 2 * channels], 1, 0.02)
            nn.init.zeros_(self.embed.weight[:, 2 * channels :])
        else:
            self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        means = x.mean((2, 3))
        spread = (means.var(dim=1, keepdim=True) + 1e-5).sqrt()
        means = (means - means.mean(1, keepdim=True)) / spread
        if self.levels:
            gamma, alpha, beta = self.embed(level).chunk(3, dim=1)
        else:
            gamma, alpha, beta = (p.expand_as(means) for p in (self.gamma, self.alpha, self.beta))
        normed = nnf.instance_norm(x) if x.shape[2:].numel() > 1 else torch.zeros_like(x)
        shifted = normed + _wide(alpha * means)
        return _wide(gamma) * shifted + _wide(beta)


class RefineNet(nn.Module):
    """Raw network: forward(x (B, C, H, W), level (B,) int64) -> (B, C, H, W), x in [-1, 1].

    Args:
        channels: Image channels.
        width: Channels of the first convolution.
        stages: The way down, in order.
        upwards: Names of the refinement blocks from the lowest stage up, in the authors' order.
        style: Version of the network.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stages: tuple[Stage, ...],
        upwards: tuple[str, ...],
        style: Style,
    ) -> None:
        super().__init__()
        self.style = style
        self.begin = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.refine = nn.ModuleDict(), nn.ModuleDict()
        now, widths = width, []
        for stage in stages:
            out = width * stage.width
            first = _Residual(now, out, stage, style, down=stage.down)
            self.down[stage.name] = nn.ModuleList([first, _Residual(out, out, stage, style)])
            now = out
            widths.append(out)
        for i, name in zip(reversed(range(len(stages))), upwards, strict=True):
            lowest, out = i == len(stages) - 1, widths[max(i - 1, 0)]
            inputs = [widths[i]] if lowest else [widths[i], widths[i]]
            self.refine[name] = _Refine(inputs, out, style, last=i == 0)
        self.norm = NormPlus(width, style.levels)
        self.end = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h, kept = self.begin(x), []
        for blocks in self.down.values():
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, level)
            kept.append(h)
        below: list[Tensor] = []
        for refine in self.refine.values():
            below = [refine([kept.pop(), *below], level)]
        out: Tensor = self.end(self.style.activation(self.norm(below[0], level)))
        return out


class _MeanPooled(nn.Conv2d):
    """A convolution that keeps the sides, then the mean over each 2x2 square."""

    def forward(self, x: Tensor) -> Tensor:
        return nnf.avg_pool2d(super().forward(x), 2)


class _Residual(nn.Module):
    """Residual block: twice norm, activation and convolution, and the shortcut."""

    def __init__(
        self, inputs: int, outputs: int, stage: Stage, style: Style, *, down: bool = False
    ) -> None:
        super().__init__()
        self.activation, spread = style.activation, stage.dilation
        pools = down and spread == 1
        inner = inputs if down else outputs
        kind = _MeanPooled if pools else nn.Conv2d
        self.norm1 = NormPlus(inputs, style.levels)
        self.conv1 = nn.Conv2d(inputs, inner, 3, padding=spread, dilation=spread)
        self.norm2 = NormPlus(inner, style.levels)
        self.conv2 = kind(inner, outputs, 3, padding=spread, dilation=spread)
        self.shortcut: nn.Module = nn.Identity()
        if down:
            # The shortcut is 1x1 if the block pools; a dilated block has a dilated 3x3 shortcut.
            side, margin = (1, 0) if pools else (3, spread)
            self.shortcut = kind(inputs, outputs, side, padding=margin, dilation=spread)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.conv1(self.activation(self.norm1(x, level)))
        h = self.conv2(self.activation(self.norm2(h, level)))
        out: Tensor = self.shortcut(x) + h
        return out


class _Refine(nn.Module):
    """Refinement: adapted inputs, summed at the first one's size, chained pooling, output."""

    def __init__(self, inputs: list[int], outputs: int, style: Style, *, last: bool) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(_Units(width, 2, style) for width in inputs)
        self.fuse = _Fuse(inputs, outputs, style) if len(inputs) > 1 else None
        self.pool = _ChainedPool(outputs, style)
        self.out = _Units(outputs, 3 if last else 1, style)

    def forward(self, xs: list[Tensor], level: Tensor) -> Tensor:
        hs = [unit(x, level) for unit, x in zip(self.adapt, xs, strict=True)]
        h = hs[0] if self.fuse is None else self.fuse(hs, level)
        out: Tensor = self.out(self.pool(h, level), level)
        return out


class _Units(nn.Module):
    """Residual units, each with twice (norm,) activation and convolution without bias."""

    def __init__(self, width: int, units: int, style: Style) -> None:
        super().__init__()
        self.activation = style.activation
        self.convs = nn.ModuleList(_plain(width) for _ in range(2 * units))
        self.norms = _norms([width] * 2 * units, style)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        for i in range(0, len(self.convs), 2):
            h = x
            for j in (i, i + 1):
                h = _normed(self.norms, j, h, level)
                h = self.convs[j](self.activation(h))
            x = x + h
        return x


class _Fuse(nn.Module):
    """Sum of the convolved inputs, resized with aligned corners to the first one's size."""

    def __init__(self, inputs: list[int], outputs: int, style: Style) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, outputs, 3, padding=1) for n in inputs)
        self.norms = _norms(inputs, style)

    def forward(self, xs: list[Tensor], level: Tensor) -> Tensor:
        size, total = xs[0].shape[2:], torch.zeros(())
        for i, (conv, x) in enumerate(zip(self.convs, xs, strict=True)):
            h = conv(_normed(self.norms, i, x, level))
            total = total.to(h) + nnf.interpolate(
                h, size=size, mode="bilinear", align_corners=True
            )
        return total


class _ChainedPool(nn.Module):
    """Two rounds of (norm,) 5x5 pooling and convolution, each added to the sum so far."""

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.style = style
        self.convs = nn.ModuleList(_plain(width) for _ in range(2))
        self.norms = _norms([width] * 2, style)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        x = path = self.style.activation(x)
        for i, conv in enumerate(self.convs):
            path = _normed(self.norms, i, path, level)
            # As in the authors' code, the mean includes the zeros of the padding.
            path = nnf.avg_pool2d(path, 5, 1, 2) if self.style.mean_pool else _maximum(path)
            path = conv(path)
            x = x + path
        return x


def _norms(widths: list[int], style: Style) -> nn.ModuleList:
    used = widths if style.refine_norms else []
    return nn.ModuleList(NormPlus(width, style.levels) for width in used)


def _normed(norms: nn.ModuleList, i: int, x: Tensor, level: Tensor) -> Tensor:
    normalised: Tensor = norms[i](x, level) if len(norms) else x
    return normalised


def _maximum(x: Tensor) -> Tensor:
    return nnf.max_pool2d(x, 5, 1, 2)


def _plain(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1, bias=False)


def _wide(rows: Tensor) -> Tensor:
    return rows[:, :, None, None]
