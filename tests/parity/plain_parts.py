"""What the plain re-computations of the authors' networks share: tensors by name, and layers.

A plain network is a function of its inputs and a `Tensors`, which makes a random tensor of the
shape that is asked for when a name first comes up. So one run of the function writes the
checkpoint, names and shapes included, and a second one computes the truth from it. Nothing is
taken from cmbench.
"""

import math

import torch
from torch.nn import functional as nnf


class Tensors(dict):
    """Random tensors by the authors' names, in the order of their first use."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def of(self, name, *shape):
        if name not in self:
            value = torch.randn(shape, generator=self.generator)
            scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            self[name] = value * scale + (0.6 if len(shape) == 1 else 0.0)
        assert self[name].shape == shape, name
        return self[name]


def conv(p, name, x, outputs, side=3, *, bias=True, groups=1, **how):
    weight = p.of(f"{name}.weight", outputs, x.shape[1] // groups, side, side)
    how.setdefault("padding", how.get("dilation", 1) * (side // 2))
    return nnf.conv2d(
        x, weight, p.of(f"{name}.bias", outputs) if bias else None, groups=groups, **how
    )


def linear(p, name, x, outputs, *, bias=True):
    weight = p.of(f"{name}.weight", outputs, x.shape[1])
    return nnf.linear(x, weight, p.of(f"{name}.bias", outputs) if bias else None)


def group_norm(p, name, x, groups, eps):
    scale, shift = (p.of(f"{name}.{part}", x.shape[1]) for part in ("weight", "bias"))
    rows = x.reshape(len(x), groups, -1)
    spread = rows.var(-1, correction=0, keepdim=True)
    normed = ((rows - rows.mean(-1, keepdim=True)) / (spread + eps).sqrt()).reshape(x.shape)
    return normed * scale[:, None, None] + shift[:, None, None]


def attend(query, key, value):
    """Of (..., positions, width): softmax(q k / sqrt(width)) v."""
    shares = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return shares @ value


def sines(t, width, *, last, sine_first):
    """Sines and cosines of t at rates from 1 down to 1e-4, `last` of them further on."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half) / (half - last))
    waves = [(t[:, None] * rates).sin(), (t[:, None] * rates).cos()]
    return torch.cat(waves if sine_first else waves[::-1], 1)


def taps(x, line, *, up):
    """Twice or half the sides by a separable filter over zeros, written as explicit sums."""
    line = torch.tensor(line, dtype=x.dtype) / sum(line)
    margin = (len(line) - 1) // 2
    for axis in (2, 3):
        x = x.transpose(axis, 3)
        if up:
            spread = x.new_zeros(*x.shape[:3], 2 * x.shape[3])
            spread[..., ::2] = 2 * x
            wide = nnf.pad(spread, (len(line) - 1 - margin, margin + 1))
            out, step = spread.shape[3], 1
        else:
            wide = nnf.pad(x, (margin, margin + 1))
            out, step = x.shape[3] // 2, 2
        parts = [w * wide[..., i : i + step * out : step] for i, w in enumerate(line)]
        x = sum(parts).transpose(axis, 3)
    return x
