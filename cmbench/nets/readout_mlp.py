"""A small MLP whose last layer depends on time: a mixture of readouts at bumps along c_noise.

Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585), section 3 and appendix D: outputs
are mixed by temporal basis functions, Gaussians of time normalised by a softmax.
"""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Width, Widths
from cmbench.nets.base import Network

__all__ = ["ReadoutMLP"]


class ReadoutMLP(Network):
    """MLP on the flattened image, for toy data and short sequences; c_noise is in [-1, 1]."""

    hidden: Widths = Field(default=(50, 50, 50), min_length=1)
    readouts: Width = Field(default=10, description="number of bumps along c_noise")
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the MLP, which takes no class labels."""
        if classes:
            raise ValueError("readout_mlp takes no class labels")
        return _MLP(self, shape)


class _MLP(nn.Module):
    centres: Tensor

    def __init__(self, spec: ReadoutMLP, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.out_shape = (spec.outputs or channels, height, width)
        values = self.out_shape[0] * height * width
        widths = (channels * height * width, *spec.hidden)
        self.layers = nn.ModuleList(nn.Linear(now, then) for now, then in pairwise(widths))
        self.readout = nn.Linear(spec.hidden[-1], spec.readouts * values)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        self.register_buffer("centres", torch.linspace(-1, 1, spec.readouts), persistent=False)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        h = x.flatten(1)
        for layer in self.layers:
            h = nnf.silu(layer(h))
        count = len(self.centres)
        distance = (c_noise[:, None] - self.centres.to(c_noise)) * max(1, count - 1) / 2
        bumps = torch.softmax(-2 * distance**2, 1)
        mixed = (self.readout(h).reshape(len(x), count, -1) * bumps[:, :, None]).sum(1)
        return mixed.reshape(len(x), *self.out_shape)
