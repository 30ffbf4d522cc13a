"""Cold diffusion's U-Net of ConvNeXt blocks and its parts; see `cold_unet`.

Cold Diffusion (https://arxiv.org/abs/2208.09392); block after ConvNeXt
(https://arxiv.org/abs/2201.03545), attention after https://arxiv.org/abs/1812.01243.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

__all__ = ["ColdNet"]

_HEADS, _WIDTH = 4, 32


class ColdNet(nn.Module):
    """Raw network: forward(x (B, C, H, W), c_noise (B,), labels) -> (B, outputs, H, W).

    Args:
        inputs: Image channels.
        outputs: Output channels.
        stem: Channels of the time embedding and of the last block.
        widths: Channels of each level.
        timed: Whether the network is conditioned on the severity.
    """

    def __init__(
        self, inputs: int, outputs: int, stem: int, widths: tuple[int, ...], *, timed: bool
    ) -> None:
        super().__init__()
        time = stem if timed else 0
        self.time = _Time(time) if time else None
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        now = inputs
        for level, width in enumerate(widths):
            resample = nn.Conv2d(width, width, 4, 2, 1) if level < len(widths) - 1 else None
            self.down.append(_Level(now, width, time, resample, normed=level > 0))
            now = width
        self.middle0, self.middle1 = _Block(now, now, time), _Block(now, now, time)
        self.attention = _LinearAttention(now)
        for lower, width in zip(widths[:0:-1], widths[-2::-1], strict=True):
            # As in the authors' code, every level upsamples: its test for the last never holds.
            enlarge = nn.ConvTranspose2d(width, width, 4, 2, 1)
            self.up.append(_Level(2 * lower, width, time, enlarge))
        self.last_block = _Block(stem, stem, 0)
        self.last = nn.Conv2d(stem, outputs, 1)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        time = self.time(c_noise) if self.time is not None else None
        skips: list[Tensor] = []
        for level in self.down:
            skip, x = level(x, time)
            skips.append(skip)
        x = self.middle1(self.attention(self.middle0(x, time)), time)
        for level in self.up:
            _, x = level(torch.cat([x, skips.pop()], dim=1), time)
        shown: Tensor = self.last(self.last_block(x, None))
        return shown


class _Level(nn.Module):
    """Two blocks and attention; forward returns the result before and after the resampling."""

    def __init__(
        self,
        inputs: int,
        width: int,
        time: int,
        resample: nn.Module | None,
        *,
        normed: bool = True,
    ) -> None:
        super().__init__()
        self.block0 = _Block(inputs, width, time, normed=normed)
        self.block1 = _Block(width, width, time)
        self.attention = _LinearAttention(width)
        self.resample = resample

    def forward(self, x: Tensor, time: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.attention(self.block1(self.block0(x, time), time))
        return x, x if self.resample is None else self.resample(x)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, time: int, *, normed: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 7, padding=3, groups=inputs)
        self.told = nn.Linear(time, inputs) if time else None
        self.norm = _ChannelNorm(inputs) if normed else None
        self.widen = nn.Conv2d(inputs, 2 * width, 3, padding=1)
        self.narrow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.skip = nn.Conv2d(inputs, width, 1) if inputs != width else None

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.depthwise(x)
        if self.told is not None and time is not None:
            h = h + self.told(nnf.gelu(time))[:, :, None, None]
        if self.norm is not None:
            h = self.norm(h)
        h = self.narrow(nnf.gelu(self.widen(h)))
        return h + (x if self.skip is None else self.skip(x))


class _LinearAttention(nn.Module):
    """Linear attention: a softmax of the keys over positions makes the cost linear in them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _ChannelNorm(width)
        self.qkv = nn.Conv2d(width, 3 * _HEADS * _WIDTH, 1, bias=False)
        self.proj = nn.Conv2d(_HEADS * _WIDTH, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, _, high, wide = x.shape
        qkv = self.qkv(self.norm(x)).reshape(rows, 3, _HEADS, _WIDTH, high * wide)
        query, key, value = qkv.unbind(1)
        context = value @ key.softmax(-1).transpose(-1, -2)
        attention = context @ (query * _WIDTH**-0.5)
        return x + self.proj(attention.reshape(rows, -1, high, wide))


class _ChannelNorm(nn.Module):
    """Normalises each pixel over its channels, with the biased variance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        scaled = (x - mean) * (variance + 1e-5).rsqrt()
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


class _Time(nn.Module):
    """Embedding of the severity's index: sines, then cosines, and two layers."""

    rates: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        self.register_buffer("rates", rates, persistent=False)
        self.layer0, self.layer1 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise.to(self.rates.dtype)[:, None] * self.rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.layer0.weight.dtype)
        embedding: Tensor = self.layer1(nnf.gelu(self.layer0(waves)))
        return embedding
