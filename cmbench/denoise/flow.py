r"""Flow models brought to sigma-space: velocities on straight lines from data to noise.

The state is x_t = (1 - t) x0 + t n, t from 0 (data) to 1 (noise), its velocity v = n - x0
(rectified flow, https://arxiv.org/abs/2209.03003; flow matching,
https://arxiv.org/abs/2210.02747, whose optimal-transport path this is). Divided by 1 - t it is
the state of sigma-space:

    sigma = t / (1 - t),   x = x_t / (1 - t) = x0 + sigma n,   D(x; sigma) = x_t - t v(x_t, t),

so that every sampler runs on it, and a step of Euler's method in t is one in sigma. t = 1 has no
sigma; samplers of the family's own start there (`cmbench/samplers/flow_*.py`).
"""

import math

import torch
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = ["FlowDenoiser", "JumpDenoiser"]


class FlowDenoiser(Denoiser):
    """A network of velocities as a denoiser.

    Args:
        net: Raw network, net(x_t, time_scale * t (B,), labels) -> velocity (B, C, H, W).
        shape: Shape of one image, (C, H, W).
        classes: Number of class labels; 0 for an unconditional network.
        time_scale: What the network is told in place of t: time_scale * t.
        sigma_min: Least noise level.
        sigma_max: Greatest noise level of the samplers in sigma-space; 80 is t = 0.988.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        time_scale: float = 1.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(shape, classes=classes, sigma_min=sigma_min, sigma_max=sigma_max)
        self.net, self.time_scale = net, time_scale

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """v(x_t, t) (B, C, H, W) of the states x (B, C, H, W) at t (B,) in [0, 1]."""
        kind = next(self.net.parameters(), x).dtype
        told = (t * self.time_scale).to(kind)
        found: Tensor = self.net(x.to(kind), told, labels)
        return found.to(x.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma) of sigma-space."""
        t = (sigma / (1 + sigma)).expand(len(x))
        state = x * expand(1 - t, x).to(x.dtype)
        return state - expand(t, x).to(x.dtype) * self.velocity(state, t, labels)


class JumpDenoiser(FlowDenoiser):
    """Also knows the mean velocity over a step: x_{t - h} = x_t - h u(x_t, t, h).

    Its network is asked net(x_t, time_scale * (t, told) (B, 2), labels): told is h, or, where
    steps are powers of two down to `shortest`, the exponent: log2(h) / log2(shortest).

    Args:
        shortest: Step whose mean velocity stands for the velocity; 0 for the velocity itself.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        time_scale: float = 1.0,
        shortest: float = 0.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(
            net,
            shape,
            classes=classes,
            time_scale=time_scale,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )
        self.shortest = shortest

    def mean_velocity(
        self, x: Tensor, t: Tensor, h: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """u(x_t, t, h) (B, C, H, W) at t (B,) for steps of length h (B,), h <= t."""
        kind = next(self.net.parameters(), x).dtype
        told = h.log2() / math.log2(self.shortest) if self.shortest else h
        found: Tensor = self.net(
            x.to(kind), (torch.stack([t, told], 1) * self.time_scale).to(kind), labels
        )
        return found.to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean velocity of the shortest step, or the velocity where that is 0."""
        return self.mean_velocity(x, t, torch.full_like(t, self.shortest), labels)
